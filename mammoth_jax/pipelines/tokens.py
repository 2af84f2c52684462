"""Pictures to visual tokens and back: MammothTok by itself, out of a model folder or a training run."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from checkpoint_convert.folder import ModelFolder
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.parameters import cast, initialize
from mammoth_jax.core.types import Float, Int, UInt8
from mammoth_jax.data.record import Picture, UnreadableRecord
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammothtok.model import MammothTok, to_uint8
from mammoth_jax.objectives.tokenizer import as_float
from mammoth_jax.training.config_file import run_config
from mammoth_jax.training.runs import is_run
from mammoth_jax.training.tokenizer_kinds import MammothTokKind
from mammoth_jax.training.tokenizer_weights import load_tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """A MammothTok ready to run."""

    model: MammothTok
    patch_size: int

    @classmethod
    def open(cls, model: Path | None, preset: str, mesh: Mesh, dtype: Any) -> "Tokens":
        """From a folder or a run; without one, a preset with random weights.

        Raises:
          InputError: it holds no MammothTok.
        """
        if model is None:
            config = MammothConfig.from_preset(preset)
            module = initialize(lambda: MammothTok(config.mammothtok), 0, mesh, dtype)
        else:
            config = run_config(model).model if is_run(model) else ModelFolder.open(model).config
            module = cast(load_tokenizer(model, MammothTokKind(config), mesh), dtype)
        return cls(module, config.mammothtok.encoder.patch_size)  # type: ignore[arg-type]

    def read(self, file: Path) -> UInt8[np.ndarray, "rows cols 3"]:
        """A picture file, cut at the right and below to whole patches.

        Raises:
          InputError: it cannot be read, or is smaller than one patch.
        """
        try:
            pixels = Picture(str(file), file.read_bytes).decode()
        except UnreadableRecord as error:
            raise InputError(f"cannot read the picture {error}") from error
        rows, cols = (side // self.patch_size * self.patch_size for side in pixels.shape[:2])
        if not rows or not cols:
            raise InputError(
                f"{file} has {pixels.shape[1]}x{pixels.shape[0]} pixels; a visual token covers {self.patch_size}x"
                f"{self.patch_size}, give a larger picture"
            )
        return pixels[:rows, :cols]

    def encode(self, picture: UInt8[np.ndarray, "rows cols 3"]) -> Int[np.ndarray, "gr gc"]:
        """Code numbers.

        Raises:
          InputError: the encoder or the codebook is absent.
        """
        return np.asarray(_encode(self.model, jnp.asarray(picture)))

    def decode(self, codes: Int[np.ndarray, "gr gc"]) -> UInt8[np.ndarray, "rows cols 3"]:
        """The picture of code numbers.

        Raises:
          InputError: the decoder or the codebook is absent.
        """
        return np.asarray(_decode(self.model, jnp.asarray(codes)))


@jax.jit
def _encode(model: MammothTok, picture: Float[jax.Array, "rows cols 3"]) -> Int[jax.Array, "gr gc"]:
    encoder, _ = model.encoding()
    pixels = as_float(picture).astype(encoder.to_code.kernel.dtype)
    return model.encode(pixels[None])[0]


@jax.jit
def _decode(model: MammothTok, codes: Int[jax.Array, "gr gc"]) -> UInt8[jax.Array, "rows cols 3"]:
    decoder, _ = model.decoding()
    return to_uint8(model.decode(codes[None], decoder.from_code.kernel.dtype))[0]
