"""Plan a training step for a TPU slice on paper: memory and time per chip by sizes alone, in seconds.

The configuration's model can be replaced by --preset and its settings overridden (--run.batch_size 64).  Every array
is counted as the sharding rules place it; tensors that lie whole on a mesh axis because no width divides are listed.
Times are the least that the chip's peak figures allow.  "compile CONFIG" asks the compiler the same.  The last line
is "fits: X of Y GiB per chip" or "does not fit: ...".
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammoth_jax.cli.argument_types import add_rules_option
from mammoth_jax.core.errors import InputError

if TYPE_CHECKING:
    from mammoth_jax.benchmarks.step_plan import StepPlan

GIB = 2**30
SHOWN = 12
"""Undivided tensors that are listed one by one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a stage's configuration")
    parser.add_argument(
        "--preset", metavar="NAME", help="this architecture in place of the configuration's model"
    )
    parser.add_argument(
        "--topology", required=True, metavar="CHIP:AxB[xC]", help="slice, e.g. v5p:2x2x1 or v5e:2x4"
    )
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="layout of its devices; default: all fsdp")
    add_rules_option(parser)
    parser.add_argument("--sweep", action="store_true", help="every mesh of the slice, as one table by time")
    parser.add_argument("--json", action="store_true", help="one JSON line before the last line")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    """Prints the plan; 0 if it fits, else 1."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # nothing is computed; a TPU of this machine stays free
    from mammoth_jax.benchmarks.chips import num_devices
    from mammoth_jax.benchmarks.step_plan import StepPlan
    from mammoth_jax.core.mesh import parse_mesh
    from mammoth_jax.core.sharding import parse_rules, use_rules
    from mammoth_jax.training.config_file import load_training
    from mammoth_jax.training.joint_config import JointTraining

    devices = num_devices(args.topology)
    if args.sweep and args.mesh is not None:
        raise InputError(f"--mesh {args.mesh} beside --sweep: leave one of them out")
    named = parse_mesh(args.mesh) if args.mesh else {"data": 1, "fsdp": devices, "tensor": 1}
    config = load_training(args.config, args.preset, args.overrides)
    if not isinstance(config, JointTraining):
        raise InputError(f"{args.config}: task {config.task} is not planned; only stages of the model are")
    plan = StepPlan(str(args.config), config, args.topology)
    with use_rules(parse_rules(args.rules if args.rules is not None else config.run.rules or "")):
        return _show(plan, named, args)


def _show(plan: "StepPlan", named: Mapping[str, int], args: argparse.Namespace) -> int:
    from mammoth_jax.benchmarks.preflight import verdict

    if args.sweep:
        results = [plan(mesh) for mesh in plan.meshes()]
        results.sort(key=lambda result: (not result["fits"], result["roofline_seconds"], result["hbm"]))
        print("\n".join(table(results)))
        if args.json:
            print(json.dumps(results))
        best = results[0]
    else:
        best = plan(named)
        print("\n".join(lines(best)))
        if args.json:
            print(json.dumps(best))
    print(verdict(best))
    return 0 if best["fits"] else 1


def lines(result: Mapping[str, Any]) -> list[str]:
    """A mesh's plan for a person; sizes are those of one chip."""
    seconds = result["seconds"]
    text = [
        f"{result['config']} on {result['topology']}, mesh {_name(result['mesh'])}",
        "",
        *(f"  {kind:16} {size / GIB:8.3f} GiB" for kind, size in result["memory"].items() if size),
    ]
    if result["host_memory"]:
        text.append(f"  in the host's memory {result['host_memory'] / GIB:.3f} GiB")
    text += [
        "",
        f"  {result['flops']:.3g} FLOP on all chips; roofline {seconds['roofline']:.3g} s ("
        + ", ".join(f"{name} {seconds[name]:.3g}" for name in ("compute", "memory", "links"))
        + ")",
        "  links: " + ", ".join(f"{kind} {size / GIB:.2f} GiB" for kind, size in result["links"].items()),
    ]
    undivided = result["replicated"]
    if undivided:
        excess = sum(each["excess"] for each in undivided)
        text += [
            "",
            f"  not divided by every axis: {len(undivided)} tensors, {excess / GIB:.3f} GiB over an even share",
        ]
        for each in undivided[:SHOWN]:
            shape = "x".join(map(str, each["shape"]))
            text.append(
                f"  {each['excess'] / GIB:8.3f} GiB  {each['name']} [{shape}], whole on {', '.join(each['axes'])}"
            )
        if len(undivided) > SHOWN:
            rest = sum(each["excess"] for each in undivided[SHOWN:])
            text.append(f"  {rest / GIB:8.3f} GiB  {len(undivided) - SHOWN} more (--json lists all)")
    return [*text, ""]


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a mesh: those that fit first, the fastest first among them."""
    rows = ["| mesh | fits | GiB per chip | roofline s | compute | memory | links |", "|" + "---|" * 7]
    for result in results:
        seconds = result["seconds"]
        times = " | ".join(f"{seconds[name]:.3g}" for name in ("compute", "memory", "links"))
        rows.append(
            f"| {_name(result['mesh'])} | {'yes' if result['fits'] else 'no'} | {result['hbm'] / GIB:.2f} | "
            f"{seconds['roofline']:.3g} ({seconds['bound']}) | {times} |"
        )
    return rows


def _name(mesh: Mapping[str, int]) -> str:
    from mammoth_jax.benchmarks.preflight import mesh_name

    return mesh_name(mesh)
