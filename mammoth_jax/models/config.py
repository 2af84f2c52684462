"""Configuration of the whole model: one dataclass a part, put together."""

import dataclasses
from typing import Literal

from mammoth_jax.core.config import decode
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.presets import load_preset
from mammoth_jax.models.align.config import QFormerConfig
from mammoth_jax.models.backbone.config import DecoderConfig
from mammoth_jax.models.backbone.decoder import Taps
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig, Qwen25VLVisionConfig
from mammoth_jax.models.conditions import ConditionMode
from mammoth_jax.models.dit.config import DiTConfig
from mammoth_jax.models.mammothtok.config import MammothTokConfig
from mammoth_jax.models.vae.config import VAEConfig
from mammoth_jax.processing.picture_rules import PictureRules

Family = Literal["qwen3_vl", "qwen2_5_vl"]
EditCondition = Literal["release", "with_pixels"]


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Decoder, vision tower and the ids of the vision placeholders."""

    family: Family
    decoder: DecoderConfig
    vision: Qwen3VLVisionConfig | Qwen25VLVisionConfig
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int

    @property
    def tokenizer_family(self) -> str:
        """The family as the tokenizer calls it: which special tokens the release's files imply."""
        return self.family.replace("_", "")

    @property
    def vision_ids(self) -> tuple[int, ...]:
        """Ids that stand for pictures and their borders; they are never text."""
        return (
            self.image_token_id,
            self.video_token_id,
            self.vision_start_token_id,
            self.vision_end_token_id,
        )


@dataclasses.dataclass(frozen=True)
class ConditionConfig:
    """What of the backbone conditions the diffusion transformer (paper section 2.3; figure 3).

    ``edit_condition`` says which features condition an edit: those of the very sequence that was decoded, pictures
    included (``with_pixels``), or those of a second pass without pixels on one-dimensional positions (``release``).
    """

    layers: tuple[int, ...] = (-2, -5, -8, -11, -14, -17)
    final_norm: bool = False
    mode: ConditionMode = "text_image"
    with_answer_text: bool = False
    edit_condition: EditCondition = "with_pixels"

    @property
    def taps(self) -> Taps:
        """The decoder states to average."""
        return Taps(self.layers, self.final_norm)


@dataclasses.dataclass(frozen=True)
class MammothConfig:
    """The whole model.

    ``pixels_per_token`` is the picture's side in pixels that one visual token covers by default; it need not be
    MammothTok's patch (the release tokenizes a picture resized to 14 pixels a token but draws 16).  ``picture_size`` is
    the side of a square picture when none is asked for.
    """

    backbone: BackboneConfig
    mammothtok: MammothTokConfig
    refiner: QFormerConfig
    dit: DiTConfig
    vae: VAEConfig
    condition: ConditionConfig = ConditionConfig()
    pixels_per_token: int = 16
    picture_size: int = 1024

    def __post_init__(self) -> None:
        width = self.backbone.decoder.hidden_size
        if self.dit.condition_width != width:
            raise InputError(
                f"dit.condition_width {self.dit.condition_width} must be the decoder's width {width}"
            )
        tower = self.backbone.vision
        taps = len(tower.deepstack_visual_indexes) if isinstance(tower, Qwen3VLVisionConfig) else 0
        if tower.out_hidden_size != width:
            raise InputError(
                f"vision.out_hidden_size {tower.out_hidden_size} must be the decoder's width {width}"
            )
        if self.backbone.decoder.num_deepstack != taps:
            raise InputError(
                f"decoder.num_deepstack {self.backbone.decoder.num_deepstack} must be the tower's {taps} taps"
            )
        if self.dit.in_channels != self.vae.latent_channels:
            raise InputError(
                f"dit.in_channels {self.dit.in_channels} must be vae.latent_channels {self.vae.latent_channels}"
            )
        for layer in self.condition.layers:
            if not -self.backbone.decoder.num_layers - 1 <= layer <= self.backbone.decoder.num_layers:
                raise InputError(
                    f"condition.layers: {layer} is outside {self.backbone.decoder.num_layers} layers"
                )

    @property
    def pixel_step(self) -> int:
        """Sides of a drawn picture are multiples of this: VAE factor times DiT patch."""
        return self.vae.factor * self.dit.patch_size

    @property
    def picture_rules(self) -> PictureRules:
        """Which sizes pictures take, read and drawn."""
        return PictureRules(
            pixel_step=self.pixel_step,
            pixels_per_token=self.pixels_per_token,
            token_patch=self.mammothtok.encoder.patch_size,
            picture_size=self.picture_size,
        )

    @classmethod
    def from_preset(cls, name: str) -> "MammothConfig":
        """The shipped preset ``name``.

        Raises:
          InputError: no such preset.
        """
        return decode(cls, load_preset(name))
