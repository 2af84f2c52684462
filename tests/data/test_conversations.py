"""Conversations in both spellings, with placeholders that fit the pictures, are missing, or are too many."""

import pytest

from mammoth_jax.data.conversations import read_request, read_turns
from mammoth_jax.data.record import EmptyText, Picture, UnreadableRecord


def pictures(count):
    """Pictures that are known by their names."""
    return [Picture(f"<{i}>", bytes) for i in range(count)]


def read(turns, count=0):
    """Roles with what is said; pictures by name."""
    return [
        (turn.role, [p if isinstance(p, str) else p.where for p in turn.content])
        for turn in read_turns(turns, pictures(count))
    ]


def ask(*said):
    """Turns of human and gpt by turns."""
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(said)]


@pytest.mark.parametrize("names", [("human", "gpt"), ("user", "assistant"), ("User", "model")])
@pytest.mark.parametrize("keys", [("from", "value"), ("role", "content")])
def test_both_spellings_are_read(names, keys):
    turns = [
        dict(zip(keys, said, strict=True))
        for said in (("system", "Be brief."), (names[0], "?"), (names[1], "!"))
    ]
    assert read(turns) == [("system", ["Be brief."]), ("user", ["?"]), ("assistant", ["!"])]


def test_a_content_may_be_a_list_of_parts():
    content = [{"type": "image"}, {"type": "text", "text": "What?"}, "!"]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "A."}]
    assert read(turns, 1)[0] == ("user", ["<0>", "What?!"])


@pytest.mark.parametrize(
    ("said", "count", "expected"),
    [
        ("<image>\nWhat?", 1, ["<0>", "What?"]),
        ("What?\n<image>", 1, ["What?", "<0>"]),
        ("<image><image>\nWhat?", 2, ["<0>", "<1>", "What?"]),
        ("a <image> b\n<image>\nc", 2, ["a ", "<0>", " b", "<1>", "c"]),
        ("What?", 1, ["<0>", "What?"]),
        ("What?", 2, ["<0>", "<1>", "What?"]),
        ("See <image>", 3, ["<0>", "<1>", "See ", "<2>"]),
        ("a\n<image>\nb\n<image>\nc", 1, ["a", "<0>", "b\nc"]),
        ("<image>\n<image>\nWhat?", 1, ["<0>", "What?"]),
    ],
)
def test_placeholders_missing_and_too_many(said, count, expected):
    assert read(ask(said, "A."), count)[0] == ("user", expected)


def test_placeholders_in_several_turns_take_the_pictures_in_order():
    turns = ask("<image> one", "A.", "<image> two", "B.")
    assert [said for role, said in read(turns, 2) if role == "user"] == [["<0>", " one"], ["<1>", " two"]]
    assert [said for role, said in read(turns, 3) if role == "user"] == [
        ["<0>", "<1>", " one"],
        ["<2>", " two"],
    ]
    assert [said for role, said in read(turns, 1) if role == "user"] == [["<0>", " one"], [" two"]]


def test_placeholders_of_answers_are_taken_out():
    assert read(ask("Draw", "Here: <image>\nSee."))[1] == ("assistant", ["Here: \nSee."])


def test_answers_before_the_first_question_and_questions_after_the_last_answer_are_left_out():
    turns = [{"from": "gpt", "value": "Hi"}, *ask("a", "b", "c")]
    assert read(turns) == [("user", ["a"]), ("assistant", ["b"])]


@pytest.mark.parametrize(
    ("turns", "kind", "said"),
    [
        (ask("<image>\nWhat?", "A."), UnreadableRecord, "1 placeholders <image> and no picture"),
        (ask("a", " "), EmptyText, "an answer without words"),
        (ask("a"), EmptyText, "nobody answers"),
        (ask("a", "b")[1:], EmptyText, "nobody asks"),
        (ask("", "b"), EmptyText, "a question without words"),
        ([{"from": "narrator", "value": "x"}], UnreadableRecord, "a turn of 'narrator', expected one of"),
        ([{"from": "human", "value": 3}], UnreadableRecord, "a turn of the user says '3', expected text"),
        ([{"role": "user", "content": [{"type": "audio"}]}], UnreadableRecord, "expected text or image"),
        (["hello"], UnreadableRecord, "a turn is no mapping"),
        ("hello", UnreadableRecord, "a list of turns expected, found 'hello'"),
        (None, UnreadableRecord, "a list of turns expected"),
        ([], UnreadableRecord, "a list of turns expected"),
    ],
)
def test_what_is_no_conversation_is_refused(turns, kind, said):
    with pytest.raises(kind, match=said) as caught:
        read(turns)
    assert type(caught.value) is kind


def test_a_request_is_what_the_user_says_first():
    assert read_request(ask("<image>\nMake it red\n", "", "no")) == "Make it red"
    with pytest.raises(EmptyText):
        read_request(ask("<image>", "b"))
