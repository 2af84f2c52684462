"""A text that arrives token by token, cut only between whole characters."""

from mammoth_jax.processing.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"


class TextPieces:
    """Turns ids into pieces of text; joined, the pieces and the rest are the text of all ids."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._waiting: list[int] = []

    def add(self, token_id: int) -> str:
        """The text that is complete now; empty while the last character lacks bytes."""
        self._waiting.append(token_id)
        text = self._tokenizer.decode(self._waiting)
        if text.endswith(REPLACEMENT):
            return ""
        self._waiting = []
        return text

    def rest(self) -> str:
        """What is left at the end: bytes that never became a character, as U+FFFD."""
        text = self._tokenizer.decode(self._waiting)
        self._waiting = []
        return text
