"""Ladders of lengths: everything fits, few steps, little padding."""

import pytest

from mammoth_jax.pipelines.buckets import latent_bucket, patch_bucket, row_bucket, token_bucket


@pytest.mark.parametrize("ladder", [token_bucket, latent_bucket, row_bucket])
def test_a_bucket_holds_its_size_and_is_its_own_bucket(ladder):
    for size in range(1, 3000):
        assert size <= ladder(size) == ladder(ladder(size))


def test_less_than_a_fifth_of_a_token_bucket_is_padding_and_less_than_a_ninth_of_a_long_one():
    assert max(1 - size / token_bucket(size) for size in range(32, 2049)) < 1 / 5
    assert max(1 - size / token_bucket(size) for size in range(2049, 20000)) < 1 / 9


def test_there_are_few_buckets():
    assert len({token_bucket(size) for size in range(1, 16385)}) == 49
    assert [latent_bucket(n) for n in (1, 5, 9, 4096)] == [4, 5, 10, 4096]
    assert sorted({row_bucket(n) for n in range(1, 17)}) == [1, 2, 3, 4, 6, 8, 12, 16]


def test_rows_of_a_sharded_batch_divide_by_the_shards():
    assert [row_bucket(n, 8) for n in (1, 3, 8, 9, 17)] == [1, 4, 8, 16, 24]


def test_patches_are_whole_tokens():
    assert patch_bucket(4, 2) == 128 and patch_bucket(129, 2) == 160
