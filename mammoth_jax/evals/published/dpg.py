"""DPG-Bench (Hu et al. 2024): long prompts, questions about the pictures.

Its scorer reads one picture a prompt, ``OUT/STEM.png`` with STEM the prompt file's name up to its first dot: four
samples of R x R pixels as two rows of two (``resolution=R``, ``PIC_NUM=4``), or one.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.evals.jobs import Job, Layout, Request
from mammoth_jax.evals.published.prompt_files import (
    as_file_name,
    check_distinct,
    check_records,
    read_text,
)

SOURCE = "dpg_bench/prompts (a folder) or dpg_bench.csv of https://github.com/TencentQQGYLab/ELLA"
SCORER = "compute_dpg_bench.py of ELLA: mPLUG-large of modelscope answers the questions"
NUM_IMAGES = 4


def layout(
    prompts: Path,
    *,
    num_images: int = NUM_IMAGES,
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> Layout:
    """Pictures of all prompts, of a folder of ``.txt`` files or of the benchmark's table.

    Raises:
      InputError: the prompts are none of DPG-Bench's, ``num_images`` is neither 1 nor 4, or ``size`` (width, height)
        is no square; the scorer cuts squares.
    """
    if size is not None and size[0] != size[1]:
        raise InputError(f"--size {size[0]}x{size[1]}: DPG-Bench's scorer cuts squares; choose a square size")
    if num_images not in (1, 4):
        raise InputError(f"--num-images {num_images}: DPG-Bench's scorer reads 4 samples a prompt, or 1")
    pairs = _of_folder(prompts) if prompts.is_dir() else _of_table(prompts)
    jobs = tuple(
        Job(
            f"{as_file_name(stem, f'prompt file {prompts}')}.png",
            tuple(Request(prompt, seed + image) for image in range(num_images)),
            grid,
        )
        for stem, prompt in pairs
    )
    check_distinct([job.file for job in jobs], prompts)
    return Layout(jobs)


def grid(images: Sequence[Image.Image]) -> Image.Image:
    """One picture, or four as two rows of two in reading order."""
    if len(images) == 1:
        return images[0]
    width, height = images[0].size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for number, image in enumerate(images):
        row, column = divmod(number, 2)
        whole.paste(image, (column * width, row * height))
    return whole


def _of_folder(folder: Path) -> list[tuple[str, str]]:
    files = sorted(file for file in folder.iterdir() if file.suffix == ".txt")
    if not files:
        raise InputError(f"prompt folder {folder} holds no .txt file; expected {SOURCE}")
    return [(file.name.split(".")[0], read_text(file).strip()) for file in files]


def _of_table(file: Path) -> list[tuple[str, str]]:
    """One prompt an item; the table has a row for each question."""
    rows = check_records(file, csv.DictReader(io.StringIO(read_text(file))), ("item_id", "text"))
    return list({row["item_id"].split(".")[0]: row["text"].strip() for row in rows}.items())
