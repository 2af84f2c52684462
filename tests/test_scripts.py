"""Scripts that are there to be copied run as they stand."""

import runpy
from pathlib import Path

from PIL import Image

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_the_sampling_script_draws(tmp_path, monkeypatch):
    out = tmp_path / "picture.png"
    words = ["--steps", "1", "--num-images", "1", "--mesh", "data=1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["sample_text_to_image.py", *words])
    runpy.run_path(str(SCRIPTS / "sample_text_to_image.py"), run_name="__main__")
    assert Image.open(out).size == (64, 64)
