"""What the decoder reads in training where codes are noised, as pictures: region noise against similarity noise.

    python scripts/noised_codes.py --model runs/nano_mammothtok --out noised.png

Held-out scenes of the synthetic world are turned into codes; the noise of training (`objectives/noise.py`), with the
keys of training, replaces some; MammothTok decodes them.  The upper row is clean, the middle one has region noise, the
lower one similarity noise, both at the rate of the stage.  Prints the shares of replaced codes, of the scenes drawn and
of 1,024.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mammoth_jax.core.compilation_cache import enable_compilation_cache
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.rng import named_key
from mammoth_jax.core.types import Array, Bool, Int
from mammoth_jax.data.synthetic.source import SyntheticScenes
from mammoth_jax.objectives.joint_draws import sample_keys
from mammoth_jax.objectives.noise import (
    Neighbours,
    NoisePlaces,
    RegionNoise,
    SimilarityNoise,
    VisualCodes,
    VisualNoise,
    nearest_codes,
)
from mammoth_jax.pipelines.tokens import Tokens
from mammoth_jax.training.config_file import load_training

MANY = 1024
GAP = 2  # pixels between pictures


def noised(
    noise: VisualNoise, codes: Int[Array, "n rows cols"], count: int, neighbours: Neighbours, seed: int
) -> tuple[Int[Array, "n rows cols"], Bool[Array, "n rows cols"]]:
    """The codes that training would read, and which of them it replaced; picture ``i`` is sample ``i`` of a task."""
    number, rows, cols = codes.shape
    cells = np.indices((rows, cols)).reshape(2, -1).T
    places = NoisePlaces(
        jnp.broadcast_to(cells, (number, rows * cols, 2)), jnp.ones((number, rows * cols), jnp.int32)
    )
    names = {
        "sample_task": jnp.zeros((number, 1), jnp.int32),
        "sample_number": jnp.arange(number, dtype=jnp.uint32)[:, None],
    }
    keys = sample_keys(named_key(jax.random.key(seed), "step", 1), "noise/visual", names)
    flat = codes.reshape(number, -1)
    read, where = noise(flat, places, keys, VisualCodes(0, count), neighbours)
    return jnp.where(where, read, flat).reshape(codes.shape), where.reshape(codes.shape)


def main() -> None:
    """Draws the grid and prints the rates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="of MammothTok: RUN or a model folder")
    parser.add_argument("--stage", default="nano/pre_stage2", help="whose rate and neighbours are taken")
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    enable_compilation_cache()
    similarity = load_training(Path(args.stage)).objective.noise
    if not isinstance(similarity, SimilarityNoise):
        raise InputError(f"--stage {args.stage}: its noise is {similarity}; give one with similarity noise")
    tokens = Tokens.open(args.model, "nano", single_device_mesh(), jnp.float32)
    table = tokens.model.quantizer.table()  # type: ignore[union-attr]
    neighbours, count = Neighbours(nearest_codes(table, similarity.neighbours)), table.shape[0]
    scenes = SyntheticScenes("heldout", picture_size=64, seed=args.seed)
    codes = jnp.stack([tokens.encode(scenes[i].pictures[0].decode()) for i in range(args.scenes)])
    many = jnp.zeros((MANY, *codes.shape[1:]), codes.dtype)
    lines, shares = [codes], {}
    for name, noise in (("region", RegionNoise(rate=similarity.rate)), ("similarity", similarity)):
        read, where = noised(noise, codes, count, neighbours, args.seed)
        lines.append(read)
        overall = noised(noise, many, count, neighbours, args.seed)[1]
        shares[name] = {"drawn": round(float(where.mean()), 4), f"of {MANY}": round(float(overall.mean()), 4)}
    rows = [
        [np.pad(tokens.decode(one), ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for one in line]
        for line in lines
    ]
    grid = np.concatenate([np.concatenate(row, axis=1) for row in rows])[:-GAP, :-GAP]
    small = Image.fromarray(grid).quantize(256, dither=Image.Dither.NONE)
    small.save(args.out, format="PNG", optimize=True)
    print(json.dumps({"rate": similarity.rate, "neighbours": similarity.neighbours, **shares}))


if __name__ == "__main__":
    main()
