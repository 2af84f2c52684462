"""``config show``: presets, files that extend them, typed overrides, and what is refused."""

import pytest
import yaml

from mammoth_jax.cli.main import main
from mammoth_jax.core.config import decode, encode
from mammoth_jax.core.presets import load_preset, preset_names
from mammoth_jax.models.config import MammothConfig


def show(capsys, *words):
    """Status, the YAML on stdout, and stderr."""
    status = main(["config", "show", *map(str, words)])
    captured = capsys.readouterr()
    return status, yaml.safe_load(captured.out), captured.err


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_shown_whole_and_decodes_to_itself(name, capsys):
    status, shown, _ = show(capsys, "--preset", name)
    config = MammothConfig.from_preset(name)
    assert status == 0
    assert decode(MammothConfig, shown) == config
    assert shown == yaml.safe_load(yaml.safe_dump(encode(config)))


def test_a_file_says_only_what_differs(tmp_path, capsys):
    file = tmp_path / "model.yaml"
    file.write_text("extends: nano\nvae: {scaling_factor: 0.5}\n")
    status, shown, _ = show(capsys, file)
    want = encode(MammothConfig.from_preset("nano"))
    assert status == 0
    assert shown["vae"].pop("scaling_factor") == 0.5
    assert want["vae"].pop("scaling_factor") != 0.5
    assert shown == want


def test_overrides_are_typed_and_win(tmp_path, capsys):
    file = tmp_path / "model.yaml"
    file.write_text("extends: nano\nvae: {scaling_factor: 0.5}\n")
    status, shown, _ = show(capsys, file, "--vae.scaling_factor", "0.25", "--condition.final-norm=true")
    assert status == 0
    assert (shown["vae"]["scaling_factor"], shown["condition"]["final_norm"]) == (0.25, True)


def test_the_value_of_an_override_is_not_taken_for_a_positional(tmp_path, capsys):
    file = tmp_path / "model.yaml"
    file.write_text("extends: nano\n")
    override = ["--vae.scaling_factor", "0.25"]
    for words in (["show", "--preset", "nano", *override], [*override, "show", str(file)]):
        assert main(["config", *words]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["vae"]["scaling_factor"] == 0.25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "nanno"], "unknown preset 'nanno'; known presets: dev, nano, preview"),
        (["--preset", "nano", "--vae.scaling_facto", "1"], "did you mean 'scaling_factor'?"),
        (["--preset", "nano", "--pixels_per_token", "wide"], "pixels_per_token: expected int, got 'wide'"),
        (["--preset", "nano", "--vae.scaling_factor"], "has no value"),
        ([], "give either a FILE or --preset NAME"),
        (["absent.yaml"], "cannot read configuration absent.yaml"),
        (["--preset", "nano", "--vae.scaling_factor", "--vae.shift_factor", "1"], "unexpected argument '1'"),
    ],
)
def test_bad_input_is_named(words, said, capsys):
    status, shown, error = show(capsys, *words)
    assert (status, shown) == (2, None)
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("content", ["- 1\n", "a: [\n", "extends: nobody\n", "", "extends: nano\nspeed: 3\n"])
def test_bad_files_are_named(tmp_path, content, capsys):
    file = tmp_path / "model.yaml"
    file.write_text(content)
    status, _, error = show(capsys, file)
    assert status == 2 and error.count("\n") == 1


def test_a_file_without_extends_must_give_everything(tmp_path, capsys):
    file = tmp_path / "model.yaml"
    file.write_text(yaml.safe_dump(load_preset("nano")))
    assert show(capsys, file)[0] == 0
    file.write_text("pixels_per_token: 8\n")
    assert "missing backbone" in show(capsys, file)[2]


def test_help_lists_keys_with_types(capsys):
    assert main(["config", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--vae.scaling_factor" in out and "float" in out
