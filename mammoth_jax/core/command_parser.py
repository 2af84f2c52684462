"""Command lines whose errors are bad input like any other."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from mammoth_jax.core.errors import InputError


class CommandParser(argparse.ArgumentParser):
    """An argument parser without abbreviations, whose errors are one line; its subcommands' parsers are like it."""

    def __init__(self, **settings: Any):
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """What argparse calls for words that it cannot use.

        Raises:
          InputError: always.
        """
        raise InputError(f"{message}; see {self.prog} --help")

    def split_overrides(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """The words without the options that the parser does not declare, and those options with their values.

        argparse would give the value of an option that it does not know to a positional that is still open.
        """
        own: list[str] = []
        overrides: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if not word.startswith("--") or word.partition("=")[0] in self._option_string_actions:
                own.append(word)
                continue
            overrides.append(word)
            is_value = rest and not rest[0].startswith("--") and rest[0] not in self._option_string_actions
            if "=" not in word and is_value:
                overrides.append(rest.pop(0))
        return own, overrides
