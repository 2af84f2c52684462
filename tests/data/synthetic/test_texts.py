"""The listing of words and characters, and the stream of texts."""

import re

import pytest

from mammoth_jax.data.synthetic.texts import characters, corpus, vocabulary_corpus, words
from mammoth_jax.processing.train_tokenizer import train_ranks


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for split in ("train", "heldout") for text in corpus(split, 1000, seed=5)]


def test_all_that_is_said_is_listed(texts):
    known, letters = set(words()), set(characters())
    for text in texts:
        assert set(text) <= letters, set(text) - letters
        text = re.sub(r"(?:^|(?<=[.?!] ))[A-Z](?=[a-z ])", lambda found: found[0].lower(), text)
        text = text.replace("Chinese", "chinese")
        assert set(re.findall("[a-z]+|[\u4e00-\u9fff]", text)) <= known, text


def test_the_listing_is_small_and_mostly_used(texts):
    """Nano has fewer than 2,048 ids of text, of which 256 are bytes."""
    listed = set(words())
    assert len(listed) < 500 and len(characters()) < 350
    used = {word for text in texts for word in re.findall("[a-z]+|[\u4e00-\u9fff]", text.lower())}
    assert len(listed - used) <= 0.03 * len(listed), listed - used


def test_capitals_are_of_written_words_and_of_the_first_letter_alone(texts):
    """What a tokenizer relies on that gives each capital a token of its own."""
    for text in texts:
        rest = re.sub(r"[\"“]\w+[\"”]|\b[A-Z](?=[,.、。]|倒| backwards|$)|Chinese", "", text)
        if text.isascii():
            rest = re.sub(r"(^|[.?!] )[A-Z](?=[a-z ])", r"\1", rest)
        else:
            rest = re.sub(r"(?<=[、是作])[A-Z]|[A-Z](?=[、。])", "", rest)
        written = re.fullmatch("[A-Z0-9]+", text)  # the answer to what it says
        assert written or not re.search("[A-Z]", rest), text


def test_texts_are_short(texts):
    lengths = sorted(map(len, texts))
    assert lengths[len(lengths) // 2] < 45 and lengths[-1] < 300


def test_the_stream_is_the_same_again():
    assert list(corpus("train", 40)) == list(corpus("train", 40)) != list(corpus("train", 40, seed=1))


def test_a_learned_vocabulary_spells_written_words_letter_by_letter():
    ranks = train_ranks(vocabulary_corpus("train", 2000), 640)
    joined = [token.decode(errors="replace") for token in ranks if len(token) > 1]
    assert not [token for token in joined if re.search("[A-Z0-9][A-Z0-9]|[^a-z ][A-Z0-9]|[0-9]", token)]
    assert {" circle", " square", "圆形", "的"} <= set(joined)
