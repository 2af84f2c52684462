import dataclasses

import numpy as np
import pytest

from checkpoint_convert import align, dit
from checkpoint_convert.load import load_arrays, released_tensors
from checkpoint_convert.rules import expand
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.dit.positions import TimeAxis
from mammoth_jax.models.dit.transformer import DiT
from tests.tiny_dit import CONFIG, REFINER


def _cases():
    return [(DiT, CONFIG, dit.rules(CONFIG)), (QFormer, REFINER, align.rules(REFINER))]


def _released(module, rules, seed=0):
    """Random tensors of the released shapes."""
    rng = np.random.default_rng(seed)
    shapes = {name: p.shape for name, p in named_parameters(module).items()}
    return {
        e.source: rng.standard_normal(e.transform.source_shape(e.layer_shape(shapes[e.target]))).astype(
            np.float32
        )
        for e in expand(rules)
    }


@pytest.mark.parametrize(("kind", "config", "rules"), _cases())
def test_every_tensor_comes_back_bit_for_bit(kind, config, rules):
    module = abstract(lambda: kind(config))
    tensors = _released(module, rules)
    loaded = load_arrays(module, rules, tensors, "test")
    back = released_tensors(loaded, rules, tensors)
    assert set(back) == set(tensors)
    for name, x in tensors.items():
        np.testing.assert_array_equal(back[name], x)


@pytest.mark.parametrize(("kind", "config", "rules"), _cases())
def test_a_missing_and_a_foreign_tensor_are_listed(kind, config, rules):
    module = abstract(lambda: kind(config))
    tensors = _released(module, rules)
    gone = sorted(tensors)[3]
    del tensors[gone]
    tensors["foreign.weight"] = np.zeros(2, np.float32)
    with pytest.raises(InputError, match=r"foreign\.weight") as error:
        load_arrays(module, rules, tensors, "test")
    assert gone in str(error.value)


def test_released_configurations_come_back():
    assert dit.config_from_released(dit.config_to_released(CONFIG), CONFIG.condition_width) == CONFIG
    released = align.config_to_released(REFINER)
    assert align.config_from_released(released, REFINER.input_width, REFINER.width, REFINER.stage) == REFINER


@pytest.mark.parametrize("preset", ["nano", "dev", "preview"])
def test_a_shipped_qformer_has_the_heads_that_the_release_chooses_and_states_none(preset):
    config = MammothConfig.from_preset(preset).refiner
    assert align.config_to_released(config).keys() == {"num_queries", "num_layers", "dropout", "norm_eps"}


def test_heads_are_stated_only_where_the_release_would_choose_others():
    one = dataclasses.replace(REFINER, width=256, num_heads=2)  # two of 128, as the release chooses
    released = align.config_to_released(one)
    assert "num_heads" not in released
    read = [
        align.config_from_released(x, 8, 256, "dit").heads for x in (released, {**released, "num_heads": 4})
    ]
    assert read == [2, 4]
    assert align.config_to_released(dataclasses.replace(one, num_heads=4))["num_heads"] == 4


def test_keys_that_a_released_configuration_leaves_out_have_the_releases_values():
    config = dit.config_from_released({"out_channels": None, "in_channels": 4}, condition_width=32)
    assert (config.hidden_size, config.num_layers, config.num_heads, config.out_channels) == (2304, 26, 24, 4)
    assert align.config_from_released(None, 32, 2520, "dit").heads == 20


def test_a_rope_that_the_release_does_not_know_is_not_written():
    with pytest.raises(InputError, match="TimeAxis"):
        dit.config_to_released(dataclasses.replace(CONFIG, first_axis=TimeAxis()))
