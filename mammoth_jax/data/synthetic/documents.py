"""Plain text about the world, for a stage that learns language before it sees pictures.

Documents are sentences that follow from each other; conversations are one question and its answer, for which no picture
is needed.  What is said keeps to the split as pictures do.
"""

import dataclasses
from typing import Literal, get_args

from mammoth_jax.data.synthetic.captions import DESCRIPTIONS, Group, Style, caption, groups_of
from mammoth_jax.data.synthetic.chinese import Chinese
from mammoth_jax.data.synthetic.draws import Draws
from mammoth_jax.data.synthetic.edits import Operation, sample_edit
from mammoth_jax.data.synthetic.english import English
from mammoth_jax.data.synthetic.instructions import instruction
from mammoth_jax.data.synthetic.language import Language, Speaker, speaker
from mammoth_jax.data.synthetic.questions import Kind, interview
from mammoth_jax.data.synthetic.reasoning import RIDDLE_KINDS, riddle
from mammoth_jax.data.synthetic.sampling import sample_scene
from mammoth_jax.data.synthetic.scene import Scene
from mammoth_jax.data.synthetic.split import Split, Word, is_held_out
from mammoth_jax.data.synthetic.words import draw_word

DocumentKind = Literal["description", "translation", "question", "edit", "riddle", "spelling"]
DOCUMENT_KINDS: tuple[DocumentKind, ...] = get_args(DocumentKind)
DOCUMENT_WEIGHTS = (0.25, 0.15, 0.25, 0.1, 0.15, 0.1)

# What a description says: neither corners nor, always, the colours of letters.
_ASKED: tuple[Kind, ...] = ("count", "total", "colour", "background colour", "side", "beside", "reading")
_TOLD: tuple[Operation, ...] = ("recolour", "remove", "add", "replace")

PATTERNS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "translate": ("in Chinese: {}", "say it in Chinese: {}", "translate into Chinese: {}"),
        "edited": ("{}. {}. what is there now?", "{}. {}. describe the result"),
        "asked": ("{}. {}",),
        "spelled": ("{} is written {}", "the letters of {} are {}"),
        "length": ("{} has {} letters",),
        "backwards": ("{} backwards is {}",),
    },
    "zh": {
        "translate": ("用英文说：{}", "翻译成英文：{}", "英文怎么说：{}"),
        "edited": ("{}。{}。现在有什么？", "{}。{}。描述结果"),
        "asked": ("{}。{}",),
        "spelled": ("{}写作{}", "{}的字母是{}"),
        "length": ("{}有{}字母",),
        "backwards": ("{}倒过来是{}",),
    },
}
COMMAS: dict[Language, tuple[str, str]] = {"en": (", ", ". "), "zh": ("、", "。")}
"""Between letters, and between sentences."""


@dataclasses.dataclass(frozen=True)
class Document:
    """Sentences, or a question with its answer."""

    kind: DocumentKind
    text: str
    answer: str | None = None


def document(split: Split, kind: DocumentKind, draws: Draws, language: Language) -> Document:
    """A text of a kind in a language; scenes are as in pictures of 64 pixels."""
    by = speaker(language, draws)
    said = PATTERNS[language]
    match kind:
        case "description":
            scene = sample_scene(split, 64, 64, draws)
            style: Style = draws.choice(("names", "colours", "full"))
            return Document(kind, caption(scene, draws, language, style, wrappings=DESCRIPTIONS).text)
        case "translation":
            scene = sample_scene(split, 64, 64, draws)
            groups = groups_of(scene, True, draws)
            texts = {"en": _listing(scene, groups, English()), "zh": _listing(scene, groups, Chinese())}
            asked = draws.choice(said["translate"]).format(texts[language])
            return Document(kind, asked, texts["zh" if language == "en" else "en"])
        case "question":
            return _question(split, draws, language)
        case "edit":
            edit = sample_edit(split, draws.choice(_TOLD), 64, 64, draws)
            before, after = (
                _listing(scene, groups_of(scene, True, draws), by) for scene in (edit.before, edit.after)
            )
            asked = instruction(edit, by, draws).rstrip(".。")
            return Document(kind, draws.choice(said["edited"]).format(before, asked), after)
        case "riddle":
            asked = riddle(split, draws.choice(RIDDLE_KINDS), 64, 64, draws, language)
            return Document(kind, asked.prompt, asked.reasoning)
        case "spelling":
            return Document(kind, _spelling(draw_word(draws, split), split, by, draws))
    raise ValueError(f"{kind!r}: expected one of {DOCUMENT_KINDS}")


def _listing(scene: Scene, groups: list[Group], by: Speaker) -> str:
    parts = [by.some(group.count, group.shape, group.colour) for group in groups]
    return by.joined([*parts, *(by.written(text.content) for text in scene.texts)])


def _question(split: Split, draws: Draws, language: Language) -> Document:
    """A description in the place of the picture, a question about it and its answer."""
    asked = interview(split, draws.choice(_ASKED), 64, 64, draws, language)
    about_two = asked.questions[0].kind in ("side", "beside") and len(asked.scene.items) == 2
    if asked.questions[0].kind == "side" and not about_two:
        return _question(split, draws, language)
    style: Style = "coloured relation" if about_two else "full"
    told = caption(asked.scene, draws, language, style, wrappings=DESCRIPTIONS).text.rstrip(".。")
    text = draws.choice(PATTERNS[language]["asked"]).format(told, asked.questions[0].text)
    return Document("question", text, asked.questions[0].answer)


def _spelling(word: str, split: Split, by: Speaker, draws: Draws) -> str:
    said = PATTERNS[by.language]
    comma, stop = COMMAS[by.language]
    spelled = [draws.choice(said["spelled"]).format(by.quoted(word), comma.join(word))]
    if len(word) > 1:
        spelled.append(draws.choice(said["length"]).format(by.quoted(word), by.counting(len(word))))
    if len(word) > 1 and is_held_out(Word(word[::-1])) == (split == "heldout"):
        spelled.append(draws.choice(said["backwards"]).format(comma.join(word), comma.join(word[::-1])))
    return stop.join(spelled) + stop.strip()
