"""Prompt strings: the case ``image_prompt_strings``, which records only strings, counts and ids in its ``config.json``.

Strings and their pieces are computed by encoding the layouts with a real tokenizer on the 256 single bytes; ids by the
rule that gives a released vocabulary its special tokens.  A few leaves are sentences or formulas that carry facts; the
facts are checked and the recorded wording is returned if they hold.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from mammoth_jax.evals.vectors.case import Case
from mammoth_jax.evals.vectors.compare import leaves
from mammoth_jax.processing import prompts
from mammoth_jax.processing import special_tokens as names
from mammoth_jax.processing.byte_level import SPLIT_PATTERN
from mammoth_jax.processing.tokenizer import Tokenizer

_SPECIAL_OF_ROLE = {
    "boi": names.IMAGE_START,
    "img": names.IMAGE_TOKEN,
    "eol": names.END_OF_LINE,
    "eof": names.END_OF_FILE,
    "eoi": names.IMAGE_END,
}
_LAYOUT = {"mode": "global", "imgstr_mode": "split_row"}
"""The release's names of the one layout that it uses."""

_NOT_COMPARED = re.compile(
    r"create_image_prompt\.(note|cases\.\d+\.(h|w|tokens\.\d+\.\d+))"
    r"|placeholder_count\.(meaning|cases\.\d+\.[hw])"
    r"|special_token_ids\.not_in_source"
    r"|tokenizer\.normalisation"
    r"|chat_facts\.(?!third_party_prompt$).*"
)
"""Inputs, and prose whose facts no code states."""


def compared_leaves(config: Mapping[str, Any]) -> set[str]:
    """Paths of all leaves but inputs and plain prose."""
    return {path for path, _ in leaves(config) if not _NOT_COMPARED.fullmatch(path)}


def image_prompt_strings(case: Case) -> dict[str, Any]:
    """Every compared leaf of the case's configuration, under its path with ``@`` before it."""
    config = case.config
    ours = {
        "create_image_prompt": _create_image_prompt(config["create_image_prompt"]),
        "placeholder_count": _placeholder_count(config["placeholder_count"]),
        "special_token_ids": _special_token_ids(config["special_token_ids"]),
        "tokenizer": {
            "pat_str": SPLIT_PATTERN,
            "defaults": {
                "bos_token": names.BOS_TOKEN,
                "eos_token": names.EOS_TOKEN,
                "pad_token": names.PAD_TOKEN,
            },
            "visual_tokens_excluded_from_text_condition": list(names.EXCLUDED_FROM_TEXT_CONDITION),
        },
        "chat_facts": {"third_party_prompt": _chat_prompt(config["chat_facts"]["third_party_prompt"])},
    }
    return {f"@{path}": value for path, value in leaves(ours)}


def _create_image_prompt(recorded: Mapping[str, Any]) -> dict[str, Any]:
    grids = [case["tokens"] for case in recorded["cases"]]
    codes = {code for grid in grids for row in grid for code in row}
    tokenizer = _byte_tokenizer(max(codes, default=-1) + 1)
    cases = []
    for grid in grids:
        ids = prompts.image_tokens_ids(tokenizer, grid)
        cases.append(
            {
                "string": tokenizer.decode(ids, skip_special=False),
                "placeholder_count": prompts.placeholder_count(len(grid), len(grid[0])),
                "pieces": tokenizer.token_strings(ids),
            }
        )
    strings = [prompts.image_tokens_string(grid) for grid in grids]
    template = recorded["template"]
    visual_template = recorded["visual_token_template"]
    return {
        **_LAYOUT,
        "template": _checked(template, strings, [_expand(template, visual_template, grid) for grid in grids]),
        "visual_token_template": _checked(
            visual_template,
            [names.visual_token(c) for c in codes],
            [visual_template.format(id=c) for c in codes],
        ),
        "special": _SPECIAL_OF_ROLE,
        "cases": cases,
    }


def _placeholder_count(recorded: Mapping[str, Any]) -> dict[str, Any]:
    sides = [(case["h"], case["w"]) for case in recorded["cases"]]
    counts = [prompts.placeholder_count(rows, cols) for rows, cols in sides]
    formula = recorded["formula"]
    by_formula = [_evaluate(formula.split(", ")[0], h=rows, w=cols) for rows, cols in sides]
    return {
        "formula": _checked(formula, counts, by_formula),
        "cases": [{"placeholder_count": count} for count in counts],
    }


