"""``mammoth-jax train`` in processes of its own, for tests that kill runs, join hosts or compare devices.

Its programs are as optimised as those of other tests (``conftest.py``).
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml

from mammoth_jax.core.config import encode
from mammoth_jax.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]


def train_command(config, file, *options):
    """The words that train a configuration, written to ``file``, but for the run's folder."""
    file.write_text(yaml.safe_dump(encode(config)))
    return [sys.executable, "-m", "mammoth_jax", "train", str(file), *options, "--out"]


def start(command, run, cache, *, devices=1, log=None):
    """Starts the run ``run`` on simulated devices; what it says is added to ``RUN.log``."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str("MAMMOTH_OPTIMIZED_TESTS" not in os.environ).lower(),
        "JAX_NUM_CPU_DEVICES": str(devices),
        # eight devices on two cores: a thread each, and one program at a time, or they miss each other's collectives
        "NPROC": "64",
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "",
    }
    with (log or said_file(run)).open("a") as stream:
        return subprocess.Popen([*command, str(run)], cwd=ROOT, env=environment, stderr=stream, stdout=stream)


def finish(command, run, cache, *, devices=1):
    """Runs to the end."""
    assert start(command, run, cache, devices=devices).wait() == 0, said_file(run).read_text()[-3000:]


def start_hosts(command, run, cache, count):
    """Starts ``count`` processes of one run, a device each; the log of host ``n`` is ``RUN.n.log``."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    *words, out = command
    return [
        start(
            [*words, "--hosts", f"localhost:{port},{count},{number}", out],
            run,
            cache,
            log=run.parent / f"{run.name}.{number}.log",
        )
        for number in range(count)
    ]


def finish_hosts(command, run, cache, count=2):
    """Runs to the end on ``count`` hosts."""
    hosts = start_hosts(command, run, cache, count)
    try:
        codes = [host.wait() for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    said = [(run.parent / f"{run.name}.{number}.log").read_text()[-3000:] for number in range(count)]
    assert codes == [0] * count, "\n".join(said)


def said_file(run):
    """What a run said, on stdout and stderr."""
    return run.parent / f"{run.name}.log"


def logged(run):
    """The last step in the log."""
    file = run / "metrics.jsonl"
    return max((r["step"] for r in read_metrics(run)), default=0) if file.exists() else 0
