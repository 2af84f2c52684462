"""The trained model that comes with the package: a folder in the released format, if this installation has one."""

import dataclasses
import json
from pathlib import Path

from mammoth_jax.core.errors import InputError

FOLDER = Path(__file__).resolve().parent.parent / "shipped" / "nano"
"""Where it lies; ``scripts/ship_nano.py`` writes it."""

FACTS = "shipped.json"
"""The file in it that says what it is."""


@dataclasses.dataclass(frozen=True)
class ShippedModel:
    """The model's folder and name, and the SHA-256 of its weights."""

    folder: Path
    name: str
    sha256: str

    @property
    def label(self) -> str:
        """What names it in records, wherever it is installed."""
        return f"shipped {self.name} {self.sha256[:12]}"


def shipped_model() -> ShippedModel | None:
    """The model of this installation; None where there is none.

    Raises:
      InputError: its folder is damaged.
    """
    if not FOLDER.is_dir():
        return None
    file = FOLDER / FACTS
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return ShippedModel(FOLDER, facts["name"], facts["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the shipped model is damaged ({file}: {error}); reinstall mammoth_jax, or give --model or --preset"
        ) from error
