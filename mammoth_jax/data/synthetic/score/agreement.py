"""How well the scorer agrees with scenes that are known.

    python -m mammoth_jax.data.synthetic.score.agreement --split heldout --scenes 500 --seen blur

Draws text-to-image samples of all categories and both languages, renders them, makes them worse if asked to, and prints
one object: the share of scenes that are found exactly as they are, of specifications that are found to hold, and of
specifications with one attribute changed that are refused; with what went wrong.
"""

import argparse
import dataclasses
import json
import time
from collections import Counter, defaultdict
from typing import Any, Literal, get_args

import numpy as np

from mammoth_jax.core.types import UInt8
from mammoth_jax.data.synthetic import font
from mammoth_jax.data.synthetic.background import colours_of
from mammoth_jax.data.synthetic.drawings import Drawing
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.prompt_spec import Include, PromptSpec, Written
from mammoth_jax.data.synthetic.relations import RELATIONS, Relation, relations
from mammoth_jax.data.synthetic.scene import Plain, Scene
from mammoth_jax.data.synthetic.score.find import find
from mammoth_jax.data.synthetic.score.findings import Finding, kind_of
from mammoth_jax.data.synthetic.score.judge import judge
from mammoth_jax.data.synthetic.score.smoothing import smoothed
from mammoth_jax.data.synthetic.tasks import SyntheticDrawings
from mammoth_jax.data.synthetic.vocabulary import BACKGROUND_COLOURS, COLOURS, SHAPES

Attribute = Literal["colour", "shape", "count", "relation", "word", "text colour", "background"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)
Seen = Literal["clean", "noise", "blur", "both"]

_NOISE = 8.0  # of 255
_BLUR = 0.7  # pixels


