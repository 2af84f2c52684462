"""Strict decoding of plain data into frozen dataclasses, overrides, and the way back."""

import dataclasses
from typing import Literal

import pytest

from mammoth_jax.core.config import decode, describe, dump_yaml, encode, load_yaml, merge, parse_overrides
from mammoth_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Adam:
    """One variant."""

    rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Muon:
    """Another variant."""

    rate: float
    steps: int = 5


@dataclasses.dataclass(frozen=True)
class Nested:
    """A variant that holds variants."""

    phases: "tuple[Adam | Muon | Nested, ...]"


@dataclasses.dataclass(frozen=True)
class Train:
    """A configuration with every kind of field."""

    steps: int
    optimizer: Adam | Muon = Adam()
    widths: tuple[int, ...] = (1, 2)
    window: tuple[float, float] = (0.0, 1.0)
    mode: Literal["a", "b"] = "a"
    name: str | None = None
    inner: Muon | None = None
    flag: bool = False
    phases: "tuple[Adam | Muon | Nested, ...]" = ()

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps {self.steps} must be positive")


FULL = {
    "steps": 3,
    "optimizer": {"type": "Muon", "rate": 0.5, "steps": 5},
    "widths": [4],
    "window": [0.25, 1],
    "mode": "b",
    "name": "x",
    "inner": {"rate": 2},
    "flag": True,
    "phases": [{"type": "Adam"}, {"type": "Nested", "phases": [{"type": "Muon", "rate": 3}]}],
}


PHASES = (Adam(), Nested((Muon(3.0),)))


def test_every_kind_of_field_decodes_and_encoding_is_the_inverse():
    config = decode(Train, FULL)
    assert config == Train(3, Muon(0.5), (4,), (0.25, 1.0), "b", "x", Muon(2.0), True, PHASES)
    assert decode(Train, encode(config)) == config


def test_yaml_text_is_read_back_equal(tmp_path):
    config = Train(2, optimizer=Muon(1e-5), name="é")
    file = tmp_path / "c.yaml"
    file.write_text(dump_yaml(config), encoding="utf-8")
    assert decode(Train, load_yaml(file)) == config


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"stepz": 1}, "unknown key 'stepz' in Train; did you mean 'steps'?"),
        ({"steps": 1, "inner": {"rte": 1}}, "inner.rte"),
        ({}, "missing steps of Train"),
        ({"steps": "many"}, "steps: expected int, got 'many'"),
        ({"steps": True}, "steps: expected int, got True"),
        ({"steps": 1, "flag": 1}, "flag: expected bool, got 1"),
        ({"steps": 1, "mode": "c"}, "mode: 'c' is not one of"),
        ({"steps": 1, "widths": 3}, "widths: expected a list"),
        ({"steps": 1, "widths": [1, "x"]}, "widths[1]: expected int"),
        ({"steps": 1, "window": [1]}, "window: expected 2 values"),
        ({"steps": 1, "optimizer": {"type": "SGD"}}, "optimizer.type: 'SGD' is not one of ['Adam', 'Muon']"),
        ({"steps": 0}, "steps 0 must be positive"),
        ([], "expected a mapping"),
    ],
)
def test_what_does_not_fit_is_named(data, said):
    with pytest.raises(InputError) as raised:
        decode(Train, data)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert decode(Adam, {"rate": "1e-5"}) == Adam(1e-5)


def test_overrides_nest_and_are_typed():
    words = [
        "--optimizer.learning-rate",
        "1e-5",
        "--layers=[1, 2]",
        "--optimizer.name",
        "adam",
        "--flag",
        "true",
    ]
    assert parse_overrides(words) == {
        "optimizer": {"learning_rate": "1e-5", "name": "adam"},
        "layers": [1, 2],
        "flag": True,
    }


@pytest.mark.parametrize("words", [["steps"], ["--steps"], ["--steps", "[1"]])
def test_malformed_overrides_are_bad_input(words):
    with pytest.raises(InputError):
        parse_overrides(words)


def test_merge_replaces_lists_and_keeps_other_keys_without_touching_its_inputs():
    base, changes = {"a": {"x": 1, "y": [1, 2]}, "b": 3}, {"a": {"y": [3]}}
    assert merge(base, changes) == {"a": {"x": 1, "y": [3]}, "b": 3}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 3}


def test_description_lists_nested_keys_with_types_and_defaults():
    rows = describe(Train)
    assert ("steps", "int", "") in rows and ("flag", "bool", "False") in rows
    assert {"optimizer.rate", "optimizer.steps", "inner.rate"} <= {key for key, _, _ in rows}


@pytest.mark.parametrize("content", [b"a: [", b"- 1", b"\xff\xfe\x00", None])
def test_unreadable_files_are_bad_input(tmp_path, content):
    file = tmp_path / "c.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"c\.yaml"):
        load_yaml(file)


def test_a_choice_of_another_type_is_replaced_whole_and_one_of_the_same_is_changed():
    base = {"shape": {"type": "Fixed", "height": 4, "width": 5}}
    assert merge(base, {"shape": {"type": "Fixed", "width": 6}})["shape"]["height"] == 4
    assert merge(base, {"shape": {"width": 6}})["shape"] == {"type": "Fixed", "height": 4, "width": 6}
    assert merge(base, {"shape": {"type": "Free", "pixels": 9}})["shape"] == {"type": "Free", "pixels": 9}
