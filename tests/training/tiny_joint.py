"""Stages of the tiny model on a few pictures with captions, edits and questions in a folder."""

import json

import numpy as np
from PIL import Image

from checkpoint_convert.init_checkpoint import init_checkpoint
from mammoth_jax.core.config import decode, encode, merge
from mammoth_jax.training.joint_config import JointTraining
from tests.tiny_model import tiny_config


def write_data(folder, count=10):
    """Pictures with captions (``t2i.jsonl``), edits and questions about them."""
    random = np.random.default_rng(0)
    rows: dict[str, list] = {"t2i": [], "edit": [], "it2t": [], "text": []}
    for i in range(count):
        for name in ("a", "b"):
            pixels = random.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}{name}.png")
        first, second = f"{i}a.png", f"{i}b.png"
        rows["t2i"].append({"image": first, "caption": f"picture number {i}"})
        rows["edit"].append({"inputs": [first], "target": second, "instruction": f"make it {i}"})
        talk = [
            {"role": "user", "content": f"<image>which? {i}"},
            {"role": "assistant", "content": f"this {i}"},
        ]
        rows["it2t"].append({"image": first, "conversations": talk})
        rows["text"].append({"text": f"the number {i} comes before the number {i + 1}"})
    for task, lines in rows.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _source(folder, task):
    forms = {"t2i": "TextToImage", "edit": "Editing", "it2t": "PictureConversation", "text": "PlainText"}
    columns = {"t2i": ["caption"], "edit": ["instruction"], "it2t": ["conversations"], "text": ["text"]}
    shown = {"t2i": ["image"], "edit": ["inputs", "target"], "it2t": ["image"], "text": []}
    source = {
        "type": "JsonRecords",
        "files": [str(folder / f"{task}.jsonl")],
        "fields": [{"name": name, "column": name} for name in columns[task]],
        "picture_fields": [{"name": name, "column": name} for name in shown[task]],
    }
    form = {"type": forms[task]}
    form |= {"target": "image"} if task == "t2i" else {"pictures": "image"} if task == "it2t" else {}
    return {"form": form, "source": source}


ROOM = {"tokens": 512, "conditions": 640, "targets": 192, "joint": 960, "samples": 3}


def joint_data(folder, tasks=("t2i",), **changes):
    """A data section: a pool a task."""
    seeing = {"patches": 256} if set(tasks) - {"t2i", "text"} else {}
    seeing |= {"references": 192} if "edit" in tasks else {}
    room = {**ROOM, **seeing} if set(tasks) - {"it2t", "text"} else {"tokens": 512, **seeing}
    data = {
        "pools": [{"name": task, "sources": [_source(folder, task)]} for task in tasks],
        "packing": {**room, "window": 4},
        "mixing": {"type": "Balanced"},
        "dropout": {"ar": 0.2, "text": 0.0},
        "workers": {"type": "Threads", "count": 0},
    }
    return merge(data, changes)


MIXED = ("t2i", "edit", "it2t")


def mixed_data(folder):
    """Drawings, edits and questions in one row, with guidance dropout of every kind; writes what they read."""
    data = joint_data(write_data(folder), MIXED)
    data["packing"] |= {"patches": 128, "conditions": 352, "references": 64, "targets": 64, "joint": 480}
    return data | {"dropout": {"ar": 0.2, "text": 0.2, "references": 0.5}}


def stage(folder, groups=("generation", "dit"), tasks=("t2i",), **changes) -> JointTraining:
    """A stage that trains ``groups`` on ``tasks``, with nested ``changes``."""
    schedule = {"type": "WarmupConstant", "learning_rate": 1e-3, "warmup_steps": 2}
    data = {
        "task": "joint",
        "model": encode(tiny_config()),
        "data": joint_data(folder, tasks),
        "evaluation": joint_data(folder, tasks),
        "evaluation_batches": 2,
        "evaluation_controls": ["words", "targets"],
        "optimizer": {"groups": [{"name": name, "schedule": schedule} for name in groups]},
        "dtype": "float32",
        "run": {"steps": 20, "batch_size": 2, "checkpoint_interval": 10, "evaluation_interval": 20},
    }
    return decode(JointTraining, merge(data, changes))


def released(folder):
    """The tiny model with random weights, as a released-format folder."""
    init_checkpoint(tiny_config(), folder, seed=0)
    return folder
