"""Pictures that a stage of joint training draws as it goes on, by the very pipeline that draws for users."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import write_whole
from mammoth_jax.core.parameters import abstract, named_parameters, with_parameters
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.models.vae.model import VAE
from mammoth_jax.pipelines.loading import LoadedModel, settings_of_words
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from mammoth_jax.processing.generation_config import GenerationSettings
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.training.joint_config import JointTraining, SampleConfig
from mammoth_jax.training.joint_files import load_frozen, read_words, words_folder

_TOKENIZERS = frozenset(("mammothtok_encoder", "mammothtok_codebook", "mammothtok_decoder", "vae"))


@dataclasses.dataclass(frozen=True, eq=False)
class StageSamples:
    """Draws the same prompts with the same seeds every time; see :func:`stage_samples`."""

    config: SampleConfig
    mesh: Mesh
    tokenizer: Tokenizer
    settings: GenerationSettings
    mammothtok: MammothTok
    vae: VAE

    def __call__(self, model: Mammoth, step: int, folder: Path) -> None:
        """Writes ``folder/STEP.png``: a picture a prompt, side by side."""
        whole = self._whole(model)
        pipeline = TextToImagePipeline(LoadedModel(whole, self.mesh, self.tokenizer, self.settings, None))
        config = self.config
        # a stage whose transformer sees text alone need not write visual tokens first
        text_only = model.config.condition.mode == "text"
        drawn = pipeline(
            list(config.prompts),
            mode="diffusion" if text_only else "ar+diffusion",
            seed=config.seed,
            output_type="np",
            num_inference_steps=config.steps,
            guidance_scale=config.guidance,
        )
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(np.concatenate(drawn.images, axis=1))
            write_whole(folder / f"{step:08d}.png", lambda path: picture.save(path, format="PNG"))

    def _whole(self, model: Mammoth) -> Mammoth:
        """The model with the tokenizers beside its parts."""
        parts = model.parts | _TOKENIZERS
        values = {name: p[...] for name, p in named_parameters(model).items()}
        for part, module in (("mammothtok", self.mammothtok), ("vae", self.vae)):
            values |= {f"{part}.{name}": p[...] for name, p in named_parameters(module).items()}
        return with_parameters(abstract(lambda: Mammoth(model.config, parts=parts)), values)


def stage_samples(
    config: JointTraining, mesh: Mesh, init: str | None = None, run: Path | None = None
) -> StageSamples | None:
    """What draws for a stage; None where its configuration asks for no pictures.

    Raises:
      InputError: MammothTok or the VAE is not named, or the words' settings are not this model's.
    """
    if config.samples is None:
        return None
    mammothtok, vae = load_frozen(config.model, config.frozen, init, mesh)
    if mammothtok is None or vae is None:
        raise InputError(
            "samples: pictures are drawn with MammothTok and the VAE; name frozen.mammothtok and frozen.vae"
        )
    words = words_folder(config.frozen, init, run)
    tokenizer = read_words(config.model, words)
    settings = settings_of_words(config.model, tokenizer, words)
    return StageSamples(config.samples, mesh, tokenizer, settings, mammothtok, vae)
