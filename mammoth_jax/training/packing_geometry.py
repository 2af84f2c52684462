"""What packing must know of a model, from its configuration."""

import dataclasses

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.packing.geometry import (
    DiffusionGeometry,
    Forms,
    Geometry,
    TowerGeometry,
    Vocabulary,
)
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.processing.chat import QWEN3VL_CHAT, QWEN25VL_CHAT
from mammoth_jax.processing.mrope import Qwen3VLBlocks, Qwen25VLBlocks
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.processing.vision import VisionProcessorConfig, family_images


def packing_geometry(
    config: MammothConfig,
    tokenizer: Tokenizer,
    *,
    vision: bool = True,
    diffusion: bool = True,
    max_side: int | None = None,
    images: VisionProcessorConfig | None = None,
    references: Forms = Forms(),
) -> Geometry:
    """The geometry of a model, or of the parts of it that a stage has.

    Args:
      config: of the model.
      tokenizer: of the model.
      vision: whether pictures go through the tower.
      diffusion: whether pictures are drawn by the diffusion transformer.
      max_side: side of the largest square picture in any form; by default what the model draws, and in the tower
        what its processor allows.
      images: what is done to the tower's pictures, by default the family's.
      references: forms in which references are seen.

    Raises:
      InputError: the tower is of a family that rows of packed pictures are not made for, or the tokenizer is another
        model's.
    """
    backbone, tower = config.backbone, config.backbone.vision
    merge = tower.spatial_merge_size
    qwen3 = isinstance(tower, Qwen3VLVisionConfig)
    towers = None
    if vision:
        if not isinstance(tower, Qwen3VLVisionConfig):
            raise InputError(
                f"packing: the vision tower of {backbone.family} reads windows; train this model without vision"
            )
        images = images or family_images(backbone.family, tower.patch_size, merge, tower.temporal_patch_size)
        towers = TowerGeometry(images=images.within(max_side), position_side=tower.position_side)
    rules = config.picture_rules
    if max_side is not None:
        rules = dataclasses.replace(rules, picture_size=max_side)
    condition = config.condition
    latents = DiffusionGeometry(
        factor=config.vae.factor,
        patch=config.dit.patch_size,
        channels=config.vae.latent_channels,
        scale=config.vae.scaling_factor,
        shift=config.vae.shift_factor,
        queries=0 if condition.mode == "text" else config.refiner.num_queries,
        mode=condition.mode,
        with_answer_text=condition.with_answer_text,
        edit_condition=condition.edit_condition,
        max_references=config.dit.max_references,
    )
    return Geometry(
        tokenizer=tokenizer,
        vocabulary=Vocabulary(
            generation_start=backbone.decoder.gen_vocab_start_index,
            visual_start=tokenizer.visual_token_id(0),
            image_pad=backbone.image_token_id,
            video_pad=backbone.video_token_id,
            vision_ids=backbone.vision_ids,
        ),
        template=dataclasses.replace(QWEN3VL_CHAT if qwen3 else QWEN25VL_CHAT, merge_size=merge),
        blocks=Qwen3VLBlocks(merge)
        if isinstance(tower, Qwen3VLVisionConfig)
        else Qwen25VLBlocks(merge, tower.tokens_per_second),
        pictures=rules,
        tower=towers,
        diffusion=latents if diffusion else None,
        references=references,
    )
