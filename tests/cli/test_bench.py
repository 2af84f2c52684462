"""``bench``: what is printed, and what is refused."""

import json

from mammoth_jax.cli import bench
from mammoth_jax.cli.main import main
from tests.tiny_model import tiny_pipeline


def run(monkeypatch, capsys, *words):
    """Status, lines of stdout, and stderr; the model is a tiny one."""
    monkeypatch.setattr(bench, "load", lambda args, parts: tiny_pipeline().loaded)
    monkeypatch.setattr("mammoth_jax.benchmarks.roofline.COPY_BYTES", {"cpu": 2**16})
    monkeypatch.setattr("mammoth_jax.benchmarks.roofline.PRODUCT_SIDES", {"cpu": (16,)})
    status = main(["bench", *words])
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err


def test_json_lines_carry_the_conditions_and_the_figures(monkeypatch, capsys):
    words = ("vae", "--size", "32x16", "--batch", "2", "--repeats", "2", "--json")
    status, lines, _ = run(monkeypatch, capsys, *words)
    (line,) = map(json.loads, lines)
    assert status == 0
    assert (line["bench"], line["case"], line["size"], line["batch"]) == ("vae", "decode", "32x16", 2)
    assert line["samples"] == 2 and line["images_per_s"] == 2 / line["median_s"]
    assert {"device", "dtype", "copy_bytes_per_second", "product_flops_per_second", "jax", "date"} <= set(
        line
    )


def test_lines_for_a_person_begin_with_the_device(monkeypatch, capsys):
    status, lines, _ = run(monkeypatch, capsys, "vae", "--size", "16x16", "--repeats", "1")
    assert status == 0 and "device cpu" in lines[0] and lines[1].startswith("vae decode")


def test_how_loops_hold_weights_and_cache_is_passed_on_where_there_is_a_loop(monkeypatch, capsys):
    words = ("--size", "16x16", "--repeats", "1", "--json", "--decode-weights", "int8", "--cache", "int8")
    status, lines, _ = run(monkeypatch, capsys, "decode", *words)
    tokens = json.loads(lines[-1])
    assert status == 0 and (tokens["case"], tokens["decode_weights"], tokens["cache"]) == (
        "tokens",
        "int8",
        "int8",
    )
    status, lines, error = run(monkeypatch, capsys, "vae", "--preset", "nano", *words)
    assert status == 2 and not lines and error.count("\n") == 1
    assert "--decode-weights int8" in error and "decode or generate" in error


def test_an_unknown_name_and_a_bad_size_are_one_line(monkeypatch, capsys):
    status, lines, error = run(monkeypatch, capsys, "everything")
    assert status == 2 and not lines and "everything" in error and error.count("\n") == 1
    status, lines, error = run(monkeypatch, capsys, "vae", "--preset", "nano", "--size", "15x16")
    assert status == 2 and "width 15" in error and error.count("\n") == 1
