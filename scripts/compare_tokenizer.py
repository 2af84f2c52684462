"""Development test: our tokenizer against tiktoken on the true Qwen ranks.

    pip install tiktoken && pip install --no-deps dashscope
    python scripts/compare_tokenizer.py

Text is written by this script from a seed: sentences in English and Chinese, emoji sequences, code, digits, odd white
space, random Unicode strings, pieces of vocabulary strung together, every code point by itself.  The other side is
``tiktoken.Encoding`` with the same ranks and split pattern, on text normalised by Python's ``unicodedata`` as the
release does.  Random small vocabularies, whose ranks follow no order of learning, test the merges themselves.
"""

import argparse
import importlib.util
import random
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import tiktoken
import tokenizers

from mammoth_jax.processing.byte_level import SPLIT_PATTERN
from mammoth_jax.processing.special_tokens import byte_ranks
from mammoth_jax.processing.tiktoken_bpe import read_ranks
from mammoth_jax.processing.tokenizer import Tokenizer

ENGLISH = (
    "a the of and to in is was he for it with as his on be at by had not are but from or have an they "
    "which one you were her all their there been when who will more no if out so what time up into has "
    "him about other new some could these may than first water people way light picture mountain "
    "harbour watercolour astronaut lighthouse photograph river don't I'm we've they'll she'd it's WE'RE "
    "I'D O'Neill cinematic 35mm f/1.8 ultra-detailed (masterpiece:1.2), [soft]"
).split(" ")
CHINESE = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本"
    "去把性好应开它合还因由其些然前外天政四日那社义事平形相全表间样与关各重新线内数正心反你明看原又么利比或但质气第向道命此变条只没结解问意建月公无系军很情者最立代想已通并提直题党程展五果料象员革位入常文总"
    "次品式活设及管特件长求老头基资边流路级少图山统接知较将组见计别她手角期根论运农指几九区强放决西被干做必战先回则任取据处队南给色光门即保治北造百规热领七海口东导器压志世金增争济阶油思术极交受联什认六共权"
    "收证改清己美再采转更单风切打白教速花带安场身车例真务具万每目至达走积示议声报斗完类八离华名确才科张信马节话米整空元况今集温传土许步群广石记需段研界拉林律叫且究观越织装影算低持音众书布复容儿须际商非验连"
    "断深难近矿千周委素技备半办青省列习响约支般史感劳便团往酸历市克何除消构府称太准精值号率族维划选标写存候毛亲快效斯院查江型眼王按格养易置派层片始却专状育厂京识适属圆包火住调满县局照参红细引听该铁价严"
)
EMOJI = [
    "😀",
    "🎉",
    "👩‍🚀",
    "👨‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🇩🇪",
    "🇯🇵",
    "👍🏽",
    "✊🏿",
    "❤️",
    "☂",
    "①",
    "🀄",
    "🫠",
    "🧑‍🎨",
    "©️",
    "1️⃣",
    "♟️",
]
SPACES = [
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\v",
    "\f",
    "\x1c",
    "\x85",
    "\xa0",
    "\u1680",
    "\u2003",
    "\u2009",
    "\u200b",
    "\u2028",
    "\u2029",
    "\u202f",
    "\u205f",
    "\u3000",
    "\ufeff",
    " " * 17,
    "\n" * 9,
    "\t" * 5,
    " " * 200,
]
CODE = [
    "def f(x: int) -> str:\n    return f'{x!r}'\n",
    "for (int i = 0; i < n; ++i) {\n\t\ta[i] += b[i] >> 2;\n}\n",
    '<div class="x">&nbsp;</div>\n',
    "SELECT * FROM t WHERE a <= 3 AND b != 'it''s';\n",
    "#!/bin/bash\nset -euo pipefail\n",
    "x = np.einsum('bqd,bkd->bqk', q, k) / np.sqrt(d)\n",
    "// --------------------------------------------------\n",
    '{"a": [1, 2.5e-3, null, true], "b": {}}\n',
    "\\frac{\\partial L}{\\partial x_{i,j}}\n",
    "<|im_end|><|im_start|>system\n",
    "<|visual token 000001|><|endofline|>",
    "if (a&&b||!c) return a?.b ?? c;\r\n",
    "====\n" * 3,
    "0xDEADBEEF ^ ~0b1010\n",
]


def english(rng: random.Random) -> str:
    return " ".join(rng.choice(ENGLISH) for _ in range(rng.randint(3, 40))).capitalize() + rng.choice(
        [".", "!", "?", "...", ";\n", ".\n\n"]
    )


def chinese(rng: random.Random) -> str:
    return (
        "".join(
            rng.choice(CHINESE) + rng.choice(["", "", "", "", "，", "、", "“", "”"])
            for _ in range(rng.randint(3, 60))
        )
        + "。"
    )


def emoji(rng: random.Random) -> str:
    return "".join(rng.choice(EMOJI) + rng.choice(["", "", " ", "a", "!"]) for _ in range(rng.randint(1, 20)))


def code(rng: random.Random) -> str:
    return "".join(" " * rng.choice([0, 0, 2, 4, 8, 16]) + rng.choice(CODE) for _ in range(rng.randint(1, 8)))


def digits(rng: random.Random) -> str:
    return "".join(
        str(rng.randrange(10 ** rng.randint(1, 12)))
        + rng.choice([".", ",", " ", "%", "", "e-", "٣", "Ⅷ", "½", "²"])
        for _ in range(rng.randint(1, 12))
    )


