"""MammothTok: released names, and its sizes from released dictionaries or from the tensors' shapes.

Names are relative to ``gen_tokenizer.image_tokenizer.``.
"""

from collections.abc import Mapping
from typing import Any

from checkpoint_convert import aimv2
from checkpoint_convert.aimv2 import count_layers
from checkpoint_convert.residual import res_stack
from checkpoint_convert.rules import Kernel, Rule, Same, Shape, conv, linear, norm, prefixed
from mammoth_jax.core.errors import InputError
from mammoth_jax.models.mammothtok.config import (
    CNNDecoderConfig,
    EncoderConfig,
    MammothTokConfig,
    ViTDecoderConfig,
)
from mammoth_jax.models.mammothtok.estimators import RotationTrick, StraightThrough

_DECODER_HEAD_WIDTH = 64
_SHORTCUT = "nin_shortcut"


def rules(config: MammothTokConfig) -> list[Rule]:
    """All tensors of the three parts."""
    return [*_encoder_rules(config), *_codebook_rules(), *_vit_rules(config), *_cnn_rules(config)]


def _codebook_rules() -> list[Rule]:
    return [Rule("mammothtok_codebook", "quantize.embedding.weight", "quantizer.codebook", Same())]


def _encoder_rules(config: MammothTokConfig) -> list[Rule]:
    part = "mammothtok_encoder"
    point = Kernel(source=(config.code_dim, config.encoder.width, 1, 1))
    return [
        *prefixed(aimv2.rules(part, config.encoder), "encoder.", "encoder."),
        Rule(part, "quant_conv.weight", "encoder.to_code.kernel", point),
        Rule(part, "quant_conv.bias", "encoder.to_code.bias"),
    ]


def _vit_rules(config: MammothTokConfig) -> list[Rule]:
    part, size = "mammothtok_decoder", config.vit
    point = Kernel(source=(config.z_channels, config.code_dim, 1, 1))
    out = [
        Rule(part, "post_quant_conv.weight", "decoder.from_code.kernel", point),
        Rule(part, "post_quant_conv.bias", "decoder.from_code.bias"),
        *norm(part, "s2ddecoder.ln_pre", "decoder.vit.norm_in", bias=True),
        *linear(part, "s2ddecoder.decoder_embed", "decoder.vit.embed_in", bias=True),
        *norm(part, "s2ddecoder.ln_post", "decoder.vit.norm_out", bias=True),
        *conv(part, "s2ddecoder.conv_out", "decoder.vit.conv_out"),
    ]
    for i, name in ((0, "fc1"), (2, "fc2"), (4, "fc3")):
        out += linear(part, f"s2ddecoder.distill_mlp.{i}", f"decoder.vit.semantic_head.{name}", bias=True)
    block = "s2ddecoder.transformer.{layer}"
    segments = {"lower": range(size.distill_depth), "upper": range(size.distill_depth, size.num_layers)}
    for segment, layers in segments.items():
        if not layers:
            continue
        stack = f"decoder.vit.{segment}"
        for i in (1, 2):
            out += norm(part, f"{block}.norm{i}", f"{stack}.norm{i}", bias=True, layers=layers)
            out += linear(part, f"{block}.linear{i}", f"{stack}.mlp.fc{i}", bias=True, layers=layers)
        for theirs, ours in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
            out += linear(part, f"{block}.self_attn.{theirs}", f"{stack}.{ours}", bias=True, layers=layers)
        out += linear(part, f"{block}.self_attn.wo", f"{stack}.out", bias=True, layers=layers, num_inputs=2)
    return out


def _cnn_rules(config: MammothTokConfig) -> list[Rule]:
    part, size, here = "mammothtok_decoder", config.cnn, "decoder.cnn"
    widths = [size.channels * m for m in reversed(size.multipliers)]
    out = [
        *conv(part, "decoder.conv_in", f"{here}.conv_in"),
        *norm(part, "decoder.norm_out", f"{here}.norm_out", bias=True),
        *conv(part, "decoder.conv_out", f"{here}.conv_out"),
    ]
    mid, width = ("decoder.mid", f"{here}.mid"), widths[0]
    out += res_stack(part, *mid, inputs=width, outputs=width, count=2, shortcut=_SHORTCUT)
    for level, (inputs, outputs) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True)):
        out += linear(
            part, f"decoder.adaptive.{level}.gamma", f"{here}.levels.{level}.adaptive.scale", bias=True
        )
        out += linear(
            part, f"decoder.adaptive.{level}.beta", f"{here}.levels.{level}.adaptive.shift", bias=True
        )
        names = f"decoder.conv_blocks.{level}.res", f"{here}.levels.{level}.blocks"
        count = size.num_res_blocks + 1
        out += res_stack(part, *names, inputs=inputs, outputs=outputs, count=count, shortcut=_SHORTCUT)
        if level < len(widths) - 1:
            out += conv(
                part, f"decoder.conv_blocks.{level}.upsample.conv1", f"{here}.levels.{level}.upsample.conv"
            )
    return out


