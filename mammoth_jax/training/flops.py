"""Floating-point operations that a step on a packed batch needs, by sizes alone.

Every matrix is counted with the tokens that meet it, two operations a number and token; attention with what each query
sees; padding, soft-max and recomputation count nothing.  The backward pass costs two more of the forward pass where
weights are trained, one more where gradients only pass through.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping

import numpy as np
from flax import nnx

from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.training.work import HostBatch, Load

_COUNTED_BY: tuple[tuple[str, str], ...] = (
    (r"decoder\.gen_head\.kernel|decoder\.head\.kernel", "labels"),
    (r"decoder\.segments\.\d+\.(ffn|attention\.experts)\.[1-9]\d*\..*kernel", "generated"),
    (r"decoder\.segments\.\d+\.(ffn|attention\.experts)\.0\..*kernel", "tokens"),
    (r"vision\.(patch_embed|layers)\..*kernel", "patches"),
    (r"vision\.(merger|deepstack_mergers)\..*kernel", "merged"),
    (r"dit\.(time|output\.modulation|\w+\.modulation)\..*kernel", "samples"),
    (r"dit\.layers\..*kernel", "joint"),
    (r"dit\.(patch_embed|noise_refiner|output)\..*kernel", "targets"),
    (r"dit\.reference_\w+\..*kernel", "references"),
    (r"dit\.(caption|context_refiner)\..*kernel", "conditions"),
    (r"refiner\.input\.kernel", "conditioning"),
    (r"refiner\..*kernel", "queries"),
)
"""Which tokens meet a matrix, by its name: the first pattern that matches all of it."""

_SEGMENTS = {  # segment ids of each array, whose runs attend to themselves
    "tokens": "token_segments",
    "patches": "patch_frames",
    "joint": "joint_segments",
    "conditions": "condition_segments",
    "targets": "target_sample",
    "references": "reference_segments",
}


@dataclasses.dataclass(frozen=True)
class StepLoad:
    """Counts of a batch, for speed: ``Work.load``.

    Attributes:
        config: of the model.
        weights: numbers in all matrices by who meets them and whether they are trained.
        both_experts: numbers in text experts that have a generation expert beside them, which its tokens do not meet.
    """

    config: MammothConfig
    weights: Mapping[tuple[str, bool], int]
    beside: Mapping[bool, int]

    @classmethod
    def of(cls, config: MammothConfig, template: nnx.Module, trained: Collection[str]) -> "StepLoad":
        """For a model of this structure, of whose parameters those named are trained."""
        parameters = named_parameters(template)
        weights: dict[tuple[str, bool], int] = {}
        beside = {True: 0, False: 0}
        for name, parameter in parameters.items():
            counted = next((by for pattern, by in _COUNTED_BY if re.fullmatch(pattern, name)), None)
            if counted is None:
                continue
            size, own = int(np.prod(parameter.shape)), name in trained
            weights[counted, own] = weights.get((counted, own), 0) + size
            other = re.sub(r"(ffn|attention\.experts)\.0\.", r"\1.1.", name)
            if counted == "tokens" and other != name and other in parameters:
                beside[own] += size
        return cls(config, weights, beside)

    def __call__(self, batch: HostBatch) -> Load:
        """Tokens of the decoder and of the joint sequences, and operations."""
        counts = self._counts(batch)
        through = any(own for _, own in self.weights)
        flops = 0.0
        for (counted, own), size in self.weights.items():
            flops += 2.0 * size * counts[counted] * _passes(counted, own, through)
        for own, size in self.beside.items():
            flops -= 2.0 * size * counts["generated"] * _passes("tokens", own, through)
        return Load(counts["tokens"] + counts["joint"], flops + self._attention(batch))

    def _counts(self, batch: HostBatch) -> dict[str, int]:
        counts = {
            name: int(np.count_nonzero(batch[key])) if key in batch else 0 for name, key in _SEGMENTS.items()
        }
        merge = self.config.backbone.vision.spatial_merge_size**2
        start = self.config.backbone.decoder.gen_vocab_start_index
        drawn = int(np.count_nonzero(batch["sample_tokens"])) if "sample_tokens" in batch else 0
        queries = self.config.refiner.num_queries * drawn if self.config.condition.mode != "text" else 0
        return counts | {
            "labels": int(np.count_nonzero(batch["labels"] >= 0)),
            "generated": int(np.count_nonzero((batch["ids"] >= start) & (batch["token_segments"] > 0))),
            "merged": counts["patches"] // merge,
            "samples": drawn,
            "conditioning": int(np.count_nonzero(batch["token_sample"])) if drawn else 0,
            "queries": queries,
        }

    def _attention(self, batch: HostBatch) -> float:
        """Both products of every query with the keys that it sees; gradients cost twice the forward pass."""
        decoder, tower, dit = self.config.backbone.decoder, self.config.backbone.vision, self.config.dit
        blocks = {  # width of all heads times layers
            "tokens": decoder.num_layers * decoder.num_heads * decoder.head_dim / 2,  # half is seen
            "patches": tower.num_layers * tower.hidden_size,
            "joint": dit.num_layers * dit.hidden_size,
            "conditions": dit.num_refiner_layers * dit.hidden_size,
            "targets": dit.num_refiner_layers * dit.hidden_size,
            "references": dit.num_refiner_layers * dit.hidden_size,
        }
        seen = {n: _squares(batch[key]) if key in batch else 0 for n, key in _SEGMENTS.items()}
        trained = {counted for counted, own in self.weights if own}
        return sum(
            4.0 * seen[n] * width * (1 if n == "patches" and n not in trained else 3)
            for n, width in blocks.items()
        )


def _passes(counted: str, trained: bool, through: bool) -> int:
    """Forward passes' worth of work; nothing that is trained lies below a frozen tower."""
    if trained:
        return 3
    return 2 if through and counted not in ("patches", "merged") else 1


def _squares(segments: np.ndarray) -> int:
    """Sum of the squared lengths of all segments of all rows."""
    total = 0
    for row in segments:
        lengths = np.unique(row[row > 0], return_counts=True)[1]
        total += int(np.sum(lengths.astype(np.int64) ** 2))
    return total
