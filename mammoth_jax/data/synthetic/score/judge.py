"""Whether a picture shows what a prompt asks for.

GenEval's rules, for its six categories: of every part at least so many items, in its colour; exactly so many when
counting; a position holds for the items that were found most surely; what else is in the picture does not matter.
What is only somewhat like a shape is none of the items asked for, but one too many where they are counted.
Captions of the categories ``text`` and ``world`` name everything, so there each part must be there exactly so many
times, each text once, and nothing else.
"""

import dataclasses
from collections.abc import Iterator

from mammoth_jax.data.synthetic.background import colours_of
from mammoth_jax.data.synthetic.prompt_spec import Category, Include, PromptSpec, Written
from mammoth_jax.data.synthetic.relations import relations_between
from mammoth_jax.data.synthetic.scene import Background
from mammoth_jax.data.synthetic.score.findings import Finding, FoundItem, FoundText, kind_of

_NAME_EVERYTHING: tuple[Category, ...] = ("text", "world")

_CLEAR = 0.65
"""Confidence from which an item has its shape: of 458 drawn, blurred and decoded ones none had less than 0.8; what a
reader would not call by that name, in pictures of a model that is still learning, mostly has less than this."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether all that was asked for is there; if not, ``reasons`` says what is missing, in words.

    ``letters_right`` is the share of letters that stand where they should; None where no text was asked for.
    """

    correct: bool
    reasons: tuple[str, ...] = ()
    letters_right: float | None = None


def judge(spec: PromptSpec, finding: Finding) -> Verdict:
    """Holds a finding against a prompt's specification."""
    reasons = (
        *_of_items(spec, finding),
        *_of_texts(spec, finding),
        *background_reasons(spec.background, finding),
    )
    shares = [letters_right(text, finding.texts) for text in spec.texts]
    return Verdict(not reasons, reasons, sum(shares) / len(shares) if shares else None)


def _of_items(spec: PromptSpec, finding: Finding) -> Iterator[str]:
    exact = spec.category == "counting" or spec.category in _NAME_EVERYTHING
    groups: list[list[FoundItem]] = []
    for part in spec.include:
        found = [item for item in finding.items if _is_of(part, item)]
        clear = [item for item in found if item.confidence >= _CLEAR]
        groups.append(sorted(clear, key=lambda item: -item.confidence)[: part.count])
        if len(clear) < part.count:
            yield f"{_name(part)}: {len(clear)} of {part.count}"
        elif exact and len(found) > part.count:
            yield f"{_name(part)}: {len(found)} of {part.count}"
    if spec.category in _NAME_EVERYTHING:
        for item in finding.items:
            if not any(_is_of(part, item) for part in spec.include):
                yield f"{item.colour} {item.shape}: not asked for"
        if finding.leftovers:
            yield "something without a name: not asked for"
    for part, found in zip(spec.include, groups, strict=True):
        if part.position is None:
            continue
        relation, other = part.position
        for item in found:
            for target in groups[other]:
                size = finding.height, finding.width
                if relation not in relations_between(item.centre, target.centre, *size, finding.slack):
                    yield f"{_name(part)}: not {relation} {_name(spec.include[other])}"


def _is_of(part: Include, item: FoundItem) -> bool:
    return item.shape == part.shape and part.colour in (None, item.colour)


def _name(part: Include) -> str:
    return part.shape if part.colour is None else f"{part.colour} {part.shape}"


def _of_texts(spec: PromptSpec, finding: Finding) -> Iterator[str]:
    for wanted in spec.texts:
        read = [text for text in finding.texts if text.text == wanted.content]
        if not read:
            seen = " and ".join(repr(text.text) for text in finding.texts) or "nothing"
            yield f"text {wanted.content!r}: {seen} is written"
        elif wanted.colour is not None and all(text.colour != wanted.colour for text in read):
            yield f"text {wanted.content!r}: {read[0].colour}, not {wanted.colour}"
    if spec.category in _NAME_EVERYTHING and len(finding.texts) > len(spec.texts):
        yield f"{len(finding.texts)} texts of {len(spec.texts)}"


def letters_right(wanted: Written, found: tuple[FoundText, ...]) -> float:
    """Share of a text's letters that stand in their place, of the text read that has most of them.

    Letters too many count as wrong ones.
    """
    shares = [
        sum(a == b for a, b in zip(wanted.content, text.text, strict=False))
        / max(len(wanted.content), len(text.text))
        for text in found
    ]
    return max(shares, default=0.0)


def background_reasons(wanted: Background | None, finding: Finding) -> Iterator[str]:
    """What a picture's background has not of the one asked for: its kind, its colours."""
    if wanted is None:
        return
    if finding.background is None:
        yield "background: of no named color"
        return
    kind, found = kind_of(wanted), finding.background
    if found.kind != kind:
        yield f"background: {found.kind}, not {kind}"
    if set(found.colours) != set(colours_of(wanted)):
        yield f"background: {' and '.join(found.colours)}, not {' and '.join(colours_of(wanted))}"
