"""Operations of a step, against those of forward passes."""

import numpy as np
import pytest

from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.models import costs
from mammoth_jax.models.mammoth import Mammoth
from mammoth_jax.training.flops import StepLoad
from tests.tiny_model import tiny_config

CONFIG = tiny_config()
DECODER = CONFIG.backbone.decoder
GENERATION = DECODER.gen_vocab_start_index


def template(*parts):
    return abstract(lambda: Mammoth(CONFIG, parts=frozenset(parts)))


def text_batch(lengths, width, generated=0):
    """Rows of one segment each; the last tokens of each are generation tokens."""
    ids, segments = np.zeros((2, len(lengths), width), np.int32)
    for row, n in enumerate(lengths):
        segments[row, :n] = 1
        ids[row, n - generated : n] = GENERATION
    labels = np.where((segments > 0) & (np.arange(width) > 0), ids, -100)
    return {"ids": ids, "labels": labels, "token_segments": segments}


def test_a_text_step_costs_three_passes_of_what_its_tokens_need():
    model = template("text_decoder")
    load = StepLoad.of(CONFIG, model, set(named_parameters(model)))(text_batch([7, 30], 40))
    assert load.tokens == 37
    passes = sum((costs.decoder_pass(DECODER, 1, n, 4).flops for n in (7, 30)), 0)
    heads = costs.head(DECODER, 6 + 29, DECODER.vocab_size, 4).flops
    assert load.flops == pytest.approx(3 * (passes + heads))


def test_a_generation_token_meets_one_expert_and_frozen_weights_cost_less():
    model = template("text_decoder", "generation_experts")
    names = set(named_parameters(model))
    batch = text_batch([32], 32, generated=20)
    full = StepLoad.of(CONFIG, model, names)(batch).flops
    plain = StepLoad.of(CONFIG, template("text_decoder"), set(named_parameters(template("text_decoder"))))(
        batch
    )
    gen_head = 3 * costs.head(DECODER, 31, DECODER.gen_vocab_size, 4).flops
    assert full == pytest.approx(plain.flops + gen_head)
    experts = {n for n in names if ".ffn.1" in n}
    half = StepLoad.of(CONFIG, model, experts)(batch).flops
    passed = StepLoad.of(CONFIG, model, ())(batch).flops
    attention = costs.decoder_pass(DECODER, 1, 32, 4).attention
    ffn = sum(p.size for n, p in named_parameters(model).items() if n in experts and n.endswith("kernel"))
    assert full == pytest.approx(3 * passed)
    assert half == pytest.approx(2 * passed + attention + 2 * ffn * 20)


def test_a_drawn_sample_costs_what_the_transformer_needs():
    model = template("text_decoder", "dit")
    arrays = {
        "condition_segments": np.r_[np.ones(10, int), np.zeros(6, int)][None],
        "target_sample": np.ones((1, 64), int),
        "reference_segments": np.zeros((1, 4), int),
        "joint_segments": np.r_[np.ones(74, int), np.zeros(6, int)][None],
        "sample_tokens": np.asarray([[64, 0]]),
        "token_sample": np.zeros((1, 40), int),
    }
    text = text_batch([30], 40)
    names = {n for n in named_parameters(model) if n.startswith("dit.")}
    of = StepLoad.of(CONFIG, model, names)
    drawn = of(text | arrays).flops - of(text).flops
    expected = costs.dit_evaluation(CONFIG.dit, 1, 10, 64, 4) + costs.condition(CONFIG.dit, None, 1, 10, 0, 4)
    assert drawn == pytest.approx(3 * expected.flops)