def worse(
    picture: UInt8[np.ndarray, "height width 3"], seen: Seen, random: np.random.Generator
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture blurred, with noise, or both; standard deviations of 0.7 pixels and 8 of 255."""
    values = picture.astype(float)
    if seen in ("blur", "both"):
        values = smoothed(values, _BLUR)
    if seen in ("noise", "both"):
        values = values + random.normal(0, _NOISE, values.shape)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def contents(shown: Scene | Finding) -> Counter[tuple[str, ...]]:
    """Everything in a scene, or in what was found of it, but for sizes and places."""
    things = [(item.colour, item.shape) for item in shown.items]
    if isinstance(shown, Scene):
        texts = [(text.colour, text.content) for text in shown.texts]
        ground = [(kind_of(shown.background), *sorted(set(colours_of(shown.background))))]
    else:
        texts = [(text.colour, text.text) for text in shown.texts]
        found = shown.background
        ground = [] if found is None else [(found.kind, *sorted(found.colours))]
    return Counter([*things, *texts, *ground])


def changed(spec: PromptSpec, scene: Scene, attribute: Attribute, draws: Draws) -> PromptSpec | None:
    """The specification of a scene with one attribute changed, so that it is not true of it; None if it has none."""
    match attribute:
        case "colour" | "shape" | "count" | "relation":
            numbers = [n for n, part in enumerate(spec.include) if _has(part, attribute)]
            if not numbers:
                return None
            number = draws.choice(numbers)
            part = _changed_part(spec, spec.include[number], scene, attribute, draws)
            if part is None:
                return None
            parts = (*spec.include[:number], part, *spec.include[number + 1 :])
            return dataclasses.replace(spec, include=parts)
        case "word" | "text colour":
            if not spec.texts or (attribute == "text colour" and spec.texts[0].colour is None):
                return None
            text = _changed_text(spec.texts[0], attribute, draws)
            return dataclasses.replace(spec, texts=(text, *spec.texts[1:]))
        case "background":
            if spec.background is None:
                return None
            others = [c for c in BACKGROUND_COLOURS if c not in colours_of(spec.background)]
            ground: Any = dataclasses.replace(spec.background, colour=draws.choice(others))
            if not isinstance(ground, Plain) and draws.chance(0.25):
                ground = Plain(draws.choice(colours_of(spec.background)))
            return dataclasses.replace(spec, background=ground)


def _has(part: Include, attribute: Attribute) -> bool:
    if attribute == "colour":
        return part.colour is not None
    return attribute != "relation" or part.position is not None


def _changed_part(
    spec: PromptSpec, part: Include, scene: Scene, attribute: Attribute, draws: Draws
) -> Include | None:
    match attribute:
        case "colour":
            taken = {item.colour for item in scene.items if item.shape == part.shape}
            return dataclasses.replace(part, colour=draws.choice([c for c in COLOURS if c not in taken]))
        case "shape":
            shown = {item.shape for item in scene.items}
            return dataclasses.replace(part, shape=draws.choice([s for s in SHAPES if s not in shown]))
        case "count":
            # Of other categories GenEval asks for at least so many.
            exact = spec.category in ("counting", "text", "world")
            less = exact and part.count > 1 and draws.chance(0.5)
            return dataclasses.replace(part, count=part.count + (-1 if less else 1))
        case _:
            assert part.position is not None
            other = spec.include[part.position[1]]
            first, second = (
                next(i for i in scene.items if i.shape == p.shape and p.colour in (None, i.colour))
                for p in (part, other)
            )
            holding = relations(first, second, scene.height, scene.width)
            wrong: list[Relation] = [relation for relation in RELATIONS if relation not in holding]
            return dataclasses.replace(part, position=(draws.choice(wrong), part.position[1]))


def _changed_text(text: Written, attribute: Attribute, draws: Draws) -> Written:
    if attribute == "text colour":
        return dataclasses.replace(text, colour=draws.choice([c for c in COLOURS if c != text.colour]))
    place = draws.below(len(text.content))
    letter = draws.choice([glyph for glyph in font.GLYPHS if glyph != text.content[place]])
    return dataclasses.replace(text, content=text.content[:place] + letter + text.content[place + 1 :])


def agreement(source: SyntheticDrawings, scenes: int, seen: Seen) -> dict[str, Any]:
    """The figures, over the first samples of a source."""
    random = np.random.default_rng(0)
    exact = holds = 0
    farthest = seconds = 0.0
    refused: dict[str, list[bool]] = defaultdict(list)
    wrong: list[str] = []
    for index in range(scenes):
        record = source[index]
        drawing: Drawing = record.fields["drawing"]
        scene, spec = drawing.scene, drawing.caption.spec
        picture = worse(record.pictures[0].decode(), seen, random)
        start = time.process_time()
        finding = find(picture)
        seconds += time.process_time() - start
        shown, found = contents(scene), contents(finding)
        exact += shown == found
        if shown != found:
            wrong.append(f"{index}: {_listed(shown - found)} found as {_listed(found - shown)}")
        else:
            farthest = max(farthest, _farthest(scene, finding))
        verdict = judge(spec, finding)
        holds += verdict.correct
        if not verdict.correct:
            wrong.append(f"{index}, {spec.category}: {'; '.join(verdict.reasons)}")
        for number, attribute in enumerate(ATTRIBUTES):
            other = changed(spec, scene, attribute, Draws(0, 9000 + number, index))
            if other is not None:
                refused[attribute].append(not judge(other, finding).correct)
                if not refused[attribute][-1]:
                    wrong.append(f"{index}, {attribute}: accepted {other.to_dict()}")
    every = [value for values in refused.values() for value in values]
    return {
        "scenes": scenes,
        "found exactly": exact / scenes,
        "specification holds": holds / scenes,
        "changed refused": sum(every) / max(len(every), 1),
        "changed": len(every),
        "refused by attribute": {name: sum(v) / len(v) for name, v in refused.items()},
        "farthest centre, pixels": round(farthest, 2),
        "pictures a second": round(scenes / seconds, 1),
        "wrong": wrong,
    }


def _listed(things: Counter[tuple[str, ...]]) -> str:
    return ", ".join(" ".join(thing) for thing in things.elements()) or "nothing"


def _farthest(scene: Scene, finding: Finding) -> float:
    """The largest distance of an item's centre from the nearest found one of its shape and colour."""
    return max(
        (
            min(
                float(np.hypot(item.centre[0] - other.centre[0], item.centre[1] - other.centre[1]))
                for other in finding.items
                if (other.shape, other.colour) == (item.shape, item.colour)
            )
            for item in scene.items
        ),
        default=0.0,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", choices=("train", "heldout"), default="heldout")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--seen", choices=get_args(Seen), default="clean")
    parser.add_argument("--picture-size", type=int, default=64)
    args = parser.parse_args()
    source = SyntheticDrawings(split=args.split, picture_size=args.picture_size, seed=7)
    print(json.dumps(agreement(source, args.scenes, args.seen), indent=1))


if __name__ == "__main__":
    main()
