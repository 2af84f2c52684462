"""Conversations as data sets write them, as turns with their pictures in place.

Two spellings are read: ``{from: human | gpt, value}`` and ``{role: user | assistant, content}``, where the content may
be a list of ``{type: text, text}`` and ``{type: image}``.

**Placeholders.**  ``<image>`` in a user's turn stands for a picture; a line break beside it goes with it.  With fewer
placeholders than pictures the first pictures, as many as have none, stand before the text of the first user's turn,
so that the pictures keep their order.  With more, the last placeholders are taken out.  Placeholders and no picture at
all make a record unreadable: a question about nothing.

Answers before the first question and questions after the last answer are left out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mammoth_jax.data.example import Turn
from mammoth_jax.data.record import EmptyText, Picture, UnreadableRecord

PLACEHOLDER = "<image>"
_AROUND = re.compile(r"\n?<image>\n?")
_Role = Literal["system", "user", "assistant"]
_ROLES: dict[str, _Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
}


def read_turns(conversation: Any, pictures: Sequence[Picture]) -> tuple[Turn, ...]:
    """A data set's conversation with its pictures.

    Raises:
      EmptyText: an empty question or answer, or none.
      UnreadableRecord: it has another form, an unknown role, or placeholders without pictures.
    """
    said = [_role_and_text(turn) for turn in _listed(conversation)]
    roles = [role for role, _ in said]
    if "assistant" not in roles:
        raise EmptyText("nobody answers")
    said = said[: len(roles) - roles[::-1].index("assistant")]
    first = next((i for i, (role, _) in enumerate(said) if role == "user"), len(said))
    said = [turn for i, turn in enumerate(said) if i >= first or turn[0] == "system"]
    if len(said) <= sum(role == "system" for role, _ in said):
        raise EmptyText("nobody asks before the answer")
    if any(role == "assistant" and not text.strip() for role, text in said):
        raise EmptyText("an answer without words")
    return _place(said, pictures)


def read_request(conversation: Any) -> str:
    """What the user says first, without placeholders; whatever is answered.

    Raises:
      EmptyText: the user says nothing.
      UnreadableRecord: it has another form or an unknown role.
    """
    said = [_role_and_text(turn) for turn in _listed(conversation)]
    text = next((without_placeholders(text) for role, text in said if role == "user"), "").strip()
    if not text:
        raise EmptyText("nobody asks for anything")
    return text


def _listed(conversation: Any) -> Sequence[Any]:
    if not isinstance(conversation, Sequence) or isinstance(conversation, str) or not conversation:
        raise UnreadableRecord(f"a list of turns expected, found {str(conversation)[:60]!r}")
    return conversation


def _role_and_text(turn: Any) -> tuple[_Role, str]:
    """One turn in either spelling."""
    if not isinstance(turn, Mapping):
        raise UnreadableRecord(f"a turn is no mapping but {str(turn)[:60]!r}")
    name = turn.get("from") or turn.get("role")
    value = turn.get("content") if turn.get("value") is None else turn["value"]
    role = _ROLES.get(str(name).lower())
    if role is None:
        raise UnreadableRecord(f"a turn of {name!r}, expected one of {sorted(_ROLES)}")
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = "".join(_part_text(part) for part in value)
    if not isinstance(value, str):
        raise UnreadableRecord(f"a turn of the {role} says {str(value)[:60]!r}, expected text")
    return role, value


def _part_text(part: Any) -> str:
    """A part of a turn's content as text, a picture as its placeholder."""
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("image", "image_url"):
        return PLACEHOLDER
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise UnreadableRecord(f"a part of a turn is {str(part)[:60]!r}, expected text or image")


def _place(said: Sequence[tuple[_Role, str]], pictures: Sequence[Picture]) -> tuple[Turn, ...]:
    """Turns with each placeholder's picture in its place, by the rule above."""
    wanted = sum(text.count(PLACEHOLDER) for role, text in said if role == "user")
    if wanted and not pictures:
        raise UnreadableRecord(f"{wanted} placeholders {PLACEHOLDER} and no picture")
    ahead = max(len(pictures) - wanted, 0)
    waiting = list(pictures[ahead:])
    turns = []
    for role, text in said:
        if role != "user":
            turns.append(Turn(role, (without_placeholders(text),)))
            continue
        content: list[str | Picture] = list(pictures[:ahead])
        ahead = 0
        *before, last = _AROUND.split(text, maxsplit=len(waiting)) if waiting else [text]
        for piece in before:
            content += [piece, waiting.pop(0)] if piece else [waiting.pop(0)]
        last = without_placeholders(last)
        content += [last] if last else []
        if not content:
            raise EmptyText("a question without words")
        turns.append(Turn(role, tuple(content)))
    return tuple(turns)


def without_placeholders(text: str) -> str:
    """A text without placeholders; where one stood within it a line ends."""
    return _AROUND.sub("\n", text).strip("\n") if PLACEHOLDER in text else text
