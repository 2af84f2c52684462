"""A run that is killed ten times, three of them inside a save, ends as the run that nobody touched."""

import io
import tarfile

import pytest

from mammoth_jax.data.synthetic.source import SyntheticScenes
from tests.training.commands import train_command
from tests.training.killing import assert_same_end, run_whole_and_killed
from tests.training.tiny_tokenizer import training

STEPS, BATCH, ADVERSARY = 60, 8, 23

pytestmark = pytest.mark.slow


def write_shards(folder, count=9, records=13):
    """Tars of scenes: a batch of eight crosses a shard's border more often than not."""
    from PIL import Image

    source = SyntheticScenes(picture_size=32, length=count * records)
    for shard in range(count):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as tar:
            for i in range(shard * records, (shard + 1) * records):
                data = io.BytesIO()
                Image.fromarray(source[i].pictures[0].decode()).save(data, format="PNG")
                info = tarfile.TarInfo(f"{i:06}.png")
                info.size = data.tell()
                tar.addfile(info, io.BytesIO(data.getvalue()))


def test_a_run_killed_ten_times_ends_bit_identical(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_shards(data)
    config = training(
        data={
            "sources": [{"type": "Tars", "shards": [str(data / "*.tar")]}],
            "workers": {"type": "Threads", "count": 2, "ahead": 3},
        },
        losses={"adversarial": {"start_step": ADVERSARY}},
        revival={"idle_steps": 7},
        ema_decay=0.9,
        run={
            "steps": STEPS,
            "batch_size": BATCH,
            "accumulation": 2,
            "checkpoint_interval": 5,
            "evaluation_interval": 20,
        },
    )
    command = train_command(config, data / "train.yaml", "--mesh", "data=1")
    whole, killed, starts, _ = run_whole_and_killed(command, tmp_path, STEPS)
    assert min(starts) < ADVERSARY < max(starts)
    assert_same_end(whole, killed, STEPS)
