"""Chat prompts with pictures and videos, as the public templates of the two backbones lay them out.

One turn of each, with a picture of three tokens and a video of two steps in time (``...``: repeated
``<|video_pad|>``)::

    <|im_start|>system\\n{system}<|im_end|>\\n                             Qwen2.5-VL has one by default, Qwen3-VL not
    <|im_start|>user\\n
    <|vision_start|><|image_pad|><|image_pad|><|image_pad|><|vision_end|>
    <0.3 seconds><|vision_start|>...<|vision_end|><1.3 seconds><|vision_start|>...<|vision_end|>     Qwen3-VL
    <|vision_start|>...<|vision_end|>                                                              Qwen2.5-VL
    {question}<|im_end|>\\n
    <|im_start|>assistant\\n                                              <- the model goes on here

(the line breaks of this drawing are not there, only those written ``\\n``).  A conversation only ever grows at its end,
by the very ids that the model wrote, so a cache that holds its first ``n`` ids needs just the others.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing import special_tokens as names
from mammoth_jax.processing.prompts import (
    Part,
    Special,
    assistant_opening_layout,
    chat_turn,
    image_tokens_layout,
    layout_ids,
    placeholder_count,
)
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.processing.vision import Grid


class Media(enum.Enum):
    """A place in a user's words where a picture or a video stands."""

    IMAGE = names.IMAGE_PAD
    VIDEO = names.VIDEO_PAD


Content = Sequence[str | Media]
"""What a user says: words, and places of pictures and videos."""


class TimedGrid(NamedTuple):
    """A video in a prompt: its patches, and the seconds of each step in time."""

    grid: Grid
    timestamps: tuple[float, ...]


@runtime_checkable
class VideoLayout(Protocol):
    """How a family writes a video."""

    def parts(self, video: TimedGrid, merge_size: int) -> list[Part]:
        """Layout of the whole video."""
        ...

    def blocks(self, video: TimedGrid) -> int:
        """Runs of placeholders in that layout."""
        ...


@dataclasses.dataclass(frozen=True)
class TimedFrames:
    """Qwen3-VL: each step in time is a block after its time in seconds."""

    def parts(self, video: TimedGrid, merge_size: int) -> list[Part]:
        """``<0.3 seconds>`` and a block, for each step."""
        tokens = video.grid.frame_tokens(merge_size)
        parts: list[Part] = []
        for seconds in video.timestamps:
            parts += [f"<{seconds:.1f} seconds>", *vision_block(names.VIDEO_PAD, tokens)]
        return parts

    def blocks(self, video: TimedGrid) -> int:
        """One a step."""
        return video.grid.frames


