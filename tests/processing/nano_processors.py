"""What the nano preset's towers read, written out."""

from mammoth_jax.processing.video import Qwen3VLRule, VideoProcessorConfig
from mammoth_jax.processing.vision import VisionProcessorConfig

NANO_IMAGES = VisionProcessorConfig(patch_size=8, min_pixels=16 * 16, max_pixels=256 * 256)
NANO_VIDEO = VideoProcessorConfig(
    vision=VisionProcessorConfig(patch_size=8, min_pixels=4 * 16 * 16, max_pixels=16 * 128 * 128),
    rule=Qwen3VLRule(),
)
