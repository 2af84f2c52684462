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
from mammoth_jax.processing.generation_config import GenerationSettings
from mammoth_jax.processing.text_generation_config import TextGenerationSettings
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.sampling.text import TEXT_EXPERT


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        model: weights on the mesh.
        mesh: devices.
        tokenizer: the model's.
        settings: how visual tokens are drawn.
        folder: where its files are, ``None`` for random weights.
        text_settings: how answers are written.
    """

    model: Mammoth
    mesh: Mesh
    tokenizer: Tokenizer
    settings: GenerationSettings
    folder: Path | None
    text_settings: TextGenerationSettings = TextGenerationSettings()

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

    def save(self, folder: Path | str) -> None:
        """Writes the weights that run, with the files beside them, as a released-format folder.

        Raises:
          InputError: the folder exists or cannot be written, the model is random (``init`` writes those), or only some
            of its parts were loaded: what was left out would be lost.
        """
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
    folder: Path | str, *, dtype: Any = None, mesh: Mesh | None = None, parts: Collection[str] | None = None
) -> LoadedModel:
    """Loads a released-format or converted folder onto a mesh, each array directly into its shards.

    ``parts`` limits what is loaded to what a task needs; ``dtype`` casts (``None`` keeps the folder's).

    Raises:
      InputError: the folder is not a model, a file is missing or corrupt, or tensors do not fit.
    """
    path = Path(folder)
    mesh = mesh or single_device_mesh()
    model = ModelFolder.open(path, parts).load(mesh, dtype)
    decoder = model.config.backbone.decoder
    tokenizer = Tokenizer.from_folder(
        path, family=model.config.backbone.tokenizer_family, gen_vocab_start=decoder.gen_vocab_start_index
    )
    last = decoder.gen_vocab_start_index + decoder.gen_vocab_size
    settings = GenerationSettings.from_folder(path, last)
    text_settings = TextGenerationSettings.from_folder(path, max(last, decoder.vocab_size))
    return LoadedModel(model, mesh, tokenizer, settings, path, text_settings)


def random_model(preset: str, *, seed: int = 0, dtype: Any = None, mesh: Mesh | None = None) -> LoadedModel:
    """A preset's architecture with random weights, made directly in their shards, and a byte-level tokenizer.

    Raises:
      InputError: no such preset.
    """
    config = MammothConfig.from_preset(preset)
    mesh = mesh or single_device_mesh()
    tokenizer, settings = byte_words(config)
    model = initialize(lambda: Mammoth(config), seed, mesh, dtype or "float32")
    return LoadedModel(model, mesh, tokenizer, settings, None)


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
    start = tokenizer.visual_token_id(0)
    if start + config.mammothtok.codebook_size > decoder.gen_vocab_start_index + decoder.gen_vocab_size:
        raise InputError(f"gen_vocab_size {decoder.gen_vocab_size} does not hold the codebook")
    settings = GenerationSettings(
        end_of_line=tokenizer.id_of("<|endofline|>"),
        visual_start=start,
        visual_end=start + config.mammothtok.codebook_size,
        top_k=None,
        do_sample=True,
    )
    return tokenizer, settings


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
    ) -> Self:
        """A pipeline over a released-format or converted folder; ``parts`` limits what is loaded."""
        return cls(load_model(folder, dtype=dtype, mesh=mesh, parts=parts))

    @classmethod
    def from_preset(cls, name: str, *, seed: int = 0, dtype: Any = None, mesh: Mesh | None = None) -> Self:
        """A pipeline over a preset with random weights."""
        return cls(random_model(name, seed=seed, dtype=dtype, mesh=mesh))

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes the model as a released-format folder; see :meth:`LoadedModel.save`."""
        self.loaded.save(folder)
