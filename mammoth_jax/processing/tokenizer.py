"""The tokenizer: text to ids and back, with special tokens reachable only by name."""

import dataclasses
import difflib
import functools
import json
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import decoders, models

from mammoth_jax.core.errors import InputError
from mammoth_jax.processing import special_tokens as names
from mammoth_jax.processing.byte_level import byte_letters, byte_pieces
from mammoth_jax.processing.tiktoken_bpe import merges, read_ranks

TOKENIZER_JSON = "tokenizer.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text and ids.

    ``encode`` never yields a special token: a prompt that spells ``<|im_end|>`` stays text.  Layouts put special
    tokens in by ``id_of``.

    Attributes:
        backend: the fast tokenizer of plain text; it knows no special token.
        special_ids: special token's name to its id.
        num_text_ids: ids below this, special ones apart, can stand for text.
        normal_form: Unicode normal form given to text first, with Python's tables: the backend's own are older and
            order some combining marks of Unicode 14 differently.  None where the backend's file says how to normalise.
    """

    backend: tokenizers.Tokenizer
    special_ids: Mapping[str, int]
    num_text_ids: int
    normal_form: Literal["NFC"] | None = None

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        family: str = "qwen3vl",
        gen_vocab_start: int = names.RELEASED_GEN_VOCAB_START,
    ) -> "Tokenizer":
        """Read a folder's tokenizer: the release's two files, or a plain ``tokenizer.json``.

        Args:
            folder: checkpoint folder.
            family: "qwen3vl" or "qwen25vl": which special tokens the release's files imply.
            gen_vocab_start: the model's ``gen_vocab_start_index``, likewise.

        Raises InputError for a missing or malformed file.
        """
        folder = Path(folder)
        ranks_file, vision_file = folder / names.RANKS_FILE, folder / names.VISION_TOKENS_FILE
        if ranks_file.is_file() and vision_file.is_file():
            return cls.from_ranks(
                read_ranks(ranks_file),
                read_vision_tokens(vision_file),
                family=family,
                gen_vocab_start=gen_vocab_start,
            )
        if not ranks_file.is_file() and not vision_file.is_file() and (folder / TOKENIZER_JSON).is_file():
            return cls.from_json(folder / TOKENIZER_JSON)
        missing = vision_file if ranks_file.is_file() else ranks_file
        raise InputError(
            f"tokenizer file {missing.name} is missing in {folder}: expected {ranks_file.name} and "
            f"{vision_file.name}, or {TOKENIZER_JSON}; copy them from the checkpoint's source folder"
        )

    @classmethod
    def from_ranks(
        cls,
        ranks: Mapping[bytes, int],
        vision_tokens: Iterable[str],
        *,
        family: str = "qwen3vl",
        gen_vocab_start: int = names.RELEASED_GEN_VOCAB_START,
        first_special: int | None = None,
    ) -> "Tokenizer":
        """Build the release's tokenizer from BPE ranks and the lines of the vision token file.

        ``first_special`` is the first special token's id, by default the one after the last rank.
        """
        letters = byte_letters()

        def spell(token: bytes) -> str:
            return "".join([letters[value] for value in token])

        backend = tokenizers.Tokenizer(
            models.BPE(
                vocab={spell(token): rank for token, rank in ranks.items()},
                merges=[(spell(left), spell(right)) for left, right in merges(ranks)],
                ignore_merges=True,  # a piece that is a token is that token, however its parts would merge
            )
        )
        backend.pre_tokenizer = byte_pieces()
        backend.decoder = decoders.ByteLevel()
        first = len(ranks) if first_special is None else first_special
        special = names.special_token_ids(family, first, gen_vocab_start, tuple(vision_tokens))
        return cls(backend=backend, special_ids=special, num_text_ids=len(ranks), normal_form="NFC")

    @classmethod
    def of_bytes(cls, family: str, image_pad: int, gen_vocab_start: int, num_codes: int) -> "Tokenizer":
        """A tokenizer for a model without one: text as bytes, special tokens where the model's ids have them.

        Args:
            family: "qwen3vl" or "qwen25vl".
            image_pad: the model's id of ``<|image_pad|>``, which tells where its special tokens start.
            gen_vocab_start: the model's ``gen_vocab_start_index``.
            num_codes: size of its codebook.
        """
        return cls.from_ranks(
            names.byte_ranks(),
            names.vision_token_lines(num_codes),
            family=family,
            gen_vocab_start=gen_vocab_start,
            first_special=names.num_text_ranks(family, image_pad),
        )

    @classmethod
    def from_json(cls, path: Path) -> "Tokenizer":
        """Read a ``tokenizer.json``; its added tokens become the special tokens, found by name only.

        Raises InputError for a file that is not a fast tokenizer's.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            added = {token["content"]: int(token["id"]) for token in content.get("added_tokens") or []}
            _remove_added_tokens(content, added)
            backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # the backend raises bare Exception
            raise InputError(
                f"{path}: not a fast tokenizer's file ({type(error).__name__}: {error}); copy the file again"
            ) from None
        text_ids = set(backend.get_vocab().values()) - set(added.values())
        return cls(backend=backend, special_ids=added, num_text_ids=max(text_ids, default=-1) + 1)

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, none of them special; lone surrogates become U+FFFD."""
        if self.normal_form is not None:
            text = unicodedata.normalize(self.normal_form, text)
        try:
            return self.backend.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return self.backend.encode(paired, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of ``ids``; bytes that are no UTF-8 become U+FFFD.

        Args:
            ids: token ids.
            skip_special: leave special tokens, and ids that no token has, out; otherwise special tokens are written by
                name and an id without a token raises InputError.
        """
        written: list[str] = []
        run: list[int] = []
        for token_id in map(int, ids):
            if self._is_text(token_id):
                run.append(token_id)
            elif not skip_special:
                written += [self._decode_text(run), self.name_of(token_id)]
                run = []
        return "".join([*written, self._decode_text(run)])

    def token_strings(self, ids: Iterable[int]) -> list[str]:
        """Each id's own text: a special token's name, or the text of its bytes (U+FFFD for part of a character)."""
        return [self.decode([token_id], skip_special=False) for token_id in ids]

    def id_of(self, name: str) -> int:
        """Id of the special token ``name``; InputError with the nearest names if this tokenizer lacks it."""
        found = self.special_ids.get(name)
        if found is None:
            near = difflib.get_close_matches(
                name, [n for n in self.special_ids if names.visual_code(n) is None], n=3
            )
            hint = f"the nearest are {', '.join(near)}" if near else "it has none like it"
            raise InputError(
                f"special token {name!r} is not in this tokenizer ({hint}); use this model's own tokenizer files"
            )
        return found

    def name_of(self, token_id: int) -> str:
        """Name of a special id; InputError for any other id."""
        name = self._special_names.get(int(token_id))
        if name is None:
            raise InputError(
                f"token id {token_id}: no special token of this tokenizer has it; use this model's own ids"
            )
        return name

    def visual_token_id(self, code: int) -> int:
        """Id of the visual token of codebook entry ``code``; InputError if the tokenizer has none for it."""
        found = self.special_ids.get(names.visual_token(int(code)))
        if found is None:
            raise InputError(
                f"visual code {code}: this tokenizer names {len(self._code_of_id)} visual tokens; use the "
                "tokenizer files of the model that wrote the code"
            )
        return found

    def code_of(self, token_id: int) -> int:
        """Codebook entry of a visual token's id; InputError for any other id."""
        code = self._code_of_id.get(int(token_id))
        if code is None:
            raise InputError(
                f"token id {token_id} is not a visual token; pass only the ids of a picture's grid"
            )
        return code

    def _is_text(self, token_id: int) -> bool:
        return 0 <= token_id < self.num_text_ids and token_id not in self._special_names

    def _decode_text(self, ids: list[int]) -> str:
        return self.backend.decode(ids, skip_special_tokens=False) if ids else ""

    @functools.cached_property
    def _special_names(self) -> dict[int, str]:
        return {token_id: name for name, token_id in self.special_ids.items()}

    @functools.cached_property
    def _code_of_id(self) -> dict[int, int]:
        codes = ((token_id, names.visual_code(name)) for name, token_id in self.special_ids.items())
        return {token_id: code for token_id, code in codes if code is not None}


def read_vision_tokens(path: Path) -> list[str]:
    """Lines of a vision token file, blank ones left out.

    Raises InputError, with the line's number, for a repeated or unreadable line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        number = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {number}: not UTF-8 text; copy the file again") from None
    line_of: dict[str, int] = {}
    for number, token in enumerate(map(str.strip, lines), start=1):
        if token in line_of:
            raise InputError(
                f"{path}, line {number}: repeats {token!r} of line {line_of[token]}; copy the file again"
            )
        if token:
            line_of[token] = number
    return list(line_of)


def _remove_added_tokens(content: dict[str, Any], added: Mapping[str, int]) -> None:
    """Make a ``tokenizer.json`` one of text alone: no added tokens, nothing put around a text.

    An added token is also taken from the model's own vocabulary, unless a merge needs it to spell longer tokens.
    """
    content["added_tokens"] = []
    content["post_processor"] = None
    content["truncation"] = None
    content["padding"] = None
    model = content["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        used = {
            part
            for merge in model.get("merges") or []
            for part in (merge.split(" ") if isinstance(merge, str) else merge)
        }
        keep = used | {model.get("unk_token")}
        model["vocab"] = {token: i for token, i in vocabulary.items() if token not in added or token in keep}
