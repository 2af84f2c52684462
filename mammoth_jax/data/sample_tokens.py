"""How many tokens a sample becomes, before any model is loaded: what the layouts of ``processing`` say."""

import dataclasses
from typing import Protocol

from mammoth_jax.data.example import Example
from mammoth_jax.data.record import Picture
from mammoth_jax.processing.chat import reference_ids
from mammoth_jax.processing.picture_rules import PictureRules
from mammoth_jax.processing.prompts import (
    answer_opening,
    drawing_prompt,
    thinking_prompt,
)
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.processing.vision import VisionProcessorConfig

TURN = 5
"""Tokens around what is said in a turn: its start, the role, a line end, its end, a line end."""
BORDERS = 2
"""Tokens around a picture's features."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """Tokens of a sample: its words alone, and its whole row with pictures and structure."""

    text: int
    row: int


class TokenCount(Protocol):
    """Counts the tokens of examples."""

    def __call__(self, example: Example) -> Counts:
        """Tokens of one.

        Raises:
          UnreadablePicture: a picture's size cannot be read.
        """
        ...


@dataclasses.dataclass(frozen=True)
class LayoutTokens:
    """Tokens as sampling lays them out for a model: drawn pictures at their own size as far as the model's largest,
    references as visual tokens and as features of the vision tower.
    """

    tokenizer: Tokenizer
    rules: PictureRules
    vision: VisionProcessorConfig

    def __call__(self, example: Example) -> Counts:
        if example.document is not None:
            text = self._words(example.document)
            return Counts(text, text + 1)
        text = sum(self._words(turn.text) for turn in example.turns) + self._words(example.reasoning or "")
        if example.target is None:
            seen = sum(self._features(picture) + BORDERS for picture in example.pictures)
            return Counts(text, text + TURN * len(example.turns) + seen)
        references = sum(self._reference(picture) for picture in example.pictures)
        rows, cols = self._grid(example.target)
        asked = [example.turns[0].text]
        if example.reasoning is None:
            layout = drawing_prompt(self.tokenizer, asked, rows, cols).ids
            length = len(layout)
        else:
            opening = len(answer_opening(self.tokenizer, rows, cols))
            length = (
                len(thinking_prompt(self.tokenizer, asked).ids) + self._words(example.reasoning) + opening
            )
        return Counts(text, length + references + rows * (cols + 1) + 1)

    def _words(self, text: str) -> int:
        return len(self.tokenizer.encode(text)) if text else 0

    def _features(self, picture: Picture) -> int:
        """Merged tokens of the vision tower."""
        height, width = self.vision.size(*picture.size())
        return height * width // self.vision.factor**2

    def _reference(self, picture: Picture) -> int:
        """A reference as features of the tower and as visual tokens, with their structure."""
        patch = self.rules.token_patch
        height, width = self.rules.token_size(*picture.size())
        return reference_ids(self._features(picture), (height // patch, width // patch))

    def _grid(self, picture: Picture) -> tuple[int, int]:
        """Rows and columns of a drawn picture's visual tokens."""
        height, width = self.rules.drawn_size(*picture.size())
        return height // self.rules.pixels_per_token, width // self.rules.pixels_per_token
