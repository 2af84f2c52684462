"""Shipped training configurations decode, and say what the paper says; extension, presets and overrides."""

from pathlib import Path

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.training.config_file import load_training
from mammoth_jax.training.schedules import WarmupCosine

TRAIN = Path(__file__).resolve().parents[2] / "configs" / "train"


@pytest.mark.parametrize("file", sorted(TRAIN.rglob("*.yaml")), ids=lambda f: str(f.relative_to(TRAIN)))
def test_every_shipped_configuration_decodes_and_its_schedules_fit_its_steps(file):
    config = load_training(file)
    for group in config.optimizer.groups:
        group.schedule.build(config.run.steps)


def test_the_curriculum_is_that_of_the_papers_appendix():
    """Appendix A.2 and A.3: three stages, 10, 1 and 1 passes of 100M, their rates, warm-up, AdamW and mixture."""
    stages = [load_training(TRAIN / f"mammothtok{s}.yaml") for s in ("", "_larger", "_native")]
    passes = [round(s.run.steps * s.run.batch_size / 100e6, 3) for s in stages]
    assert passes == [10.0, 1.0, 1.0]
    rates = [s.optimizer.groups[0].schedule for s in stages]
    assert [(r.learning_rate, r.warmup_steps, r.end) for r in rates] == [
        (1e-4, 5000, 1e-5),
        (2e-5, 5000, 1e-5),
        (2e-5, 5000, 1e-5),
    ]
    for stage in stages:
        assert isinstance(stage.optimizer.groups[0].schedule, WarmupCosine)
        assert (stage.optimizer.beta1, stage.optimizer.beta2, stage.optimizer.weight_decay) == (
            0.9,
            0.95,
            0.1,
        )
        natural, synthetic = stage.data.sources
        assert natural.weight == 3 * synthetic.weight
        photos, text = natural.sources
        assert text.weight / (text.weight + photos.weight) == pytest.approx(1 / 5)
        assert stage.model.mammothtok.codebook_size == 16384 and stage.model.mammothtok.code_dim == 8
        assert stage.model.mammothtok.vit.distill_depth == 3
    assert [s.networks.encoder is not None for s in stages] == [True, False, False]
    sizes = [max(h * w for h, w in s.data.shape.shapes()) for s in stages]
    assert sizes == sorted(sizes) and len(stages[2].data.shape.shapes()) > 3
    patch = stages[0].model.mammothtok.encoder.patch_size
    assert all(side % patch == 0 for s in stages for shape in s.data.shape.shapes() for side in shape)


def test_a_preset_takes_the_place_of_the_model_and_overrides_come_last():
    config = load_training(
        TRAIN / "mammothtok.yaml",
        "nano",
        ["--run.batch_size", "8", "--losses.adversarial", "null", "--discriminator=null"],
    )
    assert config.model.mammothtok.encoder.patch_size == 8
    assert config.run.batch_size == 8 and config.losses.adversarial is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: paint", "task 'paint' is not one of joint, mammothtok, text, understanding, vae"),
        ("extends: nothing", "cannot read configuration"),
        ("extends: a", "extends itself"),
        ("{task: vae, model: {extends: nano}, lossses: 1}", "unknown key 'lossses'.*did you mean 'losses'"),
    ],
)
def test_bad_files_are_named(text, words, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        load_training(tmp_path / "a.yaml")


def test_shipped_configurations_are_found_by_name():
    assert load_training(Path("nano/vae")).task == "vae"
    with pytest.raises(InputError, match=r"one of the shipped: mammothtok.yaml, .*nano/vae.yaml"):
        load_training(Path("nowhere"))