@dataclasses.dataclass(frozen=True)
class OneBlock:
    """Qwen2.5-VL: the whole video is one block; time is told by the positions."""

    def parts(self, video: TimedGrid, merge_size: int) -> list[Part]:
        """A single block."""
        return vision_block(names.VIDEO_PAD, video.grid.tokens(merge_size))

    def blocks(self, video: TimedGrid) -> int:
        """One."""
        return 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A family's chat layout.

    Attributes:
        video: how videos are written.
        system: words of the system turn that opens a conversation; None for no such turn.
        merge_size: patches along a side that merge into one token.
    """

    video: VideoLayout
    system: str | None = None
    merge_size: int = 2


QWEN3VL_CHAT = ChatTemplate(video=TimedFrames())
QWEN25VL_CHAT = ChatTemplate(video=OneBlock(), system="You are a helpful assistant.")


@dataclasses.dataclass(frozen=True)
class MediaUse:
    """Where a picture or video of a conversation is read.

    Attributes:
        kind: picture or video.
        index: which one, counted among the conversation's pictures, or videos, from 0.
        spans: half-open ranges of its placeholders in the conversation's ids.
    """

    kind: Media
    index: int
    spans: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class NewIds:
    """The end of a conversation that a cache does not hold.

    Attributes:
        start: index of the first of these ids in the conversation.
        ids: the ids.
        media: pictures and videos among them, in order; their spans count from the conversation's start.
    """

    start: int
    ids: tuple[int, ...]
    media: tuple[MediaUse, ...]


@dataclasses.dataclass(frozen=True)
class Conversation:
    """A conversation's ids so far; every method that adds to it returns a longer one.

    Attributes:
        tokenizer: the model's.
        template: the family's layout.
        ids: all ids; while an answer is waited for, they end with the assistant's opening.
        media: pictures and videos in the order in which they are read.
        opening: index of the opening that waits for its answer, None if none does.
    """

    tokenizer: Tokenizer
    template: ChatTemplate
    ids: tuple[int, ...] = ()
    media: tuple[MediaUse, ...] = ()
    opening: int | None = None

    def ask(
        self, content: Content, images: Sequence[Grid] = (), videos: Sequence[TimedGrid] = ()
    ) -> "Conversation":
        """The conversation with a user's turn and the opening of the assistant's.

        The first question brings the system turn with it; a later one first closes the answer before it.

        Args:
            content: words and places.
            images: patches of the pictures, one for each place, in order.
            videos: patches and times of the videos, likewise.

        Raises InputError for other numbers of pictures or videos than places, for a question without content, and
        while an answer is waited for.
        """
        if self.opening is not None:
            raise InputError("chat: a question while the last one waits for its answer; add the answer first")
        if not any(content):
            raise InputError("chat: an empty question; say something, or show a picture")
        _check_count("picture", content.count(Media.IMAGE), len(images))
        _check_count("video", content.count(Media.VIDEO), len(videos))
        question = self._parts(content, images, videos)
        before: list[Part] = []
        if self.ids:
            before = [Special(names.IM_END), "\n"]
        elif self.template.system is not None:
            before = chat_turn("system", [self.template.system])
        new = layout_ids(self.tokenizer, [*before, *chat_turn("user", question)])
        opening = len(self.ids) + len(new)
        return dataclasses.replace(
            self,
            ids=(*self.ids, *new, *layout_ids(self.tokenizer, assistant_opening_layout())),
            media=(*self.media, *self._uses(new, content, videos)),
            opening=opening,
        )

    def answer(self, ids: Sequence[int]) -> "Conversation":
        """The conversation with the ids that the model wrote, a stop token at their end or not.

        Raises InputError if no question waits.
        """
        self._waiting()
        stops = {self.tokenizer.id_of(name) for name in (names.IM_END, names.END_OF_TEXT)}
        written = tuple(int(token_id) for token_id in ids)
        if written and written[-1] in stops:
            written = written[:-1]
        return dataclasses.replace(self, ids=(*self.ids, *written), opening=None)

    def reply(self, text: str) -> "Conversation":
        """The conversation with an answer given as text, encoded together with the opening as the template does.

        Raises InputError if no question waits.
        """
        opened = layout_ids(self.tokenizer, [*assistant_opening_layout(), text])
        return dataclasses.replace(self, ids=(*self.ids[: self._waiting()], *opened), opening=None)

    def since(self, cached: int) -> NewIds:
        """What a cache that holds the first ``cached`` ids lacks.

        Raises InputError if the cache holds more than there is, or ends within a picture or video.
        """
        if not 0 <= cached <= len(self.ids):
            raise InputError(
                f"chat: {cached} ids are cached; expected 0 to {len(self.ids)}, the conversation's"
            )
        for use in self.media:
            if use.spans[0][0] < cached < use.spans[-1][1]:
                raise InputError(
                    f"chat: {cached} cached ids end within {use.kind.name.lower()} {use.index}; cache it whole"
                )
        new = tuple(use for use in self.media if use.spans[0][0] >= cached)
        return NewIds(start=cached, ids=self.ids[cached:], media=new)

    def _waiting(self) -> int:
        if self.opening is None:
            raise InputError("chat: an answer without a question; ask first")
        return self.opening

    def _parts(self, content: Content, images: Sequence[Grid], videos: Sequence[TimedGrid]) -> list[Part]:
        next_image, next_video = iter(images), iter(videos)
        parts: list[Part] = []
        for part in content:
            if isinstance(part, str):
                parts.append(part)
            elif part is Media.IMAGE:
                tokens = next(next_image).tokens(self.template.merge_size)
                parts += vision_block(names.IMAGE_PAD, tokens)
            else:
                video = next(next_video)
                if len(video.timestamps) != video.grid.frames:
                    raise InputError(
                        f"chat: a video of {video.grid.frames} steps in time with {len(video.timestamps)} "
                        "timestamps; give one for each"
                    )
                parts += self.template.video.parts(video, self.template.merge_size)
        return parts

    def _uses(self, new: list[int], content: Content, videos: Sequence[TimedGrid]) -> list[MediaUse]:
        """The runs of placeholders in the turn's ids, dealt out to its pictures and videos in order."""
        placeholders = {self.tokenizer.id_of(kind.value) for kind in Media}
        runs = iter(_runs(new, placeholders, len(self.ids)))
        index = {kind: sum(use.kind is kind for use in self.media) for kind in Media}
        next_video = iter(videos)
        uses = []
        for kind in content:
            if isinstance(kind, Media):
                blocks = 1 if kind is Media.IMAGE else self.template.video.blocks(next(next_video))
                uses.append(MediaUse(kind, index[kind], tuple(next(runs) for _ in range(blocks))))
                index[kind] += 1
        return uses


def vision_block(placeholder: str, tokens: int) -> list[Part]:
    """``tokens`` placeholders between the vision tokens; InputError for none."""
    if tokens < 1:
        raise InputError(
            f"chat: a picture of {tokens} tokens; expected at least one, so at least 2x2 patches"
        )
    return [Special(names.VISION_START), *[Special(placeholder)] * tokens, Special(names.VISION_END)]


def reference_layout(vision_tokens: int | None, codes: Sequence[Sequence[int]] | None) -> list[Part]:
    """A reference picture's blocks in the prompt of an edit: vision placeholders, then visual tokens.

    ``None`` leaves a form out.
    """
    seen = [] if vision_tokens is None else vision_block(names.IMAGE_PAD, vision_tokens)
    return [*seen, *([] if codes is None else image_tokens_layout(codes))]


def reference_ids(vision_tokens: int | None, grid: Sequence[int] | None) -> int:
    """How many ids these blocks have; ``grid`` is (rows, columns) of the visual tokens."""
    seen = 0 if vision_tokens is None else vision_tokens + 2
    return seen + (0 if grid is None else placeholder_count(grid[0], grid[1]))


def media_first(question: str, num_images: int = 0, num_videos: int = 0) -> list[str | Media]:
    """Content with all pictures, then all videos, before the words."""
    words = [question] if question else []
    return [*[Media.IMAGE] * num_images, *[Media.VIDEO] * num_videos, *words]


def _runs(ids: Sequence[int], wanted: set[int], offset: int) -> list[tuple[int, int]]:
    """Maximal runs of wanted ids, as half-open ranges shifted by ``offset``."""
    runs: list[tuple[int, int]] = []
    for at, token_id in enumerate(ids, start=offset):
        if token_id not in wanted:
            continue
        if runs and runs[-1][1] == at:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
    return runs


def _check_count(what: str, places: int, given: int) -> None:
    if places != given:
        raise InputError(
            f"chat: {given} {what}s for {places} places in the question; give one for each place, in order"
        )
