"""What packing must know of a model, as plain numbers: training builds it from the model's configuration."""

import dataclasses
from typing import Literal

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.packing.positions import JointPositions, OffsetFirst
from mammoth_jax.processing.chat import ChatTemplate
from mammoth_jax.processing.condition_tokens import ConditionMode
from mammoth_jax.processing.mrope import PictureBlocks
from mammoth_jax.processing.picture_rules import PictureRules
from mammoth_jax.processing.prompts import DEFAULT_NEGATIVE_PROMPT
from mammoth_jax.processing.special_tokens import IMAGE_PAD
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.processing.vision import VisionProcessorConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Ids with a meaning.

    Attributes:
        generation_start: ids from here on belong to the generation experts.
        visual_start: id of the visual token of codebook entry 0; the others follow in order.
        image_pad: stands for a token of a picture in the tower.
        video_pad: the same of a video.
        vision_ids: both of them and their borders; they never condition the diffusion transformer.
    """

    generation_start: int
    visual_start: int
    image_pad: int
    video_pad: int
    vision_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerGeometry:
    """The vision tower's: what it does to pixels, and the side of its learned position grid."""

    images: VisionProcessorConfig
    position_side: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionGeometry:
    """The diffusion side's.

    Attributes:
        factor: pixels a side of one latent cell.
        patch: latent cells a side of one patch.
        channels: channels of a latent cell.
        scale, shift: the network sees ``(latent - shift) * scale``.
        queries: tokens that the alignment module makes of the visual tokens.
        mode: which features condition the transformer.
        with_answer_text: whether text of the answer does, too; with reasoning it always does, as while sampling.
        max_references: how many references have an index embedding.
        positions: where pictures are.
        edit_condition: which features condition an edit: those of the sequence itself (``with_pixels``), or those
            of another pass over it without pixels, as released (``release``), which costs a second sequence.
        posterior: ``sample`` trains on samples of the VAE's posterior, ``mean`` on its mean.
    """

    factor: int
    patch: int
    channels: int
    scale: float
    shift: float
    queries: int
    mode: ConditionMode = "text_image"
    with_answer_text: bool = False
    max_references: int = 5
    positions: JointPositions = OffsetFirst()
    edit_condition: Literal["with_pixels", "release"] = "with_pixels"
    posterior: Literal["sample", "mean"] = "sample"

    @property
    def patch_values(self) -> int:
        """Values of one patch."""
        return self.patch**2 * self.channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forms:
    """In which forms a reference is seen: the tower's tokens, MammothTok's tokens, latents (paper, table 9)."""

    vision: bool = True
    tokens: bool = True
    latents: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """Everything about a model that decides how samples are laid out.

    ``tower`` and ``diffusion`` are None in stages without them.
    """

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    template: ChatTemplate
    blocks: PictureBlocks
    pictures: PictureRules
    tower: TowerGeometry | None = None
    diffusion: DiffusionGeometry | None = None
    references: Forms = Forms()
    negative_prompt: str = DEFAULT_NEGATIVE_PROMPT

    def __post_init__(self) -> None:
        first = self.tokenizer.visual_token_id(0)
        if first != self.vocabulary.visual_start:
            raise InputError(
                f"geometry: visual tokens start at {self.vocabulary.visual_start}, in the tokenizer at {first}; use "
                "the tokenizer files of this model"
            )
        shown = self.tokenizer.id_of(IMAGE_PAD)
        if shown != self.vocabulary.image_pad:
            raise InputError(
                f"geometry: the model reads pictures at id {self.vocabulary.image_pad}, the tokenizer writes {shown}; "
                "use the tokenizer files of this model"
            )
        if self.tower is not None and self.tower.images.merge_size != self.template.merge_size:
            raise InputError(
                f"geometry: the tower merges {self.tower.images.merge_size} patches a side, the chat template "
                f"{self.template.merge_size}"
            )
