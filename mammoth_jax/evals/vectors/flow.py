"""Runs our schedules, time shifts, path and Euler step on the recorded ``schedule`` case."""

import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from mammoth_jax.evals.vectors.case import Case, Runner
from mammoth_jax.flow.path import interpolate, velocity_target
from mammoth_jax.flow.schedules import (
    ExponentialShift,
    NoShift,
    ResolutionShift,
    TimeShift,
    inference_times,
    uniform_times,
)
from mammoth_jax.flow.solvers import Euler
from mammoth_jax.flow.time_sampling import LogisticNormal


def run_schedule(case: Case) -> dict[str, Any]:
    """Every recorded quantity, by what its name says."""
    data = case.inputs
    transport = case.config["transport"]
    latent_tokens = jnp.asarray([(rows // 2) * (cols // 2) for rows, cols in transport["latent_sizes"]])
    drawn = LogisticNormal().from_standard_normal(jnp.asarray(data["u"]))
    fixed = int(transport["static_seq_len"])
    shifts: dict[str, TimeShift] = {
        "dynamic.v1": ExponentialShift(),
        "dynamic.v2": ResolutionShift(),
        "static.v1": ExponentialShift(fixed_tokens=fixed),
        "static.v2": ResolutionShift(fixed_tokens=fixed),
        "no_shift": NoShift(),
    }
    maps: dict[str, TimeShift] = {"v1": ExponentialShift(), "v2": ResolutionShift()}
    noise, picture = jnp.asarray(data["x0"]), jnp.asarray(data["x1"])
    results: dict[str, Any] = {
        "plan.xt": interpolate(noise, picture, jnp.asarray(data["t"])),
        "plan.ut": velocity_target(noise, picture),
    }
    for name in case.entry["outputs"]:
        if match := re.fullmatch(r"n(\d+)\.tokens_(\w+)\.(timesteps|step_last|step_at_(\d+))", name):
            times = _times(int(match[1]), match[2])
            index = len(times) - 2 if match[3] == "step_last" else int(match[4] or 0)
            results[name] = times[:-1] if match[3] == "timesteps" else _euler(data, times, index)
        elif match := re.fullmatch(r"no_dynamic\.n(\d+)\.timesteps", name):
            results[name] = _times(int(match[1]), "none")[:-1]
        elif match := re.fullmatch(r"transport\.(.+)\.t", name):
            results[name] = shifts[match[1]](drawn, latent_tokens)
        elif match := re.fullmatch(r"map\.(v\d)\.tokens_(\d+)", name):
            t = jnp.asarray(data["t_fixed"])
            results[name] = maps[match[1]](t, jnp.full(t.shape, int(match[2])))
    return results


def _times(num_steps: int, tokens: str) -> np.ndarray:
    if tokens == "none":
        return uniform_times(num_steps, 1)[:, 0]
    side = math.sqrt(int(tokens))  # only the product of a latent's sides counts
    return inference_times(num_steps, [(side, side)])[:, 0]


def _euler(data: dict[str, np.ndarray], times: np.ndarray, index: int) -> Any:
    sample, output = jnp.asarray(data["sample"]), jnp.asarray(data["model_output"])
    t, t_next = (jnp.full(len(sample), times[i]) for i in (index, index + 1))
    return Euler().step(lambda x, t: output, None, sample, t, t_next)[0]


RUNNERS: dict[str, Runner] = {"schedule": run_schedule}
