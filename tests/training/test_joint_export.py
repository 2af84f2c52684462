"""A trained model in the released layout: merged, and bit for bit as it was where nothing was trained."""

import json

import numpy as np
import pytest

from checkpoint_convert.__main__ import main
from checkpoint_convert.adapter_folder import load_adapters, save_adapters
from checkpoint_convert.folder import ModelFolder
from checkpoint_convert.init_checkpoint import init_checkpoint
from checkpoint_convert.model import model_rules
from checkpoint_convert.rules import expand
from checkpoint_convert.source import FolderSource
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.pipelines.loading import load_model
from mammoth_jax.training.lora import A, B
from mammoth_jax.training.start_weights import start_weights
from tests.tiny_model import tiny_config
from tests.training.tiny_joint import stage, write_data
from tests.training.untrained_joint import STEP, untrained_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), count=1)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A released folder in bfloat16."""
    folder = tmp_path_factory.mktemp("start") / "released"
    init_checkpoint(tiny_config(), folder, seed=1, dtype="bfloat16")
    return folder


@pytest.fixture(scope="module")
def trained(data, start, tmp_path_factory):
    """A run that trained generation and diffusion, and what it holds."""
    run = tmp_path_factory.mktemp("run") / "r"
    return run, untrained_run(run, stage(data), str(start))


@pytest.fixture(scope="module")
def tuned(data, start, tmp_path_factory):
    """A run that trained adapters, and its factors."""
    run = tmp_path_factory.mktemp("lora") / "r"
    state = untrained_run(
        run, stage(data, lora={"patterns": [r"attention|\.ffn\."], "rank": 2, "alpha": 4}), str(start)
    )
    return run, state.params["model"]


def tensors(folder):
    source = FolderSource(folder)
    return {name: source.read(name) for name in source.specs}


def bits_differ(one, other):
    assert one.keys() == other.keys()
    return {n for n in one if one[n].dtype != other[n].dtype or one[n].tobytes() != other[n].tobytes()}


def released_names(targets):
    return {entry.source for entry in expand(model_rules(tiny_config())) if entry.target in targets}


def loaded(folder):
    model = ModelFolder.open(folder).load(single_device_mesh(), "float32")
    return {name: np.asarray(p[...]) for name, p in named_parameters(model).items()}


def test_what_was_not_trained_is_bit_identical_and_the_rest_as_trained(trained, start, tmp_path, capsys):
    run, state = trained
    assert main(["to-torch", f"{run}@{STEP}", str(tmp_path / "out")]) == 0
    assert "vae" in capsys.readouterr().out
    before, after = tensors(start), tensors(tmp_path / "out")
    own = state.params["model"]
    assert bits_differ(before, after) == released_names(own)
    assert {str(after[name].dtype) for name in released_names(own)} == {"float32"}
    values = loaded(tmp_path / "out")
    for name, x in own.items():
        np.testing.assert_array_equal(values[name], x, err_msg=name)
    for file in ("mammothu.tiktoken", "t2i_generation_config.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (start / file).read_bytes()
    assert ModelFolder.open(tmp_path / "out").config == tiny_config()


@pytest.mark.slow
def test_what_was_trained_can_be_rounded(trained, start, tmp_path):
    run, _ = trained
    assert main(["to-torch", str(run), str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    assert {str(x.dtype) for x in tensors(tmp_path / "out").values()} == {"bfloat16"}


def test_adapters_are_merged_and_every_other_tensor_is_bit_identical(tuned, start, tmp_path):
    run, factors = tuned
    assert main(["to-torch", str(run), str(tmp_path / "out")]) == 0
    kernels = {name.removesuffix(A) for name in factors if name.endswith(A)}
    assert bits_differ(tensors(start), tensors(tmp_path / "out")) == released_names(kernels)
    before, after = loaded(start), loaded(tmp_path / "out")
    for name in kernels:
        a, b = np.asarray(factors[name + A]), np.asarray(factors[name + B])
        first = a.ndim + b.ndim - 2 - before[name].ndim
        flat = [
            (x.reshape(-1, 2), y.reshape(2, -1)) for x, y in (zip(a, b, strict=True) if first else [(a, b)])
        ]
        change = np.stack([x @ y for x, y in flat]).reshape(before[name].shape)
        np.testing.assert_allclose(after[name], before[name] + 2 * change, atol=1e-6, err_msg=name)
    drawing = load_model(start, dtype="float32", parts=("dit",), lora=f"{run}@{STEP}").model
    for name, p in named_parameters(drawing).items():  # --lora on the start is the merged model
        np.testing.assert_allclose(p[...], after[name], atol=1e-6, err_msg=name)


def test_the_next_stage_starts_from_merged_weights(tuned, start, tmp_path):
    run, factors = tuned
    config = tiny_config()
    template = abstract(lambda: Mammoth(config, parts=frozenset(("dit",))))
    model = start_weights(config, template, single_device_mesh(), 0, str(run))
    values = {name: np.asarray(p[...]) for name, p in named_parameters(model).items()}
    before = loaded(start)
    changed = {name for name in values if not np.array_equal(values[name], before[name])}
    assert changed == {n.removesuffix(A) for n in factors if n.endswith(A) and n.startswith("dit")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_exported_adapters_come_back_as_they_were_or_rounded(dtype, tuned, tmp_path):
    run, factors = tuned
    assert main(["to-torch", str(run), str(tmp_path / "out"), "--part", "lora", "--dtype", dtype]) == 0
    found, rank, alpha = load_adapters(tmp_path / "out", tiny_config())
    assert (rank, alpha) == (2, 4)
    assert {name + s for name in found for s in (A, B)} == set(factors)
    for name, pair in found.items():
        for suffix, x in zip((A, B), pair, strict=True):
            np.testing.assert_array_equal(x, np.asarray(factors[name + suffix].astype(dtype), np.float32))
    names = FolderSource(tmp_path / "out").specs
    assert {str(spec.dtype) for spec in names.values()} == {dtype}
    width = tiny_config().backbone.decoder.hidden_size
    down = "base_model.model.llm_model.model.language_model.layers.1.gen_mlp.gate_proj.lora_A.weight"
    assert names[down].shape == (2, width)
    told = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (told["peft_type"], told["r"], told["lora_alpha"]) == ("LORA", 2, 4)
    assert {f"base_model.model.{m}.lora_{s}.weight" for m in told["target_modules"] for s in "AB"} == set(
        names
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "use_dora True is not supported"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"r": 3}, r"expected \[3, "),
    ],
)
def test_other_adapters_are_refused_by_name(change, words, tmp_path):
    kernel = np.zeros((32, 2), np.float32)
    head = named_parameters(abstract(lambda: Mammoth(tiny_config())))["decoder.head.kernel"].shape
    save_adapters(
        tmp_path / "a",
        tiny_config(),
        {"decoder.head.kernel": (kernel, np.zeros((2, head[1]), np.float32))},
        2.0,
        None,
    )
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=words):
        load_adapters(tmp_path / "a", tiny_config())


def test_a_run_without_adapters_and_a_part_that_nobody_named_are_refused(trained, data, tmp_path, capsys):
    run, _ = trained
    assert main(["to-torch", str(run), str(tmp_path / "a"), "--part", "lora"]) == 2
    assert "without adapters" in capsys.readouterr().err
    text = tmp_path / "text"
    untrained_run(text, stage(data, ("understanding",), ("text",), task="text", evaluation_controls=[]))
    assert main(["to-torch", str(text), str(tmp_path / "b"), "--part", "vae"]) == 2
    assert "frozen.vae is null" in capsys.readouterr().err
    assert (
        main(["to-torch", str(text), str(tmp_path / "c")]) == 0
    )  # words are bytes, nothing but the decoder is there
    assert ModelFolder.open(tmp_path / "c").model.parts == {"text_decoder"}
