"""What a compiled program does between its matrix products, read from the compiler's own text.

The text of an optimised program lists every instruction once, however often it runs.  Loops are followed here and each
instruction is counted as often as it is executed on one device: trip counts are read from a loop's condition (a counter
against a constant); a loop that ends by its data gets the count that the caller states.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_BITS = {"pred": 8, "bf16": 16, "token": 0, "s4": 4, "u4": 4}
_ARRAY = re.compile(r"(\w+)\[([0-9,<=]*)\](?:\{([^}]*)\})?")
_NAMES = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|called_computations|branch_computations)=")
_COPIES = frozenset({"copy", "copy-start", "transpose"})
_VMEM = "S(1)"  # memory space of a layout: a copy there is a prefetch, not a rearrangement of HBM


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation; ``shape`` is its result's, ``operands`` the names that it reads."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str

    def attribute(self, name: str) -> str | None:
        """The text after ``name=``, up to the closing bracket or the next comma."""
        found = re.search(rf"\b{name}=(\{{[^}}]*\}}|\[[^ ]*|[^,\s]+)", self.rest)
        return found.group(1) if found else None


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, each a list of instructions by name, and the one that runs first."""

    computations: Mapping[str, Mapping[str, Instruction]]
    entry: str


@dataclasses.dataclass(frozen=True)
class Executed:
    """An instruction, how many times a device runs it, how deep in loops it stands, and its computation."""

    instruction: Instruction
    times: int
    depth: int
    computation: Mapping[str, Instruction]


def parse(text: str) -> Program:
    """Reads a program.

    Raises:
      ValueError: there is no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, {}
    for line in text.splitlines():
        if line.endswith("{") and ") -> " in line and not line.startswith(" "):
            name = line.removeprefix("ENTRY ").lstrip("%").split(" ", 1)[0]
            current = computations[name] = {}
            entry = name if line.startswith("ENTRY") else entry
        elif " = " in line and line.startswith(" "):
            instruction = _instruction(line.strip())
            if instruction is not None:
                current[instruction.name] = instruction
    if entry is None:
        raise ValueError("no ENTRY computation: this is not the text of an HLO program")
    return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
    name, _, right = line.removeprefix("ROOT ").partition(" = ")
    end = _closing(right, 0) + 1 if right.startswith("(") else right.find(" ")
    shape, call = right[:end], right[end:].lstrip()
    opening = call.find("(")
    if opening < 0:
        return None
    closing = _closing(call, opening)
    operands, rest = call[opening + 1 : closing], call[closing + 1 :]
    if call[:opening] == "constant":
        rest = f" value={operands.strip()}," + rest
    return Instruction(
        name.lstrip("%"), shape, call[:opening], tuple(m.group(1) for m in _NAMES.finditer(operands)), rest
    )


def _closing(text: str, opening: int) -> int:
    """Where the bracket at ``opening`` closes."""
    depth = 0
    for i in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if not depth:
            return i
    return len(text) - 1


def array_bytes(shape: str) -> int:
    """Bytes of an array or of all arrays of a tuple, without padding by the layout."""
    return sum(sizes(shape))


def sizes(shape: str) -> list[int]:
    """Bytes of each array in a shape."""
    found = []
    for kind, dims, _ in _ARRAY.findall(shape):
        bits = _BITS.get(kind) or (8 if kind.startswith("f8") else int(re.sub(r"\D", "", kind) or 0))
        found.append(math.prod(dimensions(dims)) * bits // 8)
    return found


def dimensions(text: str) -> list[int]:
    """``"2,3"`` as [2, 3]; a bound of a dynamic size counts as the size."""
    return [int(d.lstrip("<=")) for d in text.split(",") if d]


def executed(program: Program, steps: int | None = None) -> Iterator[Executed]:
    """Every instruction with its count; ``steps`` are the trips of the outermost loop that ends by its data.

    Both branches of a conditional count as taken.  Functions that only say how to combine two numbers are skipped.
    """

    def walk(name: str, times: int, depth: int) -> Iterator[Executed]:
        instructions = program.computations[name]
        for instruction in instructions.values():
            yield Executed(instruction, times, depth, instructions)
            if instruction.opcode == "while":
                body, condition = instruction.attribute("body"), instruction.attribute("condition")
                assert body is not None and condition is not None
                trips = loop_trips(program, condition.lstrip("%"))
                if trips is None:
                    trips = steps if steps is not None and depth == 0 else 1
                yield from walk(body.lstrip("%"), times * trips, depth + 1)
            elif instruction.opcode in ("fusion", "call", "async-start", "conditional", "custom-call"):
                for called in _called(instruction):
                    if called in program.computations:
                        yield from walk(called, times, depth)

    yield from walk(program.entry, 1, 0)


def _called(instruction: Instruction) -> list[str]:
    """Computations that an instruction runs."""
    names = []
    for found in _CALLED.finditer(instruction.rest):
        after = instruction.rest[found.end() :]
        group = (
            after[: after.find("}")] if after.startswith("{") else re.split(r"[,\s]", after, maxsplit=1)[0]
        )
        names += [m.group(1) for m in _NAMES.finditer(group)]
    names += _NAMES.findall(instruction.attribute("true_computation") or "")
    return names + _NAMES.findall(instruction.attribute("false_computation") or "")


def loop_trips(program: Program, condition: str) -> int | None:
    """How often a loop runs whose condition is nothing but a counter from 0 below a constant; else ``None``."""
    instructions = program.computations[condition]
    root = list(instructions.values())[-1]
    if root.opcode == "fusion":
        (called,) = _called(root)[:1] or [""]
        inner = program.computations.get(called, {})
        compare = list(inner.values())[-1] if inner else root
        parameters = [i.name for i in inner.values() if i.opcode == "parameter"]
        outer = {
            name: instructions.get(given) for name, given in zip(parameters, root.operands, strict=False)
        }
    else:
        compare, inner, outer = root, instructions, {}
    if compare.opcode != "compare" or compare.attribute("direction") != "LT":
        return None
    for operand in compare.operands[1:]:
        constant = outer.get(operand) or inner.get(operand)
        if constant is not None and constant.opcode == "constant":
            value = constant.attribute("value") or ""
            return int(value) if value.isdecimal() else None
    return None


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind: how many a device takes part in, the bytes of their results, and what crosses links."""

    count: int
    bytes: int
    received: int


