"""Words and pictures that do not belong together."""

import numpy as np

from mammoth_jax.data.example import Place
from mammoth_jax.training.mismatch import OtherWords, with_other_targets
from tests.data.packing.examples import Made


def words(example):
    return [part for part in example.turns[0].content if isinstance(part, str)]


def test_a_picture_is_asked_for_in_the_next_records_words():
    for task in ("t2i", "edit", "a2a"):
        source = Made(task, length=5)
        wrong, place = OtherWords(source), Place("x")
        for index, other in ((0, 1), (4, 0)):
            mixed, own, following = (
                wrong.example(index, place),
                source.example(index, place),
                source.example(other, place),
            )
            assert words(mixed) == words(following) != words(own)
            assert mixed.reasoning == following.reasoning
            assert [p.where for p in (*mixed.pictures, mixed.target)] == [
                p.where for p in (*own.pictures, own.target)
            ]
    talk = Made("it2t")
    same = OtherWords(talk).example(1, Place("x"))
    assert [turn.text for turn in same.turns] == [turn.text for turn in talk.example(1, Place("x")).turns]


def row(sizes, room=20):
    """Targets of a row: pictures of so many rows and columns, one value each."""
    sample, places, mean = np.zeros(room, int), np.zeros((room, 3), int), np.zeros((room, 1))
    start = 0
    for number, (rows, cols) in enumerate(sizes):
        part = slice(start, start + rows * cols)
        sample[part], mean[part, 0] = number + 1, 10 * (number + 1) + np.arange(rows * cols)
        places[part, 1:] = np.indices((rows, cols)).reshape(2, -1).T
        start = part.stop
    tokens = np.asarray([r * c for r, c in sizes] + [0] * (4 - len(sizes)))
    return {
        "target_sample": sample,
        "target_positions": places,
        "target_mean": mean,
        "target_std": -mean,
        "sample_tokens": tokens,
    }


def test_latents_go_to_the_next_picture_of_the_same_size():
    rows = [row([(2, 3)] * 3), row([(2, 3), (3, 2)]), row([(2, 2)]), row([])]
    batch = {name: np.stack([each[name] for each in rows]) for name in rows[0]}
    mixed = with_other_targets(batch)
    assert mixed["target_mean"][0, [0, 6, 12, 17, 18], 0].tolist() == [20, 30, 10, 15, 0]
    np.testing.assert_array_equal(mixed["target_std"], -mixed["target_mean"])
    np.testing.assert_array_equal(mixed["target_mean"][1:], batch["target_mean"][1:])
    assert batch["target_mean"][0, 0, 0] == 10
    assert with_other_targets({"ids": np.zeros(3)}).keys() == {"ids"}
