"""What is asked: the held-out combinations, half in Chinese, the same for every model."""

import json

import pytest

from mammoth_jax.data.synthetic.split import held_out_in
from mammoth_jax.evals.synthetic.pictures import jobs, prompt_list
from mammoth_jax.evals.synthetic.samples import KINDS_OF, TASKS, samples
from tests.evals.synthetic.true_scenes import scene_of


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_held_out_of_each_kind_and_half_of_them_chinese(task):
    found = samples(task, 5)
    assert [(s.kind, s.number) for s in found] == [(kind, n) for kind in KINDS_OF[task] for n in range(5)]
    for sample in found:
        assert held_out_in(scene_of(sample))
        assert sample.language == ("zh" if sample.number % 2 else "en")
        chinese = any("一" <= letter <= "鿿" for letter in sample.prompt)
        assert chinese == (sample.language == "zh")
    assert len({sample.stem for sample in found}) == len(found)


@pytest.mark.parametrize("task", TASKS)
def test_more_samples_begin_with_the_same_ones(task):
    few, many = samples(task, 2), samples(task, 3)
    assert [s.to_dict() for s in few] == [s.to_dict() for s in many if s.number < 2]


@pytest.mark.parametrize("task", ["drawing", "edit", "question", "riddle"])
def test_the_languages_have_scenes_of_their_own(task):
    scenes = [scene_of(sample) for sample in samples(task, 4)]
    assert len(set(scenes)) == len(scenes)


def test_kinds_are_what_they_are_called():
    assert all(s.edit.operation == s.kind for s in samples("edit", 4))
    assert all(s.question.kind == s.kind for s in samples("question", 4))
    assert all(s.spec.category == s.kind for s in samples("drawing", 4))


def test_the_caption_of_a_result_is_that_of_the_same_edit():
    for edit, captioned in zip(samples("edit", 2), samples("edit-caption", 2), strict=True):
        assert captioned.edit == edit.edit and captioned.prompt != edit.prompt


def test_lists_of_prompts_hold_what_a_scorer_reads():
    for task, needed in (("drawing", "spec"), ("edit", "edit"), ("question", "answer"), ("riddle", "spec")):
        lines = [json.loads(line) for line in prompt_list(samples(task, 2)).splitlines()]
        assert all({"file", "prompt", "language", "scene", needed} <= line.keys() for line in lines)


def test_every_picture_of_a_kind_has_a_seed_of_its_own():
    every = [job for job in jobs(samples("drawing", 5), 4, seed=100) if "/counting/" in job.file]
    assert [job.requests[0].seed for job in every] == list(range(100, 120))
    assert [job.file[-11:] for job in every[3:6]] == ["0000_03.png", "0001_00.png", "0001_01.png"]


def test_edits_start_from_the_picture_before_which_is_kept_beside_them():
    (sample,) = samples("edit", 1)[:1]
    first, second = jobs([sample], 2, seed=0)
    assert first.requests[0].source == second.requests[0].source
    assert first.requests[0].source.open().tobytes() == sample.picture(0).tobytes()
    assert list(first.copies) == [f"{sample.stem}_before.png"] and not second.copies
