"""The table of commands.  It names modules without importing them, so that ``--help`` stays instant."""

import dataclasses
import importlib
from argparse import ArgumentParser, Namespace
from typing import Protocol, cast


class CommandModule(Protocol):
    """What the module of a command offers.

    A module whose parser has a default ``overrides`` receives there the options that it does not declare, with their
    values, and any words too many.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declares the command's arguments."""
        ...

    def run(self, args: Namespace) -> int:
        """Does the work; returns the exit status (0 done, 1 the answer is no)."""
        ...


@dataclasses.dataclass(frozen=True)
class Command:
    """A command's name, its line in the overview, and the module that does it."""

    name: str
    summary: str
    module: str

    def load(self) -> CommandModule:
        """Imports the module."""
        return cast(CommandModule, importlib.import_module(self.module))


COMMANDS = {
    command.name: command
    for command in (
        Command("generate", "draw pictures from text", "mammoth_jax.cli.generate"),
        Command("edit", "change pictures by instruction", "mammoth_jax.cli.edit"),
        Command("chat", "ask about pictures and videos, or just talk", "mammoth_jax.cli.chat"),
        Command("train", "train from a configuration; again to go on", "mammoth_jax.cli.train"),
        Command("plot", "draw the curves of a training run", "mammoth_jax.cli.plot"),
        Command("tokenize", "a picture as visual tokens, and back", "mammoth_jax.cli.tokenize"),
        Command("precompute", "codes and latents of a data set, into shards", "mammoth_jax.cli.precompute"),
        Command("data", "data check CONFIG: look at the data before a run does", "mammoth_jax.cli.data"),
        Command("info", "parts, shapes, parameters and memory of a checkpoint", "mammoth_jax.cli.info"),
        Command("init", "write a released-format folder with random weights", "mammoth_jax.cli.init"),
        Command("verify", "compare this installation with recorded numbers", "mammoth_jax.cli.verify"),
        Command(
            "eval",
            "draw a benchmark's pictures for its scorer; synthetic also scores",
            "mammoth_jax.cli.eval",
        ),
        Command("bench", "measure this machine on the model's programs", "mammoth_jax.cli.bench"),
        Command("plan", "memory and time of a training step on a slice, on paper", "mammoth_jax.cli.plan"),
        Command(
            "compile",
            "compile for a TPU slice without one: does it fit, how fast?",
            "mammoth_jax.cli.compile",
        ),
        Command("config", "show a resolved configuration", "mammoth_jax.cli.config"),
    )
}