def config_from_released(released: Mapping[str, Any]) -> MammothTokConfig:
    """The configuration from the released classes' arguments.

    ``released`` holds ``args`` (of the tokenizer) and the sizes ``aimv2_encoder``, ``vit_decoder_2d``, ``cnn_decoder``.

    Raises:
      InputError: a variant of the released code that no released checkpoint uses.
    """
    args, encoder = released["args"], released["aimv2_encoder"]
    vit, cnn = released["vit_decoder_2d"], released["cnn_decoder"]
    fixed = {
        "adaptive_gn": True,
        "d2s_up": True,
        "use_attn": False,
        "use_rope": True,
        "rope_1d": False,
        "transformer_layer_type": "TransformerLayer",
    }
    for name, value in fixed.items():
        if args.get(name, value) != value:
            raise InputError(
                f"MammothTok {name}={args[name]!r} is not supported; released checkpoints have {value!r}"
            )
    return MammothTokConfig(
        encoder=EncoderConfig(
            patch_size=encoder["patch_size"],
            width=encoder["embed_dim"],
            mlp_width=encoder["mlp_hidden_dim"],
            num_layers=encoder["num_blocks"],
            num_heads=encoder["num_heads"],
        ),
        codebook_size=args["codebook_size"],
        code_dim=args["codebook_embed_dim"],
        l2_norm=args.get("codebook_l2_norm", True),
        commitment=args.get("commit_loss_beta", 0.25),
        entropy_ratio=args.get("entropy_loss_ratio", 0.0),
        estimator=RotationTrick() if args.get("rot", True) else StraightThrough(),
        z_channels=args["z_channels"],
        vit=ViTDecoderConfig(
            width=vit["width"],
            num_layers=vit["num_layers"],
            num_heads=vit["num_heads"],
            distill_depth=args["distill_depth"],
            semantic_width=args["out_inner_dim"],
        ),
        cnn=CNNDecoderConfig(
            channels=cnn["ch"],
            multipliers=tuple(args["decoder_ch_mult"]),
            num_res_blocks=cnn["num_res_blocks"],
            upsampling=args["up_sample_ratio"],
        ),
    )


def config_from_shapes(shapes: Mapping[str, Shape]) -> MammothTokConfig:
    """Sizes from the tensors' shapes (names relative to the tokenizer); parts that are absent get the release's.

    What no shape tells is the release's: head widths, depth of the semantic head, 32 norm groups, and 7/8 of the
    upsampling where the encoder's patches are that size.

    Raises:
      InputError: shapes that no configuration has.
    """
    default = MammothTokConfig()
    codes = shapes.get("quantize.embedding.weight", (default.codebook_size, default.code_dim))
    encoder, decoder = default.encoder, (default.z_channels, default.vit, default.cnn)
    try:
        if "encoder.preprocessor.patchifier.proj.weight" in shapes:
            encoder = _encoder_from_shapes(shapes)
        if "decoder.conv_in.weight" in shapes:
            decoder = _decoder_from_shapes(shapes)
        return MammothTokConfig(
            encoder=encoder,
            codebook_size=codes[0],
            code_dim=codes[1],
            z_channels=decoder[0],
            vit=decoder[1],
            cnn=decoder[2],
        )
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise InputError(
            f"cannot tell MammothTok's sizes from its tensors ({error!r}); "
            f"the checkpoint is incomplete or needs the key gen_tokenizer_config in config.json"
        ) from error


def _encoder_from_shapes(shapes: Mapping[str, Shape]) -> EncoderConfig:
    own = {name: shape for name, shape in shapes.items() if name.startswith("encoder.")}
    return aimv2.config_from_shapes({name.removeprefix("encoder."): shape for name, shape in own.items()})


def _decoder_from_shapes(shapes: Mapping[str, Shape]) -> tuple[int, ViTDecoderConfig, CNNDecoderConfig]:
    default = MammothTokConfig()
    width, z_channels = shapes["s2ddecoder.decoder_embed.weight"]
    num_layers = count_layers(shapes, r"s2ddecoder\.transformer\.(\d+)\.")
    vit = ViTDecoderConfig(
        width=width,
        num_layers=num_layers,
        num_heads=max(width // _DECODER_HEAD_WIDTH, 1),
        mlp_ratio=shapes["s2ddecoder.transformer.0.linear1.weight"][0] // width,
        distill_depth=min(default.vit.distill_depth, num_layers),
        semantic_width=shapes["s2ddecoder.distill_mlp.4.weight"][0],
    )
    levels = count_layers(shapes, r"decoder\.conv_blocks\.(\d+)\.")
    widths = [shapes[f"decoder.conv_blocks.{i}.res.0.conv1.weight"][0] for i in reversed(range(levels))]
    full = 2 ** (levels - 1)
    released = default.cnn.upsampling * full // 2 ** (len(default.cnn.multipliers) - 1)
    patch = shapes.get("encoder.preprocessor.patchifier.proj.weight", (0, 0, released))[2]
    cnn = CNNDecoderConfig(
        channels=min(widths),
        multipliers=tuple(w // min(widths) for w in widths),
        num_res_blocks=count_layers(shapes, r"decoder\.conv_blocks\.0\.res\.(\d+)\.") - 1,
        upsampling=patch if full // 2 < patch <= full else full,
    )
    return z_channels, vit, cnn
