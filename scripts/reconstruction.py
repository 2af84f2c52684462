"""How well a trained MammothTok or VAE gives pictures back, over more of them than its run looks at on the way.

    python scripts/reconstruction.py --model runs/tok --pictures 1024 --out runs/tok_1024

Pictures are those of the run's own `evaluation` section.  Prints one object: PSNR (mean over pictures, uint8, of codes
decoded as integers) and SSIM, use of the codes or statistics of the latents, and beside them what plain block means of
the token's size reach.  OUT/pictures has a grid, inputs above outputs; of a VAE, OUT/latents.json its shift and scale.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mammoth_jax.core.compilation_cache import enable_compilation_cache
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.objectives.image_metrics import psnr
from mammoth_jax.training.batches import open_batches
from mammoth_jax.training.config_file import run_config
from mammoth_jax.training.runs import split_step, with_step
from mammoth_jax.training.state import TrainState
from mammoth_jax.training.tokenizer_config import TokenizerTraining
from mammoth_jax.training.tokenizer_evaluation import TokenizerEvaluation
from mammoth_jax.training.tokenizer_kinds import KINDS, MammothTokKind
from mammoth_jax.training.tokenizer_weights import load_tokenizer


def block_means(config: TokenizerTraining, side: int) -> float:
    """Mean PSNR of the evaluation pictures with every block of ``side`` squared pixels painted in its mean."""
    batches = open_batches(config.evaluation, config.run.batch_size, config.run.seed)
    found = []
    try:
        for _ in range(-(-config.run.evaluation_pictures // config.run.batch_size)):
            picture = next(batches)["picture"]
            n, rows, cols, _ = picture.shape
            blocks = picture.reshape(n, rows // side, side, cols // side, side, 3).mean((2, 4))
            flat = np.rint(blocks).astype(np.uint8).repeat(side, 1).repeat(side, 2)
            found.append(np.asarray(psnr(jnp.asarray(flat), jnp.asarray(picture))))
    finally:
        batches.close()
    return float(np.mean(np.concatenate(found)))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="RUN or RUN@STEP")
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    enable_compilation_cache()
    config = run_config(args.model)
    if not isinstance(config, TokenizerTraining):
        raise InputError(f"--model {args.model}: a run of {config.task}; give one of mammothtok or vae")
    config = dataclasses.replace(
        config, run=dataclasses.replace(config.run, evaluation_pictures=args.pictures)
    )
    kind, mesh = KINDS[config.task](config.model), single_device_mesh()
    model = load_tokenizer(args.model, kind, mesh)
    weights = {name: p[...] for name, p in named_parameters(model).items()}
    state = TrainState(jnp.int32(0), {"model": weights}, {}, {}, {})
    args.out.mkdir(parents=True, exist_ok=True)
    evaluation = TokenizerEvaluation(config, kind, abstract(kind.build), mesh)
    numbers = {**evaluation(state, split_step(with_step(args.model))[1] or 0, args.out / "pictures")}
    if isinstance(kind, MammothTokKind):
        numbers["block_means_psnr"] = block_means(config, kind.stride)
    print(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
