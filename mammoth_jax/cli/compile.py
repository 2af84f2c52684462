"""Compile programs for a TPU slice, on any machine: do they fit, and how fast can they be?

Those of a task, or the step of a training configuration, whose --preset replaces its model and whose settings can be
overridden (--run.batch_size 64).  All weights and moments count as resident while each program runs.  Times are the
least that the chip's peak figures allow.  The last line is "fits: X of Y GiB per chip" or "does not fit: ...".  Needs
the extra 'tpu', but no TPU.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammoth_jax.cli.argument_types import add_rules_option, positive, size
from mammoth_jax.cli.model_options import add_loop_options
from mammoth_jax.core.errors import InputError

if TYPE_CHECKING:
    from mammoth_jax.benchmarks.preflight import Preflight

TASK_NAMES = ("generate", "chat", "edit")
GIB = 2**30
KINDS = ("weights", "cache", "inputs", "outputs", "temporaries", "picture_encoders")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="a stage's training step")
    parser.add_argument("--task", choices=TASK_NAMES, help="or a task's programs")
    parser.add_argument("--preset", metavar="NAME", help="architecture (of a task: nano)")
    parser.add_argument(
        "--topology", required=True, metavar="CHIP:AxB[xC]", help="slice, e.g. v5p:2x2x1 or v5e:2x4"
    )
    parser.add_argument("--mesh", metavar="AXIS=N,...", help="layout of its devices; default: all fsdp")
    add_rules_option(parser)
    parser.add_argument("--size", type=size, metavar="WxH", help="pixels; default: the model's own square")
    parser.add_argument("--grid", type=size, metavar="WxH", help="visual tokens; default: from the size")
    parser.add_argument("--batch", type=positive, metavar="N", help="pictures or conversations (1)")
    parser.add_argument("--steps", type=positive, metavar="N", help="of diffusion (50)")
    parser.add_argument("--prompt-tokens", type=positive, metavar="N", help="words of each prompt (256)")
    parser.add_argument("--answer-tokens", type=positive, metavar="N", help="of a chat's answer (512)")
    parser.add_argument("--references", type=positive, metavar="N", help="pictures to edit by (1)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="(bfloat16)")
    add_loop_options(parser)
    parser.add_argument("--sweep", action="store_true", help="every mesh of the slice, as one table by time")
    parser.add_argument("--sweep-meshes", metavar="MESH;MESH;...", help="these meshes instead, as for --mesh")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="keep a sweep's results there; the next one goes on from them",
    )
    parser.add_argument("--json", action="store_true", help="one JSON line before the last line")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    """Compiles, and prints what each program needs."""
    without_tpu()
    from mammoth_jax.benchmarks.aot import require_libtpu, slice_devices
    from mammoth_jax.benchmarks.chips import chip_of
    from mammoth_jax.core.mesh import parse_mesh
    from mammoth_jax.core.sharding import parse_rules, use_rules

    chip_of(args.topology)
    sweeps = args.sweep or args.sweep_meshes is not None
    if sweeps and args.mesh is not None:
        raise InputError(
            f"--mesh {args.mesh} beside a sweep: give the meshes as --sweep-meshes 'A;B', or leave it out"
        )
    named = parse_mesh(args.mesh) if args.mesh else None
    listed = [parse_mesh(text) for text in (args.sweep_meshes or "").split(";") if text.strip()]
    if args.sweep_meshes is not None and not listed:
        raise InputError("--sweep-meshes: no mesh; write e.g. 'fsdp=4;fsdp=2,tensor=2'")
    preflight = _preflight(args)
    rules = parse_rules(args.rules or "")
    libtpu = require_libtpu()
    with use_rules(rules):
        if sweeps:
            return _sweep(preflight, listed or preflight.meshes(), args, libtpu)
        devices = len(slice_devices(args.topology))
        return _one(preflight, named or {"data": 1, "fsdp": devices, "tensor": 1}, args)


def _preflight(args: argparse.Namespace) -> "Preflight":
    """What the arguments name.

    Raises:
      InputError: both a configuration and a task, or neither; options of the other; a configuration that is not of a
        stage.
    """
    from mammoth_jax.benchmarks.calls import Workload
    from mammoth_jax.benchmarks.preflight import TaskPreflight, TrainingPreflight
    from mammoth_jax.training.config_file import load_training
    from mammoth_jax.training.joint_config import JointTraining

    if (args.config is None) == (args.task is None):
        raise InputError("give a training configuration, or --task with one of " + ", ".join(TASK_NAMES))
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Workload)}
    given = {name: value for name, value in given.items() if value is not None}
    if args.config is None:
        if args.overrides:
            raise InputError(f"{args.overrides[0]}: no such option; settings are overridden beside a CONFIG")
        return TaskPreflight(args.preset or "nano", args.task, args.topology, Workload(**given))
    if given:
        raise InputError(
            f"--{next(iter(given)).replace('_', '-')} beside {args.config}: only --task has it; a step is as its "
            "configuration says, whose settings are overridden by name, e.g. --run.batch_size 64"
        )
    config = load_training(args.config, args.preset, args.overrides)
    if not isinstance(config, JointTraining):
        raise InputError(
            f"{args.config}: task {config.task} is not compiled ahead of time; only stages of the model are"
        )
    if args.rules is None:
        args.rules = config.run.rules
    return TrainingPreflight(str(args.config), config, args.topology)


def without_tpu() -> None:
    """Runs JAX on the CPU and lets libtpu compile there: before JAX starts, and whatever else the machine has."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # no metadata server is asked which TPU this is
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # it is no TPU's owner, so others may load it too
    # what libtpu would look for on a TPU's host; without them it complains, with them nothing changes
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5e-4")


