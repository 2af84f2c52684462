"""The model of a finished recipe in the package: what is refused, what the card says, and who then uses it."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoint_convert.init_checkpoint import init_checkpoint
from mammoth_jax.cli.model_options import announce_default, model_source
from mammoth_jax.core import shipped
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import fingerprint
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.pipelines.loading import load_model
from tests.script_module import ROOT, script_module

ship_nano = script_module("ship_nano")

CONFIG = """
run: {batch_size: 4, seed: 5, steps: 40}
optimizer: {groups: [{name: dit, schedule: {learning_rate: 0.001}}]}
data: {packing: {tokens: 1536}}
"""
LOG = [
    {"step": 10, "seconds/data": 0.5, "seconds/compute": 35.5, "seconds/processor": 72.0},
    {"step": 20, "evaluation/flow": 0.875},  # saved: its seconds are in the next line
    {"step": 30, "seconds/compute": 3500.0, "seconds/checkpoint": 64.0, "seconds/processor": 7128.0},
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A recipe's folder: a stage that was trained, one kept with its record, and a random model."""
    folder = tmp_path_factory.mktemp("runs")
    init_checkpoint(MammothConfig.from_preset("nano"), folder / "nano_model", seed=0, dtype="bfloat16")
    for run in (folder / "nano_sft", folder / "nano_pre_stage2" / "record"):
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(CONFIG)
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    return folder


@pytest.fixture(scope="module")
def place(runs, tmp_path_factory):
    """Where it is shipped to."""
    into = tmp_path_factory.mktemp("package") / "nano"
    settings = {
        "model": "/here/nano_model",
        "count": 16,
        "num_images": 4,
        "mode": "ar",
        "num_inference_steps": 25,
    }
    settings |= {"guidance_scale": 3.0, "ar_guidance_scale": 2.5, "seed": 0, "dtype": "float32"}
    settings["weights"] = fingerprint(load_model(runs / "nano_model", dtype="float32").model)
    (runs / "scores").mkdir()
    (runs / "scores" / "run.json").write_text(json.dumps({"settings": settings, "finished": "today"}))
    scores = {"drawing.counting": 0.75, "drawing.counting.zh": 0.5}
    (runs / "scores" / "scores.json").write_text(json.dumps(scores))
    ship_nano.ship(runs, into, [runs / "scores"], "It is random.", "abc123")
    return into


def test_the_card_says_what_was_trained_measured_and_shipped(place):
    text, facts = (place / "README.md").read_text(), json.loads((place / "shipped.json").read_text())
    for stage in ("pre_stage2", "sft"):
        assert f"| {stage} | 30 of 40 | 4 rows of 1536 | dit 0.001 | 5 | 1.00 (2.00) | flow 0.875 |" in text
    assert "| vae |  |  |  |  |  | not run |" in text and "commit abc123" in text and "It is random." in text
    assert "| counting | 75.0 |" in text and "50.0" in text and "### drawing" in text
    assert (
        "16 prompts of each kind" in text
        and "mode ar, 25 steps" in text
        and "In per cent.\n" in text
        and "/here" not in text
    )
    assert facts["sha256"] in text and f"{facts['parameters']:,} parameters" in text
    assert facts["bytes"] == sum(f.stat().st_size for f in place.iterdir() if f.suffix not in (".md",)) - len(
        (place / "shipped.json").read_bytes()
    )


def test_scores_that_are_not_finished_are_refused_and_nothing_changes(runs, place, tmp_path):
    before = (place / "README.md").read_text()
    with pytest.raises(InputError, match="finished folder of eval synthetic"):
        ship_nano.ship(runs, place, [tmp_path], "", "abc")
    record = json.loads((runs / "scores" / "run.json").read_text())
    for changed, said in (
        ({"finished": None}, "has not finished"),
        ({"settings": record["settings"] | {"weights": "0"}}, "of other weights"),
    ):
        (tmp_path / "scores.json").write_text("{}")
        (tmp_path / "run.json").write_text(json.dumps(record | changed))
        with pytest.raises(InputError, match=said):
            ship_nano.ship(runs, place, [tmp_path], "", "abc")
    assert (place / "README.md").read_text() == before


def test_times_of_older_logs_are_made_up_from_the_steps_that_they_have():
    old = [{"step": 10, "seconds/compute": 2.0}, {"step": 20}, {"step": 30, "seconds/compute": 3.0}]
    time = ship_nano.hours(old)
    assert (time.wall, time.processor, time.exact) == (pytest.approx((10 * 2 + 20 * 3) / 3600), None, False)


def test_a_model_that_is_too_large_or_lacks_a_part_is_refused_and_nothing_changes(
    runs, place, tmp_path, monkeypatch
):
    before = sorted(place.iterdir())
    monkeypatch.setattr(ship_nano, "LIMIT", 10**6)
    with pytest.raises(InputError, match="at most 1 are shipped"):
        ship_nano.ship(runs, place, [], "", "abc")
    assert sorted(place.iterdir()) == before
    monkeypatch.setattr(ship_nano, "PARTS", (*ship_nano.PARTS, "wings"))
    with pytest.raises(InputError, match="lacks wings"):
        ship_nano.check(runs / "nano_model")


def options(**changes):
    return argparse.Namespace(**{"model": None, "preset": None, "lora": None, **changes})


def test_the_shipped_model_is_taken_named_and_recorded_where_nobody_names_one(place, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "FOLDER", place)
    args = options()
    announce_default(args)
    said = capsys.readouterr().err
    assert args.model == place and "shipped nano" in said and said.count("\n") == 1
    (label,) = model_source(args).values()
    assert label.startswith("shipped nano ") and str(place) not in label
    for args in (options(preset="dev"), options(model=Path("mine"))):
        announce_default(args)
        assert not capsys.readouterr().err
    assert model_source(options(model=Path("mine"))) == {"model": "mine"}


def test_without_it_the_fallback_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "nano")
    args = options()
    announce_default(args)
    said = capsys.readouterr().err
    assert args.model is None and "nano with random weights" in said and said.count("\n") == 1
    (tmp_path / "nano").mkdir()
    with pytest.raises(InputError, match="damaged"):
        announce_default(args)


def test_a_command_loads_it_in_a_process_of_its_own(place, tmp_path):
    picture = tmp_path / "a.png"
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).save(picture)
    outputs = []
    for words in ([], ["--model", str(place)]):
        code = (
            "import sys, pathlib; from mammoth_jax.core import shipped; from mammoth_jax.cli.main import main;"
            f"shipped.FOLDER = pathlib.Path({str(place)!r});"
            f"sys.exit(main({['tokenize', str(picture), *words]!r}))"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
        assert ("shipped nano" in done.stderr) is not words.__contains__("--model")
    assert outputs[0] == outputs[1] and len(outputs[0].splitlines()) == 8
