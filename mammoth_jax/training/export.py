"""What was trained, in the released layout: the whole model, one of its tokenizers, or adapters."""

from pathlib import Path

from checkpoint_convert.part_folder import save_part
from mammoth_jax.core.errors import InputError
from mammoth_jax.core.mesh import single_device_mesh
from mammoth_jax.core.parameters import abstract
from mammoth_jax.training.config_file import run_config
from mammoth_jax.training.joint_export import export_adapters, export_joint
from mammoth_jax.training.measured_latents import with_measured_latents
from mammoth_jax.training.runs import load_weights
from mammoth_jax.training.tokenizer_config import TokenizerTraining
from mammoth_jax.training.tokenizer_kinds import KINDS
from mammoth_jax.training.trained_model import JointRun

ADAPTERS = "lora"


def export_run(run: Path | str, dst: Path | str, part: str | None, dtype: str = "float32") -> str:
    """Writes a run's weights (``RUN`` or ``RUN@STEP``) in the released layout; a VAE with its measured shift and scale.

    Args:
      run: of the model or of a tokenizer.
      dst: a folder that does not exist yet.
      part: ``mammothtok``, ``vae`` or ``lora`` alone; None is all that the run holds.
      dtype: of what the run of the model trained, adapters included, and of a tokenizer.

    Returns:
      What was written, for a person.

    Raises:
      InputError: the run trains something else, has no such checkpoint, or ``dst`` exists.
    """
    config = run_config(run)
    if isinstance(config, TokenizerTraining):
        _export_tokenizer(config, run, dst, part, dtype)
        return config.task
    opened = JointRun(str(run), config)
    if part == ADAPTERS:
        return export_adapters(opened, dst, dtype)
    if part is not None:
        module = opened.tokenizer(part, single_device_mesh())
        if module is None:
            raise InputError(
                f"{run} does not say where its {part} is: its frozen.{part} is null; export the run that trained it"
            )
        save_part(module, config.model, part, dst, dtype)
        return part
    return export_joint(opened, dst, dtype)


def _export_tokenizer(
    config: TokenizerTraining, run: Path | str, dst: Path | str, part: str | None, dtype: str
) -> None:
    if part not in (None, config.task):
        raise InputError(f"{run} trains {config.task}, not {part}")
    template = abstract(KINDS[config.task](config.model).build)
    model = load_weights(run, template, single_device_mesh())
    save_part(model, with_measured_latents(config.model, run), config.task, dst, dtype)
