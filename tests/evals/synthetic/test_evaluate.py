"""The whole benchmark with a model that is right: what is drawn, scored, kept, and taken up again."""

import json

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.synthetic.score import edit_judge
from mammoth_jax.evals.synthetic import judging
from mammoth_jax.evals.synthetic.evaluate import Evaluation, Means
from mammoth_jax.evals.synthetic.samples import GENEVAL, KINDS_OF
from tests.evals.stand_in import silent
from tests.evals.synthetic.true_scenes import Eye, Hand, Mind, exact, flat

COUNT, IMAGES = 2, 2


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return Evaluation(tmp_path_factory.mktemp("nothing"), count=COUNT, num_images=IMAGES).samples()


@pytest.fixture(autouse=True)
def eye(asked, monkeypatch):
    """Scenes are known by their pixels: the finder has tests of its own."""
    seeing = Eye([sample for found in asked.values() for sample in found])
    monkeypatch.setattr(judging, "find", seeing)
    monkeypatch.setattr(edit_judge, "find", seeing)


def means(asked, missed=frozenset(), **changes):
    hand = Hand([sample for found in asked.values() for sample in found], missed)
    mind = Mind(asked["question"])
    return Means(hand, hand, mind, {"vae": exact, "mammothtok": flat} | changes)


def run(out, model, *, seed=0, heading="", **changes):
    what = Evaluation(out, count=COUNT, num_images=IMAGES, seed=seed, **changes)
    return what.run(model, heading, silent)


def test_what_is_right_is_scored_so_and_what_stands_beside_is_told_apart(asked, tmp_path):
    scores = run(tmp_path, means(asked))
    for kind in (*KINDS_OF["drawing"], "overall"):
        assert scores[f"drawing.{kind}"] == scores[f"drawing.{kind}.vae"] == 1
        assert scores[f"drawing.{kind}.mammothtok"] == 0
        assert scores[f"drawing.{kind}.zh"] == scores[f"drawing.{kind}.en"] == 1
    assert scores["drawing.overall.shuffled"] < 0.5
    for kind in (*KINDS_OF["edit"], "overall"):
        for measure in ("", ".carried_out", ".preserved", ".vae", ".caption_alone"):
            assert scores[f"edit.{kind}{measure}"] == 1, (kind, measure)
        assert scores[f"edit.{kind}.unchanged"] == 0
    assert scores["question.overall"] == 1 and scores["question.overall.withheld"] == 0
    assert scores["question.background_colour"] == 1
    assert scores["riddle.overall"] == scores["riddle.overall.think"] == 1
    assert all(0 <= value <= 1 for value in scores.values())


def test_files_that_it_leaves(asked, tmp_path):
    scores = run(tmp_path, means(asked), heading="# here")
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    text = (tmp_path / "scores.md").read_text(encoding="utf-8")
    assert text.startswith("# here\n\n## drawing\n") and "| counting | 100.0 | 100.0 | 100.0 |" in text
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text("utf-8").splitlines()]
    drawn = [r for r in results if r["task"] == "drawing" and r["measure"] == "score"]
    assert len(drawn) == 7 * COUNT * IMAGES and all((tmp_path / r["file"]).is_file() for r in drawn)
    pictures = {
        folder: len(list((tmp_path / folder).glob("*/*_[0-9][0-9].png")))
        for folder in ("drawing", "edit", "edit-caption", "riddle", "riddle-think")
    }
    assert pictures == {"drawing": 28, "edit": 28, "edit-caption": 14, "riddle": 16, "riddle-think": 16}
    assert len(list((tmp_path / "edit").glob("*/*_before.png"))) == 14
    for folder in ("drawing", "edit", "question", "riddle"):
        assert (tmp_path / folder / "prompts.jsonl").is_file()


def test_a_picture_that_is_wrong_counts_for_its_share(asked, tmp_path):
    model = means(asked, missed=frozenset((3,)))  # the second image of the second prompt, which is Chinese
    scores = run(tmp_path, model, tasks=("drawing",))
    for kind in GENEVAL:
        got = [scores[f"drawing.{kind}{measure}"] for measure in ("", ".en", ".zh", ".vae")]
        assert got == [0.75, 1, 0.5, 1]
    assert scores["drawing.overall"] == 0.75 and scores["drawing.text.letters"] == 0.75
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text("utf-8").splitlines()]
    wrong = [r for r in results if r["measure"] == "score" and not r["value"]]
    assert {r["file"][-11:] for r in wrong} == {"0001_01.png"} and all(r["reasons"] for r in wrong)


def test_only_the_tasks_that_were_asked_for(asked, tmp_path):
    model = means(asked)
    scores = run(tmp_path, model, tasks=("question",))
    assert all(name.startswith("question.") for name in scores) and not model.draw.asked
    assert run(tmp_path, model, tasks=("edit",)).keys() >= {"edit.overall", "edit.overall.unchanged"}
    assert {request.source is None for request in model.draw.asked} == {False}


def test_a_later_start_scores_what_an_earlier_one_finished(asked, tmp_path):
    model = means(asked)
    alone = Evaluation(tmp_path, ("edit-caption",), COUNT, IMAGES)
    with pytest.raises(InputError, match="ask for both"):
        alone.check(model)
    first = run(tmp_path, model, tasks=("drawing", "edit"))
    drawn = len(model.draw.asked)
    alone.check(model)
    both = run(tmp_path, model, tasks=("question", "edit-caption"))
    assert len(model.draw.asked) == drawn + 7 * COUNT
    assert first.items() <= both.items() and both["question.overall"] == both["edit.overall.caption_alone"] == 1
    next(tmp_path.glob("drawing/*/*.png")).unlink()
    again = run(tmp_path, model, tasks=("question",))
    assert "drawing.overall" not in again and "edit.overall" in again


def test_answers_may_hold_what_ends_lines_elsewhere(asked, tmp_path):
    model = means(asked)
    odd = Means(model.draw, model.think, lambda questions: ["a\u2028b\x85"] * len(questions), {})
    for _ in range(2):
        assert run(tmp_path, odd, tasks=("question",))["question.overall"] == 0


def test_the_digest_is_of_all_prompts(tmp_path):
    one, other = (Evaluation(tmp_path, tasks, 1).digest() for tasks in (("drawing",), ("question",)))
    assert one == other != Evaluation(tmp_path, count=2).digest()


def test_it_goes_on_where_it_stopped(asked, tmp_path):
    model = means(asked)

    def tired(questions):
        if model.answer.asked >= 3:
            raise KeyboardInterrupt
        return model.answer(questions)

    stopped = Means(model.draw, model.think, tired, model.reconstructions)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stopped, tasks=("drawing", "question"), batch_size=3)
    assert not (tmp_path / "scores.json").exists()
    drawn = len(model.draw.asked)
    scores = run(tmp_path, model, tasks=("drawing", "question"), batch_size=3)
    assert len(model.draw.asked) == drawn and model.answer.asked == 2 * len(asked["question"])
    assert scores["question.overall"] == scores["drawing.overall"] == 1


def test_edits_need_the_vae_beside_which_they_are_judged(asked, tmp_path):
    model = means(asked)
    blind = Means(model.draw, model.think, model.answer, {})
    with pytest.raises(InputError, match="has no VAE"):
        Evaluation(tmp_path, ("edit",), COUNT, IMAGES).check(blind)
    assert "drawing.overall.vae" not in run(tmp_path, blind, tasks=("drawing",))
