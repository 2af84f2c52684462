"""The tokenizer against a plain implementation of the rank rule, its special tokens, and its files' faults."""

import json
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.processing import special_tokens as names
from mammoth_jax.processing.byte_level import SPLIT_PATTERN
from mammoth_jax.processing.tiktoken_bpe import merges, read_ranks
from mammoth_jax.processing.tokenizer import Tokenizer

GEN_START = 1024
WORDS = [
    " the",
    "th",
    "he",
    "in",
    "ing",
    " in",
    "aa",
    "aaa",
    "ab",
    "aba",
    "ba",
    "你".encode()[:2],
    "你好",
    "🎉",
]


def word_ranks() -> dict[bytes, int]:
    ranks = names.byte_ranks()
    for word in WORDS:
        ranks.setdefault(word.encode() if isinstance(word, str) else word, len(ranks))
    return ranks


def tiny(num_codes: int = 16, ranks: dict[bytes, int] | None = None) -> Tokenizer:
    ranks = word_ranks() if ranks is None else ranks
    return Tokenizer.from_ranks(ranks, names.vision_token_lines(num_codes), gen_vocab_start=GEN_START)


def by_rank_rule(ranks: dict[bytes, int], piece: bytes) -> list[int]:
    """A whole token, or single bytes joined pair by pair: lowest rank first, leftmost among equals."""
    if piece in ranks:
        return [ranks[piece]]
    parts = [bytes([value]) for value in piece]
    while True:
        joined = [ranks.get(a + b) for a, b in zip(parts, parts[1:], strict=False)]
        known = [rank for rank in joined if rank is not None]
        if not known:
            return [ranks[part] for part in parts]
        at = joined.index(min(known))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def test_merges_follow_the_rank_rule_for_vocabularies_in_any_order():
    rng = random.Random(0)
    for _ in range(60):
        letters = "ab"[: rng.randint(1, 2)]
        words = {
            "".join(rng.choices(letters, k=rng.randint(2, 6))).encode() for _ in range(rng.randint(1, 30))
        }
        order = [*names.byte_ranks(), *sorted(words)]
        rng.shuffle(order)
        ranks = {token: rank for rank, token in enumerate(order)}
        tokenizer = tiny(0, ranks)
        for _ in range(20):
            text = "".join(rng.choices(letters, k=rng.randint(1, 30)))
            assert tokenizer.encode(text) == by_rank_rule(ranks, text.encode())


def test_each_token_has_one_final_pair():
    assert merges({b"a": 0, b"aa": 1, b"aaa": 2, b"aaaa": 3}) == [(b"a", b"a"), (b"aa", b"a"), (b"aa", b"aa")]


def test_a_token_that_no_merge_produces_is_found_as_a_whole_piece():
    ranks = {**names.byte_ranks(), b"xyz": 256}
    assert tiny(0, ranks).encode("xyz") == [256]
    assert tiny(0, ranks).encode("xyzz") == [120, 121, 122, 122]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("the 2024th", ["th", "e", " ", "2", "0", "2", "4", "th"]),
        ("x in\n\n  thing", ["x", " in", "\n", "\n", " ", " ", "th", "ing"]),
        ("你好🎉", ["你好", "🎉"]),
    ],
)
def test_text_is_cut_into_words_single_digits_and_white_space(text, pieces):
    tokenizer = tiny()
    assert tokenizer.token_strings(tokenizer.encode(text)) == pieces


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        "你好，世界",
        "👩‍🚀🏳️‍🌈👍🏽",
        "tab\tnew\r\nline\u3000\u2028 \x00 end  ",
        "\U0010ffff\ufeff",
        "don't WE'LL ſ'ſ",
    ],
)
def test_text_round_trips(text):
    tokenizer = tiny()
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


def test_text_is_normalised_to_composed_form():
    tokenizer = tiny()
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é")


def test_lone_surrogates_become_replacement_characters():
    tokenizer = tiny()
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


