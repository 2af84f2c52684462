"""Shipped training configurations decode, and say what the paper says; extension, presets and overrides."""

import json
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


LATENTS = {"shift_factor": 0.25, "scaling_factor": 1.5}


def run_folder(folder, told, latents=None):
    """A run that was told this and has trained nothing yet."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(told))
    if latents is not None:
        (folder / "latents.json").write_text(json.dumps(latents))
    return folder


def model_folder(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def latents_with(vae, init=None):
    own = load_training(Path("nano/sft"), None, ["--frozen.vae", str(vae)], init).model.vae
    return {name: getattr(own, name) for name in LATENTS}


def test_a_stage_takes_the_shift_and_scale_that_belong_to_its_vae(tmp_path):
    run = run_folder(tmp_path / "vae", {"task": "vae"}, LATENTS)
    part = model_folder(tmp_path / "part", {"latent_channels": 4, **LATENTS})
    whole = model_folder(tmp_path / "whole", {"gen_vae_config": LATENTS, "shift_factor": 9})
    joint = run_folder(tmp_path / "joint", {"task": "joint", "frozen": {"vae": str(run)}})
    later = run_folder(tmp_path / "later", {"task": "joint", "frozen": {"vae": f"{joint}@3"}})
    of_part = run_folder(tmp_path / "of_part", {"task": "understanding", "frozen": {"vae": str(part)}})
    for vae in (run, f"{run}@5", part, whole, joint, later, of_part):
        assert latents_with(vae) == LATENTS, vae


def test_without_shift_and_scale_of_the_vae_the_models_own_count(tmp_path):
    own = latents_with("null")
    assert own != LATENTS
    assert latents_with(run_folder(tmp_path / "vae", {"task": "vae"})) == own
    assert latents_with(model_folder(tmp_path / "part", {"latent_channels": 4})) == own
    assert latents_with(tmp_path / "nowhere") == own


def test_the_vae_of_the_start_counts_where_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("mammoth_jax.training.origin.parts_of", lambda init: frozenset({"dit", "vae"}))
    start = model_folder(tmp_path / "start", {"gen_vae_config": LATENTS})
    assert latents_with("null", str(start)) == LATENTS
    joint = run_folder(tmp_path / "joint", {"task": "joint"})
    (joint / "origin.json").write_text(json.dumps({"init": str(start), "dtypes": {}}))
    assert latents_with(joint) == LATENTS


def test_a_joint_run_without_a_vae_is_no_vae(tmp_path):
    with pytest.raises(InputError, match=r"joint names no vae \(frozen\.vae\)"):
        latents_with(run_folder(tmp_path / "joint", {"task": "joint", "frozen": {"vae": None}}))
