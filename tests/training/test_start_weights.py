"""Where joint training's weights come from when it starts."""

import dataclasses

import numpy as np
import pytest

from checkpoint_convert.init_checkpoint import init_checkpoint
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.backbone.config import ExpertRange
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.training.start_weights import parts_of, start_weights
from tests.tiny_model import tiny_config

PARTS = frozenset(("text_decoder", "generation_experts", "vision_tower", "dit", "refiner"))


def arrays(module):
    return {name: np.asarray(p[...]) for name, p in named_parameters(module).items()}


def template(parts=PARTS):
    return abstract(lambda: Mammoth(tiny_config(), parts=parts))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A released folder of a model that does not draw: no experts, no vocabulary of visual tokens."""
    config = tiny_config()
    decoder = dataclasses.replace(config.backbone.decoder, experts=ExpertRange(), gen_vocab_size=0)
    plain = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, decoder=decoder))
    folder = tmp_path_factory.mktemp("backbone") / "released"
    init_checkpoint(plain, folder, seed=3)
    return folder


def test_random_experts_start_as_copies_of_the_text_experts():
    found = arrays(start_weights(tiny_config(), template(), single_device_mesh(), 0))
    kernel = found["decoder.segments.1.ffn.1.gate.kernel"]
    np.testing.assert_array_equal(kernel, found["decoder.segments.1.ffn.0.gate.kernel"])
    assert kernel.std() > 0 and found["decoder.gen_embed.table"].std() > 0


def test_weights_do_not_depend_on_the_mesh_and_lie_in_its_shards():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    spread = start_weights(tiny_config(), template(), mesh, 0)
    one = arrays(start_weights(tiny_config(), template(), single_device_mesh(), 0))
    assert all(np.array_equal(x, one[name]) for name, x in arrays(spread).items())
    kernel = named_parameters(spread)["dit.layers.ffn.gate.kernel"][...]
    assert kernel.addressable_shards[0].data.size * 4 == kernel.size


def test_a_backbone_without_experts_gives_them_its_text_experts(backbone):
    assert "generation_experts" not in parts_of(backbone)
    found = arrays(start_weights(tiny_config(), template(), single_device_mesh(), 0, backbone))
    fresh = arrays(start_weights(tiny_config(), template(), single_device_mesh(), 0))
    text = "decoder.segments.1.ffn.0.down.kernel"
    assert not np.array_equal(found[text], fresh[text])
    np.testing.assert_array_equal(found["decoder.segments.1.ffn.1.down.kernel"], found[text])
    np.testing.assert_array_equal(found["decoder.gen_head.kernel"], fresh["decoder.gen_head.kernel"])


def test_a_folder_of_another_size_is_refused(backbone):
    config = tiny_config()
    dit = dataclasses.replace(config.dit, num_layers=3)
    larger = abstract(lambda: Mammoth(dataclasses.replace(config, dit=dit), parts=PARTS))
    with pytest.raises(InputError):
        start_weights(dataclasses.replace(config, dit=dit), larger, single_device_mesh(), 0, backbone)
