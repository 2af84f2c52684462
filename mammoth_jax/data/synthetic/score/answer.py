"""Whether an answer to a question about a picture is right."""

from mammoth_jax.data.synthetic.questions import Question


def judge_answer(question: Question, answer: str) -> bool:
    """Whether the answer is the right one, word by word; case, spaces around it and a full stop do not matter."""
    return _bare(answer) == _bare(question.answer)


def _bare(answer: str) -> str:
    return " ".join(answer.split()).casefold().rstrip(".。").rstrip()
