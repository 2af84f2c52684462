"""Turn a picture into the grid of its visual tokens, and back.

Prints one line of code numbers a row of the grid.  The picture is read at its own size, its sides rounded down to
multiples of MammothTok's patch.
"""

import argparse
import json
from pathlib import Path

from mammoth_jax.cli.model_options import DEFAULT_PRESET, add_model_options, announce_default
from mammoth_jax.core.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument(
        "--reconstruct", type=Path, metavar="PNG", help="write the picture decoded from the codes"
    )
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the grid; with ``--json`` one object with ``codes``, ``size`` and what was written."""
    import jax
    import numpy as np
    from PIL import Image

    from mammoth_jax.core.compilation_cache import enable_compilation_cache
    from mammoth_jax.core.files import prepare_output_file, write_whole
    from mammoth_jax.core.mesh import make_mesh, parse_mesh, single_device_mesh
    from mammoth_jax.core.precision import matmul_precision, parse_dtype
    from mammoth_jax.pipelines.tokens import Tokens

    if args.lora is not None:
        raise InputError(
            f"--lora {args.lora}: adapters change the backbone and the diffusion transformer, and tokenize runs "
            "MammothTok alone; leave it out"
        )
    if args.reconstruct is not None:
        prepare_output_file(args.reconstruct)
    enable_compilation_cache()
    announce_default(args)
    mesh = make_mesh(parse_mesh(args.mesh)) if args.mesh else single_device_mesh()
    tokens = Tokens.open(args.model, args.preset or DEFAULT_PRESET, mesh, parse_dtype(args.dtype))
    picture = tokens.read(args.image)
    with jax.set_mesh(mesh), matmul_precision(args.precision):
        codes = tokens.encode(picture)
        if args.reconstruct is not None:
            made = Image.fromarray(np.asarray(tokens.decode(codes)))
            write_whole(args.reconstruct, lambda path: made.save(path, format="PNG"))
    if args.json:
        written = None if args.reconstruct is None else str(args.reconstruct)
        size = [picture.shape[1], picture.shape[0]]
        print(json.dumps({"codes": codes.tolist(), "size": size, "reconstruction": written}))
    else:
        width = len(str(codes.max()))
        print("\n".join(" ".join(f"{code:{width}d}" for code in row) for row in codes))
    return 0
