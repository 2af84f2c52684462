"""A trained tokenizer leaves in the released layout and comes back, as a start or through the converter."""

import json

import jax
import numpy as np
import pytest

from checkpoint_convert.__main__ import main
from checkpoint_convert.part_folder import load_part, save_part
from checkpoint_convert.safetensors_file import read_header
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, initialize, named_parameters
from mammoth_jax.training.runs import load_weights, open_run
from mammoth_jax.training.tasks import build_work, load_tokenizer
from mammoth_jax.training.tokenizer_kinds import KINDS
from tests.training.tiny_tokenizer import training, untrained_run


def kind(task):
    return KINDS[task](training(task).model)


def assert_same(one, other):
    found = named_parameters(other)
    for name, p in named_parameters(one).items():
        np.testing.assert_array_equal(p[...], found[name][...], err_msg=name)


@pytest.mark.parametrize("task", list(KINDS))
def test_a_part_written_and_read_is_bit_identical_and_starts_a_run(task, tmp_path):
    mesh = single_device_mesh()
    model = initialize(kind(task).build, 5, mesh)
    save_part(model, kind(task).config, task, tmp_path / "out")
    assert_same(model, load_part(tmp_path / "out", abstract(kind(task).build), kind(task).config, task, mesh))
    state = build_work(training(task), mesh, str(tmp_path / "out")).initial()
    for name, p in named_parameters(model).items():
        np.testing.assert_array_equal(state.params["model"][name], p[...])
    with pytest.raises(InputError, match="exists"):
        save_part(model, kind(task).config, task, tmp_path / "out")


def test_a_run_of_the_vae_is_exported_with_its_measured_scale(tmp_path):
    config = training("vae", losses={"adversarial": None}, discriminator=None)
    mesh = single_device_mesh()
    latents = {"shift_factor": 0.25, "scaling_factor": 1.5}
    run = untrained_run(tmp_path / "run", config, latents)
    assert main(["to-torch", str(run), str(tmp_path / "out"), "--part", "vae"]) == 0
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: written[key] for key in latents} == latents
    (file,) = (tmp_path / "out").glob("*.safetensors")
    assert "decoder.conv_out.weight" in read_header(file).tensors
    template = abstract(kind("vae").build)
    model = load_weights(run, template, mesh)
    assert_same(model, load_tokenizer(tmp_path / "out", kind("vae"), mesh))

    assert main(["to-torch", str(run), str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    (file,) = (tmp_path / "half").glob("*.safetensors")
    assert {str(x.dtype) for x in read_header(file).tensors.values()} == {"bfloat16"}
    rounded = jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), model)
    assert_same(rounded, load_tokenizer(tmp_path / "half", kind("vae"), mesh))


def test_a_run_of_another_part_or_other_sizes_is_refused(tmp_path, capsys):
    config = training("vae", losses={"adversarial": None}, discriminator=None, run={"steps": 3})
    open_run(tmp_path / "run", config)
    (tmp_path / "run" / "checkpoints").mkdir()
    assert main(["to-torch", str(tmp_path / "run"), str(tmp_path / "out"), "--part", "mammothtok"]) == 2
    assert "trains vae, not mammothtok" in capsys.readouterr().err
    small = initialize(kind("vae").build, 0, single_device_mesh())
    save_part(small, kind("vae").config, "vae", tmp_path / "part")
    wider = training("vae", model={"vae": {"block_out_channels": [8, 16, 16]}})
    with pytest.raises(InputError, match="shape"):
        load_tokenizer(tmp_path / "part", KINDS["vae"](wider.model), single_device_mesh())
