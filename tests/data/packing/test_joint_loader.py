"""Packed batches: determinism, exact resume on any number of hosts, shares, what is left out."""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
import pytest

from mammoth_jax.core.config import decode
from mammoth_jax.core.errors import InputError
from mammoth_jax.data.decoding import Processes, Threads
from mammoth_jax.data.packing import lanes
from mammoth_jax.data.packing.dropout import GuidanceDropout
from mammoth_jax.data.packing.lengths import PackingConfig
from mammoth_jax.data.packing.loader import JointDataConfig, JointLoader, Pool, open_pool
from mammoth_jax.data.packing.measure import propose_packing
from mammoth_jax.data.packing.prefetch import Prefetched
from mammoth_jax.data.packing.shares import Balanced, BatchLevel
from mammoth_jax.data.tally import BadInput
from tests.data.packing.examples import Checksums, Made, geometry

PACKING = PackingConfig(
    tokens=640, patches=512, conditions=512, references=320, targets=192, joint=1024, samples=8, window=4
)
CONFIG = JointDataConfig(
    pools=(Pool(name="unused", sources=()),),
    packing=PACKING,
    dropout=GuidanceDropout(ar=0.3, text=0.3),
    workers=Threads(count=0),
    bad_input=BadInput(share=0.2),
)
SOURCES = (Made("t2i", bad=(3, 11)), Made("edit"), Made("it2t", filtered=(5,)), Made("text"))


