"""Learning a text vocabulary: byte pair encoding ranks from texts, in the form that the tokenizer reads."""

from collections.abc import Iterable

from tokenizers import Tokenizer, models, trainers

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing.byte_level import byte_letters, byte_pieces

NUM_BYTES = 256


def train_ranks(texts: Iterable[str], count: int) -> dict[bytes, int]:
    """The 256 bytes and the ``count - 256`` byte sequences that byte pair encoding learns from ``texts`` first.

    Texts are cut into pieces as :class:`mammoth_jax.processing.tokenizer.Tokenizer` cuts them.  The same texts in any
    order give the same ranks.

    Raises:
      InputError: ``count`` is below 256, or the texts do not hold as many different sequences.
    """
    if count < NUM_BYTES:
        raise InputError(f"{count} ranks: expected {NUM_BYTES} or more, as every byte is a token")
    letters = byte_letters()
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = byte_pieces()
    trainer = trainers.BpeTrainer(
        vocab_size=count,
        initial_alphabet=letters,
        show_progress=False,
        min_frequency=2,
    )
    backend.train_from_iterator(texts, trainer)
    bytes_of = {letter: value for value, letter in enumerate(letters)}
    learned = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    merged = [bytes(bytes_of[letter] for letter in token) for token, _ in learned if len(token) > 1]
    ranks = [bytes([value]) for value in range(NUM_BYTES)] + merged
    if len(ranks) != count:
        raise InputError(
            f"{count} ranks: these texts give {len(ranks)}; ask for fewer, or give more or longer texts"
        )
    return {token: rank for rank, token in enumerate(ranks)}