@pytest.mark.parametrize(
    "name", [names.IM_END, names.visual_token(1), names.END_OF_LINE, "<think>", "<|extra_0|>"]
)
def test_special_token_text_stays_text(name):
    tokenizer = tiny()
    text = f"a {name}b{name}"
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special_ids.values())
    assert tokenizer.decode(ids) == text


def test_special_tokens_are_left_out_or_written_by_name():
    tokenizer = tiny()
    ids = [tokenizer.id_of(names.IM_START), *tokenizer.encode("你好"), tokenizer.id_of(names.IM_END)]
    assert tokenizer.decode(ids) == "你好"
    assert tokenizer.decode(ids, skip_special=False) == "<|im_start|>你好<|im_end|>"


def test_ids_without_a_token_are_left_out_or_refused():
    tokenizer = tiny()
    assert tokenizer.decode([97, 10**6, -1]) == "a"
    with pytest.raises(InputError, match="1000000"):
        tokenizer.decode([10**6], skip_special=False)


def test_bytes_of_a_character_decode_together():
    tokenizer = tiny(ranks=names.byte_ranks())
    assert tokenizer.decode(list("é".encode())) == "é"
    assert tokenizer.decode([0xC3]) == "\ufffd"


def test_unknown_special_name_lists_near_names():
    with pytest.raises(InputError, match=r"'<\|image_start\|>'.*<\|image start\|>"):
        tiny().id_of("<|image_start|>")


def test_visual_tokens_map_to_codes_and_back():
    tokenizer = tiny(16)
    assert [tokenizer.code_of(tokenizer.visual_token_id(code)) for code in range(16)] == list(range(16))
    with pytest.raises(InputError, match="visual code 16"):
        tokenizer.visual_token_id(16)
    with pytest.raises(InputError, match="not a visual token"):
        tokenizer.code_of(tokenizer.id_of(names.END_OF_LINE))


@pytest.mark.parametrize(
    ("family", "margins", "first_extra"), [("qwen3vl", 214, 151669), ("qwen25vl", 218, 151665)]
)
def test_released_sizes_give_the_released_ids(family, margins, first_extra):
    ids = names.special_token_ids(
        family, names.RELEASED_RANKS, names.RELEASED_GEN_VOCAB_START, ["<|image token|>"]
    )
    assert names.extra_counts(family, names.RELEASED_RANKS, names.RELEASED_GEN_VOCAB_START) == (181, margins)
    assert (ids[names.END_OF_TEXT], ids["<|extra_0|>"], ids[names.END_OF_LINE]) == (
        151643,
        first_extra,
        152064,
    )
    assert ids["<|image token|>"] == 152069
    assert list(ids.values()) == list(range(151643, 152070))


@pytest.mark.parametrize("gen_start", [256 + 26, 300, 1024])
def test_small_vocabularies_are_padded_to_the_generation_ids(gen_start):
    tokenizer = Tokenizer.from_ranks(names.byte_ranks(), [], gen_vocab_start=gen_start)
    assert tokenizer.num_text_ids == 256
    assert tokenizer.id_of(names.END_OF_TEXT) == 256
    assert tokenizer.id_of(names.END_OF_LINE) == gen_start
    assert sorted(tokenizer.special_ids.values()) == list(range(256, gen_start + 5))


def test_too_small_generation_start_is_refused():
    with pytest.raises(InputError, match="gen_vocab_start_index 281"):
        Tokenizer.from_ranks(names.byte_ranks(), [], gen_vocab_start=281)


def test_unknown_family_is_refused():
    with pytest.raises(InputError, match="'gpt2'"):
        Tokenizer.from_ranks(names.byte_ranks(), [], family="gpt2")


def write(folder: Path) -> Path:
    names.write_tokenizer_files(folder, word_ranks(), names.vision_token_lines(16))
    return folder


def test_written_files_read_back_as_the_same_tokenizer(tmp_path):
    read, built = Tokenizer.from_folder(write(tmp_path), gen_vocab_start=GEN_START), tiny()
    assert read.special_ids == built.special_ids
    assert read_ranks(tmp_path / names.RANKS_FILE) == word_ranks()
    assert read.encode("the thing 你好 aabaa") == built.encode("the thing 你好 aabaa")


