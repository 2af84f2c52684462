"""A model that draws and answers everything right, and an eye that reads true scenes without looking."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from mammoth_jax.data.synthetic.background import colours_of
from mammoth_jax.data.synthetic.render import render
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.score.findings import Finding, FoundBackground, FoundItem, FoundText, kind_of
from mammoth_jax.evals.jobs import Drawn, Request
from mammoth_jax.evals.synthetic.samples import Sample


def scene_of(sample: Sample) -> Scene:
    """What a sample's drawing should show."""
    fields = sample.record.fields
    if "edit" in fields:
        return sample.edit.after
    return next(fields[name] for name in ("riddle", "drawing", "interview") if name in fields).scene


def finding_of(scene: Scene) -> Finding:
    """All of a scene, as if seen."""
    items = tuple(FoundItem(i.shape, i.colour, i.centre, i.box, i.size**2, 1.0) for i in scene.items)
    texts = tuple(FoundText(t.content, t.colour, t.box) for t in scene.texts)
    background = FoundBackground(kind_of(scene.background), tuple(colours_of(scene.background)))
    return Finding(scene.height, scene.width, background, items, texts)


class Eye:
    """Knows the scenes of some samples by their pixels; finds nothing in other pictures."""

    def __init__(self, samples: Sequence[Sample]):
        self._known = {}
        for sample in samples:
            scenes = [scene_of(sample)]
            if "edit" in sample.record.fields:
                scenes.append(sample.edit.before)
            for scene in scenes:
                self._known[render(scene).tobytes()] = finding_of(scene)

    def __call__(self, picture: np.ndarray) -> Finding:
        blank = Finding(*picture.shape[:2], None, (), ())
        return self._known.get(np.ascontiguousarray(picture).tobytes(), blank)


class Hand:
    """Draws the true scene of every request, black for seeds that are ``missed``; notes what it was asked for."""

    def __init__(self, samples: Sequence[Sample], missed: frozenset[int] = frozenset()):
        self._scenes = {(s.prompt, s.stem if s.task == "edit" else None): scene_of(s) for s in samples}
        self.missed, self.asked = missed, []

    def check(self, requests: Sequence[Request]) -> None:
        """Draws everything."""

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, Drawn]]:
        for number, request in enumerate(requests):
            self.asked.append(request)
            source = None if request.source is None else request.source.name
            pixels = render(self._scenes[request.prompt, source])
            if request.seed in self.missed:
                pixels = np.zeros_like(pixels)
            yield number, Drawn(Image.fromarray(pixels), {"seed": request.seed})


class Mind:
    """Knows the answers by the picture; without one it says nothing."""

    def __init__(self, samples: Sequence[Sample]):
        self._answers = {(s.prompt, s.picture().tobytes()): s.question.answer for s in samples}
        self.asked = 0

    def __call__(self, questions: Sequence[tuple[str, Image.Image | None]]) -> list[str]:
        self.asked += len(questions)
        return [
            "" if picture is None else f" {self._answers[words, picture.tobytes()]}."
            for words, picture in questions
        ]


def exact(pictures: Sequence[Image.Image]) -> list[np.ndarray]:
    """A coder that loses nothing."""
    return [np.asarray(picture) for picture in pictures]


def flat(pictures: Sequence[Image.Image]) -> list[np.ndarray]:
    """A coder that loses everything."""
    return [np.full_like(np.asarray(picture), 200) for picture in pictures]
