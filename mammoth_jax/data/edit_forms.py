"""Editing records as examples: references, an instruction, and the picture that it leads to.

The layouts differ in how they write a chain of edits; each form draws one step, so that every sample has one target.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from mammoth_jax.data.conversations import read_request
from mammoth_jax.data.example import Example, Place, Task, Turn
from mammoth_jax.data.picture_files import flatten
from mammoth_jax.data.record import EmptyText, Picture, Record, UnreadableRecord, naming
from mammoth_jax.data.task_forms import label, one_picture, shown, texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Editing:
    """One edit: pictures ``inputs``, an ``instruction`` (of a list one is drawn), the picture ``target``.

    Where a record also has the ``reverse`` instruction and one input, half of its samples go backward.
    """

    task: ClassVar[Task] = "edit"
    inputs: str = "inputs"
    instruction: str = "instruction"
    target: str = "target"
    reverse: str = "reverse"

    def example(self, record: Record, place: Place) -> Example:
        """The edit, or its reverse."""
        inputs, target = flatten(record.fields.get(self.inputs, ())), one_picture(record, self.target)
        fields = record.fields
        return _edit(record, inputs, fields.get(self.instruction), target, fields.get(self.reverse), place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditingTurns:
    """Several edits in one record: each field is a list with an item a turn; one turn is drawn."""

    task: ClassVar[Task] = "edit"
    inputs: str = "inputs"
    instruction: str = "instruction"
    target: str = "target"
    reverse: str = "reverse"

    def example(self, record: Record, place: Place) -> Example:
        """The edit of the drawn turn, or its reverse."""
        each = [record.fields.get(name) for name in (self.inputs, self.instruction, self.target)]
        lengths = [len(v) if isinstance(v, Sequence) and not isinstance(v, str) else 0 for v in each]
        if not min(lengths) or len(set(lengths)) > 1:
            raise UnreadableRecord(
                f"{label(record)}: {self.inputs}, {self.instruction} and {self.target} have {lengths} turns"
            )
        turn = place.choice("turn", lengths[0])
        inputs, instruction, target = (value[turn] for value in each if value is not None)
        back = record.fields.get(self.reverse)
        several = isinstance(back, Sequence) and not isinstance(back, str) and len(back) == lengths[0]
        drawn = flatten(target)
        if len(drawn) != 1:
            raise UnreadableRecord(f"{label(record)}: turn {turn} has {len(drawn)} pictures in {self.target}")
        return _edit(
            record, flatten(inputs), instruction, drawn[0], back[turn] if back and several else None, place
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditingChain:
    """A chain of pictures ``states`` with one ``instructions`` less: a text, or variants of it, between neighbours.

    Up to ``longest`` steps are merged: their instructions, one after the other, lead from the first to the last.
    """

    task: ClassVar[Task] = "edit"
    states: str = "states"
    instructions: str = "instructions"
    longest: int = 1

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise ValueError(f"longest {self.longest}: an edit has at least 1 step")

    def example(self, record: Record, place: Place) -> Example:
        """The drawn part of the chain as one edit."""
        states, steps = flatten(record.fields.get(self.states, ())), record.fields.get(self.instructions)
        if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
            raise EmptyText(f"{label(record)}: no list of {self.instructions}")
        if len(states) != len(steps) + 1:
            raise UnreadableRecord(
                f"{label(record)}: {len(steps)} instructions between {len(states)} pictures"
            )
        count = 1 + place.choice("length", min(self.longest, len(steps)))
        first = place.choice("first", len(steps) - count + 1)
        said = []
        for i in range(first, first + count):
            variants = texts(steps[i])
            if not variants:
                raise EmptyText(f"{label(record)}: instruction {i}")
            said.append(variants[place.choice(f"instruction {i}", len(variants))])
        text = " ".join(said)
        return _edit(record, states[first : first + 1], text, states[first + count], None, place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditingConversation:
    """An edit written as a conversation: the user's first turn instructs, the last of the ``pictures`` is drawn, the
    others are references.
    """

    task: ClassVar[Task] = "edit"
    turns: str = "conversations"
    pictures: str = ""

    def example(self, record: Record, place: Place) -> Example:
        """The edit; placeholders are taken out of the instruction, references stand before it."""
        *inputs, target = shown(record, self.pictures) or (None,)
        if target is None or not inputs:
            raise UnreadableRecord(f"{label(record)}: an edit needs a reference and a target, in this order")
        with naming(f"{label(record)}: {self.turns}"):
            text = read_request(record.fields.get(self.turns))
        return _edit(record, tuple(inputs), text, target, None, place)


def _edit(
    record: Record,
    inputs: tuple[Picture, ...],
    instruction: Any,
    target: Picture,
    reverse: Any,
    place: Place,
) -> Example:
    """An edit with one of the variants of its instruction, or of the reverse one's."""
    forward, backward = texts(instruction), texts(reverse)
    if not inputs:
        raise UnreadableRecord(f"{label(record)}: an edit without a picture to start from")
    if backward and len(inputs) == 1 and (not forward or place.draw("direction") < 0.5):
        forward, inputs, target = backward, (target,), inputs[0]
    if not forward:
        raise EmptyText(f"{label(record)}: no instruction")
    text = forward[place.choice("instruction", len(forward))]
    return Example("edit", turns=(Turn("user", (*inputs, text)),), target=target, key=label(record))
