"""There and back: every released tensor bit for bit, and one weight changed in JAX changes exactly its tensor."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from checkpoint_convert.__main__ import main
from checkpoint_convert.converted import ConvertedFolder, pieces, region
from checkpoint_convert.folder import ModelFolder
from checkpoint_convert.source import FolderSource
from checkpoint_convert.to_jax import to_jax
from checkpoint_convert.to_torch import save_released, to_torch
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import named_parameters, with_parameters
from tests.checkpoint_convert.folders import tiny, weights, write_folder, write_tensors


def assert_same_tensors(folder, tensors):
    source = FolderSource(folder)
    assert set(source.specs) == set(tensors)
    for name, x in tensors.items():
        assert source.specs[name].dtype == x.dtype, name
        assert source.read(name).tobytes() == x.tobytes(), name


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_round_trip_is_bit_exact(tmp_path, family, dtype):
    tensors = weights(tiny(family), dtype)
    src = write_folder(tmp_path / "src", tiny(family), tensors)
    assert main(["to-jax", str(src), str(tmp_path / "jax")]) == 0
    assert main(["to-torch", str(tmp_path / "jax"), str(tmp_path / "back")]) == 0
    assert_same_tensors(tmp_path / "back", tensors)
    for name in ("config.json", "t2i_generation_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (src / name).read_bytes()


def test_dtypes_mixed_within_a_stack_come_back_as_they_were(tmp_path):
    tensors = weights(tiny("qwen3_vl"), "BF16")
    name = "llm_model.model.language_model.layers.1.input_layernorm.weight"
    tensors[name] = np.random.default_rng(1).standard_normal(tensors[name].shape, np.float32)
    to_jax(write_folder(tmp_path / "src", tiny("qwen3_vl"), tensors), tmp_path / "jax")
    to_torch(tmp_path / "jax", tmp_path / "back")
    assert_same_tensors(tmp_path / "back", tensors)


def test_arrays_cut_into_pieces_come_back_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("checkpoint_convert.to_jax.chunk_bytes", lambda specs: 3000)
    tensors = {n: x for n, x in weights(tiny("qwen3_vl"), "F32").items() if "image_embedder" in n}
    to_jax(write_folder(tmp_path / "src", tiny("qwen3_vl"), tensors), tmp_path / "jax")
    assert len(ConvertedFolder.open(tmp_path / "jax").chunks) > 10
    to_torch(tmp_path / "jax", tmp_path / "back")
    assert_same_tensors(tmp_path / "back", tensors)


@pytest.mark.parametrize("shape", [(5,), (4, 6), (3, 4, 5), (1, 7, 2, 2)])
def test_pieces_cover_an_array_once_within_the_limit(shape):
    seen = np.zeros(shape, np.int32)
    for piece in pieces(shape, 4, 40):
        seen[region(piece)] += 1
        assert seen[region(piece)].nbytes <= 40
    np.testing.assert_array_equal(seen, 1)


def test_folder_loads_onto_a_mesh_in_its_shardings_from_either_kind(tmp_path):
    src = write_folder(tmp_path / "src", tiny("qwen3_vl"), weights(tiny("qwen3_vl"), "F32"))
    to_jax(src, tmp_path / "jax")
    mesh = make_mesh({"data": 1, "fsdp": 4, "tensor": 2})
    released, converted = (ModelFolder.open(f).load(mesh, jnp.bfloat16) for f in (src, tmp_path / "jax"))
    for (name, a), b in zip(
        named_parameters(released).items(), named_parameters(converted).values(), strict=True
    ):
        assert a.dtype == b.dtype == jnp.bfloat16
        assert a.sharding == b.sharding
        assert np.asarray(a[...]).tobytes() == np.asarray(b[...]).tobytes(), name
    kernel = released.dit.layers.ffn.up.kernel
    assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")


def test_one_weight_changed_in_jax_changes_exactly_its_tensor(tmp_path):
    tensors = weights(tiny("qwen3_vl"), "F32")
    opened = ModelFolder.open(write_folder(tmp_path / "src", tiny("qwen3_vl"), tensors))
    model = opened.load(single_device_mesh())
    values = {name: p[...] for name, p in named_parameters(model).items()}
    name = "dit.layers.ffn.up.kernel"
    values[name] = values[name].at[1, 3, 4].add(1.0)
    save_released(with_parameters(model, values), opened.config, tmp_path / "out")
    back = FolderSource(tmp_path / "out")
    changed = {name: np.argwhere(back.read(name) != x).tolist() for name, x in tensors.items()}
    tensor = "gen_transformer.layers.1.feed_forward.linear_3.weight"
    assert {name: places for name, places in changed.items() if places} == {tensor: [[4, 3]]}


def test_parts_are_written_alone_under_their_own_names(tmp_path):
    tensors = weights(tiny("qwen3_vl"), "F32")
    src = write_folder(tmp_path / "src", tiny("qwen3_vl"), tensors)
    to_torch(src, tmp_path / "vae", "vae")
    to_torch(src, tmp_path / "tok", "mammothtok")
    assert (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").is_file()
    assert json.loads((tmp_path / "vae" / "config.json").read_text())["_class_name"] == "AutoencoderKL"
    prefixes = {"vae": "gen_vae.", "tok": "gen_tokenizer.image_tokenizer."}
    for folder, prefix in prefixes.items():
        assert_same_tensors(
            tmp_path / folder, {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
        )


def test_a_checkpoint_without_a_part_is_converted_and_the_part_reported(tmp_path):
    codebook = "gen_tokenizer.image_tokenizer.quantize.embedding.weight"
    tensors = {
        n: x
        for n, x in weights(tiny("qwen3_vl"), "F32").items()
        if "image_tokenizer" not in n or n == codebook
    }
    src = write_folder(tmp_path / "src", tiny("qwen3_vl"), tensors)
    parts = to_jax(src, tmp_path / "jax")
    assert "mammothtok_codebook" in parts
    assert not {"mammothtok_encoder", "mammothtok_decoder"} & parts
    to_torch(tmp_path / "jax", tmp_path / "back")
    assert_same_tensors(tmp_path / "back", tensors)


def test_only_the_files_that_the_index_names_are_read(tmp_path):
    tensors = weights(tiny("qwen3_vl"), "F32")
    src = write_folder(tmp_path / "src", tiny("qwen3_vl"), tensors)
    write_tensors(src, {"a.stranger": np.zeros(2, np.float32)}, None, "inputs")
    assert set(FolderSource(src).specs) == set(tensors)


def test_written_shards_are_what_the_safetensors_library_reads(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        f"t{i}": rng.standard_normal((3, i + 1)).astype(d)
        for i, d in enumerate((jnp.bfloat16, np.float32) * 3)
    }
    tensors["transposed"] = rng.standard_normal((5, 7), np.float32).T
    tensors["empty"], tensors["scalar"] = np.zeros((0, 2), np.float32), np.float32(3).reshape(())
    write_tensors(tmp_path, tensors, None)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        for name, x in tensors.items():
            np.testing.assert_array_equal(file.get_tensor(name), x)
