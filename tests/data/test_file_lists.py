"""Lists of shards as their users write them."""

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.file_lists import expand_braces, join_parts, list_files, short_names


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{9..11}.tar", ["9.tar", "10.tar", "11.tar"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("x{,_large}.tar", ["x.tar", "x_large.tar"]),
    ],
)
def test_braces_are_written_out_as_a_shell_does(pattern, names):
    assert expand_braces(pattern) == names


def test_globs_are_sorted_lists_keep_their_order_and_a_file_counts_once(tmp_path):
    for name in ("b.tar", "a.tar", "sub/c.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = list_files([f"{tmp_path}/b.tar", f"{tmp_path}/**/*.tar"])
    assert short_names(found) == ["b.tar", "a.tar", "sub/c.tar"]
    assert short_names(found[2:]) == ["c.tar"]


def test_patterns_that_name_nothing_are_named(tmp_path):
    with pytest.raises(InputError, match=r"2 of the files named are missing, the first: .*x0\.tar"):
        list_files([f"{tmp_path}/x{{0,1}}.tar"])
    with pytest.raises(InputError, match="no files named by"):
        list_files([])


def test_parts_are_joined_in_the_order_of_their_numbers(tmp_path):
    parts = [tmp_path / f"x.tar.split.{i}" for i in (10, 2, 1, 0, 9, 3, 4, 5, 6, 7, 8)]
    (joined,) = join_parts(parts)
    assert [p.name for p in joined] == [f"x.tar.split.{i}" for i in range(11)]
    assert join_parts([tmp_path / "a.tar", *parts])[0] == (tmp_path / "a.tar",)
