"""PNG files that carry the settings they were drawn with, so that a picture can be drawn again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import write_whole

FIELD = "mammoth_jax"


def write_png(image: Image.Image, path: Path, settings: Mapping[str, Any]) -> None:
    """Writes a picture with ``settings`` as JSON in the text field ``mammoth_jax``."""
    info = PngInfo()
    info.add_text(FIELD, json.dumps(dict(settings)))
    write_whole(path, lambda file: image.save(file, format="PNG", pnginfo=info))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a PNG file that :func:`write_png` wrote.

    Raises:
      InputError: the file is not such a picture.
    """
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(FIELD)
    except OSError as error:
        raise InputError(f"cannot read picture {path}: {error}") from error
    if text is None:
        raise InputError(
            f"picture {path} has no text field {FIELD!r}; only pictures drawn by mammoth_jax have it"
        )
    return json.loads(text)
