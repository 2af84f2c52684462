"""The tasks as sources of examples."""

import hashlib
import re
import time

import numpy as np
import pytest

from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.data.example import Place
from mammoth_jax.data.synthetic.planned import Look
from mammoth_jax.data.synthetic.render import render
from mammoth_jax.data.synthetic.scene import to_json
from mammoth_jax.data.synthetic.split import ShapeColour, Word, held_out_in, is_held_out
from mammoth_jax.data.synthetic.tasks import (
    SyntheticDocuments,
    SyntheticDrawings,
    SyntheticEdits,
    SyntheticQuestions,
    SyntheticRiddles,
)
from tests.data.synthetic.reader import Reading

TASKS = {
    "t2i": SyntheticDrawings,
    "edit": SyntheticEdits,
    "it2t": SyntheticQuestions,
    "a2a": SyntheticRiddles,
    "text": SyntheticDocuments,
}


def texts_of(example) -> list[str]:
    return [
        text for text in (*(turn.text for turn in example.turns), example.document, example.reasoning) if text
    ]


def contents(source, index) -> tuple:
    """All that a sample holds: texts and pixels."""
    example = source.example(source[index])
    shown = [picture.decode().tobytes() for picture in example.pictures]
    target = None if example.target is None else example.target.decode().tobytes()
    return texts_of(example), shown, target


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_depends_on_the_settings_and_the_index_only(task):
    source = TASKS[task](seed=7)
    forwards = [contents(source, index) for index in range(25)]
    assert [contents(TASKS[task](seed=7, length=25), index) for index in reversed(range(25))] == forwards[
        ::-1
    ]
    assert contents(TASKS[task](seed=8), 3) != forwards[3]
    assert contents(TASKS[task](seed=7, split="heldout"), 3) != forwards[3]
    assert len({str(texts) for texts, *_ in forwards}) > 20


def test_the_same_samples_on_every_platform():
    """Digests, whatever the order of sets.  A change here changes everybody's data."""
    found = {}
    for task, kind in TASKS.items():
        digest = hashlib.sha256()
        for split in ("train", "heldout"):
            for index in range(40):
                texts, shown, target = contents(kind(split=split, seed=1), index)
                digest.update("\n".join(texts).encode() + b"".join(shown) + (target or b""))
        found[task] = digest.hexdigest()[:12]
    assert found == {
        "t2i": "a14cc93e71c3",
        "edit": "a6a6c2862a2e",
        "it2t": "9545bc9feabe",
        "a2a": "4c19dcffb5d7",
        "text": "6416afa80352",
    }


def test_a_look_makes_things_larger_and_apart_and_asks_for_the_same():
    own, clear = (
        SyntheticDrawings(seed=3, category="two_object", look=look) for look in (Look(), Look(18, 0))
    )
    assert own.name != clear.name and own.name.endswith("/two_object/both")
    scenes = [clear[index].fields["drawing"].scene for index in range(40)]
    assert min(item.size for scene in scenes for item in scene.items) >= 18
    assert all(item.visible == 1 for scene in scenes for item in scene.items)
    for index, scene in enumerate(scenes):
        other = own[index].fields["drawing"].scene
        assert [(i.shape, i.colour) for i in scene.items] == [(i.shape, i.colour) for i in other.items]
    many = SyntheticDrawings(seed=3, category="counting", look=Look(30, 0))
    assert all(
        many.example(many[index]).target is not None for index in range(20)
    )  # as large as there is room for
    for wrong in ((8, 0), (18, 2)):
        with pytest.raises(InputError, match="expected a least_size"):
            Look(*wrong)


@pytest.mark.parametrize("task", TASKS)
def test_an_example_is_of_its_task(task):
    source = TASKS[task](picture_size=(64, 96))
    assert source.task == task
    keys = set()
    for index in range(20):
        record = source[index]
        example = source.example(record, Place("anywhere"))
        assert example.task == task and example.key == record.key and record.source == source.name
        keys.add(record.key)
        for picture in (*example.pictures, *([example.target] if example.target else [])):
            assert picture.size() == (64, 96) and picture.decode().shape == (64, 96, 3)
        assert all(isinstance(text, str) and text == text.strip() for text in texts_of(example))
    assert len(keys) == 20


def test_drawings_have_their_caption_and_their_picture():
    source = SyntheticDrawings(category="position", language="en")
    record = source[5]
    example, made = source.example(record), record.fields["drawing"]
    assert example.target is not None and (example.target.decode() == render(made.scene)).all()
    assert example.turns[0].content == (made.caption.text,) and made.caption.spec.category == "position"


