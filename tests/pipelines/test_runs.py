"""Pipelines and commands over training runs, and with adapters."""

import json

import numpy as np
import pytest

from mammoth_jax.cli.main import main
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import ALL_PARTS
from mammoth_jax.pipelines.chat import NEEDED_PARTS
from mammoth_jax.pipelines.loading import load_model
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from mammoth_jax.pipelines.tokens import Tokens
from mammoth_jax.training.lora_files import load_adapters
from tests.training.tiny_joint import released, stage, write_data
from tests.training.untrained_joint import STEP, untrained_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), count=1)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return released(tmp_path_factory.mktemp("start") / "released")


@pytest.fixture(scope="module")
def averaged(data, start, tmp_path_factory):
    """A run with a moving average, and its state."""
    run = tmp_path_factory.mktemp("run") / "r"
    return run, untrained_run(run, stage(data, ema_decay=0.9), str(start))


@pytest.fixture(scope="module")
def tuned(data, start, tmp_path_factory):
    """A run of adapters."""
    run = tmp_path_factory.mktemp("lora") / "r"
    untrained_run(
        run, stage(data, ("dit",), lora={"patterns": ["attention"], "rank": 2, "alpha": 2}), str(start)
    )
    return run


@pytest.fixture(scope="module")
def text(data, tmp_path_factory):
    """A run that knows words alone."""
    run = tmp_path_factory.mktemp("text") / "r"
    untrained_run(run, stage(data, ("understanding",), ("text",), task="text", evaluation_controls=[]))
    return run


def arrays(loaded):
    return {name: np.asarray(p[...]) for name, p in named_parameters(loaded.model).items()}


def test_a_run_is_loaded_with_its_average_its_words_and_its_tokenizers(averaged, start):
    run, state = averaged
    own, base = load_model(f"{run}@{STEP}"), load_model(start)
    assert own.model.parts == ALL_PARTS and own.config == base.config
    found, before = arrays(own), arrays(base)
    assert found.keys() == before.keys()
    for name, x in found.items():
        np.testing.assert_array_equal(x, state.ema["model"].get(name, before[name]), err_msg=name)
    assert own.tokenizer.encode("a cat") == base.tokenizer.encode("a cat")
    assert own.settings == base.settings and own.text_settings == base.text_settings
    assert own.folder == run / "words"
    with pytest.raises(InputError, match="checkpoint_convert to-torch"):
        own.save(run / "out")


def test_what_a_task_needs_is_loaded_in_its_dtype_and_shards(averaged):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    part = load_model(averaged[0], dtype="bfloat16", mesh=mesh, parts=NEEDED_PARTS)
    assert part.model.parts == set(NEEDED_PARTS)
    kernel = named_parameters(part.model)["decoder.segments.0.ffn.0.gate.kernel"][...]
    assert kernel.dtype == "bfloat16" and not kernel.sharding.is_fully_replicated


@pytest.mark.slow
def test_adapters_on_the_base_are_the_run_that_trained_them(tuned, start):
    parts = ("text_decoder", "dit")
    whole = arrays(load_model(tuned, parts=parts))
    merged = arrays(load_model(start, parts=parts, lora=f"{tuned}@{STEP}"))
    for name, x in whole.items():
        np.testing.assert_allclose(merged[name], x, atol=1e-6, err_msg=name)
    before = arrays(load_model(start, parts=parts))
    changed = {name for name in merged if not np.array_equal(merged[name], before[name])}
    assert changed and all("attention" in name for name in changed)


def test_a_run_of_words_says_what_it_lacks_for_a_picture(text):
    pipeline = TextToImagePipeline.from_pretrained(text)
    with pytest.raises(InputError, match=r"no .*dit"):
        pipeline("a red circle", num_inference_steps=1)
    assert arrays(load_model(text, parts=NEEDED_PARTS)).keys() == arrays(pipeline.loaded).keys()


def test_tokens_of_a_run_are_those_of_the_tokenizer_it_was_trained_with(averaged, start):
    mesh = single_device_mesh()
    one, other = (Tokens.open(path, "nano", mesh, "float32") for path in (averaged[0], start))
    kernels = [named_parameters(t.model)["decoder.from_code.kernel"][...] for t in (one, other)]
    np.testing.assert_array_equal(*kernels)


def test_info_of_a_run_says_where_it_reads_what_it_does_not_hold(averaged, text, start, capsys):
    run = averaged[0]
    assert main(["info", f"{run}@{STEP}", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["kind"] == "run" and summary["absent"] == [] and "vae" not in summary["parts"]
    from_start = dict.fromkeys(("mammothtok", "vae", "init"), str(start))
    assert summary["elsewhere"] == {**from_start, "words": str(run / "words")}
    assert main(["info", str(text)]) == 0
    shown = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[-4:]]
    places = ["named nowhere", "named nowhere", "of bytes", "random weights"]
    assert shown == [list(pair) for pair in zip(("mammothtok", "vae", "words", "init"), places, strict=True)]


def test_info_says_what_is_not_there_any_more(text, capsys):
    (text / "origin.json").write_text(json.dumps({"init": "/nowhere/start", "dtypes": {}}))
    file = text / "config.yaml"
    kept = file.read_text()
    file.write_text(kept.replace("  mammothtok: null", "  mammothtok: /nowhere/codes@3"))
    try:
        assert main(["info", str(text)]) == 0
    finally:
        file.write_text(kept)
        (text / "origin.json").write_text(json.dumps({"init": None, "dtypes": {}}))
    out = capsys.readouterr().out
    for place in ("/nowhere/codes@3", "/nowhere/start"):
        assert f"in {place}, which is not there any more" in out


@pytest.mark.parametrize(
    ("model", "lora", "words"),
    [
        ("averaged@9", None, r"no checkpoint of step 9; there are \[3\]"),
        ("start", "averaged", "is a run without adapters"),
        ("start", "start", "expected a run with adapters"),
        ("start", "nowhere", "expected a run with adapters"),
    ],
)
def test_what_is_not_there_is_named(model, lora, words, averaged, start, tmp_path):
    places = {
        "averaged@9": f"{averaged[0]}@9",
        "averaged": averaged[0],
        "start": start,
        "nowhere": tmp_path / "x",
    }
    with pytest.raises(InputError, match=words):
        load_model(places[model], parts=("text_decoder",), lora=lora and places[lora])


@pytest.mark.slow
def test_adapters_of_another_model_are_refused(tuned):
    with pytest.raises(InputError, match="give the model that they were trained on"):
        load_adapters(tuned, MammothConfig.from_preset("nano"), single_device_mesh())


def test_tokenize_has_no_use_for_adapters(capsys, tmp_path):
    assert main(["tokenize", str(tmp_path / "a.png"), "--lora", str(tmp_path)]) == 2
    assert "leave it out" in capsys.readouterr().err


def test_tokenize_checks_where_it_writes_before_it_loads(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Tokens, "open", lambda *_: pytest.fail("loaded before the check"))
    (tmp_path / "file").write_text("")
    words = ["tokenize", str(tmp_path / "a.png"), "--preset", "nano"]
    assert main([*words, "--reconstruct", str(tmp_path / "file" / "b.png")]) == 2
    assert "cannot write to output folder" in capsys.readouterr().err
