"""Records what the published perceptual, FID and semantic networks compute at random weights, for tests of our own.

    python scripts/record_loss_network_vectors.py tests/vectors/loss_networks

Needs ``torch``, ``torchvision``, ``transformers``, ``lpips`` and ``pytorch-fid`` (the last two also want ``scipy`` and
``tqdm``); nothing of ours, and no published weights.  The README beside the vectors says what is in them.
"""

import json
import sys
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import record_processor_vectors  # noqa: F401  first: it makes torchvision load
import torch
from safetensors.numpy import save_file
from torch import nn
from torchvision.models import Inception3
from transformers import Aimv2VisionConfig, Aimv2VisionModel

SEED = 6
AIMV2 = {
    "hidden_size": 256,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 7,
    "image_size": 21,
    "use_head": False,
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights of the tensor ``name``: they depend on its name and shape alone, so none need be stored."""
    noise = np.random.Generator(np.random.Philox(key=[SEED, zlib.crc32(name.encode())]))
    x = noise.standard_normal(shape, np.float32)
    if name.endswith("running_var"):
        return np.exp(0.3 * x)
    if name.startswith("lin"):
        return np.abs(x)
    if len(shape) == 1:
        return (1 + 0.1 * x) if name.endswith("weight") else 0.1 * x
    return x * np.float32(np.sqrt((2 if len(shape) == 4 else 1) / np.prod(shape[1:])))


def fill(
    module: nn.Module, published: Callable[[str], str] = lambda name: name, kept: tuple[str, ...] = ()
) -> dict[str, int]:
    """Draws every tensor by its published name, but those that start with ``kept``; returns a checksum each."""
    sums = {}
    for name, tensor in module.state_dict().items():
        if tensor.dtype == torch.float32 and not name.startswith(kept):
            values = draw(published(name), tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(values))
            sums[published(name)] = zlib.crc32(values.tobytes())
    return sums


def pictures(seed: int, *shape: int) -> np.ndarray:
    """Smooth coloured noise, bytes: every pixel in it, and neighbours alike."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal((shape[0], 3, *(n // 4 + 1 for n in shape[1:3]))))
    x = torch.nn.functional.interpolate(x, size=shape[1:3], mode="bicubic").numpy()
    x = 128 + 45 * x + 12 * rng.standard_normal(x.shape)
    return np.ascontiguousarray(np.clip(x, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def tensor(picture: np.ndarray) -> torch.Tensor:
    """Bytes as a batch in [-1, 1]."""
    return torch.from_numpy(picture.transpose(0, 3, 1, 2).astype(np.float32)) / 127.5 - 1


def array(x: torch.Tensor) -> np.ndarray:
    """Channels last where it is a map."""
    x = x.detach().permute(0, 2, 3, 1) if x.ndim == 4 else x.detach()
    return np.ascontiguousarray(x.numpy())


def write(arrays: dict[str, np.ndarray], file: Path) -> None:
    """Arrays, for all to read."""
    save_file(arrays, file)
    file.chmod(0o644)


def record_lpips() -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Distances, their parts, the last activations and the gradient by the first picture."""
    import lpips

    model = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).eval()
    names = {f"net.slice{i + 1}.": "features." for i in range(5)}

    def published(name: str) -> str:
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        return name

    # `lins` are the same layers under a second name
    sums = fill(model, published, kept=("scaling_layer.", "lins."))
    a, b = pictures(1, 2, 64, 48), pictures(2, 2, 64, 48)
    x = tensor(a).requires_grad_()
    distance, parts = model(x, tensor(b), retPerLayer=True)
    distance.sum().backward()
    taps = model.net(model.scaling_layer(tensor(a)))
    assert x.grad is not None
    out = {"a": a, "b": b, "distance": array(distance.reshape(-1)), "gradient": array(x.grad)[:1]}
    out["parts"] = np.stack([array(part.reshape(-1)) for part in parts])
    out |= {f"tap{i}": array(tap.mean((2, 3))) for i, tap in enumerate(taps)} | {"last": array(taps[-1])[:1]}
    return out, sums


def record_inception() -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Means over the stages' maps at their own size, and features by way of 299 pixels a side."""
    import pytorch_fid.inception as fid

    Inception3.load_state_dict = lambda self, state: None
    fid.load_state_dict_from_url = lambda url, progress: {}
    network = fid.fid_inception_v3()
    sums = fill(network)
    sums = {name: n for name, n in sums.items() if not name.startswith("fc.")}  # what no feature reads
    fid.fid_inception_v3 = lambda: network
    model = fid.InceptionV3(output_blocks=(0, 1, 2, 3), resize_input=False, normalize_input=False).eval()
    small, sized = pictures(3, 1, 107, 139), pictures(4, 2, 64, 48)
    out = {"small": small, "sized": sized}
    for i, stage in enumerate(model(tensor(small))):
        out[f"stage{i}"] = array(stage.mean((2, 3)))
    model = fid.InceptionV3().eval()
    out["features"] = array(model((tensor(sized) + 1) / 2)[0].flatten(1))
    large = np.tile(small, (1, 3, 3, 1))[:, :320, :400]  # it shrinks, and need not be stored
    out["shrunk"] = array(model((tensor(large) + 1) / 2)[0].flatten(1))
    return out, sums


def aimv2_name(name: str) -> str:
    """The name in Apple's files of a tensor of transformers, but for query, key and value, which are one there."""
    fixed = {
        "embeddings.patch_embed.weight": "preprocessor.patchifier.proj.weight",
        "embeddings.patch_embed.bias": "preprocessor.patchifier.proj.bias",
        "embeddings.rms_norm.weight": "preprocessor.patchifier.norm.weight",
        "embeddings.position_embedding.weight": "preprocessor.pos_embed",
        "rms_norm.weight": "trunk.post_trunk_norm.weight",
    }
    if name in fixed:
        return fixed[name]
    parts = {
        "attention.out_proj": "attn.proj",
        "rms_norm1": "norm_1",
        "rms_norm2": "norm_2",
        "ffn.gate_proj": "mlp.fc1",
        "ffn.down_proj": "mlp.fc2",
        "ffn.up_proj": "mlp.fc3",
    }
    for theirs, published in parts.items():
        name = name.replace(theirs, published)
    return name.replace("encoder.layers.", "trunk.blocks.")


def record_aimv2(native: bool) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Features of the patches of a picture that has been prepared."""
    model = Aimv2VisionModel(Aimv2VisionConfig(**AIMV2, is_native=native, attn_implementation="eager")).eval()
    sums = {}
    for name, held in model.state_dict().items():
        theirs = aimv2_name(name)
        if "attention." in name and "out_proj" not in name:
            block, _, part = name.removesuffix("_proj.weight").rpartition(".attention.")
            theirs = aimv2_name(f"{block}.attn.qkv.weight")
            whole = draw(theirs, (3 * held.shape[0], held.shape[1]))
            sums[theirs] = zlib.crc32(whole.tobytes())
            held.copy_(torch.from_numpy(whole.reshape(3, *held.shape)["qkv".index(part)]))
            continue
        shape = (1, *held.shape) if theirs.endswith("pos_embed") else tuple(held.shape)
        values = draw(theirs, shape)
        sums[theirs] = zlib.crc32(values.tobytes())
        held.copy_(torch.from_numpy(values).reshape(held.shape))
    picture = pictures(6, 2, *((21, 35) if native else (21, 21)))
    with torch.no_grad():
        return {"picture": picture, "features": array(model(tensor(picture)).last_hidden_state)}, sums


def record_pickles(folder: Path) -> None:
    """Small files as ``torch.save`` writes them, in both layouts, and what is in them."""
    torch.manual_seed(SEED)
    base = torch.randn(6, 4)
    tensors: Mapping[str, torch.Tensor] = OrderedDict(
        whole=base,
        turned=base.t(),
        window=base[2:4, 1:3],
        half=torch.randn(3).half(),
        brain=torch.randn(3).bfloat16(),
        double=torch.randn(2, 1).double(),
        count=torch.tensor(7),
        parameter=nn.Parameter(torch.randn(2)),
        empty=torch.zeros(0, 3),
    )
    tensors._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    torch.save(tensors, folder / "tensors_zip.pth")
    torch.save(tensors, folder / "tensors_stream.pth", _use_new_zipfile_serialization=False)
    torch.save(nn.Linear(2, 2), folder / "module_zip.pth")
    values = {name: np.ascontiguousarray(x.detach().float().numpy()) for name, x in tensors.items()}
    write(values, folder / "tensors_expected.safetensors")


def main(folder: Path) -> None:
    """Writes all files."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    recorded = {
        "lpips": record_lpips(),
        "inception": record_inception(),
        "aimv2_native": record_aimv2(native=True),
        "aimv2_fixed": record_aimv2(native=False),
    }
    for name, (arrays, _) in recorded.items():
        write(arrays, folder / f"{name}.safetensors")
    checks = {
        name: zlib.crc32(json.dumps(sums, sort_keys=True).encode()) for name, (_, sums) in recorded.items()
    }
    case = {
        "seed": SEED,
        "aimv2": AIMV2,
        "tensors": {n: len(s) for n, (_, s) in recorded.items()},
        "weights": checks,
    }
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    record_pickles(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
