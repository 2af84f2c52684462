"""The whole benchmark: drawing, answering, scoring; what is there is not made again."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import write_text_whole
from mammoth_jax.core.progress import Progress
from mammoth_jax.evals.jobs import Draw, draw_jobs
from mammoth_jax.evals.synthetic.answers import Answer, answer_all
from mammoth_jax.evals.synthetic.marks import (
    SCORE,
    Mark,
    ceiling_marks,
    drawing_marks,
    edit_marks,
    question_marks,
)
from mammoth_jax.evals.synthetic.pictures import jobs, num_images_of, prompt_list, prompt_list_file
from mammoth_jax.evals.synthetic.reconstructions import Reconstruct
from mammoth_jax.evals.synthetic.samples import TASKS, Sample, Task, samples
from mammoth_jax.evals.synthetic.scores import mean_scores, table

AT_ONCE: tuple[Task, ...] = ("drawing", "riddle", "edit-caption")
"""Tasks that are words alone: planned together, so that they share their compiled shapes."""


@dataclasses.dataclass(frozen=True)
class Means:
    """What a model does: draws, draws after reasoning, answers, and codes and decodes pictures."""

    draw: Draw
    think: Draw
    answer: Answer
    reconstructions: Mapping[str, Reconstruct]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is evaluated.

    Attributes:
        out: the folder.
        tasks: which tasks; ``edit`` with ``edit-caption`` has both baselines.
        count: prompts of each kind.
        num_images: pictures of each prompt.
        seed: of the first picture.
        picture_size: height and width of the scenes.
        batch_size: questions at once.
    """

    out: Path
    tasks: tuple[Task, ...] = TASKS
    count: int = 100
    num_images: int = 4
    seed: int = 0
    picture_size: tuple[int, int] = (64, 64)
    batch_size: int = 16

    def samples(self) -> dict[Task, list[Sample]]:
        """Those of the tasks, in the order of :data:`TASKS`."""
        return {task: samples(task, self.count, self.picture_size) for task in TASKS if task in self.tasks}

    def files(self) -> list[str]:
        """The pictures that will be drawn."""
        every = (one for found in self.samples().values() for one in found if one.task != "question")
        return [job.file for job in jobs(every, self.num_images, self.seed)]

    def run(self, means: Means, heading: str, progress: Progress) -> dict[str, float]:
        """Draws and answers what is missing, scores everything, and writes ``scores.json``, ``scores.md`` and
        ``results.jsonl``, which says what is wrong with every picture.

        Raises:
          InputError: the model has no VAE, by whose reconstructions edits are judged.
        """
        asked = self.samples()
        if "edit" in asked and "vae" not in means.reconstructions:
            raise InputError("edits are judged beside the VAE's reconstructions, and the model has no VAE")
        for task, found in asked.items():
            file = prompt_list_file(self.out, task)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text_whole(file, prompt_list(found))
        self._draw([one for task in AT_ONCE for one in asked.get(task, ())], means.draw, progress)
        self._draw(asked.get("edit", ()), means.draw, progress)
        self._draw(asked.get("riddle-think", ()), means.think, progress)
        answers = answer_all(
            asked.get("question", ()),
            self.out / "question" / "answers.jsonl",
            means.answer,
            self.batch_size,
            progress,
        )
        marks = list(self._marks(asked, answers, means, _Count(asked, self.num_images, progress)))
        scores = mean_scores(marks)
        shown = (mark for mark in marks if not mark.measure.endswith("shuffled"))
        write_text_whole(self.out / "results.jsonl", "".join(f"{mark.to_json()}\n" for mark in shown))
        write_text_whole(self.out / "scores.md", table(scores, heading))
        write_text_whole(self.out / "scores.json", json.dumps(scores, indent=1) + "\n")
        return scores

    def _draw(self, found: Iterable[Sample], draw: Draw, progress: Progress) -> None:
        draw_jobs(jobs(found, self.num_images, self.seed), self.out, draw, progress)

    def _marks(
        self,
        asked: Mapping[Task, list[Sample]],
        answers: Mapping[tuple[str, str], str],
        means: Means,
        tick: "_Count",
    ) -> Iterator[Mark]:
        drawn = asked.get("drawing", [])
        yield from drawing_marks(drawn, self.out, self.num_images, "drawing", SCORE, tick)
        yield from ceiling_marks(drawn, means.reconstructions if drawn else {}, "drawing")
        if "edit" in asked:
            captioned = asked.get("edit-caption", [])
            vae = means.reconstructions["vae"]
            yield from edit_marks(asked["edit"], captioned, self.out, self.num_images, vae, tick)
        yield from question_marks(asked.get("question", []), answers)
        riddles: dict[str, list[Sample]] = {
            SCORE: asked.get("riddle", []),
            "think": asked.get("riddle-think", []),
        }
        for measure, found in riddles.items():
            yield from drawing_marks(found, self.out, self.num_images, "riddle", measure, tick)


class _Count:
    """Counts scored pictures and reports them."""

    def __init__(self, asked: Mapping[Task, list[Sample]], num_images: int, progress: Progress):
        judged = [one for task in asked if task not in ("question", "edit-caption") for one in asked[task]]
        self._total = sum(num_images_of(one.task, num_images) for one in judged)
        self._done, self._progress = 0, progress

    def __call__(self) -> None:
        self._done += 1
        if self._done % 16 == 0 or self._done == self._total:
            self._progress("scoring", self._done, self._total)
