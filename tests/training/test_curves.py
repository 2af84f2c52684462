"""Curves out of a log, and the command that draws them."""

import json

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.cli.main import main
from mammoth_jax.core.errors import InputError
from mammoth_jax.training.curves import curves, moving_average

RECORDS = [
    {"step": i, "l2": 1 / i, "data/folder/delivered": i, "seconds/step": 0.1}
    | ({"evaluation/psnr": 20.0 + i} if i % 10 == 0 else {})
    for i in range(1, 301)
]


def test_numbers_become_curves_at_the_steps_where_they_were_logged():
    found = curves(RECORDS)
    assert list(found) == ["evaluation/psnr", "l2"]
    np.testing.assert_array_equal(found["evaluation/psnr"][0], np.arange(10, 301, 10))
    assert set(curves(RECORDS, ["seconds", "l2"])) == {"seconds/step", "l2"}
    with pytest.raises(InputError, match="no number 'l1' in the log; there are data/folder/delivered, eval"):
        curves(RECORDS, ["l1"])


def test_the_moving_average_is_that_of_the_last_values():
    np.testing.assert_allclose(moving_average(np.array([1.0, 3.0, 5.0, 7.0]), 2), [1, 2, 4, 6])


def test_the_command_writes_one_picture(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    assert main(["plot", str(tmp_path)]) == 0
    out = capsys.readouterr().out.strip()
    assert out == str(tmp_path / "curves.png")
    pixels = np.asarray(Image.open(out).convert("L"))
    assert min(pixels.shape) > 100 and (pixels < 200).sum() > 500
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "new" / "c.png")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "c.png")
    assert main(["plot", str(tmp_path / "nowhere")]) == 2
    assert "is" in (message := capsys.readouterr().err) and "a training run?" in message
