"""A model with what goes with it: weights on a mesh, tokenizer, generation settings."""

import dataclasses
import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

from jax.sharding import Mesh

from checkpoint_convert.folder import ModelFolder, read_json
from checkpoint_convert.to_jax import side_files
from checkpoint_convert.to_torch import save_released
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import initialize
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.int8_weights import int8_decoder
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.processing.generation_config import TEXT_TO_IMAGE_FILE, GenerationSettings
from mammoth_jax.processing.text_generation_config import TextGenerationSettings
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.sampling.text import TEXT_EXPERT
from mammoth_jax.training.lora_files import load_adapters, with_adapters
from mammoth_jax.training.runs import is_run
from mammoth_jax.training.trained_model import JointRun


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        model: weights on the mesh.
        mesh: devices.
        tokenizer: the model's.
        settings: how visual tokens are drawn.
        folder: where its files are, ``None`` for random weights; of a training run its tokenizer's.
        text_settings: how answers are written.
        run: the training run that it comes from, if it does.
    """

    model: Mammoth
    mesh: Mesh
    tokenizer: Tokenizer
    settings: GenerationSettings
    folder: Path | None
    text_settings: TextGenerationSettings = TextGenerationSettings()
    run: str | None = None

    @property
    def config(self) -> MammothConfig:
        """The model's configuration."""
        return self.model.config

    @functools.cached_property
    def int8_decoder(self) -> Decoder:
        """The decoder for loops of visual tokens with int8 weights, made on first use and kept beside the model."""
        return int8_decoder(self.model.decoder)

    @functools.cached_property
    def int8_text_decoder(self) -> Decoder:
        """The same for loops of text."""
        return int8_decoder(self.model.decoder, TEXT_EXPERT)

    def with_lora(self, path: Path | str | None) -> "LoadedModel":
        """The model with adapters merged into its weights, of a run or a folder in PEFT's layout; None changes nothing.

        Merging gives away the kernels that change: after it this model cannot be used any more.

        Raises:
          InputError: there are none, or they belong to another model.
        """
        if path is None:
            return self
        adapters = load_adapters(path, self.config, self.mesh)
        return dataclasses.replace(self, model=with_adapters(self.model, adapters))

    def save(self, folder: Path | str) -> None:
        """Writes the weights that run, with the files beside them, as a released-format folder.

        Raises:
          InputError: the folder exists or cannot be written, the model is random (``init`` writes those) or of a
            training run (``to-torch`` writes those), or only some of its parts were loaded: the rest would be lost.
        """
        if self.run is not None:
            raise InputError(
                f"{self.run} is a training run; write its model with: "
                f"python -m checkpoint_convert to-torch {self.run} DST"
            )
        if self.folder is None:
            raise InputError(
                "a random model has no tokenizer files to save; write a folder with: mammoth-jax init"
            )
        left_out = ModelFolder.open(self.folder).model.parts - self.model.parts
        if left_out:
            raise InputError(
                f"{', '.join(sorted(left_out))} of {self.folder} were not loaded; load all parts to save"
            )
        config = read_json(self.folder / "config.json")
        save_released(self.model, self.config, folder, side_files(self.folder), config)


def load_model(
    folder: Path | str,
    *,
    dtype: Any = None,
    mesh: Mesh | None = None,
    parts: Collection[str] | None = None,
    lora: Path | str | None = None,
) -> LoadedModel:
    """Loads a released-format or converted folder, or a training run, onto a mesh, each array directly into its shards.

    Args:
      folder: a model folder, ``RUN`` or ``RUN@STEP``.
      dtype: of all weights; None keeps the folder's, and is float32 for a run.
      mesh: devices; one by default.
      parts: limits what is loaded to what a task needs.
      lora: adapters to merge, see :meth:`LoadedModel.with_lora`.

    Raises:
      InputError: the folder is not a model, a file is missing or corrupt, or tensors do not fit.
    """
    mesh = mesh or single_device_mesh()
    load = _load_run if is_run(folder) else _load_folder
    return load(Path(folder), dtype, mesh, parts).with_lora(lora)


def _load_run(path: Path, dtype: Any, mesh: Mesh, parts: Collection[str] | None) -> LoadedModel:
    run = JointRun.open(path)
    tokenizer, words, decoder = run.tokenizer_of_words(), run.words, run.config.model.backbone.decoder
    last = decoder.gen_vocab_start_index + decoder.gen_vocab_size
    settings, text_settings = settings_of_words(run.config.model, tokenizer, words), TextGenerationSettings()
    if words is not None:
        text_settings = TextGenerationSettings.from_folder(words, max(last, decoder.vocab_size))
    model = run.load(mesh, dtype, parts)
    return LoadedModel(model, mesh, tokenizer, settings, words, text_settings, str(path))


