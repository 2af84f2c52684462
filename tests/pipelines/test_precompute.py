"""Precomputed shards: equal to encoding on the fly, training on them included; interruption; foreign models."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

from mammoth_jax.cli.main import main
from mammoth_jax.core.config import decode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.data.buckets import AsStored
from mammoth_jax.data.decoding import Threads
from mammoth_jax.data.example import Place
from mammoth_jax.data.loader import DataConfig, Loader
from mammoth_jax.data.precomputed import Precomputed
from mammoth_jax.data.shapes import FixedShape
from mammoth_jax.data.sources import Synthetic
from mammoth_jax.data.task_source import TaskSource
from mammoth_jax.flow.path import interpolate, velocity_target
from mammoth_jax.models.vae.model import Posterior
from mammoth_jax.objectives.flow_matching import flow_matching_losses
from mammoth_jax.pipelines.precompute import model_fingerprint
from mammoth_jax.training.runs import load_weights
from mammoth_jax.training.tokenizer_kinds import KINDS
from tests.training.tiny_tokenizer import training, untrained_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of MammothTok and one of the VAE."""
    folder = tmp_path_factory.mktemp("runs")
    plain = {"losses": {"adversarial": None}, "discriminator": None}
    return {task: untrained_run(folder / task, training(task, **plain)) for task in KINDS}


@pytest.fixture(scope="module")
def shards(runs, tmp_path_factory):
    """The command's configuration and the shards of 20 scenes that it wrote."""
    folder = tmp_path_factory.mktemp("shards")
    config = {
        "source": {"type": "Synthetic", "picture_size": 32, "length": 20},
        "shape": {"type": "FixedShape", "height": 32, "width": 32},
        "mammothtok": str(runs["mammothtok"]),
        "vae": str(runs["vae"]),
        "shard_size": 8,
        "batch_size": 3,
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["precompute", str(folder / "c.yaml"), "--out", str(folder / "out")]) == 0
    return folder / "c.yaml", folder / "out"


def models(runs):
    """Both modules."""
    config = training("vae").model
    mesh = single_device_mesh()
    return {task: load_weights(run, abstract(KINDS[task](config).build), mesh) for task, run in runs.items()}


def loader(source, shape, **options):
    data = DataConfig(sources=(source,), shape=shape, workers=Threads(count=0))
    return Loader(data, batch_size=4, seed=3, **options)


def test_training_on_shards_has_the_losses_of_encoding_on_the_fly(runs, shards):
    mine = models(runs)
    prints = {role: model_fingerprint(m) for role, m in mine.items()}
    stored = loader(
        Precomputed(path=str(shards[1])), AsStored(arrays=("codes", "mean", "logvar")), models=prints
    )
    fresh = loader(Synthetic(picture_size=32, length=20), FixedShape(height=32, width=32))

    def flow_loss(posterior, key):
        """Of a network that predicts nothing: the squared length of the velocity."""
        a, b = jax.random.split(key)
        latents = posterior.sample(jax.random.normal(a, posterior.mean.shape)).reshape(4, -1, 4)
        noise = jax.random.normal(b, latents.shape)
        target = velocity_target(noise, latents)
        mixed = interpolate(noise, latents, jnp.full(4, 0.5))
        return float(flow_matching_losses(mixed, target, jnp.ones(latents.shape[:2], bool)).sum().mean)

    keys = set()
    for step in range(5):
        s, f = next(stored), next(fresh)
        np.testing.assert_array_equal(s["number"], f["number"])
        pixels = f["picture"].astype(np.float32) / 127.5 - 1
        np.testing.assert_array_equal(s["codes"], mine["mammothtok"].encode(pixels))
        key = jax.random.key(step)
        ours, theirs = (
            flow_loss(p, key) for p in (Posterior(s["mean"], s["logvar"]), mine["vae"].encode(pixels))
        )
        assert ours == pytest.approx(theirs, rel=1e-5)
        keys |= set(s["number"].tolist())
    assert len(keys) == 20


