"""From marks to scores: means by kind, over kinds, and a table."""

from collections.abc import Iterable, Mapping, Sequence

from mammoth_jax.data.synthetic.language import LANGUAGES
from mammoth_jax.evals.synthetic.judging import SCORE, Mark
from mammoth_jax.evals.synthetic.samples import GENEVAL, KINDS_OF, Task

OVERALL = "overall"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "drawing": (SCORE, *LANGUAGES, "shuffled", "vae", "mammothtok", "letters"),
    "edit": (SCORE, *LANGUAGES, "carried_out", "preserved", "unchanged", "caption_alone", "vae"),
    "question": (SCORE, *LANGUAGES, "withheld"),
    "riddle": (SCORE, *LANGUAGES, "shuffled", "think", "think_shuffled"),
}
"""The columns of a task's table."""


def mean_scores(marks: Iterable[Mark]) -> dict[str, float]:
    """Scores by name: ``drawing.counting``, ``drawing.counting.zh``, ``drawing.counting.shuffled``,
    ``drawing.overall``.

    ``overall`` is the mean over a task's kinds, of drawings over GenEval's six, where there are marks of all of them.
    """
    values: dict[tuple[str, str, str], list[float]] = {}
    for mark in marks:
        measures = (SCORE, mark.language) if mark.measure == SCORE else (mark.measure,)
        for measure in measures:
            values.setdefault((mark.task, mark.kind, measure), []).append(mark.value)
    means = {key: sum(found) / len(found) for key, found in values.items()}
    for task, measure in dict.fromkeys((task, measure) for task, _, measure in means):
        kinds = overall_kinds(task)
        if all((task, kind, measure) in means for kind in kinds):
            means[task, OVERALL, measure] = sum(means[task, kind, measure] for kind in kinds) / len(kinds)
    return {
        name(*key): round(value, 6) for key, value in sorted(means.items(), key=lambda pair: _place(pair[0]))
    }


def overall_kinds(task: str) -> Sequence[str]:
    """The kinds of a task that its overall score is the mean of."""
    tasks: dict[str, Task] = {"edit": "edit", "question": "question", "riddle": "riddle"}
    return GENEVAL if task == "drawing" else KINDS_OF[tasks[task]]


def name(task: str, kind: str, measure: str) -> str:
    """A score's name."""
    parts = (task, kind.replace(" ", "_"), *(() if measure == SCORE else (measure,)))
    return ".".join(parts)


def table(scores: Mapping[str, float], heading: str) -> str:
    """A table a task, in per cent, in Markdown."""
    out = [heading]
    for task, columns in COLUMNS.items():
        kinds = (*KINDS_OF[_task(task)], OVERALL)
        rows = [(kind, [scores.get(name(task, kind, column)) for column in columns]) for kind in kinds]
        rows = [(kind, values) for kind, values in rows if any(value is not None for value in values)]
        if not rows:
            continue
        out += ["", f"## {task}", "", "| | " + " | ".join(c.replace("_", " ") for c in columns) + " |"]
        out += ["|---" * (1 + len(columns)) + "|"]
        out += [f"| {kind} | " + " | ".join(map(_per_cent, values)) + " |" for kind, values in rows]
    return "\n".join(out) + "\n"


def _task(task: str) -> Task:
    return next(known for known in KINDS_OF if known == task)


def _place(key: tuple[str, str, str]) -> tuple:
    """Tasks, kinds and measures in the order of the tables; what is in none of them last."""
    task, kind, measure = key
    kinds, columns = [*KINDS_OF[_task(task)], OVERALL], COLUMNS[task]
    return (
        list(COLUMNS).index(task),
        kinds.index(kind),
        columns.index(measure) if measure in columns else len(columns),
        measure,
    )


def _per_cent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