def test_edits_show_before_and_draw_after():
    source = SyntheticEdits(operation="move", language="zh")
    record = source[5]
    example, edit = source.example(record), record.fields["edit"]
    before, said = example.turns[0].content
    assert (before.decode() == render(edit.before)).all() and edit.operation == "move"
    assert example.target is not None and (example.target.decode() == render(edit.after)).all()
    assert said == record.fields["instruction"] and not said.isascii()


def test_questions_show_the_picture_once():
    source = SyntheticQuestions(kind="reading", language="en")
    for index in range(20):
        example, asked = source.example(source[index]), source[index].fields["interview"]
        assert [turn.role for turn in example.turns] == ["user", "assistant"] * len(asked.questions)
        assert [len(turn.pictures) for turn in example.turns][:2] == [1, 0] and len(example.pictures) == 1
        assert [turn.text for turn in example.turns[1::2]] == [q.answer for q in asked.questions]


def test_riddles_reason_before_they_draw():
    source = SyntheticRiddles(kind="amount")
    example, asked = source.example(source[0]), source[0].fields["riddle"]
    assert (example.turns[0].text, example.reasoning) == (asked.prompt, asked.reasoning)
    assert example.target is not None and (example.target.decode() == render(asked.scene)).all()


def test_documents_are_texts_or_a_question_and_its_answer():
    source = SyntheticDocuments()
    kinds = {source.example(source[index]).document is None for index in range(40)}
    assert kinds == {True, False}


def scenes_of(record) -> list:
    for name in ("drawing", "interview", "riddle"):
        if name in record.fields:
            return [record.fields[name].scene]
    edit = record.fields.get("edit")
    return [edit.before, edit.after] if edit else []


@pytest.mark.parametrize("size", [64, (64, 112), 128])
@pytest.mark.parametrize("task", [task for task in TASKS if task != "text"])
def test_pictures_keep_to_the_split(task, size):
    for index in range(80):
        assert not any(held_out_in(s) for s in scenes_of(TASKS[task](picture_size=size)[index]))
        held = TASKS[task](split="heldout", picture_size=size)[index]
        assert held_out_in(scenes_of(held)[-1]), to_json(scenes_of(held)[-1])


@pytest.mark.parametrize("task", TASKS)
def test_texts_of_train_say_nothing_that_is_held_out(task):
    """Neither a colour of a shape nor a word that is held out is said, not even of what is not there."""
    source, quoted = TASKS[task](seed=2), 0
    for index in range(200):
        for text in texts_of(source.example(source[index])):
            reading = Reading(text)
            for _, (colour, shape) in reading.things:
                assert colour is None or not is_held_out(ShapeColour(shape, colour)), text
            for word, _ in reading.words:
                quoted += 1
                assert not is_held_out(Word(word)), text
    assert quoted > 5


@pytest.mark.parametrize("task", TASKS)
def test_half_of_all_samples_are_chinese(task):
    source = TASKS[task]()
    texts = [texts_of(source.example(source[index]))[0] for index in range(300)]
    assert 0.4 < np.mean([bool(re.search("[\u4e00-\u9fff]", text)) for text in texts]) < 0.65
    one = TASKS[task](language="en") if task != "text" else TASKS[task](language="en", kind="riddle")
    assert all(text.isascii() for index in range(50) for text in texts_of(one.example(one[index])))


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_its_own_configuration(task):
    source = TASKS[task](split="heldout", picture_size=(64, 128), seed=3, length=7, language="zh")
    assert decode(TASKS[task], encode(source)) == source and len(source) == 7
    with pytest.raises(IndexError):
        source[7]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"picture_size": 48}, "at least 64 pixels"),
        ({"length": 0}, "at least one"),
        ({"split": "test"}, "not one of"),
        ({"operation": "paint"}, "not one of"),
        ({"kind": "count"}, "did you mean|unknown"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        decode(SyntheticEdits, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "test"}, "split 'test': expected one of train, heldout"),
        ({"language": "fr"}, "language 'fr': expected one of en, zh"),
        ({"operation": "paint"}, "'paint' is no kind of edit: expected one of recolour, remove"),
    ],
)
def test_what_no_sample_has_is_refused_without_a_configuration_too(settings, message):
    with pytest.raises(InputError, match=message):
        SyntheticEdits(**settings)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_name_tells_sources_apart(task, split):
    names = {
        TASKS[task](split=split, seed=seed, picture_size=size, language=language).name
        for seed in (0, 1)
        for size in (64, 128)
        for language in (None, "en")
    }
    assert len(names) == 8


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_hundred_samples_a_second_on_one_core(task):
    source = TASKS[task]()
    contents(source, 0)
    start = time.process_time()
    for index in range(1000):
        contents(source, index)
    assert 1000 / (time.process_time() - start) >= 200