@pytest.mark.slow
def test_every_picture_of_an_edit_has_its_codes_and_latents_in_training(runs, shards, tmp_path):
    scenes = Synthetic(picture_size=32, length=4).open()
    pixels = [scenes[i].pictures[0].decode() for i in range(4)]
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    Image.fromarray(pixels[0][:8, :8]).save(tmp_path / "small.png")
    turns = {"states": ["0.png", "1.png", "2.png"], "say": ["a", "b"]}
    lines = [
        turns,
        {**turns, "states": ["3.png", "small.png", "gone.png"]},
        {**turns, "states": ["3.png", "small.png"]},
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {
        "type": "JsonRecords",
        "files": [f"{tmp_path}/x.jsonl"],
        "fields": [{"name": "instructions", "column": "say"}],
        "picture_fields": [{"name": "states", "column": "states"}],
    }
    config = yaml.safe_load(shards[0].read_text()) | {"source": source, "bad_input": {"share": 0.5}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["precompute", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")]) == 0
    mine = models(runs)
    task = {"source": source, "form": {"type": "EditingChain"}, "encoded": {"path": str(tmp_path / "out")}}
    edits = decode(TaskSource, task).open({role: model_fingerprint(m) for role, m in mine.items()})
    seen = set()
    for draw in range(8):
        example = edits.example(0, Place(str(draw)))
        for picture in (example.target, *example.pictures):
            number = next(i for i in range(4) if np.array_equal(picture.decode(), pixels[i]))
            x = pixels[number][None].astype(np.float32) / 127.5 - 1
            np.testing.assert_array_equal(picture.encoded.codes, mine["mammothtok"].encode(x)[0])
            np.testing.assert_allclose(picture.encoded.mean, mine["vae"].encode(x).mean[0], atol=1e-5)
            seen.add((number, picture is example.target))
    assert seen == {(0, False), (1, True), (1, False), (2, True)}
    stored = Precomputed(path=str(tmp_path / "out")).open({r: model_fingerprint(m) for r, m in mine.items()})
    names = [tuple(stored[i].key.split("\0")) for i in range(len(stored))]
    chain = [("x.jsonl:0", f"states/{i}") for i in range(3)]
    assert names == [
        *chain,
        ("x.jsonl:2", "states/0"),
    ]  # one record has a picture that is gone, one a small one


def test_both_pictures_of_a_synthetic_edit_are_known_in_training(runs, shards, tmp_path):
    source = {"type": "SyntheticEdits", "length": 3}
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(shards[0].read_text()) | {"source": source})
    )
    assert main(["precompute", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")]) == 0
    prints = {role: model_fingerprint(m) for role, m in models(runs).items()}
    task = {"source": source, "encoded": {"path": str(tmp_path / "out")}}
    example = decode(TaskSource, task).open(prints).example(1, Place("0"))
    known = [picture.encoded for picture in (example.target, *example.pictures)]
    assert len(known) == 2 and not np.array_equal(known[0].mean, known[1].mean)


def test_an_interrupted_run_goes_on_and_finished_shards_are_kept(shards, capsys):
    config, out = shards
    files = sorted(out.glob("*.safetensors"))
    assert len(files) == 3
    before = {f: f.stat().st_mtime_ns for f in files}
    contents = load_file(files[1])
    files[1].unlink()
    assert main(["precompute", str(config), "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 20
    chex.assert_trees_all_equal(load_file(files[1]), contents)
    assert {f: f.stat().st_mtime_ns for f in (files[0], files[2])} == {
        f: before[f] for f in (files[0], files[2])
    }


def test_shards_of_another_tokenizer_are_refused(runs, shards):
    other = dict.fromkeys(runs, "0" * 16)
    with pytest.raises(InputError, match=r"shards were made by mammothtok .* this run has 0000"):
        loader(Precomputed(path=str(shards[1])), AsStored(arrays=("codes",)), models=other)


def test_tokenize_prints_the_codes_that_shards_hold_and_reconstructs(runs, tmp_path, capsys):
    picture = Synthetic(picture_size=32, length=20).open()[0].pictures[0].decode()
    Image.fromarray(np.pad(picture, ((0, 3), (0, 5), (0, 0)))).save(tmp_path / "a.png")
    words = ["tokenize", str(tmp_path / "a.png"), "--model", str(runs["mammothtok"]), "--json"]
    assert main([*words, "--reconstruct", str(tmp_path / "new" / "b.png")]) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = models(runs)["mammothtok"].encode(picture[None].astype(np.float32) / 127.5 - 1)[0]
    assert answer["codes"] == expected.tolist() and answer["size"] == [32, 32]
    assert Image.open(tmp_path / "new" / "b.png").size == (32, 32)
    assert main(words[:-1]) == 0
    assert [[int(x) for x in line.split()] for line in capsys.readouterr().out.splitlines()] == answer[
        "codes"
    ]


def test_bad_requests_are_named(shards, tmp_path, capsys):
    config, _ = shards
    assert (
        main(["precompute", str(config), "--out", str(tmp_path), "--vae", "null", "--mammothtok", "null"])
        == 2
    )
    assert "give mammothtok, vae or both" in capsys.readouterr().err
    (tmp_path / "no.png").write_bytes(b"no picture")
    assert main(["tokenize", str(tmp_path / "no.png"), "--preset", "nano"]) == 2
    assert "cannot read the picture" in capsys.readouterr().err
