"""Pictures drawn beside an evaluation."""

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines.stage_samples import stage_samples
from mammoth_jax.training.joint import joint_player
from mammoth_jax.training.start_weights import start_weights
from tests.tiny_model import tiny_config
from tests.training.tiny_joint import released, stage

SAMPLES = {"samples": {"prompts": ["a red square", "two circles"], "steps": 2}}


@pytest.mark.slow
def test_a_stage_draws_its_prompts_side_by_side(tmp_path):
    mesh, init = single_device_mesh(), str(released(tmp_path / "released"))
    config = stage(tmp_path, model={"condition": {"mode": "text"}}, **SAMPLES)
    samples = stage_samples(config, mesh, init)
    assert samples is not None
    parts = joint_player(config).template.parts
    model = start_weights(config.model, abstract(lambda: Mammoth(config.model, parts=parts)), mesh, 0, init)
    samples(model, 7, tmp_path / "pictures")
    with Image.open(tmp_path / "pictures" / "00000007.png") as picture:
        pixels = np.asarray(picture)
    side = tiny_config().picture_size
    assert pixels.shape == (side, 2 * side, 3) and pixels.std() > 0


def test_pictures_need_both_tokenizers(tmp_path):
    with pytest.raises(InputError, match=r"name frozen.mammothtok and frozen.vae"):
        stage_samples(stage(tmp_path, **SAMPLES), single_device_mesh())
    assert stage_samples(stage(tmp_path), single_device_mesh()) is None
