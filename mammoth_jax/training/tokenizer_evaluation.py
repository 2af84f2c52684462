"""How well a tokenizer in training gives pictures back: numbers for the log, and a grid to look at."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from checkpoint_convert.published import load_inception
from mammoth_jax.core.files import write_text_whole, write_whole
from mammoth_jax.core.parameters import with_parameters
from mammoth_jax.core.sharding import current_rules
from mammoth_jax.core.types import Array, Float, UInt8
from mammoth_jax.data.loader import DataConfig
from mammoth_jax.models.inception import Inception
from mammoth_jax.models.mammothtok.revival import count_codes
from mammoth_jax.models.vae.model import VAE, postprocess
from mammoth_jax.objectives.frechet import FeatureStatistics, frechet_distance
from mammoth_jax.objectives.image_metrics import code_perplexity, code_usage, psnr, ssim
from mammoth_jax.objectives.tokenizer import as_float
from mammoth_jax.training.batches import PictureBatches, open_batches
from mammoth_jax.training.hosts import gather
from mammoth_jax.training.metrics import Numbers
from mammoth_jax.training.player import Named
from mammoth_jax.training.state import TrainState
from mammoth_jax.training.tokenizer_config import TokenizerTraining
from mammoth_jax.training.tokenizer_kinds import Tokenizer

LATENTS = "latents.json"
_GRID_COLUMNS = 16
_NOISE = 0.1  # in standard deviations of the latents


class TokenizerEvaluation:
    """Reconstructs the pictures of ``config.evaluation``; with the moving average of the weights if one is kept.

    Raises:
      InputError: those pictures cannot be opened, or Inception's file is none.
    """

    def __init__(self, config: TokenizerTraining, kind: Tokenizer, template: nnx.Module, mesh: Mesh):
        self._config, self._kind, self._template, self._mesh = config, kind, template, mesh
        self._reconstruct = jax.jit(self._compared)
        self._measure = jax.jit(self._latent_sums)
        self._noisy = jax.jit(self._with_noise)
        files = config.networks
        self._inception = None if files.inception is None else load_inception(Path(files.inception), mesh)
        self._open(config.evaluation).close()  # what is wrong with it is said now, not at the first look

    def __call__(self, state: TrainState, step: int, pictures: Path) -> Numbers:
        """PSNR and SSIM per picture, and of codes their use, of latents their statistics; rFID with Inception.

        Writes ``pictures/STEP.png``: rows of pictures, each above its reconstruction.
        """
        params = state.ema.get("model", state.params["model"])
        sums: list[dict[str, Any]] = []
        shown: list[np.ndarray] = []
        originals, reconstructions = [], []
        for picture in self._pictures(self._config.evaluation):
            made, values = self._reconstruct(params, picture)
            sums.append(jax.device_get(values))
            if len(shown) * picture.shape[0] < 2 * _GRID_COLUMNS:
                shown.append(np.stack([_local(picture), _local(made)]))
            if self._inception is not None:
                originals.append(_everywhere(_features(self._inception, picture)))
                reconstructions.append(_everywhere(_features(self._inception, made)))
        total = jax.tree.map(lambda *x: np.sum(x, axis=0), *sums)
        count = total.pop("count")
        counts = total.pop("counts", None)
        numbers = {name: float(x / count) for name, x in total.items()} | {"pictures": int(count)}
        if counts is not None:
            numbers |= {"code_usage": float(code_usage(counts)), "perplexity": float(code_perplexity(counts))}
        if originals:
            sets = (FeatureStatistics.of(np.concatenate(x)) for x in (originals, reconstructions))
            numbers["rfid"] = float(frechet_distance(*sets))
        if isinstance(self._template, VAE):
            numbers |= self._latents(params, pictures.parent)
        if jax.process_index() == 0:
            pictures.mkdir(parents=True, exist_ok=True)
            grid = Image.fromarray(reconstruction_grid(*np.concatenate(shown, axis=1)))
            write_whole(pictures / f"{step:08d}.png", lambda path: grid.save(path, format="PNG"))
        return numbers

    def _pictures(self, config: DataConfig) -> Iterator[Array]:
        """The first pictures of a source, the same every time, in batches over the mesh's data axes."""
        batches = self._open(config)
        sharding = NamedSharding(self._mesh, PartitionSpec(current_rules().batch))
        try:
            for _ in range(-(-self._config.run.evaluation_pictures // self._rows)):
                yield jax.make_array_from_process_local_data(sharding, next(batches)["picture"])
        finally:
            batches.close()

    @property
    def _rows(self) -> int:
        return self._config.run.batch_size // self._config.run.accumulation

    def _open(self, config: DataConfig) -> PictureBatches:
        return open_batches(config, self._rows, self._config.run.seed)

    def _model(self, params: Named) -> Any:
        return with_parameters(self._template, params)

    def _compared(
        self, params: Named, picture: UInt8[Array, "b rows cols 3"]
    ) -> tuple[UInt8[Array, "b rows cols 3"], dict[str, Array]]:
        made, kept = self._kind.reconstruct(self._model(params), as_float(picture))
        sums = {
            "psnr": jnp.sum(
                jnp.minimum(psnr(made, picture), 100.0)
            ),  # equal pictures are not infinitely good
            "ssim": jnp.sum(ssim(made, picture)),
            "count": jnp.float32(picture.shape[0]),
        }
        if "codes" in kept:
            sums["counts"] = count_codes(kept["codes"], self._config.model.mammothtok.codebook_size)
        return made, sums

    def _latents(self, params: Named, run: Path) -> dict[str, float]:
        """Mean and deviation of the training pictures' latents, written as shift and scale; what noise costs."""
        seen = [jax.device_get(self._measure(params, x)) for x in self._pictures(self._config.data)]
        total, square, size = (np.sum(x, dtype=np.float64) for x in zip(*seen, strict=True))
        shift = total / size
        scale = 1 / np.sqrt(square / size - shift**2)
        if jax.process_index() == 0:
            measured = {"shift_factor": shift, "scaling_factor": scale}
            write_text_whole(run / LATENTS, json.dumps(measured) + "\n")
        losses = [
            jax.device_get(self._noisy(params, x, jnp.float32(_NOISE / scale)))
            for x in self._pictures(self._config.evaluation)
        ]
        noisy = float(np.mean(np.concatenate([np.asarray(x)[None] for x in losses])))
        return {"latent_shift": float(shift), "latent_scale": float(scale), "psnr_with_noise": noisy}

    def _latent_sums(self, params: Named, picture: Array) -> tuple[Array, Array, Array]:
        posterior = self._model(params).encode(as_float(picture))
        mean = posterior.mean
        square = jnp.square(mean) + jnp.exp(posterior.logvar)  # of samples, without drawing any
        return jnp.sum(mean), jnp.sum(square), jnp.float32(mean.size)

    def _with_noise(self, params: Named, picture: Array, deviation: Float[Array, ""]) -> Float[Array, ""]:
        """Mean PSNR of pictures decoded from latents with noise on them."""
        model = self._model(params)
        latents = model.encode(as_float(picture)).mean
        noise = jax.random.normal(jax.random.key(0), latents.shape)
        return jnp.mean(psnr(postprocess(model.decode(latents + deviation * noise)), picture))


def reconstruction_grid(
    inputs: UInt8[np.ndarray, "n rows cols 3"], outputs: UInt8[np.ndarray, "n rows cols 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Pictures in rows of at most 16, each row of inputs above the row of its outputs."""
    n, rows, cols, _ = inputs.shape
    width = min(n, _GRID_COLUMNS)
    lines = []
    for first in range(0, n, width):
        for row in (inputs[first : first + width], outputs[first : first + width]):
            line = np.full((rows, width, cols, 3), 255, np.uint8)
            line[:, : len(row)] = row.transpose(1, 0, 2, 3)
            lines.append(line.reshape(rows, width * cols, 3))
    return np.concatenate(lines)


@jax.jit
def _features(inception: Inception, picture: UInt8[Array, "b rows cols 3"]) -> Float[Array, "b d"]:
    return inception(as_float(picture))


def _local(x: Array) -> np.ndarray:
    """The rows of an array that this process holds."""
    shards = {s.index[0].start or 0: np.asarray(s.data) for s in x.addressable_shards}
    return np.concatenate([shards[start] for start in sorted(shards)])


def _everywhere(x: Array) -> np.ndarray:
    """All rows of an array, on every process."""
    return np.concatenate([np.asarray(rows, np.float32) for rows in gather(_local(x).tolist())])
