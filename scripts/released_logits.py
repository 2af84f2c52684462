"""Development check: an exported folder in the released PyTorch modules, strictly loaded, and their logits beside ours.

The released code is fetched aside and named by ``--code``; it is imported and never copied.  Language model, diffusion
transformer and VAE are built from the folder's ``config.json`` and loaded with ``strict=True``; then the same tokens go
through both language models (text and visual tokens, so that both experts run), and the same latents and features
through both diffusion transformers.  ``--start`` names the folder that the training began from: tensors that are
bit-identical with it are counted.  ``--adapters`` are a LoRA run's, as ``to-torch --part lora`` writes them: applied by
PEFT to the released modules with the start's weights they must give what the merged folder does.

    git clone https://github.com/bytedance/mammothmoda ref
    pip install torch "transformers==4.57.1" "diffusers==0.35.1" einops loguru addict torchdiffeq peft
    python scripts/released_logits.py runs/tuned_released --code ref/mamoda2 --start runs/start
"""

import argparse
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np


def main() -> int:
    """Compares; 1 if anything differs by more than the tolerance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="as to-torch writes it")
    parser.add_argument(
        "--code", type=Path, required=True, help="the folder that holds the package mammothmoda2"
    )
    parser.add_argument("--start", type=Path, help="the folder that the training began from")
    parser.add_argument("--adapters", type=Path, help="of the training, to be applied to --start by PEFT")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the largest value (1e-4)")
    args = parser.parse_args()
    if args.adapters is not None and args.start is None:
        parser.error("--adapters are applied to --start: give both")
    import torch

    torch.manual_seed(0)
    tensors = read(args.folder)
    result: dict[str, Any] = {} if args.start is None else compare_bits(read(args.start), tensors)
    from mammoth_jax.pipelines.loading import load_model

    ours = load_model(args.folder, dtype="float32")
    prepare_imports(args.code)
    language, transformer = released_modules(args.folder, tensors)
    result["logits"] = compare_logits(language, ours)
    result["velocities"] = compare_velocities(transformer, ours)
    if args.adapters is not None:
        adapted = with_peft(*released_modules(args.start, read(args.start)), args.adapters)
        result["peft_logits"] = compare_logits(adapted.llm_model, ours)
        result["peft_velocities"] = compare_velocities(adapted.gen_transformer, ours)
    worst = max(x["difference"] / x["largest"] for x in result.values() if isinstance(x, dict))
    print(json.dumps(result))
    print(f"largest difference: {worst:.1e} of the largest value, tolerance {args.tolerance:g}")
    return 0 if worst <= args.tolerance else 1


def read(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a released folder."""
    from checkpoint_convert.source import FolderSource

    source = FolderSource(folder)
    return {name: source.read(name) for name in source.specs}


