"""Every term at once, its networks read from published files: one device against eight, FID, and AIMv2's weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoint_convert import aimv2, published
from checkpoint_convert.published import lpips_rules, vgg_rules
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh, single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.models import lpips, vgg
from mammoth_jax.models.aimv2 import SemanticEncoder
from mammoth_jax.models.lpips import LPIPS
from mammoth_jax.models.mammothtok.config import EncoderConfig
from mammoth_jax.objectives.losses import LossSum
from mammoth_jax.training import tokenizer
from mammoth_jax.training.loop import train
from mammoth_jax.training.metrics import read_metrics
from mammoth_jax.training.tokenizer import tokenizer_work
from tests.published_files import draw, drawn, write_zip
from tests.training.tiny_tokenizer import training

# The first steps of the paper's schedule: 5,000 of warm-up to 1e-4.
PAPER_START = {
    "groups": [
        {"name": "all", "schedule": {"type": "WarmupConstant", "learning_rate": 1e-4, "warmup_steps": 5000}}
    ]
}

TOWER = EncoderConfig(patch_size=8, width=16, mlp_width=32, num_layers=1, num_heads=2)


@pytest.fixture(scope="module", autouse=True)
def narrow_vgg():
    """VGG16 with an eighth of its channels: all of them would take most of an hour here."""
    stages = tuple(tuple(width // 8 for width in stage) for stage in vgg.STAGES)
    with pytest.MonkeyPatch.context() as patch:
        for module in (vgg, lpips, published):
            patch.setattr(module, "STAGES", stages)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """VGG16, LPIPS and an AIMv2 tower with random weights, in their published formats.

    VGG's biases are raised: with eight channels some places would have none that is active, and LPIPS, which takes
    features to unit length, would blow rounding up there.
    """
    folder = tmp_path_factory.mktemp("weights")
    module = abstract(LPIPS)
    raised = {name: x + name.endswith("bias") for name, x in drawn(vgg_rules(), module).items()}
    write_zip(folder / "vgg.pth", raised)
    write_zip(folder / "lpips.pth", drawn(lpips_rules(), module))
    tower = abstract(lambda: SemanticEncoder(TOWER, 8))
    (folder / "aimv2").mkdir()
    save_file(drawn(aimv2.rules("aimv2", TOWER), tower), folder / "aimv2" / "model.safetensors")
    (folder / "aimv2" / "config.json").write_text(json.dumps({"num_attention_heads": TOWER.num_heads}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "regularizer", [{"type": "R1", "weight": 0.1}, {"type": "LeCam", "weight": 0.01}], ids=lambda x: x["type"]
)
def test_one_device_and_eight_have_the_same_losses_with_every_term_on(
    files, tmp_path, monkeypatch, regularizer, record_property
):
    """To 1e-5 until a code flips (rounding differs between devices), to 1e-3 over fifty steps.

    Mean logits cross zero: they are measured against the hinge's margin of 1.  The adaptive weight is no loss but a
    ratio of gradients that jump where a sign changes (of L1, of leaky units): to 1e-3.
    """
    steps, original = 50, tokenizer.generator_terms

    def with_codes(*args, **options):
        """One more term: a sum over the codes that any flip changes."""
        loss, terms, made = original(*args, **options)
        assert made.codes is not None
        ids = made.codes.ids.reshape(-1)
        places = jnp.arange(ids.size, dtype=jnp.int32) % 251 + 1
        return (
            loss,
            {**terms, "codes": LossSum(jnp.sum(ids * places).astype(jnp.float32), jnp.float32(1))},
            made,
        )

    monkeypatch.setattr(tokenizer, "generator_terms", with_codes)
    config = training(
        model={"mammothtok": {"entropy_ratio": 0.02}},
        optimizer=PAPER_START,
        discriminator={"optimizer": PAPER_START},
        losses={
            "perceptual": 0.5,
            "semantic": 0.5,
            "adversarial": {"start_step": 20, "regularizer": regularizer},
        },
        networks={
            "vgg": str(files / "vgg.pth"),
            "lpips": str(files / "lpips.pth"),
            "semantic_encoder": str(files / "aimv2"),
        },
        revival={"idle_steps": 30},
        ema_decay=0.99,
        run={"steps": steps, "checkpoint_interval": steps, "evaluation_interval": steps},
    )
    logs = []
    for i, mesh in enumerate((single_device_mesh(), make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))):
        train(tokenizer_work(config, mesh), config.run, tmp_path / str(i), mesh)
        logs.append(read_metrics(tmp_path / str(i)))
    terms = [n for n in logs[0][0] if "/" not in n and n not in ("step", "codes")]
    assert {"l1", "l2", "perceptual", "semantic", "adversarial", "vq", "commitment", "entropy"} <= set(terms)
    flips = [a["step"] for a, b in zip(*logs, strict=True) if a["codes"] != b["codes"]]
    first = flips[0] if flips else steps + 1
    record_property("first_flip", first)
    worst = {"before": 0.0, "after": 0.0, "adversarial_weight": 0.0}
    for one, eight in zip(*logs, strict=True):
        for name in terms:
            scale = 1.0 if name in ("adversarial", "logits_real", "logits_generated") else abs(one[name])
            error = abs(one[name] - eight[name]) / max(scale, 1e-3)
            where = name if name in worst else "before" if one["step"] < first else "after"
            worst[where] = max(worst[where], error)
    print(f"{regularizer['type']}: first flip at step {first}; {worst}")
    assert worst["before"] < 1e-5 and worst["after"] < 1e-3 and worst["adversarial_weight"] < 1e-3


def test_the_encoder_starts_from_aimv2_and_the_rest_anew(files):
    mesh = single_device_mesh()
    config = training(networks={"encoder": str(files / "aimv2")})
    start = tokenizer_work(config, mesh).initial().params["model"]
    fresh = tokenizer_work(training(), mesh).initial().params["model"]
    name = "trunk.blocks.0.attn.proj.weight"
    np.testing.assert_array_equal(
        np.asarray(start["encoder.blocks.out.kernel"])[0].reshape(16, 16), draw(name, (16, 16)).T
    )
    same = {n for n in start if np.array_equal(start[n], fresh[n])}
    assert {n for n in start if not n.startswith("encoder.")} <= same
    assert "encoder.to_code.kernel" in same and "encoder.patches.kernel" not in same
    wider = training(
        model={"mammothtok": {"encoder": {"width": 32}}}, networks={"encoder": str(files / "aimv2")}
    )
    with pytest.raises(InputError, match=r"an AIMv2 of other sizes than mammothtok.encoder"):
        tokenizer_work(wider, mesh).initial()


def test_rfid_is_logged_with_inception(tmp_path, monkeypatch):
    """With a small stand-in for its features; the network itself has tests of its own."""
    from mammoth_jax.training import tokenizer_evaluation

    weights = jnp.asarray(np.random.default_rng(0).standard_normal((3 * 16, 6)), jnp.float32)

    def small(picture):
        b = picture.shape[0]
        pooled = picture.reshape(b, 4, 8, 4, 8, 3).mean(axis=(2, 4))
        return pooled.reshape(b, -1) @ weights

    monkeypatch.setattr(
        tokenizer_evaluation, "load_inception", lambda path, mesh: jax.tree_util.Partial(small)
    )
    config = training(
        "vae",
        losses={"adversarial": None},
        discriminator=None,
        networks={"inception": "inception.pth"},
        run={"steps": 1, "evaluation_interval": 1, "evaluation_pictures": 16},
        optimizer={
            "groups": [{"name": "all", "schedule": {"type": "WarmupConstant", "learning_rate": 1e-3}}]
        },
    )
    mesh = single_device_mesh()
    work = tokenizer_work(config, mesh)
    numbers = work.evaluate(work.initial(), 1, tmp_path / "pictures")
    assert numbers["rfid"] > 0
