"""What a model's vision tower reads: the processors of its folder, or its family's for its patches."""

from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.processing.video import VideoProcessorConfig, family_videos
from mammoth_jax.processing.vision import VisionProcessorConfig, family_images


def image_processor(loaded: LoadedModel) -> VisionProcessorConfig:
    """What is done to pictures.

    Raises:
      InputError: the folder's file cannot be followed, or cuts other patches than the tower reads.
    """
    default = family_images(loaded.config.backbone.family, **_patches(loaded))
    if loaded.folder is None:
        return default
    return _checked(loaded, VisionProcessorConfig.from_folder(loaded.folder, default))


def video_processor(loaded: LoadedModel) -> VideoProcessorConfig:
    """What is done to videos.

    Raises:
      InputError: as for :func:`image_processor`.
    """
    default = family_videos(loaded.config.backbone.family, **_patches(loaded))
    if loaded.folder is None:
        return default
    processor = VideoProcessorConfig.from_folder(loaded.folder, default)
    _checked(loaded, processor.vision)
    return processor


def _patches(loaded: LoadedModel) -> dict[str, Any]:
    """The tower's patches under the processors' names."""
    tower = loaded.config.backbone.vision
    return {
        "patch_size": tower.patch_size,
        "merge_size": tower.spatial_merge_size,
        "temporal_patch_size": tower.temporal_patch_size,
    }


def _checked(loaded: LoadedModel, processor: VisionProcessorConfig) -> VisionProcessorConfig:
    for name, expected in _patches(loaded).items():
        if (found := getattr(processor, name)) != expected:
            raise InputError(
                f"{loaded.folder}: the processor files say {name} {found}, but the vision tower of config.json has "
                f"{expected}; copy the files of this checkpoint again"
            )
    return processor
