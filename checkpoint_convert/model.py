"""The whole model's table: every released tensor of a checkpoint folder and its place in :class:`Mammoth`."""

from checkpoint_convert import align, backbone, dit, mammothtok, vae, vision
from checkpoint_convert.rules import Rule, prefixed
from mammoth_jax.models.config import MammothConfig

LLM = "llm_model."
VISION = "llm_model.model.visual."
DIT = "gen_transformer."
VAE = "gen_vae."
MAMMOTHTOK = "gen_tokenizer.image_tokenizer."
REFINER = {"dit": "gen_transformer.time_caption_embed.image_embedder.", "llm": "gen_image_condition_refiner."}


def model_rules(config: MammothConfig) -> list[Rule]:
    """The rules of all parts, under their released prefixes."""
    return [
        *prefixed(backbone.rules(config.backbone.decoder), LLM, "decoder."),
        *prefixed(vision.rules(config.backbone.vision), VISION, "vision."),
        *prefixed(mammothtok.rules(config.mammothtok), MAMMOTHTOK, "mammothtok."),
        *prefixed(align.rules(config.refiner), REFINER[config.refiner.stage], "refiner."),
        *prefixed(dit.rules(config.dit), DIT, "dit."),
        *prefixed(vae.rules(config.vae), VAE, "vae."),
    ]
