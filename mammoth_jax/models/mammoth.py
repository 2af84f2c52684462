"""The whole model: backbone, visual tokenizer, alignment, diffusion transformer and VAE as one tree of parameters.

The parts meet only through their inputs and outputs, so programs take the parts that they need as arguments.
"""

from flax import nnx

from mammoth_jax.core.errors import InputError
from mammoth_jax.models.align.qformer import QFormer
from mammoth_jax.models.backbone.decoder import Decoder
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig, Qwen25VLVisionConfig
from mammoth_jax.models.backbone.vision_qwen3 import Qwen3VLVision
from mammoth_jax.models.backbone.vision_qwen25 import Qwen25VLVision
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.dit.transformer import DiT
from mammoth_jax.models.mammothtok.model import MammothTok
from mammoth_jax.models.vae.model import VAE

PARTS = (
    "text_decoder",
    "generation_experts",
    "vision_tower",
    "mammothtok_encoder",
    "mammothtok_codebook",
    "mammothtok_decoder",
    "dit",
    "refiner",
    "vae",
)
ALL_PARTS = frozenset(PARTS)


class Mammoth(nnx.Module):
    """All parts that a checkpoint holds; a part that it lacks is ``None``."""

    def __init__(self, config: MammothConfig, *, parts: frozenset[str] = ALL_PARTS):
        backbone = config.backbone
        tokenizer = frozenset(part for part in parts if part.startswith("mammothtok_"))
        self.config = config
        self.decoder = (
            Decoder(backbone.decoder, with_generation="generation_experts" in parts)
            if "text_decoder" in parts
            else None
        )
        self.vision = _tower(backbone.vision) if "vision_tower" in parts else None
        self.mammothtok = MammothTok(config.mammothtok, parts=tokenizer) if tokenizer else None
        self.refiner = QFormer(config.refiner) if "refiner" in parts else None
        self.dit = DiT(config.dit) if "dit" in parts else None
        self.vae = VAE(config.vae) if "vae" in parts else None

    @property
    def parts(self) -> frozenset[str]:
        """Names of the parts that are there."""
        found = {name for name in ("dit", "refiner", "vae") if getattr(self, name) is not None}
        found |= {"vision_tower"} if self.vision is not None else set()
        if self.decoder is not None:
            found |= {"text_decoder"} | (
                {"generation_experts"} if self.decoder.gen_embed is not None else set()
            )
        if self.mammothtok is not None:
            held = {"encoder": "encoder", "codebook": "quantizer", "decoder": "decoder"}
            found |= {f"mammothtok_{n}" for n, a in held.items() if getattr(self.mammothtok, a) is not None}
        return frozenset(found)

    def require(self, task: str, *parts: str) -> None:
        """Checks that the parts that a task needs are there.

        Raises:
          InputError: names the parts that are missing.
        """
        missing = [part for part in parts if part not in self.parts]
        if missing:
            raise InputError(
                f"{task} needs {', '.join(parts)}, but this checkpoint has no {', '.join(missing)}; "
                f"it holds: {', '.join(sorted(self.parts))}"
            )


def _tower(config: Qwen3VLVisionConfig | Qwen25VLVisionConfig) -> Qwen3VLVision | Qwen25VLVision:
    if isinstance(config, Qwen3VLVisionConfig):
        return Qwen3VLVision(config)
    return Qwen25VLVision(config)
