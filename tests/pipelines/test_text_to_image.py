"""Each picture depends on its own prompt and seed alone; few programs; clear errors."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import make_mesh
from mammoth_jax.ops.patchify import patchify
from mammoth_jax.pipelines import development, text_to_image
from mammoth_jax.pipelines.batching import PictureRequest
from mammoth_jax.pipelines.geometry import picture_size
from mammoth_jax.pipelines.options import TextToImageOptions
from mammoth_jax.pipelines.text_to_image import TextToImagePipeline
from tests.tiny_model import tiny_config, tiny_pipeline, tiny_preview_config

OPTIONS = TextToImageOptions(num_inference_steps=3, guidance_scale=4.0, temperature=1.0, top_k=50, top_p=0.9)
WORDS = "a small red circle to the left of a tall blue square, then "


@functools.cache
def pipeline() -> TextToImagePipeline:
    return tiny_pipeline()


def request(text: str, seed: int, width: int, height: int, grid: tuple[int, int]) -> PictureRequest:
    return PictureRequest(text, seed, picture_size(tiny_config(), height, width, grid))


def mixed_requests() -> list[PictureRequest]:
    """Prompts of 3 to 200 tokens, one- and two-digit grids, three sizes that are not square."""
    shapes = [(48, 32, (6, 4)), (32, 64, (4, 10)), (40, 24, (11, 3)), (48, 32, (5, 5))]
    lengths = (3, 200, 17, 60, 120, 9, 33, 150)
    return [request((WORDS * 4)[:length], seed, *shapes[seed % 4]) for seed, length in enumerate(lengths)]


@functools.cache
def batch_of_eight():
    return pipeline().generate(mixed_requests(), OPTIONS)


def assert_same(a, b) -> None:
    assert np.array_equal(a.codes, b.codes)
    assert a.pixels.shape == b.pixels.shape
    assert np.abs(a.pixels.astype(int) - b.pixels.astype(int)).max() <= 2


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_picture_is_the_same_alone_and_among_seven_others(number):
    alone = pipeline().generate([mixed_requests()[number]], OPTIONS)[0]
    assert_same(batch_of_eight()[number], alone)


def test_eight_devices_draw_what_one_draws():
    sharded = tiny_pipeline(make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    assert len(sharded.loaded.model.dit.layers.ffn.up.kernel.sharding.device_set) == 8
    for one, eight in zip(batch_of_eight(), sharded.generate(mixed_requests(), OPTIONS), strict=True):
        assert_same(one, eight)


def test_pictures_differ_by_seed_and_by_prompt():
    out = pipeline()(
        ["red", "blue"],
        height=16,
        width=16,
        num_images_per_prompt=2,
        seed=5,
        num_inference_steps=2,
        temperature=1.0,
    )
    pictures = [p.pixels for p in out.pictures]
    assert [p.request.seed for p in out.pictures] == [5, 6, 5, 6]
    assert all((pictures[i] != pictures[j]).any() for i in range(4) for j in range(i))


class Counts:
    """Counts compilations (by the runtime's own events) and launches of the pipeline's programs."""

    def __init__(self, monkeypatch):
        self.compiled = 0
        self.launched: list[str] = []
        jax.monitoring.register_event_duration_secs_listener(self._event)
        for module in (text_to_image, development):
            for name in [n for n in dir(module) if n.endswith("_program")]:
                self._count(monkeypatch, module, name, getattr(module, name))

    def _event(self, name: str, duration: float, **_) -> None:
        self.compiled += name == "/jax/core/compile/backend_compile_duration"

    def _count(self, monkeypatch, module, name: str, program) -> None:
        def launch(*args, **kwargs):
            self.launched.append(name.removesuffix("_program"))
            return program(*args, **kwargs)

        monkeypatch.setattr(module, name, launch)


def test_a_batch_is_four_launches_and_a_second_one_compiles_nothing(monkeypatch):
    pipe = pipeline()
    counts = Counts(monkeypatch)
    options = {"num_inference_steps": 5, "height": 24, "width": 56}
    pipe(["one", "two", "three"], grid=(7, 3), **options)
    assert counts.launched == ["encode", "draw", "paint", "develop"]
    assert counts.compiled == 4
    others = ["four", "five", "a six that is longer"]
    pipe(others, grid=(5, 4), seed=9, guidance_scale=3.0, ar_guidance_scale=2.0, **options)
    assert counts.compiled == 4
    assert counts.launched == ["encode", "draw", "paint", "develop"] * 2


@pytest.mark.slow
def test_two_sizes_in_a_batch_add_one_decoding_launch(monkeypatch):
    pipe = pipeline()
    counts = Counts(monkeypatch)
    pipe(["one", "two"], height=[24, 16], width=[16, 24], num_inference_steps=2)
    assert counts.launched == ["encode", "draw", "paint", "develop", "develop"]


@pytest.mark.slow
def test_tokens_alone_are_decoded_by_the_tokenizer_and_text_alone_draws_no_tokens(monkeypatch):
    pipe = pipeline()
    counts = Counts(monkeypatch)
    tokens = pipe("a cat", height=16, width=24, mode="ar")
    assert counts.launched == ["encode", "draw", "develop_tokens"]
    assert tokens.images[0].size == (24, 16)
    assert tokens.pictures[0].codes.shape == (2, 3)
    counts.launched.clear()
    text = pipe("a cat", height=16, width=24, mode="diffusion", num_inference_steps=2)
    assert counts.launched == ["encode", "read", "paint", "develop"]
    assert text.pictures[0].codes is None


def test_visual_tokens_change_the_picture():
    pipe = pipeline()
    kwargs = {
        "height": 16,
        "width": 16,
        "num_inference_steps": 2,
        "output_type": "latent",
        "temperature": 0.0,
    }
    greedy = pipe("a cat", **kwargs)
    other = pipe("a cat", **kwargs | {"temperature": 1.0})
    assert (greedy.pictures[0].codes != other.pictures[0].codes).any()
    assert np.abs(greedy.images[0] - other.images[0]).max() > 1e-4


@pytest.mark.slow
def test_the_preview_architecture_draws_and_its_tokens_matter():
    preview = tiny_pipeline(config=tiny_preview_config())
    assert preview.loaded.config.refiner.stage == "llm" and preview.loaded.config.condition.final_norm
    kwargs = {"height": 16, "width": 16, "num_inference_steps": 2, "output_type": "latent"}
    greedy, other = (preview("a cat", temperature=t, **kwargs) for t in (0.0, 1.0))
    assert (greedy.pictures[0].codes != other.pictures[0].codes).any()
    assert np.abs(greedy.images[0] - other.images[0]).max() > 1e-4


def test_given_latents_replace_the_seed():
    pipe = pipeline()
    noise = np.random.default_rng(0).standard_normal((1, 4, 4, 4)).astype(np.float32)
    kwargs = {
        "height": 16,
        "width": 16,
        "num_inference_steps": 2,
        "output_type": "latent",
        "mode": "diffusion",
    }
    first = pipe("a cat", latents=noise, seed=1, **kwargs).images[0]
    second = pipe("a cat", latents=noise, seed=2, **kwargs).images[0]
    assert first.dtype == np.float32 and np.array_equal(first, second)


@pytest.mark.parametrize(
    ("shape", "sizes", "words"),
    [
        ((1, 2, 2, 4), 16, "latents of shape (1, 2, 2, 4): expected (1, 4, 4, 4)"),
        ((1, 4, 4, 3), 16, "latents of shape (1, 4, 4, 3): expected (1, 4, 4, 4)"),
        ((2, 4, 4, 4), 16, "latents of shape (2, 4, 4, 4): expected (1, 4, 4, 4)"),
        ((2, 4, 4, 4), [16, 24], "expected (2, 6, 6, 4) (pictures, rows, columns, channels) for 2 of 24x24"),
    ],
)
def test_latents_of_another_size_are_refused_with_the_one_expected(shape, sizes, words):
    prompts = ["a cat"] * (len(sizes) if isinstance(sizes, list) else 1)
    with pytest.raises(InputError, match=re.escape(words)):
        pipeline()(prompts, height=sizes, width=sizes, latents=np.zeros(shape, np.float32))


def test_a_callback_sees_every_step_and_the_last_latents():
    seen: dict[int, np.ndarray] = {}

    def watch(_, step, times, values):
        seen[step] = values["latents"]

    kwargs = {
        "height": 16,
        "width": 16,
        "num_inference_steps": 2,
        "output_type": "latent",
        "mode": "diffusion",
    }
    out = pipeline()("a cat", callback_on_step_end=watch, **kwargs)
    assert sorted(seen) == [0, 1]
    patch = tiny_config().dit.patch_size
    assert np.allclose(patchify(out.images[0][None], patch), seen[1][:1], atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"height": 20}, "height 20: sides must be multiples of 8 pixels, e.g. 16 or 24"),
        ({"grid": (0, 4)}, "token grid 0x4"),
        ({"grid": (1000, 4)}, "token grid 1000x4"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt 0"),
        ({"solver": "rk4"}, "solver 'rk4'"),
        ({"mode": "both"}, "mode 'both'"),
        ({"cfg_range": (0.5, 0.2)}, "cfg_range"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"seed": -1}, "seed -1"),
        ({"steps": 3}, "unknown option 'steps'"),
        ({"height": [16, 16]}, "height: 2 values for 1 prompts"),
        ({"output_type": "jpeg"}, "output_type 'jpeg'"),
    ],
)
def test_bad_arguments_are_named(kwargs, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        pipeline()("a cat", **{"height": 16, "width": 16, "num_inference_steps": 1} | kwargs)


def test_a_prompt_longer_than_the_cache_is_refused():
    with pytest.raises(InputError, match="at most 4096 fit the cache"):
        pipeline()("x" * 5000, height=16, width=16)


def test_a_missing_part_is_named():
    pipe = pipeline()
    with pytest.raises(InputError, match="has no mammothtok_decoder"):
        without = tiny_pipeline()
        without.loaded.model.mammothtok.decoder = None
        without("a cat", height=16, width=16, mode="ar")
    assert "mammothtok_decoder" in pipe.loaded.model.parts


def test_text_alone_is_refused_where_the_transformer_was_trained_on_visual_tokens_alone():
    config = tiny_config()
    condition = dataclasses.replace(config.condition, mode="image")
    pipe = tiny_pipeline(config=dataclasses.replace(config, condition=condition))
    with pytest.raises(InputError, match=r"visual tokens alone .* use 'ar\+diffusion'"):
        pipe("a cat", height=16, width=16, mode="diffusion")


def test_progress_names_every_stage_before_and_after():
    seen: list[tuple] = []
    kwargs = {
        "height": 16,
        "width": 16,
        "num_inference_steps": 2,
        "output_type": "latent",
        "mode": "diffusion",
    }
    pipeline()("a cat", progress=lambda *report: seen.append(report), **kwargs)
    assert seen == [
        ("reading prompts", 0, 1),
        ("reading prompts", 1, 1),
        ("diffusion", 0, 1),
        ("diffusion", 1, 1),
        ("drawing", 1, 1),
    ]
