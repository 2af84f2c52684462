"""Answers that replace those of a data set, by the records' ids: answers that another model wrote, or that were mended.

One JSON object a line: ``{"id": ..., "answer": ...}``.  A text replaces the last answer of the conversation, a list all
of them in their order; of an any-to-any sample it replaces the reasoning.
"""

import dataclasses
from typing import Any, Literal

from mammoth_jax.data.example import Example, Filtered, Turn
from mammoth_jax.data.joins import key_parts
from mammoth_jax.data.keyed_rows import KeyedRows
from mammoth_jax.data.record import EmptyText, Record, UnreadableRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerOverrides:
    """``files`` have the answers; their column ``id`` is looked up by the record's field ``by`` (without one, by its
    key without shard and extension).  What has no new answer is kept as it is, or left out.
    """

    files: tuple[str, ...]
    id: str = "id"
    answer: str = "answer"
    by: str = "id"
    others: Literal["keep", "leave_out"] = "keep"

    def open(self) -> "OpenOverrides":
        """Reads the ids.

        Raises:
          InputError: a file is missing or of another form.
        """
        return OpenOverrides(self)


class OpenOverrides:
    """Answers by id."""

    def __init__(self, config: AnswerOverrides):
        self._config, self._rows = config, KeyedRows(config.files, config.id)

    def apply(self, record: Record, example: Example) -> Example:
        """The example with its new answers, if there are any.

        Raises:
          UnreadableRecord: they are not as many as the answers, or empty.
          Filtered: there are none, and those are left out.
        """
        by = self._config.by
        key = record.fields.get(by) if by else key_parts(record.key)[1]
        row = None if key is None else self._rows.get(key)
        if row is None:
            if self._config.others == "leave_out":
                raise Filtered("no new answer")
            return example
        new = row.get(self._config.answer)
        answers = [new] if isinstance(new, str) else new
        if not isinstance(answers, list) or not all(isinstance(a, str) and a.strip() for a in answers):
            raise EmptyText(f"{example.key}: new answer {str(new)[:60]!r}")
        return _replace(example, answers, isinstance(new, str))


def _replace(example: Example, answers: list[Any], last: bool) -> Example:
    """An example with other answers: the ``last`` one, or all."""
    if example.reasoning is not None:
        return dataclasses.replace(example, reasoning=answers[-1])
    places = [i for i, turn in enumerate(example.turns) if turn.role == "assistant"]
    places = places[-1:] if last else places
    if len(places) != len(answers):
        raise UnreadableRecord(f"{example.key}: {len(answers)} new answers for {len(places)} turns")
    turns = list(example.turns)
    for place, answer in zip(places, answers, strict=True):
        turns[place] = Turn("assistant", (answer,))
    return dataclasses.replace(example, turns=tuple(turns))