def _one(preflight: "Preflight", mesh: Mapping[str, int], args: argparse.Namespace) -> int:
    from mammoth_jax.benchmarks.chips import chip_of
    from mammoth_jax.benchmarks.preflight import summary, verdict

    described = preflight.describe()
    named = [described[name] for name in ("preset", "task", "config") if name in described]
    print(f"{' '.join(named)} on {preflight.topology}, mesh {_name(mesh)}")
    programs = []
    for program in preflight.compiled(mesh):
        print("\n".join(program_lines(program, chip_of(preflight.topology).hbm)), flush=True)
        programs.append(program)
    result = summary(preflight, mesh, programs)
    print(
        f"\ntotal: {result['flops']:.3g} FLOP and {_size(result['bytes'])} of HBM traffic on all chips, "
        f"roofline {result['roofline_seconds']:.3g} s"
    )
    if args.json:
        print(json.dumps(result))
    print(verdict(result))
    return 0 if result["fits"] else 1


def program_lines(program: Mapping[str, Any], limit: float) -> list[str]:
    """A program for a person; sizes are those of one chip."""
    hbm, seconds = program["hbm"], program["seconds"]
    kinds = ", ".join(f"{kind.replace('_', ' ')} {_size(hbm[kind])}" for kind in KINDS)
    total = f"{hbm['total'] / GIB:.2f} of {limit / GIB:.2f} GiB{'' if program['fits'] else ', too much'}"
    parts = ", ".join(f"{name} {seconds[name]:.3g}" for name in ("compute", "memory", "links"))
    lines = [
        "",
        f"{program['program']}  (compiled in {program['compile_seconds']:.0f} s)",
        f"  HBM {total}: {kinds}",
        f"  weights among its arguments {_size(hbm['read_weights'])}, by parameters and their size "
        f"{_size(hbm['logical_weights'])}",
        f"  {program['flops']:.3g} FLOP and {_size(program['bytes'])} on all chips; roofline "
        f"{seconds['roofline']:.3g} s ({parts})",
        f"  products outside of kernels execute {program['product_flops']:.3g} FLOP on a chip, "
        f"{program['product_flops'] * program['chips'] / max(program['flops'], 1):.2f} of an even share",
        f"  kernels: {program['custom_calls']}; collectives: {_collectives(program['collectives'])}",
    ]
    if program["refused"]:
        lines.append(f"  the compiler: {program['refused']}")
    for copy in program["copies_in_loops"][:8]:
        lines.append(
            f"  copied in a loop: {copy['shape']} {copy['bytes'] / 2**20:.0f} MiB x {copy['times']}  {copy['source']}"
        )
    return lines


def _collectives(found: Mapping[str, Any]) -> str:
    texts = [f"{kind} {traffic['count']:,} ({_size(traffic['bytes'])})" for kind, traffic in found.items()]
    return ", ".join(texts) or "none"


def _size(count: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 2**10:.1f} KiB"


def _name(mesh: Mapping[str, int]) -> str:
    from mammoth_jax.benchmarks.preflight import mesh_name

    return mesh_name(mesh)


def _sweep(
    preflight: "Preflight", meshes: Sequence[Mapping[str, int]], args: argparse.Namespace, libtpu: str
) -> int:
    import jax

    from mammoth_jax.benchmarks.preflight import summary, sweep, verdict
    from mammoth_jax.core.files import prepare_output_file

    if args.record is not None:
        prepare_output_file(args.record)
    results: list[dict[str, Any]] = []
    key = {
        **json.loads(json.dumps(preflight.describe())),
        "rules": args.rules or "",
        "versions": {"jax": jax.__version__, "libtpu": libtpu},
    }

    def compile_mesh(mesh: Mapping[str, int]) -> dict[str, Any]:
        programs = []
        for program in preflight.compiled(mesh):
            programs.append(program)
            print(
                f"[{len(results) + 1}/{len(meshes)}] {_name(mesh)}: {program['program']} "
                f"{program['hbm']['total'] / GIB:.2f} GiB, {program['compile_seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        return summary(preflight, mesh, programs)

    interrupted = False
    try:
        for result, known in sweep(compile_mesh, meshes, key, args.record):
            results.append(result)
            if known:
                print(f"[{len(results)}/{len(meshes)}] {_name(result['mesh'])}: known", file=sys.stderr)
    except KeyboardInterrupt:
        interrupted = True
        if not results:
            raise
    results.sort(key=lambda result: (not result["fits"], result["roofline_seconds"]))
    print("\n".join(table(results)))
    if interrupted:
        raise KeyboardInterrupt
    if args.json:
        print(json.dumps(results))
    print(verdict(results[0]))
    return 0 if results[0]["fits"] else 1


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sweep's results, one line a mesh: those that fit first, the fastest first among them."""
    names = list(dict.fromkeys(program["program"] for result in results for program in result["programs"]))
    lines = [
        f"| mesh | fits | GiB per chip | roofline s | {' | '.join(names)} |",
        "|" + "---|" * (4 + len(names)),
    ]
    for result in results:
        each = {program["program"]: program["seconds"] for program in result["programs"]}
        cells = [
            f"{each[name]['roofline']:.3g} ({each[name]['bound']})" if name in each else "" for name in names
        ]
        fits = "yes" if result["fits"] else "no"
        lines.append(
            f"| {_name(result['mesh'])} | {fits} | {result['hbm'] / GIB:.2f} | {result['roofline_seconds']:.3g} | "
            f"{' | '.join(cells)} |"
        )
    return lines
