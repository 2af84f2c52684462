"""The shipped stages, resolved, against a list of what the paper says (table 1, sections 3.1.1, 3.1.2 and 3.1.4)."""

import dataclasses
from pathlib import Path

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.data.packing.shares import Balanced, BatchLevel
from mammoth_jax.objectives.noise import SimilarityNoise
from mammoth_jax.training.config_file import load_training
from mammoth_jax.training.joint import joint_player
from mammoth_jax.training.schedules import WarmupConstant, WarmupCosine

NAMES = ("text", "understanding", "pre_stage1", "pre_stage2", "sft")
# stage: task, data, trained groups with their rates, schedule, side of the largest picture, features that condition
# the diffusion transformer, noise on visual tokens, how tasks are mixed
PAPER = {
    "pre_stage1": (
        ("joint", {"t2i"}, {"generation": 1e-4, "dit": 1e-4}, WarmupConstant),
        (512, "text", None, BatchLevel),
    ),
    "pre_stage2": (
        ("joint", {"t2i", "edit"}, {"generation": 2e-5, "dit": 2e-5}, WarmupConstant),
        (1024, "text_image", SimilarityNoise, BatchLevel),
    ),
    "sft": (
        (
            "joint",
            {"t2i", "edit", "it2t"},
            {"understanding": 1e-5, "generation": 1e-5, "dit": 1e-5},
            WarmupCosine,
        ),
        (1024, "text_image", SimilarityNoise, Balanced),
    ),
}


NOISE = "{type: SimilarityNoise, rate: 0.1, neighbours: 32}"
QUESTIONS = """
- name: questions
  sources:
    - form: {type: PictureConversation, pictures: image}
      source:
        type: JsonRecords
        files: [questions.jsonl]
        fields: [{name: conversations, column: conversations}]
        picture_fields: [{name: image, column: image}]
"""


@pytest.mark.parametrize("name", PAPER)
def test_a_stage_is_that_of_the_papers_table(name):
    (task, tasks, rates, schedule), (side, mode, noise, mixing) = PAPER[name]
    stage = load_training(Path(name))
    assert (stage.task, set(stage.tasks)) == (task, tasks)
    assert {g.name: g.schedule.learning_rate for g in stage.optimizer.groups} == rates
    assert {type(g.schedule) for g in stage.optimizer.groups} == {schedule}
    assert all(g.schedule.warmup_steps > 0 for g in stage.optimizer.groups)
    assert (stage.objective.ntp, stage.objective.flow) == (1, 1)
    assert (stage.max_side, stage.model.condition.mode) == (side, mode)
    assert (stage.objective.noise and type(stage.objective.noise)) == noise
    assert isinstance(stage.data.mixing, mixing)
    assert len({pool.weight for pool in stage.data.pools}) == 1
    assert (stage.data.packing.tokens, stage.data.packing.joint) == (16384, 16384)
    decoder = stage.model.backbone.decoder
    assert (decoder.num_layers, decoder.experts.start, decoder.experts.stop) == (36, 18, 36)
    assert stage.objective.condition_gradients


@pytest.mark.parametrize(("name", "tasks"), [("text", {"text"}), ("understanding", {"text", "it2t"})])
def test_the_stages_before_train_the_backbone_alone(name, tasks):
    stage = load_training(Path(name))
    assert (stage.task, set(stage.tasks)) == (name, tasks)
    assert [g.name for g in stage.optimizer.groups] == ["understanding"]
    assert stage.data.packing.tokens == 16384


@pytest.mark.parametrize("folder", ["", "nano"])
def test_each_stage_trains_its_parts_and_holds_no_others(folder):
    found = {name: joint_player(load_training(Path(folder, name))) for name in NAMES}
    parts = {name: player.template.parts for name, player in found.items()}
    backbone, drawing = {"text_decoder", "vision_tower"}, {"text_decoder", "generation_experts", "dit"}
    everything = backbone | drawing | {"refiner"}
    if folder == "nano":  # visual tokens first, beside questions
        drawing = backbone | {"generation_experts"}
    assert parts == dict(
        zip(NAMES, ({"text_decoder"}, backbone, drawing, everything, everything), strict=True)
    )
    # a small model's backbone holds too little to be left as it is
    whole = NAMES if folder == "nano" else ("text", "understanding", "sft")
    for name in whole:
        assert found[name].names == set(named_parameters(found[name].template))
    for name in set(NAMES) - set(whole):
        frozen = set(named_parameters(found[name].template)) - found[name].names
        assert any(n.startswith("decoder.segments.1.ffn.0") for n in frozen)
        assert not any(n.startswith(("decoder.gen_", "dit.layers")) for n in frozen)


def test_stages_of_the_dev_model_have_its_sizes():
    size = sum(
        int(p.size) for p in named_parameters(joint_player(load_training(Path("sft"))).template).values()
    )
    assert 13e9 < size < 15.5e9


@pytest.mark.parametrize("name", NAMES)
def test_the_nano_stages_train_the_backbone_always_and_ask_questions_from_the_second_on(name):
    full, nano = load_training(Path(name)), load_training(Path("nano", name))
    assert nano.task == full.task and set(nano.tasks) >= set(full.tasks)
    assert ("it2t" in nano.tasks) == (name != "text")
    groups = {g.name for g in nano.optimizer.groups}
    if name == "pre_stage1":  # diffusion joins with the features that it is to read
        assert (nano.objective.ntp, nano.objective.flow, groups) == (1, 0, {"understanding", "generation"})
    else:
        # its transformer starts from nothing: visual tokens alone, and queries that are told which to read
        aligned = name in ("pre_stage2", "sft")
        assert (nano.model.condition.mode == "image") and nano.objective.alignment == aligned
        assert dataclasses.replace(nano.objective, alignment=0) == full.objective
        assert groups == {"understanding"} | {g.name for g in full.optimizer.groups}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--objective.alignment", "1"], "objective.alignment 1.0: nothing here runs the alignment module"),
        (["--objective.noise", NOISE, "--objective.flow", "0"], "noise .*: without objective.flow nothing"),
        (["--samples", "{prompts: [a]}", "--objective.flow", "0"], "samples: 1 prompts .*flow above 0"),
        (["--evaluation.pools", QUESTIONS], "evaluation: its samples need vision_tower, which no sample"),
        (["--run.evaluation_pictures", "8"], "evaluation_pictures 8: only tokenizers .* evaluation_batches"),
        (["--task", "text"], "samples of t2i in a stage of task text; use task: joint"),
        (["--ema_decay", "2"], "ema_decay 2.0: expected a number between 0 and 1"),
        (["--optimizer.groups", "[]"], "expected one or more groups"),
        (["--remat.dit", "{save: [ffn]}"], "no value is named 'ffn'"),
    ],
)
def test_stages_that_make_no_sense_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        load_training(Path("pre_stage1"), None, change)