def _load_folder(path: Path, dtype: Any, mesh: Mesh, parts: Collection[str] | None) -> LoadedModel:
    model = ModelFolder.open(path, parts).load(mesh, dtype)
    decoder = model.config.backbone.decoder
    tokenizer = Tokenizer.from_folder(
        path, family=model.config.backbone.tokenizer_family, gen_vocab_start=decoder.gen_vocab_start_index
    )
    last = decoder.gen_vocab_start_index + decoder.gen_vocab_size
    settings = GenerationSettings.from_folder(path, last)
    text_settings = TextGenerationSettings.from_folder(path, max(last, decoder.vocab_size))
    return LoadedModel(model, mesh, tokenizer, settings, path, text_settings)


def random_model(
    preset: str,
    *,
    seed: int = 0,
    dtype: Any = None,
    mesh: Mesh | None = None,
    lora: Path | str | None = None,
) -> LoadedModel:
    """A preset's architecture with random weights, made directly in their shards, and a byte-level tokenizer.

    Raises:
      InputError: no such preset.
    """
    config = MammothConfig.from_preset(preset)
    mesh = mesh or single_device_mesh()
    tokenizer, settings = byte_words(config)
    model = initialize(lambda: Mammoth(config), seed, mesh, dtype or "float32")
    return LoadedModel(model, mesh, tokenizer, settings, None).with_lora(lora)


def byte_words(config: MammothConfig) -> tuple[Tokenizer, GenerationSettings]:
    """A byte-level tokenizer for an architecture without a folder, and the settings that go with its ids.

    Raises:
      InputError: the generation vocabulary does not hold the codebook.
    """
    decoder = config.backbone.decoder
    tokenizer = Tokenizer.of_bytes(
        config.backbone.tokenizer_family,
        config.backbone.image_token_id,
        decoder.gen_vocab_start_index,
        config.mammothtok.codebook_size,
    )
    settings = plain_settings(config, tokenizer)
    if settings.visual_end > decoder.gen_vocab_start_index + decoder.gen_vocab_size:
        raise InputError(f"gen_vocab_size {decoder.gen_vocab_size} does not hold the codebook")
    return tokenizer, settings


def settings_of_words(config: MammothConfig, tokenizer: Tokenizer, words: Path | None) -> GenerationSettings:
    """How visual tokens are drawn as a folder of words says, or plainly where it has no file of that.

    Raises:
      InputError: the file is malformed, or of another model.
    """
    if words is None or not (words / TEXT_TO_IMAGE_FILE).is_file():
        return plain_settings(config, tokenizer)
    decoder = config.backbone.decoder
    return GenerationSettings.from_folder(words, decoder.gen_vocab_start_index + decoder.gen_vocab_size)


def plain_settings(config: MammothConfig, tokenizer: Tokenizer) -> GenerationSettings:
    """How visual tokens are drawn where no file says so: from all of them, by their probabilities."""
    start = tokenizer.visual_token_id(0)
    return GenerationSettings(
        end_of_line=tokenizer.id_of("<|endofline|>"),
        visual_start=start,
        visual_end=start + config.mammothtok.codebook_size,
        top_k=None,
        do_sample=True,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Pipeline:
    """What every pipeline is: a loaded model, read from a folder or made at random, and saved again."""

    loaded: LoadedModel

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        *,
        dtype: Any = None,
        mesh: Mesh | None = None,
        parts: Collection[str] | None = None,
        lora: Path | str | None = None,
    ) -> Self:
        """A pipeline over a released-format or converted folder or a training run; see :func:`load_model`."""
        return cls(load_model(folder, dtype=dtype, mesh=mesh, parts=parts, lora=lora))

    @classmethod
    def from_preset(
        cls,
        name: str,
        *,
        seed: int = 0,
        dtype: Any = None,
        mesh: Mesh | None = None,
        lora: Path | str | None = None,
    ) -> Self:
        """A pipeline over a preset with random weights."""
        return cls(random_model(name, seed=seed, dtype=dtype, mesh=mesh, lora=lora))

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes the model as a released-format folder; see :meth:`LoadedModel.save`."""
        self.loaded.save(folder)
