"""The entry point: overview without JAX, one line for bad input, exit statuses."""

import errno
import subprocess
import sys

import pytest

from mammoth_jax.cli import commands
from mammoth_jax.cli import main as entry
from mammoth_jax.core.errors import InputError


class Recorded:
    """A command module that does what a test wants."""

    def __init__(self, run):
        self.run = run

    def add_arguments(self, parser):
        parser.add_argument("--size", type=int)


@pytest.fixture
def command(monkeypatch):
    """Makes ``verify`` run the given function instead."""

    def replace(run):
        monkeypatch.setattr(commands.Command, "load", lambda self: Recorded(run))

    return replace


def test_help_loads_neither_jax_nor_numpy():
    code = (
        "import sys; from mammoth_jax.cli.main import main; status = main(['--help']);"
        "assert status == 0; print(sorted({'jax', 'numpy', 'flax', 'yaml', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command(capsys):
    assert entry.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in commands.COMMANDS)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_help(name, capsys):
    assert entry.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: mammoth-jax {name}") and "--" in out


def test_bad_input_is_one_line_and_status_2(command, capsys):
    def run(args):
        raise InputError("size 3 does not divide by 8; choose a multiple of 8")

    command(run)
    assert entry.main(["verify"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "mammoth-jax verify: size 3 does not divide by 8; choose a multiple of 8\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "--size", "x"], "invalid int value: 'x'"),
        (["verify", "--sise", "3"], "unrecognized arguments: --sise 3"),
        (["vreify"], "did you mean 'verify'?"),
        (["draw"], "known commands: generate"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(command, capsys, words, said):
    command(lambda args: 0)
    assert entry.main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_no_command_prints_the_overview_on_stderr(capsys):
    assert entry.main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_of_a_command_is_kept(command, status):
    command(lambda args: status)
    assert entry.main(["verify"]) == status


def test_interruption_is_130_without_traceback(command, capsys):
    def run(args):
        raise KeyboardInterrupt

    command(run)
    assert entry.main(["verify"]) == 130
    assert capsys.readouterr().err == "mammoth-jax verify: interrupted\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), "a.png: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("cut\nshort"), "cut short"),
    ],
)
def test_what_the_system_refuses_is_one_line_and_status_2(command, capsys, error, said):
    def run(args):
        raise error

    command(run)
    assert entry.main(["verify"]) == 2
    assert capsys.readouterr().err == f"mammoth-jax verify: {said}\n"


def test_a_fault_of_the_program_keeps_its_traceback(command):
    def run(args):
        raise RuntimeError("broken")

    command(run)
    with pytest.raises(RuntimeError, match="broken"):
        entry.main(["verify"])
