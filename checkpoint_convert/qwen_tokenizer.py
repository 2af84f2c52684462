"""The text vocabulary of a Hugging Face Qwen folder as BPE ranks: a token's id is its rank."""

import json
from pathlib import Path
from typing import Any

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing.byte_level import byte_letters


def read_ranks(folder: Path) -> dict[bytes, int] | None:
    """Byte sequence to rank, from ``vocab.json`` or ``tokenizer.json``; None if the folder has neither.

    Raises:
      InputError: a file that is not a byte-level vocabulary with ids 0, 1, 2, ...
    """
    file = next(
        (folder / name for name in ("vocab.json", "tokenizer.json") if (folder / name).is_file()), None
    )
    if file is None:
        return None
    characters = {letter: byte for byte, letter in enumerate(byte_letters())}
    try:
        data: Any = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = data if file.name == "vocab.json" else data["model"]["vocab"]
        ranks = {bytes(characters[c] for c in token): int(rank) for token, rank in vocabulary.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not a byte-level BPE vocabulary ({error!r}); copy it again") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise InputError(
            f"{file}: ids are not 0 to {len(ranks) - 1}; expected the vocabulary of a Qwen model"
        )
    return ranks
