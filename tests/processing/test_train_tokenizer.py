"""A vocabulary that is learned here encodes as its own trainer does, and is the same whatever the texts' order."""

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing.special_tokens import vision_token_lines
from mammoth_jax.processing.tokenizer import Tokenizer
from mammoth_jax.processing.train_tokenizer import train_ranks

TEXTS = [
    *(f"a {c} {s} left of a {d} {t}" for c in ("red", "blue") for s in ("circle", "star") for d in ("green", "red")
      for t in ("square", "ring")),
    *(f"画一个{c}的{s}。" for c in ("红色", "蓝色", "绿色") for s in ("圆形", "星形", "方形")),
]  # fmt: skip


def _tokenizer(ranks):
    return Tokenizer.from_ranks(ranks, vision_token_lines(16), gen_vocab_start=1024)


def test_words_that_occur_often_become_one_token_and_any_text_survives():
    ranks = train_ranks(TEXTS, 320)
    tokenizer = _tokenizer(ranks)
    assert len(ranks) == 320 and sorted(ranks.values()) == list(range(320))
    assert len(tokenizer.encode(" circle")) == 1 and len(tokenizer.encode(" square")) == 1
    for text in (*TEXTS, "Überraschung 漢字 \U0001f600\n\t<|im_end|>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert max(len(tokenizer.encode(text)) for text in TEXTS) <= 12


def test_ranks_do_not_depend_on_the_order_of_the_texts():
    assert train_ranks(TEXTS, 320) == train_ranks(reversed(TEXTS), 320)


@pytest.mark.parametrize(("count", "message"), [(255, "256 or more"), (5000, "these texts give")])
def test_an_impossible_number_of_ranks_is_refused(count, message):
    with pytest.raises(InputError, match=message):
        train_ranks(TEXTS, count)
