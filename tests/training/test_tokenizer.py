"""Training MammothTok and the VAE: all terms in one step, evaluation, revival, the guard, and what is refused."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract, named_parameters
from mammoth_jax.training.loop import train
from mammoth_jax.training.metrics import read_metrics
from mammoth_jax.training.runs import load_weights
from mammoth_jax.training.tasks import build_work
from mammoth_jax.training.tokenizer import tokenizer_work
from mammoth_jax.training.tokenizer_evaluation import reconstruction_grid
from mammoth_jax.training.tokenizer_kinds import KINDS
from tests.training.tiny_tokenizer import training


@pytest.fixture(scope="module", params=["mammothtok", pytest.param("vae", marks=pytest.mark.slow)])
def run(request, tmp_path_factory):
    """A short run of each kind: folder, configuration, state and its log."""
    config = training(request.param, ema_decay=0.9, run={"steps": 12, "evaluation_interval": 12})
    folder, mesh = tmp_path_factory.mktemp(request.param), single_device_mesh()
    state = train(tokenizer_work(config, mesh), config.run, folder, mesh)
    return folder, config, state, {r["step"]: r for r in read_metrics(folder)}


def test_every_term_is_logged_apart_and_the_adversary_starts_at_its_step(run):
    _, config, _, log = run
    own = {"mammothtok": {"vq", "commitment"}, "vae": {"kl"}}[config.task]
    wanted = own | {"l1", "l2", "adversarial", "adversarial_weight", "discriminator", "lecam"}
    assert all(wanted <= set(record) for record in log.values())
    assert all(np.isfinite([r[name] for name in wanted]).all() for r in log.values())
    weights = [log[step]["adversarial_weight"] for step in sorted(log)]
    assert weights[:3] == [0, 0, 0] and min(weights[3:]) > 0
    assert log[3]["gradient_norm/discriminator"] == 0 < log[4]["gradient_norm/discriminator"]


def test_the_reconstruction_gets_better(run):
    _, _, _, log = run
    first, last = (np.mean([log[i]["l2"] for i in steps]) for steps in (range(1, 5), range(9, 13)))
    assert last < 0.95 * first


def test_an_evaluation_writes_numbers_and_a_grid_of_inputs_above_outputs(run):
    folder, config, _, log = run
    assert log[12]["evaluation/pictures"] == 16
    assert 3 < log[12]["evaluation/psnr"] < 40 and -1 < log[12]["evaluation/ssim"] < 1
    grid = np.asarray(Image.open(folder / "pictures" / "00000012.png"))
    assert grid.shape == (2 * 32, 16 * 32, 3)
    if config.task == "mammothtok":
        assert 1 <= log[12]["evaluation/perplexity"] <= 32
    else:
        latents = json.loads((folder / "latents.json").read_text())
        assert latents["scaling_factor"] == pytest.approx(log[12]["evaluation/latent_scale"])
        assert log[12]["evaluation/psnr_with_noise"] < log[12]["evaluation/psnr"] + 1
        assert_unit_deviation(folder, config, latents)


def assert_unit_deviation(folder, config, latents):
    """Samples of training pictures, shifted and scaled as measured."""
    model = load_weights(folder, abstract(KINDS["vae"](config.model).build), single_device_mesh())
    batch = next(tokenizer_work(config, single_device_mesh()).batches())
    posterior = model.encode(batch["picture"].astype(np.float32) / 127.5 - 1)
    sample = posterior.sample(jax.random.normal(jax.random.key(0), posterior.mean.shape))
    scaled = (sample - latents["shift_factor"]) * latents["scaling_factor"]
    assert abs(float(scaled.mean())) < 0.2 and 0.8 < float(scaled.std()) < 1.2


@pytest.mark.slow
def test_codes_that_nothing_chooses_are_revived(tmp_path):
    config = training(
        revival={"idle_steps": 2}, losses={"adversarial": None}, discriminator=None, run={"steps": 4}
    )
    mesh = single_device_mesh()
    before = tokenizer_work(config, mesh).initial().params["model"]["quantizer.codebook"]
    state = train(tokenizer_work(config, mesh), config.run, tmp_path, mesh)
    idle = np.asarray(state.carried["usage"].idle)
    assert idle.max() < 2 + 1
    moved = np.linalg.norm(np.asarray(state.params["model"]["quantizer.codebook"]) - before, axis=1)
    assert (moved > 0.1).sum() > 8  # gradients alone move codes by a hundredth


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses": {"perceptual": 1.0}}, r"losses.perceptual 1.0: the weights of VGG.*perceptual: 0"),
        ({"losses": {"semantic": 0.5}}, r"losses.semantic 0.5: no semantic encoder is given.*semantic: 0"),
        ({"losses": {"adversarial": None}}, "losses.adversarial and discriminator go together"),
        (
            {
                "optimizer": {
                    "groups": [
                        {
                            "name": "a",
                            "patterns": ["^decoder"],
                            "schedule": {"type": "WarmupConstant", "learning_rate": 1.0},
                        }
                    ]
                }
            },
            r"optimizer.groups leave out \['encoder",
        ),
        ({"networks": {"vgg": "a.pth"}}, "perceptual distance needs both"),
        ({"evaluation": {"sources": [{"type": "Folder", "path": "nowhere"}]}}, "nowhere"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        tokenizer_work(training(**changes), single_device_mesh())


def test_a_checkpoint_is_read_into_the_shapes_of_the_start():
    work = tokenizer_work(training(ema_decay=0.9, revival={"idle_steps": 2}), single_device_mesh())
    start, like = work.initial(), work.like()
    assert jax.tree.structure(start) == jax.tree.structure(like)
    for x, shape in zip(jax.tree.leaves(start), jax.tree.leaves(like), strict=True):
        assert (x.shape, x.dtype) == (shape.shape, shape.dtype)
        assert x.sharding.is_equivalent_to(shape.sharding, x.ndim)


def test_start_weights_are_read_only_by_a_run_that_has_no_checkpoint(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("mammoth_jax.training.tasks.load_tokenizer", lambda init, *_: read.append(init))
    config = training(losses={"adversarial": None}, discriminator=None)
    build_work(config, single_device_mesh(), "start", tmp_path)
    assert read == ["start"]
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    build_work(config, single_device_mesh(), "start", tmp_path)
    assert read == ["start"]


def test_the_grid_shows_each_input_above_its_output():
    inputs = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((20, 2, 3, 3), np.uint8)
    grid = reconstruction_grid(inputs, inputs + 100)
    assert grid.shape == (8, 48, 3)
    assert grid[0, 0, 0] == 0 and grid[2, 0, 0] == 100 and grid[0, 3, 0] == 1
    assert grid[4, 0, 0] == 16 and grid[6, 3, 0] == 117 and grid[4, 47, 0] == 255


def test_weights_of_a_run_have_the_names_of_the_module(run):
    folder, config, state, _ = run
    template = abstract(KINDS[config.task](config.model).build)
    model = load_weights(folder, template, single_device_mesh())
    for name, p in named_parameters(model).items():
        np.testing.assert_array_equal(p[...], state.ema["model"][name])
