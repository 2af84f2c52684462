"""A starting checkpoint holds the published parts bit for bit, experts copied, and the rest new."""

import json

import numpy as np
import pytest

from checkpoint_convert.__main__ import main
from checkpoint_convert.assemble import assemble
from checkpoint_convert.folder import ModelFolder
from checkpoint_convert.model import model_rules
from checkpoint_convert.source import FolderSource
from checkpoint_convert.stream import fit
from mammoth_jax.core.config import encode
from mammoth_jax.core.errors import InputError
from mammoth_jax.models.mammoth import PARTS
from mammoth_jax.processing.special_tokens import num_text_ranks
from mammoth_jax.processing.tiktoken_bpe import read_ranks
from tests.checkpoint_convert.folders import (
    plain_aimv2,
    plain_backbone,
    plain_part,
    plain_vae,
    tiny,
    write_tensors,
)

TOKENIZER = "gen_tokenizer.image_tokenizer."


@pytest.mark.parametrize(
    ("family", "old_names", "tied"), [("qwen3_vl", False, True), ("qwen2_5_vl", True, False)]
)
def test_assembled_folder_is_complete_and_copies_the_published_parts(tmp_path, family, old_names, tied):
    backbone = plain_backbone(tmp_path / "qwen", family, old_names=old_names, tied=tied)
    vae = plain_vae(tmp_path / "vae")
    aimv2 = plain_aimv2(tmp_path / "aimv2")
    experts = "ffn-1:3" if family == "qwen3_vl" else "ffn_attention-1:3"
    arguments = [
        "assemble",
        str(tmp_path / "out"),
        "--backbone",
        str(tmp_path / "qwen"),
        "--vae",
        str(tmp_path / "vae"),
    ]
    assert (
        main([*arguments, "--aimv2", str(tmp_path / "aimv2"), "--experts", experts, "--preset", "nano"]) == 0
    )

    opened = ModelFolder.open(tmp_path / "out")
    assert opened.model.parts == frozenset(PARTS)
    assert opened.config.backbone.family == family
    assert opened.config.mammothtok.encoder == tiny("qwen3_vl").mammothtok.encoder
    fit(opened.model, model_rules(opened.config), opened.source)
    out = FolderSource(tmp_path / "out")

    def same(ours, theirs):
        np.testing.assert_array_equal(out.read(ours), theirs, err_msg=ours)
        assert out.specs[ours].dtype == theirs.dtype

    for name, x in backbone.items():
        if old_names:
            name = name.replace("visual.", "model.visual.") if name.startswith("visual.") else name
            name = (
                name.replace("model.", "model.language_model.")
                if not name.startswith(("model.visual", "lm"))
                else name
            )
        same(f"llm_model.{name}", x)
    for name, x in vae.items():
        same(f"gen_vae.{name}", x)
    for name, x in aimv2.items():
        same(f"{TOKENIZER}encoder.{name}", x)
    layer = "llm_model.model.language_model.layers.2."
    same(f"{layer}gen_mlp.up_proj.weight", out.read(f"{layer}mlp.up_proj.weight"))
    if family == "qwen2_5_vl":
        same(f"{layer}self_attn.gen_q_proj.bias", out.read(f"{layer}self_attn.q_proj.bias"))
    if tied:
        same("llm_model.lm_head.weight", backbone["model.language_model.embed_tokens.weight"])
    for name in ("llm_model.model.language_model.gen_embed_tokens.weight", "llm_model.gen_head.weight"):
        assert 0.019 < np.std(out.read(name).astype(np.float32)) < 0.021


def test_assemble_takes_a_whole_tokenizer_and_depends_on_the_seed_alone(tmp_path):
    plain_backbone(tmp_path / "qwen", "qwen3_vl")
    plain_vae(tmp_path / "vae")
    tokenizer = plain_part(tmp_path / "tok", TOKENIZER, encode(tiny("qwen3_vl").mammothtok), "model")
    given = {"backbone": tmp_path / "qwen", "vae": tmp_path / "vae", "mammothtok": tmp_path / "tok"}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assemble(tmp_path / name, **given, experts="ffn-1:3", preset="nano", seed=seed)
    a, b, c = (FolderSource(tmp_path / name) for name in "abc")
    head = "llm_model.gen_head.weight"
    np.testing.assert_array_equal(a.read(head), b.read(head))
    assert (a.read(head) != c.read(head)).any()
    for name, x in tokenizer.items():
        np.testing.assert_array_equal(a.read(TOKENIZER + name), x)


def test_qwen_vocabulary_becomes_the_releases_tokenizer_files(tmp_path):
    plain_backbone(tmp_path / "qwen", "qwen3_vl")
    plain_vae(tmp_path / "vae")
    plain_aimv2(tmp_path / "aimv2")
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = [chr(b) for b in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]
    backbone = tiny("qwen3_vl").backbone
    pairs = [a + b for a in characters for b in characters]
    words = [*characters, *pairs][: num_text_ranks(backbone.tokenizer_family, backbone.image_token_id)]
    (tmp_path / "qwen" / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    given = {"backbone": tmp_path / "qwen", "vae": tmp_path / "vae", "aimv2": tmp_path / "aimv2"}
    assemble(tmp_path / "out", **given, experts="ffn-1:3", preset="nano")
    ranks = read_ranks(tmp_path / "out" / "mammothu.tiktoken")
    assert ranks[b"!"] == 0 and ranks[b" "] == characters.index("Ġ")
    settings = json.loads((tmp_path / "out" / "t2i_generation_config.json").read_text())
    assert settings["eol_token_id"] == backbone.decoder.gen_vocab_start_index


def test_assemble_lists_what_the_backbone_lacks_and_what_is_unknown(tmp_path, capsys):
    tensors = plain_backbone(tmp_path / "qwen", "qwen3_vl")
    for file in (tmp_path / "qwen").glob("model*"):
        file.unlink()
    tensors.pop("model.language_model.norm.weight")
    tensors["model.stranger"] = np.zeros(3, np.float32)
    write_tensors(tmp_path / "qwen", tensors, 50_000)
    plain_vae(tmp_path / "vae")
    plain_aimv2(tmp_path / "aimv2")
    arguments = [
        "assemble",
        str(tmp_path / "out"),
        "--backbone",
        str(tmp_path / "qwen"),
        "--vae",
        str(tmp_path / "vae"),
    ]
    assert (
        main([*arguments, "--aimv2", str(tmp_path / "aimv2"), "--experts", "ffn-1:3", "--preset", "nano"])
        == 2
    )
    message = capsys.readouterr().err
    assert "missing: llm_model.model.language_model.norm.weight" in message
    assert "unmapped: llm_model.model.language_model.stranger" in message
    assert not (tmp_path / "out").exists()


def test_assemble_refuses_another_backbone(tmp_path):
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    write_tensors(tmp_path / "llama", {"model.x": np.zeros(2, np.float32)}, 50_000)
    plain_vae(tmp_path / "vae")
    plain_aimv2(tmp_path / "aimv2")
    with pytest.raises(InputError, match="model_type 'llama' is not a backbone"):
        assemble(tmp_path / "o", backbone=tmp_path / "llama", vae=tmp_path / "vae", aimv2=tmp_path / "aimv2")
