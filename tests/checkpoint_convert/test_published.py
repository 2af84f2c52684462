"""Published files become frozen networks: every tensor in its place and back, other networks' files refused."""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoint_convert import aimv2
from checkpoint_convert.load import released_tensors
from checkpoint_convert.published import (
    inception_rules,
    load_inception,
    load_lpips,
    load_semantic_encoder,
    lpips_rules,
    vgg_rules,
)
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.aimv2 import AnyGrid, SemanticEncoder, TrainedGrid
from mammoth_jax.models.inception import Inception
from mammoth_jax.models.lpips import LPIPS
from mammoth_jax.models.mammothtok.config import EncoderConfig
from tests.published_files import drawn, write_stream, write_zip

MESH = single_device_mesh()
SIZES = EncoderConfig(patch_size=4, width=256, mlp_width=24, num_layers=3, num_heads=2)


def comes_back(module, rules, tensors):
    """That the module holds the tensors, each to the bit."""
    back = released_tensors(module, rules, tensors)
    for name, x in tensors.items():
        assert back[name].dtype == x.dtype
        np.testing.assert_array_equal(back[name], x, err_msg=name)


@pytest.fixture(scope="module")
def networks():
    """VGG16, LPIPS and Inception in memory, with what their files hold beside the weights that are read."""
    module = abstract(LPIPS)
    both = drawn([*vgg_rules(), *lpips_rules()], module)
    vgg = {name: x for name, x in both.items() if name.startswith("features.")}
    heads = {name: x for name, x in both.items() if name.startswith("lin")}
    inception = drawn(inception_rules(), abstract(Inception))
    return vgg, heads, inception


@pytest.fixture(scope="module")
def files(networks, tmp_path_factory):
    """The three files."""
    folder = tmp_path_factory.mktemp("published")
    vgg, heads, inception = networks
    classifier = {
        "classifier.0.weight": np.zeros((2, 3), np.float32),
        "classifier.6.bias": np.zeros(2, np.float32),
    }
    counters = {
        name.replace("running_mean", "num_batches_tracked"): np.array(3, np.int64)
        for name in inception
        if name.endswith("running_mean")
    }
    logits = {"fc.weight": np.zeros((1008, 2048), np.float32), "fc.bias": np.zeros(1008, np.float32)}
    return (
        write_stream(folder / "vgg16-397923af.pth", vgg | classifier),
        write_zip(folder / "vgg.pth", heads),
        write_stream(folder / "pt_inception-2015-12-05-6726825d.pth", inception | counters | logits),
    )


def test_vgg_and_lpips_are_read_from_their_files(networks, files):
    model = load_lpips(files[0], files[1], MESH)
    comes_back(model, [*vgg_rules(), *lpips_rules()], networks[0] | networks[1])


def test_inception_is_read_from_its_file(networks, files):
    comes_back(load_inception(files[2], MESH), inception_rules(), networks[2])


def test_safetensors_of_the_same_names_do_as_well(networks, files, tmp_path):
    save_file(networks[0], tmp_path / "vgg16.safetensors")
    model = load_lpips(tmp_path / "vgg16.safetensors", files[1], MESH, np.float16)
    assert {p.dtype for p in named_parameters(model).values()} == {np.dtype(np.float16)}


def test_weights_are_laid_out_on_the_mesh(files):
    mesh = make_mesh({"fsdp": 8})
    model = load_lpips(files[0], files[1], mesh)
    kernel = named_parameters(model)["vgg.convs.5.kernel"][...]
    assert len(kernel.sharding.device_set) == 8 and not kernel.is_fully_replicated


def test_a_file_of_another_network_is_named(files):
    with pytest.raises(InputError, match=r"vgg\.pth: its 5 tensors are not those of VGG16 of torchvision"):
        load_lpips(files[1], files[1], MESH)
    with pytest.raises(
        InputError, match=r"vgg16-397923af\.pth: its 28 tensors are not those of the FID's Inception"
    ):
        load_inception(files[0], MESH)
    with pytest.raises(InputError, match=r"vgg16-397923af\.pth: its 28 tensors are not those of AIMv2"):
        load_semantic_encoder(files[0], 8, MESH)


def test_every_tensor_that_does_not_fit_is_listed(networks, files, tmp_path):
    vgg = {**networks[0], "features.30.weight": np.zeros(3, np.float32)}
    del vgg["features.28.bias"]
    vgg["features.0.bias"] = np.zeros(65, np.float32)
    vgg["features.2.bias"] = vgg["features.2.bias"].astype(np.float64)
    with pytest.raises(InputError) as caught:
        load_lpips(write_zip(tmp_path / "vgg19.pth", vgg), files[1], MESH)
    message = str(caught.value)
    assert "vgg19.pth as VGG16 of torchvision: 4 tensors do not fit" in message
    assert "unmapped: features.30.weight [3]" in message and "missing: features.28.bias" in message
    assert "misshapen: features.0.bias is [65], expected [64]" in message
    assert "dtype: features.2.bias is float64" in message


def test_torchvisions_own_inception_is_refused(tmp_path):
    """It has the same layers, other weights and 1000 classes."""
    tensors = {"fc.weight": np.zeros((1000, 2048), np.float32)}
    with pytest.raises(InputError, match="of 1000 classes; expected the FID's Inception"):
        load_inception(write_zip(tmp_path / "inception_v3_google.pth", tensors), MESH)


def test_a_truncated_file_is_named(networks, files, tmp_path):
    short = write_stream(tmp_path / "short.pth", networks[1])
    short.write_bytes(short.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"short\.pth is truncated: storage 4 ends at byte"):
        load_lpips(files[0], short, MESH)


def tower(grid):
    rules = aimv2.rules("aimv2", SIZES)
    if isinstance(grid, TrainedGrid):
        rules.append(aimv2.position_rule("aimv2", grid.side**2, SIZES.width))
    return rules, drawn(rules, abstract(lambda: SemanticEncoder(SIZES, 8, grid)))


@pytest.mark.parametrize("grid", [AnyGrid(), TrainedGrid(3)])
def test_aimv2_is_read_from_a_folder_or_a_file(tmp_path, grid):
    rules, tensors = tower(grid)
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        model = load_semantic_encoder(path, 8, MESH)
        comes_back(model, rules, tensors)
        assert (model.trained, model.pixels_per_token) == (grid, 8)
    features = jax.eval_shape(lambda m, x: m(x), model, jax.ShapeDtypeStruct((1, 16, 32, 3), np.float32))
    assert features.shape == ((1, 3, 3, 256) if grid == TrainedGrid(3) else (1, 2, 4, 256))


def test_the_number_of_heads_is_the_folders_where_it_says(tmp_path):
    _, tensors = tower(AnyGrid())
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    model = load_semantic_encoder(tmp_path, 8, MESH)
    assert named_parameters(model)["blocks.qkv.kernel"].shape == (3, 256, 3, 4, 64)


def test_a_tower_with_more_than_a_tower_is_refused(tmp_path):
    """Say, one with a text encoder."""
    _, tensors = tower(AnyGrid())
    tensors |= {"text_encoder.weight": np.zeros(3, np.float32)}
    with pytest.raises(InputError, match=re.escape("unmapped: text_encoder.weight [3]")):
        load_semantic_encoder(write_zip(tmp_path / "lit.pth", tensors), 8, MESH)
