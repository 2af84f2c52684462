"""``eval``: options, run.json, what goes on and what is refused; drawing itself is stood in for."""

import dataclasses
import json
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from flax import nnx
from PIL import Image

from mammoth_jax.cli import evaluating
from mammoth_jax.cli.main import main
from mammoth_jax.core.errors import InputError
from mammoth_jax.processing.generation_config import GenerationSettings
from mammoth_jax.processing.text_generation_config import TextGenerationSettings
from tests.evals.stand_in import StandIn

CHECKPOINT = GenerationSettings(
    end_of_line=1, visual_start=2, visual_end=9, top_k=7, top_p=0.9, do_sample=True
)

MAKE_DRAW = evaluating.make_draw


def loaded_model(settings=CHECKPOINT, weight=0.0, **more):
    """What a command has loaded: settings, and a model of one weight."""
    model = nnx.Module()
    model.scale = nnx.Param(jnp.full((2,), weight))
    more |= {"settings": settings, "text_settings": TextGenerationSettings()}
    return SimpleNamespace(loaded=SimpleNamespace(model=model, **more))


@pytest.fixture
def drawn(monkeypatch):
    """The stand-ins that were made, each with the arguments of the command."""
    made = []

    def make(args, pipeline, progress):
        draw = StandIn(made.interrupt_after)
        made.append((args, draw))
        return draw

    class Made(list):
        interrupt_after = None

    made = Made()
    monkeypatch.setattr(evaluating, "load_pipeline", lambda args: loaded_model())
    monkeypatch.setattr(evaluating, "make_draw", make)
    return made


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "evaluation_metadata.jsonl"
    rows = [{"tag": "single_object", "include": [], "prompt": f"a photo of {i}"} for i in range(2)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def run(capsys, *words):
    """Status, stdout, and stderr."""
    status = main(["eval", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def record(out):
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def test_the_layout_and_the_record_of_a_run(drawn, prompts, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    words = ("--preset", "nano", "--mode", "ar", "--seed", 5, "--steps", 3)
    words = ("geneval", "--prompts", prompts, "--out", out, *words)
    status, said, _ = run(capsys, *words)
    assert status == 0 and "8 pictures, 8 drawn now" in said
    assert len(list(out.rglob("samples/*.png"))) == 8
    settings = record(out)["settings"]
    expected = {
        "benchmark": "geneval", "mode": "ar", "seed": 5, "num_images": 4, "num_inference_steps": 3, "top_k": 7,
        "preset": "nano", "size": None, "think": None, "temperature": 1.0,
    }  # fmt: skip
    assert {name: settings[name] for name in expected} == expected
    assert settings["prompts"]["name"] == prompts.name and len(settings["prompts"]["sha256"]) == 64
    assert {"dtype", "precision", "version", "guidance_scale", "ar_guidance_scale"} <= settings.keys()
    assert record(out)["finished"] is not None and record(out)["pictures"] == 8
    assert "Mask2Former" in record(out)["scorer"]


def test_a_run_that_was_stopped_goes_on(drawn, prompts, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("geneval", "--prompts", prompts, "--out", out)
    drawn.interrupt_after = 3
    assert run(capsys, *words)[0] == 130
    assert record(out)["finished"] is None
    drawn.interrupt_after = None
    assert "8 pictures, 5 drawn now" in run(capsys, *words, "--batch", 2)[1]
    assert [start["batch"] for start in record(out)["starts"]] == [16, 2]
    _, said, _ = run(capsys, *words, "--json")
    assert json.loads(said) == {"pictures": 8, "drawn_now": 0}


@pytest.mark.parametrize(("words", "negative"), [([], ""), (["--negative-prompt", "dark"], "dark")])
def test_the_checkpoints_own_negative_prompt_holds_unless_one_is_given(
    drawn, prompts, tmp_path, capsys, monkeypatch, words, negative
):
    own = dataclasses.replace(CHECKPOINT, drawing={"negative_prompt": ""})
    pipeline = loaded_model(own, config=None)
    monkeypatch.setattr(evaluating, "load_pipeline", lambda args: pipeline)
    run(capsys, "geneval", "--prompts", prompts, "--out", tmp_path / "out", *words)
    assert record(tmp_path / "out")["settings"]["negative_prompt"] == negative
    draw = MAKE_DRAW(drawn[0][0], pipeline, lambda *report: None)
    assert draw.options.negative_prompt == negative


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "diffusion"], 'mode was "ar+diffusion", now "diffusion"'),
        (["--seed", 1], "seed was 0, now 1"),
        (["--num-images", 2], "num_images was 4, now 2"),
        (["--dtype", "bfloat16"], 'dtype was "float32", now "bfloat16"'),
        (["--think"], "think was null, now {"),
    ],
)
def test_other_settings_are_refused(drawn, prompts, tmp_path, capsys, words, said):
    out = tmp_path / "out"
    run(capsys, "geneval", "--prompts", prompts, "--out", out)
    status, _, error = run(capsys, "geneval", "--prompts", prompts, "--out", out, *words)
    assert status == 2 and said in error and error.splitlines()[-1].count("was") == 1


def test_other_prompts_are_refused(drawn, prompts, tmp_path, capsys):
    words = ("geneval", "--prompts", prompts, "--out", tmp_path / "out")
    run(capsys, *words)
    prompts.write_text(prompts.read_text().replace("photo", "picture"))
    status, _, error = run(capsys, *words)
    assert status == 2 and "prompts was" in error


def test_other_weights_in_the_same_place_are_refused(drawn, prompts, tmp_path, capsys, monkeypatch):
    words = ("geneval", "--prompts", prompts, "--out", tmp_path / "out")
    run(capsys, *words)
    monkeypatch.setattr(evaluating, "load_pipeline", lambda args: loaded_model(weight=1.0))
    status, _, error = run(capsys, *words)
    assert status == 2 and "weights was" in error and error.splitlines()[-1].count("was") == 1


def test_what_cannot_be_drawn_is_refused_before_the_run_begins(drawn, prompts, tmp_path, capsys, monkeypatch):
    def check(self, requests):
        raise InputError(f"seed {requests[0].seed}")

    words = ("geneval", "--prompts", prompts, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(StandIn, "check", check)
        assert run(capsys, *words, "--seed", -1)[0] == 2
    assert run(capsys, *words)[0] == 0


@pytest.mark.parametrize("benchmark", ["geneval", "dpg", "imgedit", "gedit", "ueg"])
def test_without_prompts_the_source_is_named(drawn, tmp_path, capsys, benchmark):
    status, _, error = run(capsys, benchmark, "--out", tmp_path / "out")
    assert status == 2 and "no --prompts; give" in error and "https://" in error and error.count("\n") == 1
    assert not drawn and not (tmp_path / "out").exists()


def test_the_first_pictures_alone_and_then_the_rest(drawn, prompts, tmp_path, capsys):
    words = ("geneval", "--prompts", prompts, "--out", tmp_path / "out")
    run(capsys, *words, "--limit", 3)
    assert len(drawn[0][1].asked) == 3 and record(tmp_path / "out")["finished"] is None
    assert "8 pictures, 5 drawn now" in run(capsys, *words)[1]
    run(capsys, *words, "--limit", 3)
    assert record(tmp_path / "out")["finished"] is not None  # what is finished stays so


def test_edits_find_their_pictures_and_keep_how_these_are_seen(drawn, tmp_path, capsys):
    (tmp_path / "shown").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "shown" / "x.png")
    file = tmp_path / "basic_edit.json"
    file.write_text(json.dumps({"1": {"id": "x.png", "prompt": "add", "edit_type": "add"}}))
    words = ("imgedit", "--prompts", file, "--images", tmp_path / "shown", "--out", tmp_path / "out")
    assert run(capsys, *words, "--no-vision", "--image-guidance", 1.5)[0] == 0
    settings = record(tmp_path / "out")["settings"]
    assert (settings["use_vision"], settings["use_tokens"]) == (False, True)
    assert settings["image_guidance_scale"] == 1.5
    assert (tmp_path / "out" / "1.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: BENCHMARK"),
        (["wise", "--out", "x"], "invalid choice: 'wise'"),
        (["geneval"], "the following arguments are required: --out"),
        (["ueg", "--prompts", "x", "--out", "x", "--num-images", "4"], "the scorer reads one a prompt"),
        (["dpg", "--prompts", "x", "--out", "x", "--size", "64x32"], "cuts squares"),
        (["geneval", "--prompts", "x", "--out", "x", "--mode", "both"], "invalid choice: 'both'"),
    ],
)
def test_bad_options_are_one_line(drawn, capsys, words, said):
    status, _, error = run(capsys, *words)
    assert status == 2 and said in error and error.count("\n") == 1 and not drawn


