"""What a conversation shows and says, as the arrays that the programs take."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.models.backbone.multimodal import feature_slots
from mammoth_jax.models.backbone.vision_config import Qwen25VLVisionConfig
from mammoth_jax.pipelines.buckets import bucket, patch_bucket
from mammoth_jax.pipelines.loading import LoadedModel
from mammoth_jax.pipelines.programs import see_program
from mammoth_jax.pipelines.vision_processors import image_processor, video_processor
from mammoth_jax.processing.chat import (
    QWEN3VL_CHAT,
    QWEN25VL_CHAT,
    ChatTemplate,
    Content,
    Conversation,
    Media,
    TimedGrid,
)
from mammoth_jax.processing.mrope import PictureBlocks, Qwen3VLBlocks, Qwen25VLBlocks, multimodal_positions
from mammoth_jax.processing.video import VideoPatches, VideoProcessorConfig, load_video
from mammoth_jax.processing.vision import Patches, VisionProcessorConfig, image_patches, load_picture
from mammoth_jax.sampling.text import TextInputs

Picture = Image.Image | Path | str | bytes
"""A picture, its file, or the file's bytes."""

SMALLEST_PROMPT = 32


@dataclasses.dataclass(frozen=True)
class ChatFormat:
    """A family's template, what it does to pixels, and how it places pictures."""

    template: ChatTemplate
    images: VisionProcessorConfig
    videos: VideoProcessorConfig
    blocks: PictureBlocks

    @classmethod
    def of(cls, loaded: LoadedModel) -> "ChatFormat":
        """The format of a model: its family's, with what the processor files of its folder say.

        Raises:
          InputError: processor files that cannot be followed.
        """
        tower = loaded.config.backbone.vision
        merge = tower.spatial_merge_size
        if isinstance(tower, Qwen25VLVisionConfig):
            template, blocks = QWEN25VL_CHAT, Qwen25VLBlocks(merge, tower.tokens_per_second)
        else:
            template, blocks = QWEN3VL_CHAT, Qwen3VLBlocks(merge)
        template = dataclasses.replace(template, merge_size=merge)
        return cls(template, image_processor(loaded), video_processor(loaded), blocks)


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A conversation with the patches of its pictures and videos, numbered as it numbers them."""

    conversation: Conversation
    format: ChatFormat
    images: tuple[Patches, ...] = ()
    videos: tuple[VideoPatches, ...] = ()

    def ask(
        self, content: Content, images: Sequence[Picture] = (), videos: Sequence[Path | str] = ()
    ) -> "Dialogue":
        """With a user's turn.

        Raises:
          InputError: a picture or video cannot be read, or there are more or fewer than places in the content.
        """
        shown = tuple(image_patches(_open(image), self.format.images) for image in images)
        clips = tuple(load_video(Path(video), self.format.videos) for video in videos)
        asked = self.conversation.ask(
            content,
            [patches.grid for patches in shown],
            [TimedGrid(clip.patches.grid, clip.timestamps) for clip in clips],
        )
        return dataclasses.replace(
            self, conversation=asked, images=self.images + shown, videos=self.videos + clips
        )

    def with_conversation(self, conversation: Conversation) -> "Dialogue":
        """With a conversation that has been answered."""
        return dataclasses.replace(self, conversation=conversation)


def dialogue(loaded: LoadedModel, chat: ChatFormat, messages: Sequence[Mapping[str, Any]] = ()) -> Dialogue:
    """A conversation from messages in the format of ``transformers``.

    A message is ``{"role": "system" | "user" | "assistant", "content": text or parts}``; parts are
    ``{"type": "text", "text": ...}``, ``{"type": "image", "image": ...}`` or ``{"type": "video", "video": path}``.

    Raises:
      InputError: another role or part, roles out of order, or what :meth:`Dialogue.ask` refuses.
    """
    messages, template = list(messages), chat.template
    for message in messages:
        if not isinstance(message, Mapping):
            raise InputError(
                f'chat: message {message!r:.80}; expected {{"role": "user", "content": "..."}} and the like'
            )
    if messages and messages[0].get("role") == "system":
        template = dataclasses.replace(template, system=_text(messages.pop(0).get("content")))
    out = Dialogue(Conversation(loaded.tokenizer, template), chat)
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role == "user":
            out = out.ask(*_parts(content))
        elif role == "assistant":
            out = out.with_conversation(out.conversation.reply(_text(content)))
        else:
            raise InputError(
                f"chat: role {role!r}; expected user or assistant, or system as the first message"
            )
    return out


def text_inputs(
    loaded: LoadedModel,
    rows: Sequence[Dialogue],
    cached: Sequence[int],
    positions: Sequence[int],
    num_rows: int,
) -> TextInputs:
    """What each conversation has beyond its first ``cached`` ids, padded to ``num_rows`` rows.

    Args:
      loaded: the model; its vision tower reads the new pictures of all rows in one launch.
      rows: conversations.
      cached: how many ids of each are cached.
      positions: rope position of each row's first new token.
      num_rows: rows of the arrays, at least as many as conversations.

    Raises:
      InputError: there are pictures, but the checkpoint has no vision tower.
    """
    new = [row.conversation.since(count) for row, count in zip(rows, cached, strict=True)]
    length = bucket(max(len(row.ids) for row in new), SMALLEST_PROMPT)
    ids = np.zeros((num_rows, length), np.int32)
    lengths = np.zeros(num_rows, np.int32)
    for i, row in enumerate(new):
        ids[i, : len(row.ids)] = row.ids
        lengths[i] = len(row.ids)
    valid = np.arange(length)[None] < lengths[:, None]
    images = [
        dialogue.images[use.index]
        for dialogue, row in zip(rows, new, strict=True)
        for use in row.media
        if use.kind is Media.IMAGE
    ]
    videos = [
        dialogue.videos[use.index]
        for dialogue, row in zip(rows, new, strict=True)
        for use in row.media
        if use.kind is Media.VIDEO
    ]
    backbone = loaded.config.backbone
    tokens = {"image_token_id": backbone.image_token_id, "video_token_id": backbone.video_token_id}
    placed = multimodal_positions(
        ids,
        valid,
        rows[0].format.blocks,
        **tokens,
        images=[patches.grid for patches in images],
        videos=[clip.patches.grid for clip in videos],
        seconds=[clip.seconds_per_grid for clip in videos],
        start=np.asarray([*positions, *[0] * (num_rows - len(rows))]),
    )
    shown = [*images, *(clip.patches for clip in videos)]
    if not shown:
        return TextInputs(ids, lengths, placed.ids)
    loaded.model.require("chat about pictures", "text_decoder", "vision_tower")
    tower, merge = loaded.model.vision, backbone.vision.spatial_merge_size
    assert tower is not None
    values = np.concatenate([patches.values for patches in shown])
    inputs = tower.prepare(values, [patches.grid for patches in shown], [patch_bucket(len(values), merge)])
    slots = feature_slots(
        ids,
        valid,
        **tokens,
        image_tokens=sum(patches.grid.tokens(merge) for patches in images),
        video_tokens=sum(clip.patches.grid.tokens(merge) for clip in videos),
    )
    return TextInputs(ids, lengths, placed.ids, see_program(tower, inputs), slots)


def _open(image: Picture) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, str | Path | bytes):
        raise InputError(f"picture {image!r:.80}: expected a PIL image, a file's path, or its bytes")
    return load_picture(Path(image) if isinstance(image, str) else image)


def _text(content: Any) -> str:
    words, images, videos = _parts(content)
    if images or videos:
        raise InputError("chat: a picture outside a user's message; show pictures with a question")
    return "".join(str(word) for word in words)


def _parts(content: Any) -> tuple[list[str | Media], list[Picture], list[str]]:
    """Words and places of a message, and the pictures and videos that stand there."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    words: list[str | Media] = []
    images: list[Picture] = []
    videos: list[str] = []
    for part in parts if isinstance(parts, Sequence) else [parts]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "image", "video") or kind not in part:
            raise InputError(
                f"chat: content {part!r:.80}; expected text, or parts such as "
                '{"type": "text", "text": "hi"} and {"type": "image", "image": file}'
            )
        if kind == "text":
            words.append(str(part["text"]))
        elif kind == "image":
            words.append(Media.IMAGE)
            images.append(part["image"])
        else:
            words.append(Media.VIDEO)
            videos.append(part["video"])
    return words, images, videos
