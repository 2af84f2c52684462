"""Prompt files: UTF-8 text, one prompt a line."""

from pathlib import Path

from mammoth_jax.core.errors import InputError


def read_prompt_file(path: str | Path) -> list[str]:
    """The prompts of a file, in order; blank lines, white space around a prompt and a byte order mark are left out.

    Raises InputError for a file that cannot be read, is not UTF-8 or holds no prompt.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"prompt file {path}: {error.strerror or error}; expected a readable text file"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"prompt file {path}: byte {error.start} is not UTF-8; save the file as UTF-8 text"
        ) from None
    prompts = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise InputError(f"prompt file {path} holds no prompt; expected one prompt a line")
    return prompts
