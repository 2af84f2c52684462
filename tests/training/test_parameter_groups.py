"""Which parameter belongs to which row of the paper's table of rates."""

import re

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.training.optimizer import AdamWConfig, Group, assign_groups
from mammoth_jax.training.parameter_groups import (
    PARAMETER_GROUPS,
    needed_parts,
    read_names,
    with_group_patterns,
)
from mammoth_jax.training.schedules import WarmupConstant
from tests.tiny_model import tiny_config, tiny_preview_config

PARTS = frozenset(("text_decoder", "generation_experts", "vision_tower", "dit", "refiner"))


def names_of(config, parts=PARTS):
    return list(named_parameters(abstract(lambda: Mammoth(config, parts=parts))))


def groups_of(name):
    return [g for g, patterns in PARAMETER_GROUPS.items() if any(re.search(p, name) for p in patterns)]


@pytest.mark.parametrize("config", [tiny_config, tiny_preview_config])
def test_every_parameter_is_in_one_group(config):
    found = {name: groups_of(name) for name in names_of(config())}
    assert [name for name, groups in found.items() if len(groups) != 1] == []
    generation = {name for name, groups in found.items() if groups == ["generation"]}
    with_experts = {n for n in found if n.startswith("decoder.")}
    without = set(names_of(config(), frozenset(("text_decoder",))))
    assert generation == with_experts - without


def test_tokenizers_are_in_none():
    rest = frozenset(("mammothtok_encoder", "mammothtok_codebook", "mammothtok_decoder", "vae"))
    assert not any(groups_of(name) for name in names_of(tiny_config(), rest))


def test_stages_have_the_parts_that_their_tasks_run():
    assert needed_parts(["text"], "text_image") == {"text_decoder"}
    assert needed_parts(["text", "it2t"], "text_image") == {"text_decoder", "vision_tower"}
    assert needed_parts(["t2i"], "text") == {"text_decoder", "generation_experts", "dit"}
    assert needed_parts(["t2i", "edit"], "text_image") == PARTS
    assert needed_parts(["t2i", "edit"], "text_image", diffusion=False) == PARTS - {"dit", "refiner"}


def test_what_no_sample_meets_is_not_trained():
    names = names_of(tiny_config())
    left_out = set(names) - set(read_names(names, ["t2i"]))
    assert left_out and {name.split(".")[1] for name in left_out} == {
        "reference_embed",
        "reference_index",
        "reference_refiner",
    }
    assert read_names(names, ["t2i", "edit"]) == names
    headless = set(names) - set(read_names(names, ["edit"], next_tokens=False))
    assert {name.split(".")[1] for name in headless} == {"head", "gen_head"}


def test_groups_get_their_patterns_by_name():
    def config(*names):
        groups = tuple(Group(name=n, schedule=WarmupConstant(learning_rate=1e-4)) for n in names)
        return AdamWConfig(groups=groups)

    full = with_group_patterns(config("generation", "dit"))
    labels = assign_groups(names_of(tiny_config()), full.groups)
    assert set(labels.values()) == {"generation", "dit"}
    with pytest.raises(
        InputError, match="optimizer group 'experts': not one of understanding, generation, dit"
    ):
        with_group_patterns(config("experts"))
