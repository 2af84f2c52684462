"""A shard that vanishes in the middle of an epoch: its records are counted and skipped, up to the stated share."""

import dataclasses

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.tally import BadInput
from tests.data.packing.test_hosts import captions, config, open_loader


def after_the_loss(folder, **changes):
    """A loader of three shards whose second is deleted after the first batch."""
    loader = open_loader(dataclasses.replace(config(folder), **changes), 2)
    captions([loader])
    (folder / "1.tar").unlink()
    return loader


def test_too_many_lost_records_stop_the_run_with_the_shards_name(tmp_path):
    loader = after_the_loss(tmp_path)
    with pytest.raises(
        InputError, match=r"3 of \d+ records are unreadable.*the first: .*1\.tar:.*No such file"
    ):
        for _ in range(40):
            captions([loader])
    loader.close()


def test_up_to_the_share_they_are_skipped_and_counted_and_the_rest_goes_on(tmp_path):
    loader = after_the_loss(tmp_path, bad_input=BadInput(share=0.6))
    seen = [int(caption) for _ in range(40) for caption in captions([loader])]
    (bad,) = (n for name, n in loader.report().items() if name.endswith("/bad"))
    loader.close()
    assert bad > 12 and len(seen) == 160
    assert {n for n in seen[80:] if n // 12 == 1} == set() and {n // 12 for n in seen[80:]} == {0, 2}
