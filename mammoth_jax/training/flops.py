"""Floating-point operations of a step on a packed batch: a forward pass (``models/costs.py``) and its gradients.

The backward pass costs two more of the forward pass where weights are trained, one more where gradients only pass
through; the products of attention have no weights and cost two more where gradients pass.  Padding, soft-max and
recomputation count nothing.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from flax import nnx

from mammoth_jax.core.parameters import named_parameters
from mammoth_jax.models import costs
from mammoth_jax.models.config import MammothConfig
from mammoth_jax.models.costs import Cost
from mammoth_jax.training.work import HostBatch, Load

_PARTS = {
    "generation": r"decoder\.segments\.\d+\.(ffn|attention\.experts)\.[1-9]\d*\..*kernel",
    "text": r"decoder\.segments\..*kernel",
    "generation_head": r"decoder\.gen_head\.kernel",
    "head": r"decoder\.head\.kernel",
    "vision": r"vision\..*kernel",
    "dit": r"dit\.(?!reference_).*kernel",
    "refiner": r"refiner\..*kernel",
}
"""Whose matrix it is, by its name: the first pattern that matches all of it.  Those of references go with the rest."""

_SEQUENCES = ("token_segments", "joint_segments")


@dataclasses.dataclass(frozen=True)
class StepLoad:
    """Counts of a batch, for speed: ``Work.load``.

    Attributes:
        config: of the model.
        trained: of each part that there is, the share of the numbers in its matrices that is trained.
    """

    config: MammothConfig
    trained: Mapping[str, float]

    @classmethod
    def of(cls, config: MammothConfig, template: nnx.Module, trained: Collection[str]) -> "StepLoad":
        """For a model of this structure, of whose parameters those named are trained."""
        sizes: dict[str, list[int]] = {}
        for name, parameter in named_parameters(template).items():
            part = next((part for part, pattern in _PARTS.items() if re.fullmatch(pattern, name)), None)
            if part is not None:
                sizes.setdefault(part, [0, 0])[name in trained] += int(np.prod(parameter.shape))
        return cls(config, {part: own / (own + rest) for part, (rest, own) in sizes.items()})

    def __call__(self, batch: HostBatch) -> Load:
        """Tokens of the decoder and of the joint sequences, and operations."""
        through, flops = any(self.trained.values()), 0.0
        for part, cost in self._forward(batch):
            own = self.trained.get(part, 0.0)
            # nothing that is trained lies below a frozen tower
            passes = 2 if through and (own or part != "vision") else 1
            flops += (cost.flops - cost.attention) * (passes + own) + cost.attention * (2 * passes - 1)
        tokens = sum(np.count_nonzero(batch[name]) for name in _SEQUENCES if name in batch)
        return Load(int(tokens), flops)

    def _forward(self, batch: HostBatch) -> Iterator[tuple[str, Cost]]:
        """Each part's passes over a batch."""
        config, decoder = self.config, self.config.backbone.decoder
        for length in _lengths(batch["token_segments"]):
            yield "text", costs.decoder_pass(decoder, 1, length, 0)
        labels = int(np.count_nonzero(batch["labels"] >= 0))
        yield "head", costs.head(decoder, labels, decoder.vocab_size, 0)
        if "generation" in self.trained:
            drawn = (batch["ids"] >= decoder.gen_vocab_start_index) & (batch["token_segments"] > 0)
            expert = costs.decoder_weights(decoder, both_experts=True) - costs.decoder_weights(decoder)
            routed = costs.dense(expert, int(np.count_nonzero(drawn)), 0)
            yield from (("generation", routed), ("text", routed * -1))
            yield "generation_head", costs.head(decoder, labels, decoder.gen_vocab_size, 0)
        if "patch_frames" in batch:
            yield "vision", costs.vision_tower(config.backbone.vision, _lengths(batch["patch_frames"]), 0)
        if "joint_segments" not in batch:
            return
        for length in _lengths(batch["reference_segments"]):
            yield "dit", costs.dit_references(config.dit, 1, length, 0)
        for row in range(len(batch["joint_segments"])):
            for sample in range(1, int(batch["joint_segments"][row].max(initial=0)) + 1):
                joint, context, target, features = (
                    int(np.count_nonzero(batch[name][row] == sample))
                    for name in ("joint_segments", "condition_segments", "target_sample", "token_sample")
                )
                yield "dit", costs.dit_evaluation(config.dit, 1, joint - target, target, 0)
                features *= config.condition.mode != "text"
                text = context - config.refiner.num_queries * bool(features)
                whole = costs.condition(config.dit, config.refiner, 1, text, features, 0)
                read = costs.qformer(config.refiner, 1, features, 0) if features else Cost()
                yield from (("refiner", read), ("dit", whole + read * -1))


def _lengths(segments: np.ndarray) -> list[int]:
    """Of all segments of all rows."""
    return [int(n) for row in segments for n in np.unique(row[row > 0], return_counts=True)[1]]
