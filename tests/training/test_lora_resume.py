"""A run of adapters that is killed, inside a save and between saves, ends as the run that nobody touched."""

import numpy as np
import pytest

from mammoth_jax.training.lora import A, B
from tests.training.commands import finish, logged, start, train_command
from tests.training.killing import assert_same_end, kill_at, leaves, unfinished
from tests.training.tiny_joint import released, stage, write_data

pytestmark = pytest.mark.slow

STEPS = 12


def test_a_killed_run_of_adapters_ends_bit_identical(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    config = stage(
        write_data(data),
        ("understanding",),
        ("text",),
        task="text",
        evaluation_controls=[],
        lora={"patterns": [r"attention\.", r"\.ffn\."], "rank": 2, "alpha": 4},
        ema_decay=0.9,
        run={"steps": STEPS, "checkpoint_interval": 3, "evaluation_interval": STEPS, "keep_last": 9},
    )
    init = str(released(tmp_path / "start"))
    command = train_command(config, data / "train.yaml", "--mesh", "data=1", "--init", init)
    whole, killed, cache = (tmp_path / name for name in ("whole", "killed", "cache"))
    finish(command, whole, cache)
    assert kill_at(start(command, killed, cache), killed, lambda: unfinished(killed))
    kill_at(start(command, killed, cache), killed, lambda: logged(killed) >= 7)
    assert 0 < leaves(killed)[0] < STEPS
    finish(command, killed, cache)
    assert_same_end(whole, killed, STEPS)
    arrays = leaves(whole)[1]
    assert all(A in name or B in name for name in arrays if name.startswith("['params']"))
    moved = [name for name, x in arrays.items() if name.startswith("['params']") and B in name and np.any(x)]
    assert moved
