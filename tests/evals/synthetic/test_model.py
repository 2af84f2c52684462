"""The small world's benchmark with a whole model, which is tiny and knows nothing."""

import json

import numpy as np
import pytest
from PIL import Image

from mammoth_jax.evals.pipeline_draw import PipelineDraw
from mammoth_jax.evals.synthetic.answers import ChatAnswer
from mammoth_jax.evals.synthetic.evaluate import Evaluation, Means
from mammoth_jax.evals.synthetic.reconstructions import reconstructions
from mammoth_jax.pipelines.chat import ChatPipeline
from mammoth_jax.pipelines.options import TextToImageOptions
from mammoth_jax.pipelines.think_then_draw import ThinkOptions
from tests.evals.stand_in import silent
from tests.tiny_model import tiny_pipeline


@pytest.mark.slow
def test_a_model_is_drawn_asked_and_scored(tmp_path):
    pipeline = tiny_pipeline()
    options = TextToImageOptions(num_inference_steps=1)
    draw = PipelineDraw(pipeline, options, lambda picture: {"seed": picture.request.seed}, batch_size=4)
    think = PipelineDraw(
        pipeline, options, lambda picture: {}, think=ThinkOptions(max_new_tokens=2), batch_size=4
    )
    model = Means(
        draw, think, ChatAnswer(ChatPipeline(pipeline.loaded), 2, 4), reconstructions(pipeline.loaded, 4)
    )
    what = Evaluation(tmp_path, count=1, num_images=1, batch_size=4, workers=2)
    scores = what.run(model, "# tiny", silent)
    assert {
        "drawing.overall",
        "drawing.overall.vae",
        "edit.overall",
        "edit.overall.caption_alone",
    } <= scores.keys()
    assert {"question.overall", "question.overall.withheld", "riddle.overall.think"} <= scores.keys()
    assert all(0 <= value <= 1 for value in scores.values())
    drawn = sorted(tmp_path.glob("*/*/0000_00.png"))
    assert len(drawn) == 7 + 7 + 7 + 4 + 4
    with Image.open(drawn[0]) as picture:
        assert picture.size == (64, 64)
    answers = (tmp_path / "question" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted({json.loads(line)["picture"] for line in answers}) == ["shown", "withheld"]


@pytest.mark.slow
def test_reconstructions_do_not_depend_on_the_batch():
    loaded = tiny_pipeline().loaded
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    pictures = [Image.fromarray(one) for one in pixels]
    for name, reconstruct in reconstructions(loaded, 2).items():
        found = reconstruct(pictures)
        assert len(found) == 3 and found[0].shape == (64, 64, 3) and found[0].dtype == np.uint8
        assert not np.array_equal(found[0], found[2])
        assert np.abs(reconstruct(pictures[2:])[0].astype(int) - found[2]).max() <= 1, name
