"""The recorded prompt strings: all are reproduced, and a change to any of them is seen."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from mammoth_jax.evals.vectors.case import Case
from mammoth_jax.evals.vectors.compare import leaves
from mammoth_jax.evals.vectors.prompts import compared_leaves, image_prompt_strings
from mammoth_jax.evals.vectors.verify import check_case

ROOT = Path(__file__).parents[1] / "vectors" / "gen"
CONFIG = json.loads((ROOT / "image_prompt_strings" / "config.json").read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True)
class Recorded(Case):
    """A case whose configuration is given instead of read."""

    given: dict

    @property
    def config(self):
        return self.given


def report(config: dict):
    case = Recorded(ROOT, {"name": "image_prompt_strings", "outputs": {}}, config)
    return check_case(case, image_prompt_strings, compared_leaves)


def small() -> dict:
    """The configuration with two of its grids, so that each change below is checked in a moment."""
    config = copy.deepcopy(CONFIG)
    config["create_image_prompt"]["cases"] = config["create_image_prompt"]["cases"][:2]
    return config


def changed(config: dict, path: str) -> dict:
    """A copy with the leaf at ``path`` made wrong: a number one more, the first digit or letter of a string another."""
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    node = config
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node[name]
    key = int(last) if isinstance(node, list) else last
    value = node[key]
    if isinstance(value, str):
        at = next((i for i, letter in enumerate(value) if letter.isdigit()), len(value) // 2)
        node[key] = value[:at] + ("7" if value[at] != "7" else "8") + value[at + 1 :]
    else:
        node[key] = value + 1
    return config


def test_every_recorded_string_count_and_id_is_reproduced():
    result = report(CONFIG)
    assert result.passed, [c for c in result.comparisons if not c.passed] or result.problem
    assert {c.name[1:] for c in result.comparisons} == compared_leaves(CONFIG)


def test_a_wrong_leaf_is_a_miss():
    config = small()
    unseen = [path for path in sorted(compared_leaves(config)) if report(changed(config, path)).passed]
    assert unseen == []


@pytest.mark.parametrize("path", ["create_image_prompt.cases.1.tokens.0.1", "placeholder_count.cases.5.h"])
def test_another_input_gives_another_string_or_count(path):
    assert not report(changed(small(), path)).passed


def test_only_inputs_and_prose_are_left_out():
    left_out = {path.split(".")[-1] for path, _ in leaves(small()) if path not in compared_leaves(small())}
    prose = {"note", "meaning", "not_in_source", "normalisation", "chat_template", "repeat_order"}
    prose |= {"last_10_tokens", "negative_prompt", "end_of_generation"}
    assert left_out == prose | {"h", "w"} | {"0", "1", "2"}
