"""Questions and what the model answered, kept as they come."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from mammoth_jax.core.files import write_text_whole
from mammoth_jax.core.progress import Progress
from mammoth_jax.evals.synthetic.samples import Sample
from mammoth_jax.pipelines.chat import ChatOptions, ChatPipeline

Answer = Callable[[Sequence[tuple[str, Image.Image | None]]], list[str]]
"""Answers to questions about a picture each, or about none."""

SHOWN, WITHHELD = "shown", "withheld"


def answer_options(max_new_tokens: int) -> ChatOptions:
    """The best token at a time; for the rest the checkpoint's own settings."""
    return ChatOptions(max_new_tokens, temperature=0.0)


@dataclasses.dataclass(frozen=True)
class ChatAnswer:
    """Answers with a model as :func:`answer_options` says; all launches have as many rows."""

    pipeline: ChatPipeline
    max_new_tokens: int
    batch_size: int

    def __call__(self, questions: Sequence[tuple[str, Image.Image | None]]) -> list[str]:
        """Either all have a picture or none has."""
        filled = [*questions, *[questions[-1]] * (self.batch_size - len(questions))]
        shown = [[picture] if picture is not None else [] for _, picture in filled]
        out = self.pipeline(
            [words for words, _ in filled],
            images=shown,
            **dataclasses.asdict(answer_options(self.max_new_tokens)),
        )
        return out.texts[: len(questions)]


def answer_all(
    samples: Sequence[Sample], file: Path, answer: Answer, batch_size: int, progress: Progress
) -> dict[tuple[str, str], str]:
    """Answers by sample (its stem) and by whether its picture was shown; those in the file are not asked again."""
    answers = read_answers(file)
    wanted = [(sample, how) for how in (SHOWN, WITHHELD) for sample in samples]
    missing = [one for one in wanted if (one[0].stem, one[1]) not in answers]
    for how in (SHOWN, WITHHELD):
        asked = [sample for sample, one in missing if one == how]
        for first in range(0, len(asked), batch_size):
            group = asked[first : first + batch_size]
            said = answer([(s.prompt, s.picture() if how == SHOWN else None) for s in group])
            answers |= {(s.stem, how): text for s, text in zip(group, said, strict=True)}
            _write(file, answers, samples)
            progress("answers", sum((s.stem, h) in answers for s, h in wanted), len(wanted))
    return answers


def read_answers(file: Path) -> dict[tuple[str, str], str]:
    """What :func:`answer_all` has written so far."""
    if not file.is_file():
        return {}
    # Not splitlines: answers may hold other characters that it takes for the ends of lines.
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return {(line["file"], line["picture"]): line["answer"] for line in lines}


def _write(file: Path, answers: Mapping[tuple[str, str], str], samples: Sequence[Sample]) -> None:
    known = {sample.stem: sample for sample in samples}
    lines = [
        {"file": stem, "picture": how, "question": known[stem].prompt, "answer": answer}
        | {"expected": known[stem].question.answer}
        for (stem, how), answer in answers.items()
        if stem in known
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text_whole(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