def white_space(rng: random.Random) -> str:
    return "".join(
        rng.choice(SPACES) * rng.randint(0, 3) + rng.choice(["", "a", "字", "7", "-", "'s", "é"])
        for _ in range(rng.randint(1, 20))
    )


def random_unicode(rng: random.Random) -> str:
    """Code points from one of five ranges, or a run of one 128-wide block; surrogates are no text."""
    top = rng.choice([0x80, 0x250, 0x3000, 0x10000, 0x110000])
    base = rng.randrange(top) if rng.random() < 0.5 else None
    points = []
    for _ in range(rng.randint(1, 30)):
        point = rng.randrange(top) if base is None else min(base // 128 * 128 + rng.randrange(128), 0x10FFFF)
        points.append(chr(point) if not 0xD800 <= point < 0xE000 else "\ufffd")
    return "".join(points)


def check(ours: Tokenizer, theirs: tiktoken.Encoding, texts: list[str], title: str) -> int:
    """Compare ids and the round trip; print a line; return the number of texts that differ."""
    size = sum(len(text.encode()) for text in texts)
    start = time.perf_counter()
    got = [ours.encode(text) for text in texts]
    seconds = time.perf_counter() - start
    normalised = [unicodedata.normalize("NFC", text) for text in texts]
    want = [theirs.encode(text, allowed_special=set(), disallowed_special=()) for text in normalised]
    differing = [text for text, a, b in zip(texts, got, want, strict=True) if a != b]
    lost = sum(ours.decode(a) != theirs.decode(b) for a, b in zip(got, want, strict=True))
    tokens = sum(map(len, want))
    print(
        f"{title:<28} {len(texts):>9,} texts {size:>12,} bytes {tokens:>11,} tokens {len(differing):>5} differ "
        f"{lost:>5} decode differently {size / seconds / 1e6:6.1f} MB/s",
        flush=True,
    )
    for text in differing[:3]:
        print("   ", ascii(text[:80]))
    return len(differing) + lost


def vocabulary_strings(theirs: tiktoken.Encoding, ranks: int, rng: random.Random) -> Iterator[str]:
    """One to six random tokens strung together, where that is text."""
    while True:
        joined = b"".join(
            theirs.decode_single_token_bytes(rng.randrange(ranks)) for _ in range(rng.randint(1, 6))
        )
        try:
            yield joined.decode()
        except UnicodeDecodeError:
            continue


def random_vocabularies(rng: random.Random, count: int, make: Callable[[dict[bytes, int]], Tokenizer]) -> int:
    """Vocabularies of random strings over few letters with shuffled ranks; returns the number of differing texts."""
    differing = texts = 0
    for _ in range(count):
        letters = "ab"[: rng.randint(1, 2)]
        words = {
            "".join(rng.choices(letters, k=rng.randint(2, 7))).encode() for _ in range(rng.randint(1, 40))
        }
        order = [*byte_ranks(), *words]
        rng.shuffle(order)
        ranks = {token: rank for rank, token in enumerate(order)}
        ours = make(ranks)
        theirs = tiktoken.Encoding("random", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})
        for _ in range(50):
            text = "".join(rng.choices(letters, k=rng.randint(1, rng.choice([12, 40, 700]))))
            differing += ours.encode(text) != theirs.encode_ordinary(text)
            texts += 1
    print(f"{count:,} random vocabularies, {texts:,} texts: {differing} differ", flush=True)
    return differing


def installed_ranks() -> Path | None:
    """The rank file that the dashscope package carries; the package itself is not imported."""
    package = importlib.util.find_spec("dashscope")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "resources" / "qwen.tiktoken"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Our tokenizer against tiktoken on the true Qwen ranks.")
    parser.add_argument(
        "--ranks", type=Path, help="rank file (default: the one in the installed dashscope package)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random-strings", type=int, default=100_000)
    arguments = parser.parse_args(argv)
    path = arguments.ranks or installed_ranks()
    if path is None:
        parser.error("no rank file: pip install --no-deps dashscope, or pass --ranks FILE")

    ranks = read_ranks(path)
    start = time.perf_counter()
    ours = Tokenizer.from_ranks(ranks, [])
    print(
        f"python {sys.version.split()[0]} (Unicode {unicodedata.unidata_version}), tokenizers "
        f"{tokenizers.__version__}, tiktoken {tiktoken.__version__}; {len(ranks):,} ranks; tokenizer built in "
        f"{time.perf_counter() - start:.2f} s"
    )
    theirs = tiktoken.Encoding(
        "released", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=dict(ours.special_ids)
    )

    rng = random.Random(arguments.seed)
    faults = 0
    for writer in (english, chinese, emoji, code, digits, white_space):
        faults += check(ours, theirs, [writer(rng) for _ in range(8000)], writer.__name__)
    writers = (english, chinese, emoji, code, digits, white_space, random_unicode)
    mixed = ["".join(rng.choice(writers)(rng) for _ in range(400)) for _ in range(20)]
    faults += check(ours, theirs, mixed, "long mixed documents")
    strings = [random_unicode(rng) for _ in range(arguments.random_strings)]
    faults += check(ours, theirs, strings, "random Unicode strings")
    strung = vocabulary_strings(theirs, len(ranks), rng)
    faults += check(ours, theirs, [next(strung) for _ in range(100_000)], "strung vocabulary")
    points = [chr(p) for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    faults += check(ours, theirs, [f"a{p}1 {p}-{p}'{p}\n" for p in points], "every code point")
    faults += random_vocabularies(
        rng, 500, lambda r: Tokenizer.from_ranks(r, [], gen_vocab_start=len(r) + 100)
    )
    print("equal" if not faults else f"{faults} differences")
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
