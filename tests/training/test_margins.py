"""How far a stage is ahead of a model that ignores what it is given, by its log."""

import json

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.cli.main import main
from mammoth_jax.core.errors import InputError
from mammoth_jax.training.margins import margins

EVALUATION = {
    "evaluation/ntp_visual": 3.0,
    "evaluation/visual_entropy": 6.0,
    "evaluation/ntp_visual_other_words": 3.5,
    "evaluation/ntp_image": 2.75,
    "evaluation/ntp_image_other_words": 3.0,
    "evaluation/flow": 0.9,
    "evaluation/flow_other_targets": 1.0,
}
TIMES = {"seconds/data": 0.1, "seconds/compute": 9.9}
RECORDS = [
    {"step": 10, "seconds/data": 99.0, "seconds/compute": 1.0},  # compiles
    {"step": 20, **TIMES, **EVALUATION, "evaluation/ntp_visual": 9.0},
    {"step": 30, **TIMES, "seconds/evaluation": 50.0, "seconds/checkpoint": 0.2},
    {"step": 40, **TIMES, **EVALUATION},
]


def test_margins_are_of_the_last_evaluation_and_of_all_times_but_the_first():
    found = {margin.name: margin for margin in margins(RECORDS)}
    values = [round(margin.value, 4) for margin in found.values()]
    assert values == [0.5, 0.5, 0.25, 0.1, round(0.5 / 30.2, 4)]
    assert all(margin.holds for margin in found.values())


@pytest.mark.parametrize(
    ("changed", "short"),
    [
        ({"evaluation/visual_entropy": 4.2}, "unigram"),
        ({"evaluation/ntp_visual_other_words": 3.09}, "ntp_visual with"),
        ({"evaluation/ntp_image_other_words": 2.84}, "ntp_image with"),
        ({"evaluation/flow_other_targets": 0.94}, "flow"),
        ({"seconds/checkpoint": 0.5}, "waiting"),
    ],
)
def test_each_margin_falls_short_by_itself(changed, short):
    wrong = [
        margin.name
        for margin in margins([*RECORDS, RECORDS[-1] | {"step": 50} | changed])
        if not margin.holds
    ]
    assert len(wrong) == 1 and short in wrong[0]


def test_a_log_without_any_says_so():
    with pytest.raises(InputError, match="no evaluation of drawn pictures"):
        margins([{"step": 1, "l2": 1.0}])


def test_the_command_prints_them_and_draws_what_they_compare(tmp_path, capsys):
    def log(records):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))

    log(RECORDS)
    assert main(["plot", str(tmp_path), "--margins"]) == 0
    *lines, picture = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "0.500 (at least 0.3; 1 - ntp_visual 3.000 /" in lines[0]
    assert (np.asarray(Image.open(picture).convert("L")) < 200).sum() > 500
    log([*RECORDS, RECORDS[-1] | {"step": 50, "evaluation/flow": 2.0}])
    assert main(["plot", str(tmp_path), "--margins", "--out", str(tmp_path / "new" / "m.png")]) == 1
    assert capsys.readouterr().out.count("FALLS SHORT") == 1