@pytest.fixture
def small_world(drawn, monkeypatch):
    """The small world's benchmark with a model that is right; scenes are known by their pixels."""
    from mammoth_jax.cli import eval_synthetic
    from mammoth_jax.data.synthetic.score import edit_judge
    from mammoth_jax.evals.synthetic import judging
    from mammoth_jax.evals.synthetic.evaluate import Means
    from mammoth_jax.evals.synthetic.samples import TASKS, samples
    from tests.evals.synthetic.true_scenes import Eye, Hand, Mind, exact

    asked = {task: samples(task, 2) for task in TASKS}
    every = [sample for found in asked.values() for sample in found]
    hand, eye = Hand(every), Eye(every)
    made = Means(hand, hand, Mind(asked["question"]), {"vae": exact, "mammothtok": exact})
    pipeline = loaded_model(config=SimpleNamespace(picture_size=64))
    monkeypatch.setattr(evaluating, "load_pipeline", lambda args: pipeline)
    monkeypatch.setattr(eval_synthetic, "means", lambda args, pipeline, progress: made)
    monkeypatch.setattr(judging, "find", eye)
    monkeypatch.setattr(edit_judge, "find", eye)
    return hand


def test_the_small_world_is_scored(small_world, tmp_path, capsys):
    words = ("--preset", "nano", "--count", 2, "--num-images", 1, "--workers", 1)
    words = ("synthetic", "--out", tmp_path, *words)
    status, said, _ = run(capsys, *words, "--tasks", "question,drawing", "--steps", 2)
    assert status == 0 and said.startswith("# preset nano\n") and "2 steps" in said
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["drawing.overall"] == scores["question.overall"] == 1 and "edit.overall" not in scores
    assert record(tmp_path)["settings"]["count"] == 2 and record(tmp_path)["scores"] == scores
    drawn = len(small_world.asked)
    status, said, _ = run(capsys, *words, "--steps", 2, "--json")
    assert (
        json.loads(said)["edit.overall"] == 1 and record(tmp_path)["starts"][1]["tasks"][-1] == "riddle-think"
    )
    later = {request.seed for request in small_world.asked[drawn:]}
    assert later == {0, 1}
    status, _, error = run(capsys, *words, "--steps", 3)
    assert status == 2 and "num_inference_steps was 2, now 3" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "drawing,singing"], "'singing' is none of drawing"),
        (["--think"], "unrecognized arguments: --think"),
        (["--prompts", "x"], "unrecognized arguments: --prompts"),
    ],
)
def test_bad_options_of_the_small_world_are_one_line(small_world, tmp_path, capsys, words, said):
    status, _, error = run(capsys, "synthetic", "--preset", "nano", "--out", tmp_path / "out", *words)
    assert status == 2 and said in error and error.count("\n") == 1
