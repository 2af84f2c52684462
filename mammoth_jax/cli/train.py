"""Train from a configuration file; the same command goes on where a run was stopped.

RUN holds config.yaml, metrics.jsonl, checkpoints/ and pictures/.  Any key of the configuration can be given as an
option, e.g. --run.steps 1000 or --optimizer.weight_decay 0.05; values are read as YAML.  --mesh and --rules may be
others when a run goes on; without --rules it keeps those that it has.  Ctrl-C finishes the step under way, saves and
stops.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mammoth_jax.cli.argument_types import add_rules_option
from mammoth_jax.cli.model_options import add_mesh_option
from mammoth_jax.core.errors import InputError

if TYPE_CHECKING:
    from mammoth_jax.training.joint_config import JointTraining
    from mammoth_jax.training.tokenizer_config import TokenizerTraining


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="a training configuration, or a shipped one's name"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="the run's folder, new or to go on with"
    )
    parser.add_argument(
        "--init", metavar="DIR", help="start from these weights: a model folder, or a run (RUN or RUN@STEP)"
    )
    parser.add_argument(
        "--preset", metavar="NAME", help="this architecture in place of the configuration's model"
    )
    parser.add_argument(
        "--hosts",
        metavar="WHO",
        help="one process of several: auto (Slurm, GKE, TPU pods), or ADDRESS:PORT,COUNT,NUMBER",
    )
    add_mesh_option(parser)
    add_rules_option(parser)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    """Trains; 0 at the last step, 1 if the guard or a full disk stopped it, 130 if it was interrupted."""
    import jax

    from mammoth_jax.core.compilation_cache import enable_compilation_cache
    from mammoth_jax.core.sharding import parse_rules, use_rules
    from mammoth_jax.training.config_file import load_training
    from mammoth_jax.training.distributed import join_hosts, parse_hosts
    from mammoth_jax.training.origin import start_of
    from mammoth_jax.training.runs import recorded_rules

    if args.hosts is not None:
        join_hosts(parse_hosts(args.hosts))
    enable_compilation_cache()
    args.init = start_of(args.out, args.init)
    config = load_training(args.config, args.preset, args.overrides, args.init)
    said = (args.rules, config.run.rules, recorded_rules(args.out))
    rules = next((text for text in said if text is not None), None)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, rules=rules))
    with use_rules(parse_rules(rules or "")):
        try:
            return _train(args, config)
        except jax.errors.JaxRuntimeError as error:
            _end_with_reason(error)
            raise


def _end_with_reason(error: Exception) -> None:
    """Ends the run of several hosts; of one host, if there is a sentence for a person.

    Raises:
      InputError: the run does not fit its devices, and starting it again would change nothing.
    """
    import jax

    from mammoth_jax.training.device_memory import explain_full_memory
    from mammoth_jax.training.distributed import leave_lost_run, leave_run

    full, several = explain_full_memory(error), jax.process_count() > 1
    if full is not None and several:
        leave_run(full, 2)  # as of wrong input: launchers do not start it again
    if full is not None:
        raise InputError(full) from error
    if several:
        leave_lost_run(error)


def _train(args: argparse.Namespace, config: "TokenizerTraining | JointTraining") -> int:
    import jax

    from mammoth_jax.benchmarks.chips import device_peak_flops
    from mammoth_jax.core.mesh import make_mesh, parse_mesh
    from mammoth_jax.pipelines.stage_samples import stage_samples
    from mammoth_jax.training.checkpoint import SaveFailed
    from mammoth_jax.training.joint_config import JointTraining
    from mammoth_jax.training.loop import Interrupted, TrainingStopped, train
    from mammoth_jax.training.runs import open_run
    from mammoth_jax.training.tasks import build_work

    mesh = make_mesh(parse_mesh(args.mesh) if args.mesh else None)
    samples = stage_samples(config, mesh, args.init, args.out) if isinstance(config, JointTraining) else None
    work = build_work(config, mesh, args.init, args.out, samples)
    open_run(args.out, config)
    try:
        peak = device_peak_flops(jax.devices()[0].device_kind)
        train(work, config.run, args.out, mesh, peak)
    except (TrainingStopped, SaveFailed) as stopped:
        print(f"mammoth-jax train: {stopped}", file=sys.stderr)
        return 1
    except Interrupted as stopped:
        print(f"mammoth-jax train: {stopped}", file=sys.stderr)
        return 130
    except OSError as error:
        raise InputError(
            f"cannot go on writing {args.out}: {error.strerror or error}; the last complete "
            "checkpoint is untouched, the same command goes on from it"
        ) from error
    return 0
