"""The curriculum by its commands: low resolution, larger, then native aspect ratios; and the 7/8 path of patch 14."""

import numpy as np
import pytest
import yaml
from PIL import Image

from mammoth_jax.cli.main import main
from mammoth_jax.core.config import encode
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.training.loop import train
from mammoth_jax.training.metrics import read_metrics
from mammoth_jax.training.runs import load_weights
from mammoth_jax.training.tokenizer import tokenizer_work
from mammoth_jax.training.tokenizer_kinds import KINDS
from tests.training.tiny_tokenizer import optimizer, training

PLAIN = {"losses": {"adversarial": None}, "discriminator": None}
BUCKETS = {
    "type": "AspectBuckets",
    "pixels": 2048,
    "stride": 8,
    "ratios": [0.5, 0.75, 1.0, 1.4, 2.0],
    "measure": 48,
    "max_upscale": 2.0,
}
RATIOS = ((32, 32), (32, 64), (64, 32), (40, 56))


def write_pictures(folder):
    """Scenes of four aspect ratios, (height, width)."""
    folder.mkdir()
    for i, size in enumerate(RATIOS):
        source = SyntheticScenes(picture_size=size, length=12)
        for n in range(12):
            Image.fromarray(source[n].pictures[0].decode()).save(folder / f"{i}_{n:02}.png")


def stage(folder, name, shape, steps, rate, **changes):
    """The file of a stage."""
    config = training(
        **PLAIN,
        data={"sources": [{"type": "Folder", "path": str(folder / "pictures")}], "shape": shape},
        evaluation={"sources": [{"type": "Folder", "path": str(folder / "pictures")}]},
        optimizer=optimizer(rate),
        run={"steps": steps, "batch_size": 4, "evaluation_pictures": 4, "evaluation_interval": steps},
        **changes,
    )
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(encode(config)))
    return str(file)


@pytest.mark.slow
def test_three_stages_each_start_from_the_last(tmp_path):
    write_pictures(tmp_path / "pictures")
    fixed = [{"type": "FixedShape", "height": n, "width": n, "max_upscale": 2.0} for n in (32, 48)]
    files = [
        stage(tmp_path, "low", fixed[0], 8, 3e-3),
        stage(tmp_path, "larger", fixed[1], 4, 1e-3),
        stage(tmp_path, "native", BUCKETS, 12, 1e-3),
    ]
    mesh, before = ["--mesh", "data=1"], []
    for file, name in zip(files, ("low", "larger", "native"), strict=True):
        words = ["train", file, "--out", str(tmp_path / name), *mesh]
        assert main([*words, *before]) == 0
        before = ["--init", str(tmp_path / name)]
    low, larger, native = (read_metrics(tmp_path / n) for n in ("low", "larger", "native"))
    # A new start has an error of about 0.3; the later stages begin where the one before ended.
    assert larger[0]["l1"] < low[0]["l1"] and native[0]["l1"] < low[0]["l1"]
    template = abstract(KINDS["mammothtok"](training().model).build)
    last, first = (load_weights(tmp_path / n, template, single_device_mesh()) for n in ("native", "low"))
    moved = [
        n
        for n, p in named_parameters(last).items()
        if not np.array_equal(p[...], named_parameters(first)[n][...])
    ]
    assert len(moved) > 50


def test_native_batches_come_in_at_least_three_shapes(tmp_path):
    write_pictures(tmp_path / "pictures")
    shape = BUCKETS
    config = training(
        **PLAIN,
        data={"sources": [{"type": "Folder", "path": str(tmp_path / "pictures")}], "shape": shape},
        run={"batch_size": 4},
    )
    batches = tokenizer_work(config, single_device_mesh()).batches()
    seen = {next(batches)["picture"].shape[1:3] for _ in range(24)}
    assert len(seen) >= 3 and all(h % 8 == w % 8 == 0 for h, w in seen)


@pytest.mark.slow
def test_patch_14_trains_through_the_7_8_path(tmp_path):
    tok = {
        "encoder": {"patch_size": 14},
        "cnn": {"channels": 4, "multipliers": [1, 1, 1, 2, 2], "norm_groups": 2, "upsampling": 14},
    }
    shape = {
        "shape": {"height": 42, "width": 42},
        "sources": [{"type": "Synthetic", "picture_size": 42, "length": 16}],
    }
    config = training(
        **PLAIN,
        model={"mammothtok": tok},
        data=shape,
        evaluation=shape,
        run={"steps": 3, "batch_size": 4, "evaluation_pictures": 4},
    )
    assert config.model.mammothtok.cnn.fractional
    mesh = single_device_mesh()
    before = tokenizer_work(config, mesh).initial().params["model"]
    state = train(tokenizer_work(config, mesh), config.run, tmp_path, mesh)
    assert np.isfinite([r["l1"] for r in read_metrics(tmp_path)]).all()
    still = [n for n, x in state.params["model"].items() if np.array_equal(x, before[n])]
    assert [n for n in still if "semantic_head" not in n] == []
