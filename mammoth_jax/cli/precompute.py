"""Encode a whole data set once: codes of MammothTok and latents of the VAE, in shards that training reads.

CONFIG names the source, the shape, and a model folder or training run for `mammothtok` and `vae`; any key can be given
as an option, e.g. --vae RUN.  The same command goes on where it was stopped.
"""

import argparse
import json
from pathlib import Path

from mammoth_jax.cli.model_options import add_mesh_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="what to encode, in YAML")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the shards' folder")
    add_mesh_option(parser, "one device")
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    """Writes what is missing and prints the totals as one JSON line."""
    import jax

    from mammoth_jax.core.compilation_cache import enable_compilation_cache
    from mammoth_jax.core.config import decode, load_yaml, merge, parse_overrides
    from mammoth_jax.core.mesh import make_mesh, parse_mesh, single_device_mesh
    from mammoth_jax.core.progress import ProgressLine
    from mammoth_jax.pipelines.precompute import Precompute, precompute

    enable_compilation_cache()
    config = decode(Precompute, merge(load_yaml(args.config), parse_overrides(args.overrides)))
    mesh = make_mesh(parse_mesh(args.mesh)) if args.mesh else single_device_mesh()
    with jax.set_mesh(mesh):
        manifest = precompute(config, args.out, mesh, ProgressLine())
    shards = manifest.get("shards", [])
    totals = {name: sum(shard[name] for shard in shards) for name in ("records", "left_out", "bytes")}
    print(json.dumps({"shards": len(shards), **totals}))
    return 0