def _special_token_ids(recorded: Mapping[str, Any]) -> dict[str, Any]:
    ranks, gen_start = names.RELEASED_RANKS, names.RELEASED_GEN_VOCAB_START
    vision = names.vision_token_lines(1)
    newer = names.special_token_ids("qwen3vl", ranks, gen_start, vision)
    older = names.special_token_ids("qwen25vl", ranks, gen_start, vision)
    specials, older_specials = names.FAMILY_SPECIALS["qwen3vl"], names.FAMILY_SPECIALS["qwen25vl"]
    extras, margins = names.extra_counts("qwen3vl", ranks, gen_start)
    older_extras, older_margins = names.extra_counts("qwen25vl", ranks, gen_start)
    source = [
        min(newer.values()),
        *names.CHAT_SPECIALS,
        len(specials),
        *(extras, "<|extra_i|>"),
        *(margins, "<|extra_margin_i|>"),
        len(names.GENERATION_SPECIALS),
    ]
    older_branch = [
        *(len(older_specials), older_extras, older_margins),
        older[names.END_OF_LINE],
        *(name for name in specials if name not in older_specials),
        *("<|extra_0|>", older["<|extra_0|>"]),
    ]
    return {
        "source": _checked(recorded["source"], source, _facts(recorded["source"])),
        "ids": {name: newer.get(name) for name in recorded["ids"]},
        "qwen_specials_in_order": list(specials),
        "n_extra": extras,
        "n_extra_margin": margins,
        "first_vision_token_file_id": newer[vision[0]],
        "guess": {name: newer.get(name) for name in recorded["guess"]},
        "qwen25vl_branch": _checked(
            recorded["qwen25vl_branch"], older_branch, _facts(recorded["qwen25vl_branch"])
        ),
    }


def _chat_prompt(recorded: str) -> str:
    """The text-to-image prompt with its variables by name and line ends written as backslash n; the remark is kept."""
    _, blank, remark = recorded.partition(" (")
    tokenizer = _byte_tokenizer(0)
    rows, cols = 12, 345
    prompt = prompts.text_to_image_prompt(tokenizer, "{prompt}", grid_rows=rows, grid_cols=cols)
    string = tokenizer.decode(prompt.ids, skip_special=False)
    question, opening = string.split(names.IMAGE_START)
    opening = opening.replace(str(rows), "{ar_height}").replace(str(cols), "{ar_width}")
    return (question + names.IMAGE_START + opening).replace("\n", "\\n") + blank + remark


def _byte_tokenizer(num_codes: int) -> Tokenizer:
    ranks = names.byte_ranks()
    vision = names.vision_token_lines(num_codes)
    return Tokenizer.from_ranks(ranks, vision, gen_vocab_start=2 * len(ranks))


def _checked(recorded: Any, ours: Any, theirs: Any) -> Any:
    """The recorded wording where its facts are ours; our facts where they are not."""
    return recorded if ours == theirs else f"ours: {ours}"


def _facts(sentence: str) -> list[int | str]:
    """Whole numbers and token names of a sentence, in order (parts of words such as Qwen2.5 are none)."""
    found = re.findall(r"<[^>]+>|(?<![\w.])\d+(?!\w)", sentence)
    return [int(fact) if fact.isdigit() else fact for fact in found]


def _expand(template: str, visual_template: str, grid: list[list[int]]) -> str:
    """Write a grid by the recorded template, whose rows read ``{row 0}X{row 1}X...{row H-1}X``."""
    rows = ["".join(visual_template.format(id=code) for code in row) for row in grid]
    repeated = re.compile(r"\{row 0\}(.*?)\{row 1\}\1\.\.\.\{row H-1\}\1")
    text = repeated.sub(lambda match: "".join(row + match.group(1) for row in rows), template)
    values = {**_SPECIAL_OF_ROLE, "H": str(len(grid)), "W": str(len(grid[0]))}
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


_OPERATORS: Mapping[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def _evaluate(formula: str, **variables: int) -> int | None:
    """Value of a recorded formula of whole numbers, ``num_digits`` and the four operations; None for anything else."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name):
                return variables[name]
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id="num_digits"), args=[argument], keywords=[]):
                return len(str(value(argument)))
        raise KeyError

    try:
        return value(ast.parse(formula.strip(), mode="eval").body)
    except (SyntaxError, KeyError, ZeroDivisionError):
        return None


RUNNERS = {"image_prompt_strings": image_prompt_strings}
COMPARED = {"image_prompt_strings": compared_leaves}
