"""Filters leave out what they are told to, under a reason of their own."""

import numpy as np
import pytest

from mammoth_jax.core.config import decode
from mammoth_jax.core.errors import InputError
from mammoth_jax.data.example import Example, Filtered, Turn
from mammoth_jax.data.filters import (
    Allowed,
    AspectRatio,
    ChangedArea,
    Score,
    ShortSide,
    TextLength,
    check_example,
    check_record,
)
from mammoth_jax.data.record import Picture, Record, UnreadablePicture
from mammoth_jax.data.task_source import TaskSource


def picture(height, width, pixels=None):
    """A grey picture, or one of the given pixels."""
    pixels = np.full((height, width, 3), 100, np.uint8) if pixels is None else pixels
    return Picture("p", lambda: pixels)


def drawing(target, *references, caption="a caption"):
    """An example that draws."""
    task = "edit" if references else "t2i"
    return Example(task, turns=(Turn("user", (*references, caption)),), target=target)


def reason(each, example=None, **fields):
    """Why a filter leaves out an example, or a record of fields; None if it does not."""
    try:
        if example is None:
            check_record((each,), Record("k", "s", (), fields))
        else:
            check_example((each,), example)
    except Filtered as error:
        return error.reason
    return None


def test_the_short_side_is_that_of_what_is_drawn_or_else_of_all_that_is_shown():
    assert reason(ShortSide(least=16), drawing(picture(16, 40))) is None
    assert reason(ShortSide(least=17), drawing(picture(16, 40))) == "short side below 17"
    assert reason(ShortSide(least=16), drawing(picture(16, 40), picture(8, 8))) is None
    talk = Example("it2t", turns=(Turn("user", (picture(20, 20), picture(9, 30))), Turn("assistant", ("A",))))
    assert reason(ShortSide(least=9), talk) is None
    assert reason(ShortSide(least=10), talk) == "short side below 10"


def test_the_aspect_ratio_is_width_by_height():
    wanted = AspectRatio(least=0.75, most=1.34)
    assert [reason(wanted, drawing(picture(h, w))) for h, w in ((30, 40), (40, 30), (30, 41), (41, 30))] == [
        None,
        None,
        "aspect ratio above 1.34",
        "aspect ratio below 0.75",
    ]


def test_scores_are_fields_by_name_and_a_missing_one_has_its_own_reason():
    wanted = Score(field="aesthetic", least=4.75, most=9)
    values = {4.75: None, "5": None, 4: "aesthetic below 4.75", 9.5: "aesthetic above 9"}
    assert {value: reason(wanted, aesthetic=value) for value in values} == values
    missing = (reason(wanted), *(reason(wanted, aesthetic=v) for v in (None, "good", float("nan"))))
    assert set(missing) == {"no aesthetic"}


def test_allowed_values_are_compared_as_text():
    wanted = Allowed(field="flag", values=("1", "yes"))
    assert [reason(wanted, flag=v) for v in (1, "yes", "no")] == [None, None, "other flag"]


def test_text_length_counts_what_the_task_is_about():
    wanted = TextLength(least=3, most=5)
    talk = Example("text", turns=(Turn("user", ("a long question",)), Turn("assistant", ("abcd",))))
    assert reason(wanted, talk) is None
    assert reason(wanted, drawing(picture(4, 4), caption="ab")) == "text length below 3"
    assert reason(wanted, Example("text", document="abcdef")) == "text length above 5"


def test_changed_area_compares_reference_and_target_at_one_size():
    before = np.full((128, 96, 3), 100, np.uint8)
    after = np.full((256, 192, 3), 110, np.uint8)  # another size, and slightly brighter everywhere
    after[:64] = 200  # a quarter
    edit = drawing(picture(0, 0, after), picture(0, 0, before))
    assert reason(ChangedArea(least=0.24, most=0.26), edit) is None
    assert reason(ChangedArea(least=0.26), edit) == "changed area below 0.26"
    assert reason(ChangedArea(most=0.24), edit) == "changed area above 0.24"
    assert reason(ChangedArea(most=0.9, threshold=5), edit) == "changed area above 0.9"
    assert reason(ChangedArea(least=0.01), drawing(picture(4, 4))) is None
    two = drawing(picture(0, 0, after), picture(0, 0, after), picture(0, 0, before))
    assert reason(ChangedArea(least=0.24), two) is None


def test_the_first_filter_that_leaves_out_gives_the_reason():
    both = (TextLength(most=3), ShortSide(least=100))
    with pytest.raises(Filtered, match="text length above 3"):
        check_example(both, drawing(picture(4, 4)))
    with pytest.raises(Filtered, match="short side below 100"):
        check_example(both[::-1], drawing(picture(4, 4)))


def test_a_broken_picture_is_no_matter_of_taste():
    broken = Picture("broken.jpg", lambda: b"no picture")
    with pytest.raises(UnreadablePicture, match=r"broken\.jpg"):
        check_example((ShortSide(least=4),), drawing(broken))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"type": "AspectRatio"}, "filter AspectRatio: give least, most or both"),
        ({"type": "Score", "field": "x", "least": 2, "most": 1}, "least 2.0 is above most 1.0"),
        ({"type": "Sharpness"}, "'Sharpness' is not one of"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(data, said):
    source = {"type": "TextDocuments", "files": ["x"]}
    with pytest.raises(InputError, match=said):
        decode(TaskSource, {"form": {"type": "PlainText"}, "source": source, "filters": [data]})
