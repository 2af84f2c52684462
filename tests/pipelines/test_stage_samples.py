"""Pictures drawn beside an evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from checkpoint_convert.init_checkpoint import placeholder_ranks, write_tokenizer
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines import stage_samples as module
from mammoth_jax.pipelines.stage_samples import StageSamples, stage_samples
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


def test_pictures_are_written_with_the_pixels_that_are_drawn(tmp_path, monkeypatch):
    config = stage(tmp_path, **SAMPLES)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 256, (4, 5, 3), np.uint8) for _ in SAMPLES["samples"]["prompts"]]

    def pipeline(loaded):
        return lambda prompts, **options: SimpleNamespace(images=drawn)

    monkeypatch.setattr(module, "TextToImagePipeline", pipeline)
    monkeypatch.setattr(StageSamples, "_whole", lambda self, model: model)
    nothing = SimpleNamespace()
    samples = StageSamples(config.samples, single_device_mesh(), nothing, nothing, nothing, nothing)
    samples(SimpleNamespace(config=config.model), 12, tmp_path / "pictures")
    with Image.open(tmp_path / "pictures" / "00000012.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.concatenate(drawn, axis=1))


def test_pictures_are_drawn_with_the_words_own_options(tmp_path, monkeypatch):
    words = tmp_path / "words"
    words.mkdir()
    write_tokenizer(words, tiny_config(), placeholder_ranks(tiny_config()), {"negative_prompt": ""})
    monkeypatch.setattr(module, "load_frozen", lambda *_: (SimpleNamespace(), SimpleNamespace()))
    mesh = single_device_mesh()
    own = stage_samples(stage(tmp_path, frozen={"words": str(words)}, **SAMPLES), mesh)
    plain = stage_samples(stage(tmp_path, **SAMPLES), mesh)
    assert own is not None and own.settings.drawing == {"negative_prompt": ""}
    assert plain is not None and plain.settings.drawing == {}
    assert (own.settings.visual_start, own.settings.end_of_line) == (
        own.tokenizer.visual_token_id(0),
        own.tokenizer.id_of("<|endofline|>"),
    )


def test_pictures_need_both_tokenizers(tmp_path):
    with pytest.raises(InputError, match=r"name frozen.mammothtok and frozen.vae"):
        stage_samples(stage(tmp_path, **SAMPLES), single_device_mesh())
    assert stage_samples(stage(tmp_path), single_device_mesh()) is None
