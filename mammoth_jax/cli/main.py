"""The entry point ``mammoth-jax COMMAND``: picks the command, runs it, and turns bad input into one line.

Exit status: 0 done; 1 it ran and the answer is no; 2 bad input; 130 interrupted.
"""

import argparse
import difflib
import sys
from collections.abc import Sequence

from mammoth_jax import __version__
from mammoth_jax.cli.commands import COMMANDS, Command
from mammoth_jax.cli.platform import prefer_cpu_without_accelerator
from mammoth_jax.core.command_parser import CommandParser
from mammoth_jax.core.errors import InputError

PROGRAM = "mammoth-jax"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; ``arguments`` are the words after the program's name."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        print(overview(), file=sys.stderr)
        return 2
    if words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known commands: {', '.join(COMMANDS)}"
        print(f"{PROGRAM}: unknown command {words[0]!r}; {hint}", file=sys.stderr)
        return 2
    return _run(COMMANDS[words[0]], words[1:])


def overview() -> str:
    """What ``--help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"usage: {PROGRAM} COMMAND ...", "", "MammothModa2 in JAX.", "", "commands:"]
    lines += [f"  {command.name.ljust(width)}  {command.summary}" for command in COMMANDS.values()]
    return "\n".join([*lines, "", f"{PROGRAM} COMMAND --help lists the options of a command."])


def _run(command: Command, words: Sequence[str]) -> int:
    prefer_cpu_without_accelerator()
    try:
        module = command.load()
        parser = CommandParser(
            prog=f"{PROGRAM} {command.name}",
            description=getattr(module, "__doc__", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        overridable = parser.get_default("overrides") is not None
        own, overrides = parser.split_overrides(words) if overridable else (words, [])
        args, unknown = parser.parse_known_args(own)
        if overridable:
            args.overrides = [*unknown, *overrides]
        elif unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return module.run(args)
    except InputError as error:
        print(f"{PROGRAM} {command.name}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{PROGRAM} {command.name}: {_refusal(error)}", file=sys.stderr)
        return 2
    except SystemExit as stop:  # argparse after printing --help
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print(f"{PROGRAM} {command.name}: interrupted", file=sys.stderr)
        return 130


def _refusal(error: OSError) -> str:
    """What the system refused, in one line: the file, where the error names one, and the reason."""
    if error.strerror is None:
        return " ".join(str(error).split()) or type(error).__name__
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


if __name__ == "__main__":
    sys.exit(main())
