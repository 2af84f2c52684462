"""Workers of each kind deliver the same elements in the same order."""

import os
import signal
import subprocess
import sys

import numpy as np
from PIL import Image

from mammoth_jax.data.buckets import ToShape
from mammoth_jax.data.decoding import Processes, Sample, Threads, read_in_order
from mammoth_jax.data.folder import Folder
from mammoth_jax.data.loader import DataConfig, Loader
from mammoth_jax.data.shapes import AspectBuckets, FixedShape
from mammoth_jax.data.sources import Synthetic
from mammoth_jax.data.tally import BadInput
from tests.data.picture_files import picture_bytes

WORKERS = (Threads(count=0), Threads(count=3, ahead=3), Processes(count=2))


def setting(folder, workers):
    """Scenes and pictures in buckets; one file of eight is broken."""
    shape = AspectBuckets(pixels=32 * 32, stride=8, ratios=(0.5, 1.0, 2.0), weights=(0, 5, 2), max_upscale=2)
    return DataConfig(
        sources=(Folder(path=str(folder)), Synthetic(picture_size=32, length=30)),
        shape=shape,
        workers=workers,
        bad_input=BadInput(share=0.5),
    )


def test_workers_change_nothing_also_after_a_resume_with_filled_queues(tmp_path):
    for i in range(14):
        noise = np.random.default_rng(i).integers(0, 256, (40, 40 + 20 * (i % 3), 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i:02}.png")
    for i in range(2):
        (tmp_path / f"broken{i}.png").write_bytes(b"no picture")
    runs = []
    state = None
    for workers in WORKERS:
        loader = Loader(setting(tmp_path, workers), batch_size=3, seed=5)
        if state is None:
            # Until some records were overtaken by others of another shape.
            while state is None or not state["position"]["above"]:
                next(loader)
                state = loader.state()
        else:
            loader.restore([state])
        batches = [next(loader) for _ in range(6)]
        runs.append((batches, loader.state(), loader.report()))
        loader.close()
    first, *others = runs
    assert any(name.endswith("/bad") for name in first[2])
    for batches, last, report in others:
        assert last == first[1]
        assert report == first[2]
        for a, b in zip(first[0], batches, strict=True):
            assert a.keys() == b.keys()
            assert all(np.array_equal(a[k], b[k]) for k in a)


def test_a_source_is_read_once_as_it_is_listed(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(picture_bytes(i, (8, 8)) if i != 5 else b"broken")
    source = Folder(path=str(tmp_path)).open()
    shape = FixedShape(height=8, width=8)
    found = list(read_in_order(source, range(2, 8), ToShape(shape, shape.shapes()), Threads(count=2), 4))
    assert [e.number for e in found] == [2, 3, 4, 5, 6, 7]
    assert [getattr(e, "fate", "read") for e in found] == ["read"] * 3 + ["bad"] + ["read"] * 2
    assert [int(e.arrays["picture"][0, 0, 0]) for e in found if isinstance(e, Sample)] == [2, 3, 4, 6, 7]


SCRIPT = """
import os
import signal
from multiprocessing import active_children
from mammoth_jax.data.decoding import Processes
from mammoth_jax.data.loader import DataConfig, Loader
from mammoth_jax.data.shapes import FixedShape
from mammoth_jax.data.sources import Synthetic

if __name__ == "__main__":
    shape = FixedShape(height=32, width=32)
    data = DataConfig(sources=(Synthetic(picture_size=32),), shape=shape, workers=Processes(count=1))
    next(loader := Loader(data, batch_size=2, seed=0))
    for worker in active_children():  # as some launchers do
        os.kill(worker.pid, signal.SIGINT)
    for number in (signal.SIGINT, signal.SIGTERM):  # as Ctrl-C in a terminal does, and timeout
        signal.signal(number, signal.SIG_IGN)
        os.killpg(0, number)
    for _ in range(50):  # more than is read ahead
        next(loader)
    print("workers:", len(active_children()), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_worker_processes_outlive_signals_to_all_and_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "killed.py").write_text(SCRIPT, encoding="utf-8")
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    # The workers hold the other end of the output: it ends when the last of them does.
    command = [sys.executable, str(tmp_path / "killed.py")]
    done = subprocess.run(
        command, env=paths, capture_output=True, text=True, timeout=100, start_new_session=True
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "workers: 1\n"
