"""Where a stage finds its words."""

import pytest

from mammoth_jax.core.errors import InputError
from mammoth_jax.training.joint_config import FrozenFiles
from mammoth_jax.training.joint_files import keep_words, read_words, words_folder
from tests.tiny_model import tiny_config


def test_words_are_the_runs_own_then_the_configured_then_those_of_the_start(tmp_path):
    run, configured, start = (tmp_path / name for name in ("run", "words", "start"))
    for folder in (configured, start):
        folder.mkdir()
        (folder / "tokenizer.json").write_text(folder.name)
    files = FrozenFiles(words=str(configured))
    assert words_folder(FrozenFiles(), str(start), run) == start
    assert words_folder(files, str(start), run) == configured
    run.mkdir()
    keep_words(start, run)
    assert words_folder(files, str(start), run) == configured  # nothing goes on yet
    keep_words(configured, run)
    assert [file.name for file in (run / "words").iterdir()] == ["tokenizer.json"]
    assert (run / "words" / "tokenizer.json").read_text() == "words"
    (run / "checkpoints" / "1").mkdir(parents=True)
    assert words_folder(files, str(start), run) == run / "words"
    with pytest.raises(InputError, match=r"frozen.words .*nowhere: no such folder"):
        words_folder(FrozenFiles(words=str(tmp_path / "nowhere")), None, None)


def test_a_start_without_words_leaves_none_of_an_earlier_one(tmp_path):
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "tokenizer.json").write_text("{}")
    keep_words(tmp_path / "start", tmp_path)
    keep_words(None, tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["start"]


def test_without_files_words_are_bytes():
    assert words_folder(FrozenFiles(), None, None) is None
    tokenizer = read_words(tiny_config(), None)
    assert tokenizer.decode(tokenizer.encode("zwei Wörter")) == "zwei Wörter"