def compare_bits(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many tensors are bit for bit what they were."""
    same = {
        n
        for n, x in after.items()
        if n in before and x.dtype == before[n].dtype and x.tobytes() == before[n].tobytes()
    }
    return {"tensors": len(after), "bit_identical": len(same), "of_the_start": len(before)}


def prepare_imports(code: Path) -> None:
    """Lets the parts of the released code that are compared be imported without what the rest of it needs.

    It has an attention of its own for where there is no flash attention, but asks for that as it is imported.
    """
    import diffusers.models.autoencoders.autoencoder_kl  # noqa: F401  (looks for flash attention when it is imported)
    from transformers import modeling_flash_attention_utils as flash

    flash._lazy_imports = lambda *names: (None,) * 4
    flash.is_flash_attn_available = lambda: False
    padding = types.ModuleType("flash_attn.bert_padding")
    padding.index_first_axis = None  # type: ignore[attr-defined]
    sys.modules |= {"flash_attn": types.ModuleType("flash_attn"), padding.__name__: padding}
    sys.path.insert(0, str(code))
    root = "mammothmoda2"  # the __init__ of these packages imports processors
    for name in (root, f"{root}.model", f"{root}.model.mammothmoda2_qwen3_vl"):
        package = types.ModuleType(name)
        package.__path__ = [str(code / name.replace(".", "/"))]
        sys.modules[name] = package


def released_modules(folder: Path, tensors: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """The released language model and diffusion transformer with the folder's weights; the VAE is loaded as well."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from mammothmoda2.model.mammothmoda2_dit import attention_processor, diffusion_transformer
    from mammothmoda2.model.mammothmoda2_dit.image_refiner import SimpleQFormerImageEmbedder
    from mammothmoda2.model.mammothmoda2_qwen3_vl.configuration_mammothmoda2_qwen3_vl import (
        Mammothmoda2Qwen3VLConfig,
    )
    from mammothmoda2.model.mammothmoda2_qwen3_vl.modeling_mammothmoda2_qwen3_vl import (
        Mammothmoda2Qwen3VLForConditionalGeneration,
        Qwen3VLTextRMSNorm,
    )

    diffusion_transformer.AttnProcessorFlash2Varlen = diffusion_transformer.AttnProcessor
    attention_processor.scaled_dot_product_attention = torch.nn.functional.scaled_dot_product_attention
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))

    def fill(module: Any, prefix: str) -> Any:
        own = {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
        state = {n: torch.from_numpy(np.array(x, np.float32)) for n, x in own.items()}
        module.load_state_dict(state, strict=True)
        print(f"{prefix}*: {len(state)} tensors, load_state_dict(strict=True)")
        return module.eval()

    language = Mammothmoda2Qwen3VLForConditionalGeneration(Mammothmoda2Qwen3VLConfig(**told["llm_config"]))
    width = told["llm_config"]["text_config"]["hidden_size"]
    transformer = diffusion_transformer.Transformer2DModel.from_config(told["gen_dit_config"])
    embed = transformer.time_caption_embed
    embed.caption_embedder = torch.nn.Sequential(
        Qwen3VLTextRMSNorm(width, eps=1e-5), torch.nn.Linear(width, transformer.hidden_size)
    )
    embed.is_image_embedder = True
    embed.image_embedder = SimpleQFormerImageEmbedder(
        input_dim=width,
        hidden_size=transformer.hidden_size,
        num_heads=max(1, transformer.hidden_size // 128),
        **told["gen_image_condition_refiner_config"],
    )
    fill(AutoencoderKL.from_config(told["gen_vae_config"]), "gen_vae.")
    return fill(language, "llm_model."), fill(transformer, "gen_transformer.")


def with_peft(language: Any, transformer: Any, adapters: Path) -> Any:
    """The modules under the names that they have in the released model, with the adapters applied."""
    import torch
    from peft import PeftModel

    whole = torch.nn.Module()
    whole.llm_model, whole.gen_transformer = language, transformer
    return PeftModel.from_pretrained(whole, str(adapters)).eval().base_model.model


def compare_logits(language: Any, ours: Any) -> dict[str, Any]:
    """Scores of text, an opened picture, its tokens, and text behind it."""
    import jax.numpy as jnp
    import torch

    decoder = ours.model.decoder
    codes = ours.config.mammothtok.codebook_size
    rng = np.random.default_rng(0)
    first = ours.tokenizer.visual_token_id(0)
    words = ours.tokenizer.encode("a red circle beside two green squares")
    ids = np.array([[*words, *(first + rng.integers(0, codes, 24)), *words]], np.int64)
    with torch.no_grad():
        theirs = language(input_ids=torch.from_numpy(ids), use_cache=False).logits.float().numpy()
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), (3, *ids.shape))
    hidden = decoder(jnp.asarray(ids, jnp.int32), positions).hidden
    mine = np.asarray(decoder.logits(hidden))
    return difference(mine, theirs)


def compare_velocities(transformer: Any, ours: Any) -> dict[str, Any]:
    """Two rows of noise under text features and features of visual tokens."""
    import torch
    from mammothmoda2.model.mammothmoda2_dit import RotaryPosEmbedReal

    from mammoth_jax.evals.vectors.dit_batch import Batch, Sample

    config = ours.config.dit
    rng = np.random.default_rng(1)
    side = 8 * config.patch_size
    latents = rng.standard_normal((2, config.in_channels, side, side)).astype(np.float32)
    times = np.array([0.25, 0.75], np.float32)
    text = rng.standard_normal((2, 12, config.condition_width)).astype(np.float32)
    image = rng.standard_normal((2, 9, config.condition_width)).astype(np.float32)
    masks = [np.ones(x.shape[:2], bool) for x in (text, image)]
    rope = RotaryPosEmbedReal.get_freqs_real(config.axes_dim_rope, config.axes_lens, theta=10000)
    with torch.no_grad():
        theirs = transformer(
            hidden_states=torch.from_numpy(latents),
            timestep=torch.from_numpy(times),
            text_hidden_states=torch.from_numpy(text),
            freqs_cis=rope,
            text_attention_mask=torch.from_numpy(masks[0]),
            ar_image_hidden_states=torch.from_numpy(image),
            ar_image_attention_mask=torch.from_numpy(masks[1]),
        ).numpy()
    samples = [Sample(latents[i], times[i], text[i], masks[0][i], image[i], masks[1][i]) for i in range(2)]
    batch = Batch(ours.model.dit, ours.model.refiner, samples)
    return difference(np.stack([batch.velocity(i) for i in range(2)]), theirs)


def difference(mine: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """How far apart, and how large."""
    if mine.shape != theirs.shape:
        raise SystemExit(f"ours {mine.shape}, theirs {theirs.shape}")
    return {
        "shape": list(mine.shape),
        "difference": float(np.abs(mine - theirs).max()),
        "largest": float(np.abs(theirs).max()),
    }


if __name__ == "__main__":
    sys.exit(main())
