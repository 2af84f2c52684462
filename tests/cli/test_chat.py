"""``chat``: which questions are asked, with what, and how answers are written."""

import io
import json

import pytest

from mammoth_jax.cli import chat
from mammoth_jax.cli.main import main
from mammoth_jax.core.errors import InputError


class FakeSession:
    """Records its calls and answers with the question's words."""

    def __init__(self):
        self.calls = []

    def ask(self, question, **options):
        self.calls.append((question, options))
        return question.upper()

    def stream(self, question, **options):
        yield from self.ask(question, **options)


@pytest.fixture
def session(monkeypatch):
    fake = FakeSession()
    monkeypatch.setattr(chat, "load_session", lambda args: fake)
    return fake


def run(capsys, *words):
    status = main(["chat", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_question_is_answered_with_its_pictures(session, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("mammoth_jax.core.shipped.FOLDER", tmp_path / "none")
    words = ["--image", "a.png", "--image", "b.png", "what?", "--temperature", "0.5", "--max-new-tokens", "9"]
    words += ["--repetition-penalty", "1.2"]
    status, out, error = run(capsys, *words)
    assert status == 0 and out == "WHAT?\n" and "random weights" in error
    ((question, options),) = session.calls
    assert question == "what?" and [str(file) for file in options["images"]] == ["a.png", "b.png"]
    assert options["temperature"] == 0.5 and options["max_new_tokens"] == 9 and "top_k" not in options
    assert options["repetition_penalty"] == 1.2 and "decode_weights" not in options


def test_without_a_question_lines_are_read_and_pictures_shown_once(session, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n"))
    status, out, _ = run(capsys, "--image", "a.png", "--preset", "nano")
    assert status == 0 and out == "ONE\nTWO\n"
    assert [question for question, _ in session.calls] == ["one", "two"]
    assert "images" in session.calls[0][1] and "images" not in session.calls[1][1]


def test_a_refused_line_is_named_and_the_conversation_goes_on(session, capsys, monkeypatch):
    def ask(question, **options):
        if question == "long":
            raise InputError("conversation of 9 tokens: shorten it")
        return FakeSession.ask(session, question, **options)

    monkeypatch.setattr(session, "ask", ask)
    monkeypatch.setattr("sys.stdin", io.StringIO("long\nshort\n"))
    status, out, error = run(capsys, "--image", "a.png", "--preset", "nano")
    assert (status, out) == (2, "SHORT\n") and error.endswith("shorten it\n")
    assert "images" in session.calls[0][1]  # still to be shown


def test_json_is_a_line_an_answer(session, capsys):
    _, out, _ = run(capsys, "hé?", "--json")
    assert json.loads(out) == {"question": "hé?", "answer": "HÉ?"}


def test_how_the_loop_holds_weights_and_cache_goes_to_the_session(session, capsys):
    status, _, _ = run(capsys, "hi", "--decode-weights", "int8", "--cache", "int8")
    ((_, options),) = session.calls
    assert status == 0 and (options["decode_weights"], options["cache"]) == ("int8", "int8")


def test_bad_options_are_one_line(session, capsys):
    status, _, error = run(capsys, "a", "--max-new-tokens", "0")
    assert status == 2 and "'0' is not a whole number" in error and error.count("\n") == 1


def test_the_embedded_model_answers(capsys):
    status, out, _ = run(capsys, "hi", "--preset", "nano", "--max-new-tokens", "2", "--json")
    assert status == 0 and json.loads(out)["question"] == "hi"
