"""Progress lines on a terminal and in a log."""

import io

from mammoth_jax.core.progress import ProgressLine


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_a_log_gets_one_line_a_stage():
    log = io.StringIO()
    line = ProgressLine(log)
    for stage, total in (("tokens", 3), ("diffusion", 2)):
        for done in range(1, total + 1):
            line(stage, done, total)
    assert [text.split(",")[0] for text in log.getvalue().splitlines()] == ["tokens: 3/3", "diffusion: 2/2"]


def test_a_terminal_line_is_rewritten_and_ends_with_its_stage():
    screen = Terminal()
    line = ProgressLine(screen)
    line("tokens", 1, 2)
    assert "\n" not in screen.getvalue() and "tokens: 1/2" in screen.getvalue()
    line("tokens", 2, 2)
    assert screen.getvalue().endswith("\n") and screen.getvalue().count("\r") == 2