def loader(
    rows: int,
    host: int = 0,
    hosts: int = 1,
    config: JointDataConfig = CONFIG,
    sources: Sequence[Made] = SOURCES,
    weights: Sequence[float] = (2, 2, 1, 1),
    seed: int = 3,
    encoder: Checksums | None = None,
) -> JointLoader:
    """A loader with a pool a source."""
    pools = [
        open_pool(source.task, [source], seed, weight)
        for source, weight in zip(sources, weights, strict=True)
    ]
    return JointLoader(
        config,
        pools,
        geometry(),
        batch_size=rows,
        seed=seed,
        process_index=host,
        process_count=hosts,
        encoder=encoder or Checksums(),
    )


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """Equal batches."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def joined(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The rows of several hosts."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def saved(loaders: Sequence[JointLoader]) -> list:
    """States as a checkpoint has them."""
    return json.loads(json.dumps([each.state() for each in loaders]))


@pytest.mark.parametrize("mixing", [Balanced(), BatchLevel()])
def test_resume_is_exact_on_one_two_and_one_host(mixing):
    config = dataclasses.replace(CONFIG, mixing=mixing)
    whole = loader(4, config=config)
    expected = [next(whole) for _ in range(6)]

    first = loader(4, config=config)
    for step in range(2):
        assert_same(next(first), expected[step])
    pair = [loader(2, host, 2, config) for host in range(2)]
    for each in pair:
        each.restore(saved([first]))
    for step in range(2, 4):
        assert_same(joined([next(each) for each in pair]), expected[step])
    last = loader(4, config=config)
    last.restore(saved(pair)[::-1])
    for step in range(4, 6):
        assert_same(next(last), expected[step])
    assert last.report() == whole.report()


@pytest.mark.parametrize("workers", [Threads(count=3), Threads(count=1, ahead=1)])
def test_workers_change_nothing(workers):
    one, other = loader(2), loader(2, config=dataclasses.replace(CONFIG, workers=workers))
    for _ in range(4):
        assert_same(next(one), next(other))
    other.close()


@pytest.mark.slow
def test_worker_processes_change_nothing():
    one, other = loader(2), loader(2, config=dataclasses.replace(CONFIG, workers=Processes(count=1)))
    for _ in range(2):
        assert_same(next(one), next(other))
    other.close()


def numbers(batch: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """(pool, number) of the drawn samples of a batch."""
    found = batch["sample_tokens"] > 0
    pairs = zip(batch["sample_task"][found], batch["sample_number"][found], strict=True)
    return [(int(pool), int(number)) for pool, number in pairs]


def test_another_number_of_rows_reads_every_sample_once():
    first = loader(4, sources=SOURCES[:2], weights=(1, 1))
    used = [pair for _ in range(3) for pair in numbers(next(first))]
    then = loader(3, sources=SOURCES[:2], weights=(1, 1))
    then.restore(saved([first]))
    used += [pair for _ in range(6) for pair in numbers(next(then))]
    assert len(set(used)) == len(used)
    bad = {n for n in range(80) if then._reader.pools[0].order[n].index in (3, 11)}
    for pool in range(2):
        read = {number for p, number in used if p == pool} | (bad if pool == 0 else set())
        gaps = set(range(max(n for p, n in used if p == pool))) - read
        assert len(gaps) <= 7 * PACKING.window  # only those that wait in the windows of the lanes, old or new


def test_a_mixed_row_holds_several_tasks():
    batch = next(loader(3))
    assert all(len(set(numbers({k: v[r : r + 1] for k, v in batch.items()}))) >= 1 for r in range(3))
    assert {pool for pool, _ in numbers(batch)} == {0, 1}
    assert (batch["token_segments"].max(axis=1) > 3).all()


def test_balanced_rows_have_the_shares_of_the_weights():
    each = loader(2)
    for _ in range(40):
        next(each)
    report = each.report()
    assert report["data/full/joint"] < 0.9  # else the diffusion side would end rows, and text fill them
    found = [report[f"data/{task}/share"] for task in ("t2i", "edit", "it2t", "text")]
    np.testing.assert_allclose(found, np.array([2, 2, 1, 1]) / 6, atol=0.02)
    assert report["data/full/tokens"] > 0.9


def test_steps_of_one_pool_have_the_shares_of_the_weights():
    config = dataclasses.replace(CONFIG, mixing=BatchLevel())
    each = loader(1, config=config, sources=SOURCES[:2], weights=(3, 1))
    drawn = []
    for _ in range(40):
        pools = {pool for pool, _ in numbers(next(each))}
        assert len(pools) == 1
        drawn += pools
    assert drawn.count(0) == 30
    assert any(drawn[:4] != drawn[i : i + 4] for i in range(4, 40, 4))


def test_what_is_left_out_is_counted_by_reason(monkeypatch):
    monkeypatch.setattr(lanes, "PATIENCE", 50)
    packing = dataclasses.replace(PACKING, tokens=110, too_long="drop", references=48)
    sources = (Made("t2i", bad=(3,)), Made("edit"), Made("it2t", filtered=(5,)), Made("text"))
    config = dataclasses.replace(CONFIG, packing=packing)
    each = loader(1, config=config, sources=(sources[0], sources[3]), weights=(1, 1))
    for _ in range(60):
        next(each)
    report = each.report()
    assert report["data/t2i/made/bad"] >= 1
    assert report["data/t2i/made/too long: tokens"] >= 1
    assert report["data/text/made/too long: tokens"] >= 1
    cut = loader(
        1,
        config=dataclasses.replace(config, packing=dataclasses.replace(packing, too_long="cut")),
        sources=sources[3:],
        weights=(1,),
    )
    for _ in range(20):
        next(cut)
    assert cut.report()["data/text/made/cut"] >= 1
    assert "data/text/made/too long: tokens" not in cut.report()
    with pytest.raises(InputError, match=r"were left out.*too long"):
        next(loader(1, config=config, sources=sources[2:3], weights=(1,)))


def test_too_many_bad_records_stop_the_run():
    config = dataclasses.replace(CONFIG, bad_input=BadInput(share=0.1, after=10))
    each = loader(1, config=config, sources=(Made("t2i", bad=tuple(range(0, 40, 2))),), weights=(1,))
    with pytest.raises(InputError, match=r"source made of t2i: \d+ of \d+ records are unreadable.*broken"):
        for _ in range(20):
            next(each)


def test_missing_shards_are_reported():
    one = Made("text", problems={"shard-3.tar": "missing"})
    assert loader(1, sources=(one,), weights=(1,)).report()["data/text/made/bad_files"] == 1


def test_another_run_is_refused():
    state = saved([loader(2)])
    for other in (
        loader(2, seed=4),
        loader(2, weights=(1, 2, 1, 1)),
        loader(2, config=dataclasses.replace(CONFIG, dropout=GuidanceDropout(ar=0.2))),
    ):
        with pytest.raises(InputError, match="of other pools"):
            other.restore(state)
    with pytest.raises(InputError, match="not those of all hosts"):
        loader(2).restore(saved([loader(1, 0, 2)]))


def test_patches_must_merge_into_tokens():
    with pytest.raises(InputError, match="patches 510 must be a multiple of the 4"):
        loader(1, config=dataclasses.replace(CONFIG, packing=dataclasses.replace(PACKING, patches=510)))


def test_known_codes_and_latents_are_not_encoded_again():
    encoder = Checksums()
    each = loader(1, sources=(Made("it2t"), Made("text")), weights=(1, 1), encoder=encoder)
    next(each)
    assert encoder.asked == 0
    with pytest.raises(InputError, match="no precomputed codes"):
        made = loader(1, sources=SOURCES[:1], weights=(1,))
        made._encoder = None
        next(made)


def test_a_batch_ahead_changes_nothing_and_resumes_exactly():
    plain = loader(2)
    expected = [next(plain) for _ in range(4)]
    ahead = Prefetched(loader(2))
    for step in range(2):
        assert_same(next(ahead), expected[step])
    state = json.loads(json.dumps(ahead.state()))
    assert_same(next(ahead), expected[2])
    ahead.restore([state])
    for step in range(2, 4):
        assert_same(next(ahead), expected[step])
    assert ahead.report() == plain.report()
    ahead.close()


def test_an_error_of_a_batch_ahead_is_raised():
    config = dataclasses.replace(CONFIG, bad_input=BadInput(share=0.1, after=10))
    sources = (Made("t2i", bad=tuple(range(0, 40, 2))),)
    ahead = Prefetched(loader(1, config=config, sources=sources, weights=(1,)))
    with pytest.raises(InputError, match="are unreadable"):
        for _ in range(20):
            next(ahead)


def test_budgets_are_proposed_for_what_is_read():
    pools = [
        open_pool(source.task, [source], 3, weight)
        for source, weight in zip(SOURCES, (2, 2, 1, 1), strict=True)
    ]
    packing = propose_packing(pools, geometry(), CONFIG.dropout, tokens=640, samples=40, multiple=16)
    each = loader(2, config=dataclasses.replace(CONFIG, packing=dataclasses.replace(packing, window=8)))
    for _ in range(20):
        next(each)
    report = each.report()
    assert report["data/full/tokens"] > 0.93
    assert report["data/full/joint"] > 0.7
    assert not any(name.split("/")[-1].startswith("too long") for name in report)


def test_a_configuration_is_read_from_plain_data(tmp_path):
    written = {
        "pools": [
            {
                "name": "drawing",
                "weight": 3,
                "sources": [
                    {
                        "form": {"type": "TextToImage"},
                        "source": {
                            "type": "Folder",
                            "path": str(tmp_path / "none"),
                            "fields": [{"name": "caption", "column": "txt"}],
                        },
                    }
                ],
            }
        ],
        "packing": {"tokens": 1024, "conditions": 256, "targets": 512, "joint": 768, "samples": 8},
        "mixing": {"type": "BatchLevel"},
        "dropout": {"ar": 0.1, "text": 0.05},
        "workers": {"type": "Processes", "count": 3},
    }
    config = decode(JointDataConfig, written)
    assert config.mixing == BatchLevel()
    assert config.packing.budget.joint == 768
    assert config.pools[0].sources[0].task == "t2i"
    with pytest.raises(InputError, match="no such folder"):
        config.open(0)