@pytest.mark.parametrize("name", [names.RANKS_FILE, names.VISION_TOKENS_FILE])
def test_missing_file_is_named_with_its_folder(tmp_path, name):
    (write(tmp_path) / name).unlink()
    with pytest.raises(InputError) as caught:
        Tokenizer.from_folder(tmp_path)
    assert f"{name} is missing in {tmp_path}" in str(caught.value)
    assert "copy them" in str(caught.value)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"mammothu\.tiktoken is missing"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (3, "no base64! 2"),
        (3, "Ag=="),
        (3, "Ag== two"),
        (3, "AA== 2"),  # the bytes of line 1
        (3, "Ag== 0"),  # the rank of line 1
        (3, "Ag== 9999"),
    ],
)
def test_corrupt_rank_line_is_named(tmp_path, line, change):
    path = write(tmp_path) / names.RANKS_FILE
    lines = path.read_text().splitlines()
    lines[line - 1] = change
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"line {line}:"):
        Tokenizer.from_folder(tmp_path)


def test_rank_file_cut_short_is_refused(tmp_path):
    path = write(tmp_path) / names.RANKS_FILE
    path.write_text("\n".join(path.read_text().splitlines()[:200]))
    with pytest.raises(InputError, match="56 of the 256 single bytes"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<|image token|>\n\n<|image token|>\n", "line 3: repeats"),
        (b"<|image token|>\n\xff\xfe\n", "line 2: not UTF-8"),
        (b"<|im_end|>\n", "listed twice"),
    ],
)
def test_corrupt_vision_token_file_is_refused(tmp_path, content, problem):
    (write(tmp_path) / names.VISION_TOKENS_FILE).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        Tokenizer.from_folder(tmp_path, gen_vocab_start=GEN_START)


def write_json(folder: Path) -> None:
    content = json.loads(tiny(0).backend.to_str())
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": SPLIT_PATTERN}
    content["added_tokens"] = [
        {
            "id": 1000 + i,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": special,
        }
        for i, (name, special) in enumerate(
            [("<|im_start|>", True), ("<|im_end|>", True), ("<think>", False)]
        )
    ]
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def test_plain_tokenizer_json_keeps_special_text_as_text(tmp_path):
    write_json(tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.special_ids == {"<|im_start|>": 1000, "<|im_end|>": 1001, "<think>": 1002}
    ids = tokenizer.encode("the <think><|im_end|>")
    assert max(ids) < tokenizer.num_text_ids == len(word_ranks())
    assert tokenizer.decode([1000, *ids], skip_special=False) == "<|im_start|>the <think><|im_end|>"
    with pytest.raises(InputError, match="image start"):
        tokenizer.id_of(names.IMAGE_START)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {"type": "BPE"}}'])
def test_corrupt_tokenizer_json_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=r"tokenizer\.json: not a fast tokenizer"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.slow
def test_equals_tiktoken_on_the_true_ranks():
    """Needs ``pip install tiktoken`` and ``pip install --no-deps dashscope``, which carries the ranks."""
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "scripts" / "compare_tokenizer.py")]
    done = subprocess.run(
        command, cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("preset", ["nano", "dev", "preview"])
def test_a_tokenizer_of_bytes_has_its_special_tokens_where_the_model_looks_for_them(preset):
    backbone = MammothConfig.from_preset(preset).backbone
    start = backbone.decoder.gen_vocab_start_index
    tokenizer = Tokenizer.of_bytes(backbone.tokenizer_family, backbone.image_token_id, start, 4)
    assert tokenizer.id_of(names.IMAGE_PAD) == backbone.image_token_id
    assert tokenizer.id_of(names.VIDEO_PAD) == backbone.video_token_id
    assert tokenizer.id_of(names.VISION_START) == backbone.vision_start_token_id
    assert tokenizer.id_of(names.END_OF_LINE) == start
    assert tokenizer.decode(tokenizer.encode("a é 漢")) == "a é 漢"
