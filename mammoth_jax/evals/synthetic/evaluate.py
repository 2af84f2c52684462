"""The whole benchmark: drawing, answering, scoring; what is there is not made again."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.files import write_text_whole
from mammoth_jax.core.progress import Progress
from mammoth_jax.evals.jobs import Draw, draw_jobs, is_picture
from mammoth_jax.evals.synthetic.answers import SHOWN, WITHHELD, Answer, answer_all, read_answers
from mammoth_jax.evals.synthetic.judging import Mark, Names
from mammoth_jax.evals.synthetic.marks import (
    Call,
    ceiling_calls,
    drawing_calls,
    edit_calls,
    question_marks,
    work_off,
)
from mammoth_jax.evals.synthetic.pictures import jobs, prompt_list, prompt_list_file
from mammoth_jax.evals.synthetic.reconstructions import Reconstruct
from mammoth_jax.evals.synthetic.samples import TASKS, Sample, Task, samples
from mammoth_jax.evals.synthetic.scores import mean_scores, table

AT_ONCE: tuple[Task, ...] = ("drawing", "riddle", "edit-caption")
"""Tasks that are words alone: planned together, so that they share their compiled shapes."""


@dataclasses.dataclass(frozen=True)
class Means:
    """What a model does: draws, draws after reasoning, answers, and codes and decodes pictures."""

    draw: Draw
    think: Draw
    answer: Answer
    reconstructions: Mapping[str, Reconstruct]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is evaluated.

    Attributes:
        out: the folder.
        tasks: which tasks; ``edit`` with ``edit-caption`` has both baselines.
        count: prompts of each kind.
        num_images: pictures of each prompt.
        seed: of the first picture.
        picture_size: height and width of the scenes.
        batch_size: questions at once.
        workers: processes that score.
    """

    out: Path
    tasks: tuple[Task, ...] = TASKS
    count: int = 100
    num_images: int = 4
    seed: int = 0
    picture_size: tuple[int, int] = (64, 64)
    batch_size: int = 16
    workers: int = 1

    def samples(self) -> dict[Task, Sequence[Sample]]:
        """Those of the tasks, in the order of :data:`TASKS`."""
        return {task: self._samples(task) for task in TASKS if task in self.tasks}

    def digest(self) -> str:
        """The SHA-256 of what all tasks ask, those that are not evaluated included."""
        whole = "".join(prompt_list(self._samples(task)) for task in TASKS)
        return hashlib.sha256(whole.encode()).hexdigest()

    def check(self, means: Means) -> None:
        """Looks for what would stop the run, before anything is drawn.

        Raises:
          InputError: the model lacks a part, or cannot draw so; a baseline is asked for without what it stands beside.
        """
        asked = self.samples()
        if "edit" in asked and "vae" not in means.reconstructions:
            raise InputError("edits are judged beside the VAE's reconstructions, and the model has no VAE")
        if "edit-caption" in asked and not ("edit" in asked or self._is_there("edit")):
            raise InputError("edit-caption is the baseline beside edit; ask for both: --tasks edit,edit-caption")
        for task, found in asked.items():
            if task != "question":
                draw = means.think if task == "riddle-think" else means.draw
                draw.check([r for job in jobs(found, self.num_images, self.seed) for r in job.requests])

    def files(self) -> list[str]:
        """The pictures that will be drawn."""
        every = (one for found in self.samples().values() for one in found if one.task != "question")
        return [job.file for job in jobs(every, self.num_images, self.seed)]

    def run(self, means: Means, heading: str, progress: Progress) -> dict[str, float]:
        """Draws and answers what is missing, scores everything, and writes ``scores.json``, ``scores.md`` and
        ``results.jsonl``, which says what is wrong with every picture.

        What earlier starts finished in the folder of other tasks is scored with it.
        """
        asked = self.samples()
        for task, found in asked.items():
            file = prompt_list_file(self.out, task)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text_whole(file, prompt_list(found))
        self._draw([one for task in AT_ONCE for one in asked.get(task, ())], means.draw, progress)
        self._draw(asked.get("edit", ()), means.draw, progress)
        self._draw(asked.get("riddle-think", ()), means.think, progress)
        answers = answer_all(
            asked.get("question", ()), self._answers, means.answer, self.batch_size, progress
        )
        there = [task for task in TASKS if task in asked or self._is_there(task)]
        done = {task: self._samples(task) for task in there}
        calls = list(self._calls(done, means))
        marks: list[Mark] = [*work_off(calls, self.workers, self.out / "scoring.jsonl", progress)]
        marks += question_marks(done.get("question", ()), answers)
        scores = mean_scores(marks)
        shown = (mark for mark in marks if not mark.measure.endswith("shuffled"))
        write_text_whole(self.out / "results.jsonl", "".join(f"{mark.to_json()}\n" for mark in shown))
        write_text_whole(self.out / "scores.md", table(scores, heading))
        write_text_whole(self.out / "scores.json", json.dumps(scores, indent=1) + "\n")
        return scores

    @property
    def _answers(self) -> Path:
        return self.out / "question" / "answers.jsonl"

    def _samples(self, task: Task) -> Sequence[Sample]:
        return samples(task, self.count, self.picture_size)

    def _is_there(self, task: Task) -> bool:
        """Whether an earlier start finished a task in this folder."""
        if not prompt_list_file(self.out, task).is_file():
            return False
        found = self._samples(task)
        if task == "question":
            answers = read_answers(self._answers)
            return all((sample.stem, how) in answers for sample in found for how in (SHOWN, WITHHELD))
        return all(is_picture(self.out / job.file) for job in jobs(found, self.num_images, self.seed))

    def _draw(self, found: Iterable[Sample], draw: Draw, progress: Progress) -> None:
        draw_jobs(jobs(found, self.num_images, self.seed), self.out, draw, progress)

    def _calls(self, asked: Mapping[Task, Sequence[Sample]], means: Means) -> Iterator[Call]:
        """All that is to be judged of pictures."""
        drawn = asked.get("drawing", [])
        yield from drawing_calls(drawn, self.out, self.num_images, Names("drawing"))
        yield from ceiling_calls(drawn, means.reconstructions if drawn else {}, "drawing")
        if "edit" in asked:
            captioned = asked.get("edit-caption", [])
            vae = means.reconstructions["vae"]
            yield from edit_calls(asked["edit"], captioned, self.out, self.num_images, vae)
        yield from drawing_calls(asked.get("riddle", []), self.out, self.num_images, Names("riddle"))
        thought = Names("riddle", "think", "think_shuffled", "think_letters")
        yield from drawing_calls(asked.get("riddle-think", []), self.out, self.num_images, thought)
