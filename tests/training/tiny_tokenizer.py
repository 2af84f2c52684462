"""A training configuration of a few thousand parameters, with its data written to a folder or drawn."""

import json

from mammoth_jax.core.config import decode, merge
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.presets import load_preset
from mammoth_jax.training.checkpoint import Checkpoints
from mammoth_jax.training.runs import open_run
from mammoth_jax.training.tokenizer import tokenizer_work
from mammoth_jax.training.tokenizer_config import TokenizerTraining

MODEL = merge(
    load_preset("nano"),
    {
        "mammothtok": {
            "encoder": {"patch_size": 8, "width": 16, "mlp_width": 32, "num_layers": 1, "num_heads": 2},
            "codebook_size": 32,
            "z_channels": 16,
            "vit": {"width": 16, "num_layers": 2, "num_heads": 2, "distill_depth": 1, "semantic_width": 16},
            "cnn": {
                "channels": 4,
                "multipliers": [1, 1, 2, 2],
                "num_res_blocks": 0,
                "norm_groups": 2,
                "upsampling": 8,
            },
        },
        "vae": {"block_out_channels": [8, 8, 16], "layers_per_block": 1, "norm_groups": 4},
    },
)


def optimizer(rate=3e-3):
    """One group of everything."""
    schedule = {"type": "WarmupCosine", "learning_rate": rate, "warmup_steps": 2, "end": 1e-5}
    return {"groups": [{"name": "all", "schedule": schedule}]}


def pictures(split="train", seed=0, *, side=32, workers=0):
    """Scenes of the synthetic world."""
    threads = {"type": "Threads", "count": workers} if workers else {"type": "Threads", "count": 0}
    return {
        "sources": [{"type": "Synthetic", "split": split, "seed": seed, "picture_size": side, "length": 64}],
        "shape": {"type": "FixedShape", "height": side, "width": side},
        "workers": threads,
    }


def training(task="mammothtok", **changes) -> TokenizerTraining:
    """The configuration with nested ``changes``; the adversary is on, networks from files are off."""
    data = {
        "task": task,
        "model": MODEL,
        "data": pictures(),
        "evaluation": pictures("heldout", 1),
        "losses": {
            "l1": 1.0,
            "l2": 1.0,
            "perceptual": 0,
            "semantic": 0,
            "latent": 1.0 if task == "mammothtok" else 1e-3,
            "adversarial": {"start_step": 3, "regularizer": {"type": "LeCam"}},
        },
        "optimizer": optimizer(),
        "discriminator": {
            "network": {"channels": 8, "num_downsamplings": 2, "norm_groups": 4},
            "optimizer": optimizer(),
        },
        "dtype": "float32",
        "run": {
            "steps": 6,
            "batch_size": 8,
            "checkpoint_interval": 5,
            "evaluation_interval": 6,
            "evaluation_pictures": 16,
        },
    }
    return decode(TokenizerTraining, merge(data, changes))


def untrained_run(folder, config, latents=None):
    """A run's folder with one checkpoint, of step 1, whose weights are the start weights."""
    mesh = single_device_mesh()
    open_run(folder, config)
    state = tokenizer_work(config, mesh).initial()
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, state, {"hosts": []})
    checkpoints.close()
    if latents is not None:
        (folder / "latents.json").write_text(json.dumps(latents))
    return folder
