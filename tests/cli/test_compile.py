"""``mammoth-jax compile`` with the compiler faked, and once with libtpu."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mammoth_jax.benchmarks import aot, hlo, preflight
from mammoth_jax.cli import compile as command
from mammoth_jax.cli.main import main
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.sharding import current_rules
from mammoth_jax.models.costs import Cost

GIB = 2**30
V5P = 95.74
WORDS = ["compile", "--task", "generate", "--preset", "nano", "--topology", "v5p:2x2x1"]


def compiled(name: str, gib: float, refused: str | None = None, gathered: int = 0) -> aot.Compiled:
    traffic = {"all-gather": hlo.Traffic(1, gathered, gathered)} if gathered else {}
    memory = aot.Memory(GIB, GIB // 2, 0, 0, int((gib - 1.5) * GIB), GIB, GIB)
    return aot.Compiled(name, memory, Cost(10**12, 10**9, 10**9), 1.0, 0.25, refused, traffic)


@pytest.fixture
def programs(monkeypatch):
    """What the faked compiler finds, by mesh; and which meshes it was asked for."""
    found = {"default": [compiled("prefill", 20.0), compiled("visual tokens", 40.0)], "asked": []}
    for name in ("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in ("TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE"):
        monkeypatch.setenv(name, "x")

    def fake(self, mesh):
        name = preflight.mesh_name(mesh)
        found["asked"].append(name)
        made = found.get(name, found["default"])
        if isinstance(made, BaseException):
            raise made
        for program in made:
            yield preflight.record(program, preflight.chip_of(self.topology), 4)

    monkeypatch.setattr(preflight.TaskPreflight, "compiled", fake)
    monkeypatch.setattr(preflight, "slice_devices", lambda topology: [None] * 4)
    monkeypatch.setattr(aot, "slice_devices", lambda topology: [None] * 4)
    monkeypatch.setattr(aot, "require_libtpu", lambda: "0.0.42")
    return found


def test_task_that_fits(programs, capsys):
    assert main(WORDS) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "fits: 40.00 of 95.74 GiB per chip"
    assert "visual tokens" in out and "weights 1.0 GiB, cache 512.0 MiB" in out
    assert programs["asked"] == ["data=1,fsdp=4,tensor=1"]  # without --mesh all devices are fsdp


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a training configuration, or --task"),
        (["nano/sft", "--task", "chat"], "give a training configuration, or --task"),
        (["--task", "chat", "--run.steps=3"], "--run.steps=3: no such option"),
        (["nano/vae"], "task vae is not compiled ahead of time"),
        (["nano/sft", "--batch", "3"], "--batch beside nano/sft: only --task has it"),
        (["nano/sft", "--prompt-tokens", "8"], "--prompt-tokens beside nano/sft"),
        (["nano/sft", "--dtype", "bfloat16"], "overridden by name, e.g. --run.batch_size 64"),
        (["nano/sft", "--cache", "int8"], "--cache beside nano/sft"),
        (["nano/sft", "--sweep", "--run.batch_size", "7"], "no mesh of v5p:2x2x1 divides run.batch_size 7"),
    ],
)
def test_what_cannot_be_compiled_is_named(programs, capsys, words, message):
    assert main(["compile", "--topology", "v5p:2x2x1", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_configuration_names_its_stage_and_takes_overrides(programs, monkeypatch, capsys):
    seen = []

    def fake(self, mesh):
        seen.append(self.config.run.batch_size)
        yield preflight.record(compiled("training step", 20.0), preflight.chip_of(self.topology), 4)

    monkeypatch.setattr(preflight.TrainingPreflight, "compiled", fake)
    words = ["--topology", "v5p:2x2x1", "--run.batch_size", "12"]
    for order in (["nano/sft", *words], [*words, "nano/sft"]):
        assert main(["compile", *order]) == 0
        out = capsys.readouterr().out
        assert seen == [12]
        assert out.startswith("nano/sft on v5p:2x2x1") and out.endswith("fits: 20.00 of 95.74 GiB per chip\n")
        seen.clear()


def test_a_training_step_is_compiled_for_every_mesh_of_a_slice(programs, monkeypatch, capsys, tmp_path):
    asked = []

    def fake(self, mesh):
        asked.append((preflight.mesh_name(mesh), current_rules().embed))
        yield preflight.record(compiled("training step", 20.0), preflight.chip_of(self.topology), 4)

    monkeypatch.setattr(preflight.TrainingPreflight, "compiled", fake)
    words = ["compile", "nano/sft", "--topology", "v5p:2x2x1", "--run.batch_size", "12", "--sweep"]
    words += ["--record", str(tmp_path / "new" / "sweep.jsonl")]
    assert main(words) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| data")]
    assert len(rows) == len(asked) == 5 and ("data=2,fsdp=1,tensor=2", ("fsdp",)) in asked
    assert main(words) == 0 and len(asked) == 5  # all are known
    assert main([*words, "--rules", "embed=fsdp+data"]) == 0  # other rules are another sweep
    assert len(asked) == 10 and asked[-1][1] == ("fsdp", "data")
    assert main([*words, "--run.rules", "embed=data"]) == 0  # as the configuration says
    assert len(asked) == 15 and asked[-1][1] == ("data",)


def test_what_encodes_pictures_takes_memory_from_a_training_step(programs, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "training_step", lambda config, mesh: (None, None))
    monkeypatch.setattr(preflight, "compile_task", lambda *words: [compiled("training step", 92.0)])
    monkeypatch.setattr(preflight, "make_mesh", lambda mesh, devices: None)
    monkeypatch.setattr(preflight, "count_chips", len)
    words = ["--preset", "dev", "--topology", "v5p:2x2x1", "--run.batch_size", "4"]
    assert main(["compile", "configs/train/pre_stage2.yaml", *words]) == 1
    out = capsys.readouterr().out
    assert "picture encoders 3.8 GiB" in out and out.endswith("does not fit: 95.78 of 95.74 GiB per chip\n")
    assert main(["compile", "configs/train/understanding.yaml", *words]) == 0
    assert capsys.readouterr().out.endswith("fits: 92.00 of 95.74 GiB per chip\n")


def test_one_program_that_does_not_fit_fails_the_task(programs, capsys):
    programs["default"] = [compiled("prefill", 96.0), compiled("visual tokens", 40.0)]
    assert main(WORDS) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "does not fit: 96.00 of 95.74 GiB per chip"


def test_refusal_of_the_compiler_is_an_answer(programs, capsys):
    """Even where its figure alone would fit."""
    message = "RESOURCE_EXHAUSTED: Used 40.00G of 95.74G hbm."
    programs["default"] = [compiled("diffusion", 40.0, message)]
    assert main(WORDS) == 1
    out = capsys.readouterr().out
    assert message in out and out.splitlines()[-1].startswith("does not fit: 40.00")


def test_json_line_has_every_program(programs, capsys):
    assert main([*WORDS, "--json", "--mesh", "fsdp=2,tensor=2", "--batch", "3", "--size", "64x32"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-2])
    assert [program["program"] for program in result["programs"]] == ["prefill", "visual tokens"]
    assert result["mesh"] == {"data": 1, "fsdp": 2, "tensor": 2}
    assert result["workload"]["batch"] == 3 and result["workload"]["size"] == [64, 32]
    assert result["fits"] is True and result["hbm"] == 40 * GIB
    assert (result["workload"]["decode_weights"], result["workload"]["cache"]) == ("model", "model")


def test_how_loops_hold_weights_and_cache_is_part_of_the_workload(programs, capsys):
    assert main([*WORDS, "--json", "--decode-weights", "int8", "--cache", "int8"]) == 0
    workload = json.loads(capsys.readouterr().out.splitlines()[-2])["workload"]
    assert (workload["decode_weights"], workload["cache"]) == ("int8", "int8")


def test_sweep_is_sorted_by_time_those_that_fit_first(programs, capsys):
    programs["data=1,fsdp=4,tensor=1"] = [compiled("prefill", 40.0, gathered=10**12)]
    programs["data=1,fsdp=1,tensor=4"] = [compiled("prefill", 99.0)]
    assert main([*WORDS, "--sweep-meshes", "tensor=4;fsdp=4;fsdp=2,tensor=2"]) == 0
    captured = capsys.readouterr()
    rows = [line for line in captured.out.splitlines() if line.startswith("| data")]
    assert [re.findall(r"data=\S+", row)[0] for row in rows] == [
        "data=1,fsdp=2,tensor=2",
        "data=1,fsdp=4,tensor=1",
        "data=1,fsdp=1,tensor=4",
    ]
    assert "[3/3] data=1,fsdp=2,tensor=2: visual tokens" in captured.err
    assert captured.out.splitlines()[-1] == "fits: 40.00 of 95.74 GiB per chip"


def test_sweep_takes_every_layout_without_repeated_work(programs, capsys):
    assert main([*WORDS, "--sweep"]) == 0  # nano has two key/value heads, the batch is one
    assert set(programs["asked"]) == {"data=1,fsdp=4,tensor=1", "data=1,fsdp=2,tensor=2"}


def test_interrupted_sweep_goes_on_where_it_stopped(programs, capsys, tmp_path):
    record = tmp_path / "sweep.jsonl"
    words = [*WORDS, "--sweep-meshes", "fsdp=4;fsdp=2,tensor=2", "--record", str(record)]
    programs["data=1,fsdp=2,tensor=2"] = KeyboardInterrupt()
    assert main(words) == 130
    assert "| data=1,fsdp=4,tensor=1 |" in capsys.readouterr().out  # what is known is shown
    with record.open("a", encoding="utf-8") as file:
        file.write('{"mesh": {"da')  # a line cut off does no harm
    del programs["data=1,fsdp=2,tensor=2"]
    programs["asked"].clear()
    assert main(words) == 0
    assert programs["asked"] == ["data=1,fsdp=2,tensor=2"]
    programs["asked"].clear()
    assert main([*words, "--batch", "2"]) == 0  # another workload is another sweep
    assert len(programs["asked"]) == 2


@pytest.mark.parametrize(
    "words, message",
    [
        (["--topology", "v9:2x2"], "tpu7x:AxBxC"),
        (["--topology", "v5p-128"], "v5p:AxBxC"),
        (["--mesh", "rows=4"], "unknown mesh axis 'rows'"),
        (["--task", "paint"], "paint"),
        (["--batch", "0"], "at least 1"),
        (["--sweep", "--mesh", "fsdp=4"], "--sweep-meshes"),
        (["--sweep-meshes", ";"], "no mesh"),
    ],
)
def test_bad_input_is_one_line(programs, capsys, words, message):
    assert main([*WORDS, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not programs["asked"]


def test_where_a_sweep_is_recorded_is_checked_before_it_compiles(programs, capsys, tmp_path):
    assert main([*WORDS, "--sweep", "--record", str(tmp_path)]) == 2
    assert "it is a folder; give the name of a file" in capsys.readouterr().err and not programs["asked"]


def test_missing_libtpu_names_the_extra(programs, monkeypatch, capsys):
    monkeypatch.undo()

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(aot.importlib.metadata, "version", missing)
    monkeypatch.setattr(command, "without_tpu", lambda: None)
    assert main(WORDS) == 2
    error = capsys.readouterr().err
    assert "mammoth-jax[tpu]" in error and error.count("\n") == 1


def test_libtpu_of_another_jax_is_refused(monkeypatch):
    monkeypatch.setattr(aot.importlib.metadata, "version", lambda name: "0.0.51")
    monkeypatch.setattr(aot.jax, "__version__", "0.10.2")
    with pytest.raises(InputError, match=r"libtpu 0\.0\.51.*jax 0\.10\.2.*0\.0\.42.*mammoth-jax\[tpu\]"):
        aot.require_libtpu()
    monkeypatch.setattr(aot.importlib.metadata, "version", lambda name: "0.0.42.1")
    assert aot.require_libtpu() == "0.0.42.1"


def test_versions_are_those_of_the_extra():
    file = Path(__file__).resolve().parents[2] / "pyproject.toml"
    extra = tomllib.loads(file.read_text())["project"]["optional-dependencies"]["tpu"]
    versions = [re.match(r"(jax|libtpu)==([\d.]+?)(\.\*)?;", line).groups()[:2] for line in extra]
    pairs = zip(*[[v for name, v in versions if name == each] for each in ("jax", "libtpu")], strict=True)
    assert dict(pairs) == aot.LIBTPU


@pytest.mark.parametrize(
    "message, expected",
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 35.40G of 15.75G hbm.", 35.4 * GIB),
        ("the total memory required for HLO temporaries (400.00G) exceeds available HBM (95.74G)", 400 * GIB),
        ("out of memory", 0),
    ],
)
def test_figure_of_a_refusal(message, expected):
    assert aot.refused_bytes(message) == pytest.approx(expected)


def test_times_are_the_slowest_of_arithmetic_memory_and_links():
    chip = preflight.chip_of("v5p:2x2x1")
    program = compiled("p", 10.0, gathered=6 * 10**9)
    times = preflight.times(program, chip, chips=4)
    assert times.compute == pytest.approx(1e12 / 4 / 459e12)
    own, gathered = 1e9 / 4, 12e9  # a quarter of the weights; what is gathered is written and read
    assert times.memory == pytest.approx((own + gathered) / 2765e9)
    assert times.links == pytest.approx(6e9 / 600e9)
    assert (times.roofline, times.bound) == (times.links, "links")


def test_work_that_devices_repeat_takes_its_time():
    chip = preflight.chip_of("v5p:2x2x1")
    repeated = dataclasses.replace(compiled("p", 10.0), product_flops=10**12)
    assert preflight.times(repeated, chip, chips=4).compute == pytest.approx(1e12 / 459e12)


def run_alone(words: list[str]) -> subprocess.CompletedProcess:
    """In a process of its own: the tests' own compiler flags are not for TPUs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "TPU_"))}
    command = [sys.executable, "-m", "mammoth_jax", "compile", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra 'tpu'")
@pytest.mark.parametrize(
    "task, last", [("generate", "VAE decoder"), ("chat", "step"), ("edit", "VAE decoder")]
)
def test_nano_compiles_for_a_real_slice(task, last):
    words = [
        "--task",
        task,
        "--preset",
        "nano",
        "--topology",
        "v5e:2x2",
        "--mesh",
        "fsdp=2,tensor=2",
        "--json",
    ]
    done = run_alone(words)
    assert done.returncode == 0, done.stderr
    *_, line, verdict = done.stdout.splitlines()
    assert re.fullmatch(r"fits: 0\.\d+ of 15\.75 GiB per chip", verdict)
    programs = json.loads(line)["programs"]
    assert programs[-1]["program"] == last
    for program in programs:
        hbm = program["hbm"]
        assert hbm["total"] >= hbm["weights"] >= hbm["read_weights"] >= hbm["logical_weights"]
    assert any(program["collectives"] for program in programs)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra 'tpu'")
def test_model_that_is_too_large_for_a_chip_is_an_answer():
    words = ["--task", "generate", "--preset", "dev", "--topology", "v5e:1x1", "--grid", "8x8", "--json"]
    done = run_alone(words)
    assert done.returncode == 1, done.stderr
    *_, line, verdict = done.stdout.splitlines()
    total, limit = map(
        float, re.fullmatch(r"does not fit: ([\d.]+) of ([\d.]+) GiB per chip", verdict).groups()
    )
    assert total > 25 and limit == 15.75  # 13.9 billion parameters of the task in two bytes
    assert "RESOURCE_EXHAUSTED" in json.loads(line)["programs"][0]["refused"]