def collectives(program: Program, steps: int | None = None) -> dict[str, Traffic]:
    """Collectives by kind; bytes are those of one device.

    A collective that the compiler splits into a start and a done, each a fusion that repeats it, counts once.
    """
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    seen: set[tuple[str, str]] = set()
    for item in executed(program, steps):
        kind = item.instruction.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        channel = item.instruction.attribute("channel_id")
        if channel is not None and (kind, channel) in seen:
            continue
        seen.add((kind, channel or f"{item.instruction.name} {len(seen)}"))
        size = _result_bytes(item.instruction, kind)
        group = group_size(item.instruction)
        for i, value in enumerate((1, size, received(kind, size, group))):
            totals[kind][i] += item.times * value
    return {kind: Traffic(*values) for kind, values in sorted(totals.items())}


def _result_bytes(instruction: Instruction, kind: str) -> int:
    """Bytes of a collective's result: a start's tuple also names its operand and some flags."""
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        return max(sizes(instruction.shape))
    return array_bytes(instruction.shape)


def group_size(instruction: Instruction) -> int:
    """Devices that a collective joins; 2 where none are named (a permutation)."""
    listed = re.search(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]*)\})", instruction.rest)
    if listed is not None:
        return int(listed.group(1)) if listed.group(1) else len(listed.group(2).split(","))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", instruction.rest)
    if named is None:
        return 2
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named.group(1))}
    return math.prod(axes.get(name, 1) for name in re.findall(r"'(\w+)'", named.group(2)))


def received(kind: str, size: int, group: int) -> int:
    """Bytes that must come into a device for a result of ``size`` bytes, at the least."""
    others = group - 1
    if kind == "all-reduce":
        return 2 * size * others // group
    if kind == "reduce-scatter":
        return size * others
    return size if kind.startswith("collective") else size * others // group


def custom_calls(program: Program, target: str = "tpu_custom_call") -> int:
    """Call sites of our own kernels (and those of libraries), each counted once."""
    return sum(
        i.opcode == "custom-call" and f'custom_call_target="{target}"' in i.rest
        for computation in program.computations.values()
        for i in computation.values()
    )


@dataclasses.dataclass(frozen=True)
class Copy:
    """An array that a loop's body copies or rearranges in HBM each time round."""

    name: str
    shape: str
    bytes: int
    times: int
    source: str


def large_copies(program: Program, smallest: int = 16 * 2**20, steps: int | None = None) -> list[Copy]:
    """Copies and rearrangements of at least ``smallest`` bytes inside loops, most traffic first.

    Moves into a core's own memory are not counted: that is how operands are read.
    """
    found = {}
    for item in executed(program, steps):
        i = item.instruction
        if item.depth == 0 or not (i.opcode in _COPIES or _only_rearranges(program, i)):
            continue
        first = next(iter(_ARRAY.finditer(i.shape)), None)
        if first is None or _VMEM in first.group(0) or sizes(first.group(0))[0] < smallest:
            continue
        operand = item.computation.get(i.operands[0]) if i.operands else None
        if i.opcode == "copy-start" and operand is not None and _VMEM in operand.shape:
            continue
        if _inside_fusion(program, item):
            continue
        source = re.search(r'op_name="([^"]*)"', i.rest)
        found[i.name] = Copy(
            i.name, first.group(0), sizes(first.group(0))[0], item.times, source.group(1) if source else ""
        )
    return sorted(found.values(), key=lambda c: -c.bytes * c.times)


def _only_rearranges(program: Program, instruction: Instruction) -> bool:
    """Whether a fusion does nothing but move numbers about."""
    if instruction.opcode != "fusion":
        return False
    plain = {
        "parameter",
        "copy",
        "transpose",
        "bitcast",
        "dynamic-slice",
        "slice",
        "constant",
        "reshape",
        "fusion",
    }
    work = set()
    for called in _called(instruction):
        for inner in program.computations.get(called, {}).values():
            work.add(inner.opcode)
            if inner.opcode == "fusion" and not _only_rearranges(program, inner):
                return False
    return bool(work) and work <= plain


def _inside_fusion(program: Program, item: Executed) -> bool:
    """Whether the instruction stands in a fused computation, where nothing is written to memory in between."""
    return any(
        program.computations.get(called) is item.computation
        for computation in program.computations.values()
        for i in computation.values()
        if i.opcode == "fusion"
        for called in _called(i)
    )
