"""What a training step keeps of its forward pass, and what one layer needs while it is computed again.

Every number that a layer makes is counted once for each token of a full row, whether padding or not: arrays have
fixed shapes.  What is kept follows the stack's policy (``layers/remat.py``).
"""

import dataclasses
from collections.abc import Iterator, Mapping

from mammoth_jax.layers.remat import ATTENTION, LAYER_INPUT, Remat
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig
from mammoth_jax.training.joint_config import JointTraining
from mammoth_jax.training.parameter_groups import needed_parts


@dataclasses.dataclass(frozen=True)
class Stack:
    """Equal layers over the tokens of a row; counts are numbers a token.

    Attributes:
        prefix: of its parameters' names.
        width: of a layer's input.
        heads: of what attention gives.
        plain: other values of a layer that no device divides over ``tensor``.
        divided: those that are divided where heads and feed-forward width divide.
        policy: what is kept; None keeps everything.
    """

    prefix: str
    layers: int
    tokens: int
    width: int
    heads: int
    plain: int
    divided: int
    policy: Remat | None

    def kept(self) -> int:
        """Numbers of a row that all layers keep on the device for the backward pass."""
        return self.layers * self.tokens * self._each(on_host=False)

    def offloaded(self) -> int:
        """Numbers of a row that lie in the host's memory meanwhile."""
        return self.layers * self.tokens * self._each(on_host=True)

    def _each(self, *, on_host: bool) -> int:
        if self.policy is None:
            return 0 if on_host else self.width + self.heads + self.plain + self.divided
        sizes = {LAYER_INPUT: self.width, ATTENTION: self.heads}
        if on_host:
            return sum(sizes[name] for name in self.policy.offload)
        saved = {LAYER_INPUT, *self.policy.save} - set(self.policy.offload)
        return sum(sizes[name] for name in saved)

    def working(self, tensor: int) -> int:
        """Numbers of a row while one layer is differentiated: its values, and the gradient of each."""
        return 2 * self.tokens * (self.width + self.plain + (self.heads + self.divided) // tensor)


def stacks(config: JointTraining) -> Iterator[Stack]:
    """The stacks of layers that a stage runs."""
    model, packing, remat = config.model, config.data.packing, config.remat
    parts = needed_parts(config.tasks, model.condition.mode)
    c = model.backbone.decoder
    experts = c.experts.kind != "none" and "generation_experts" in parts
    heads, pairs = c.num_heads * c.head_dim, 2 * c.num_kv_heads * c.head_dim
    yield Stack(
        "decoder.segments.",
        c.num_layers,
        packing.tokens,
        c.hidden_size,
        heads,
        (5 if experts else 3) * c.hidden_size,  # tokens are also held in the order of their experts
        heads + pairs + 3 * c.intermediate_size,
        remat.decoder,
    )
    tower = model.backbone.vision
    if "vision_tower" in parts and isinstance(tower, Qwen3VLVisionConfig):
        d = tower.hidden_size
        values = 3 * d + 2 * tower.intermediate_size
        yield Stack("vision.layers.", tower.num_layers, packing.patches, d, d, 3 * d, values, remat.vision)
    if "dit" not in parts:
        return
    dit = model.dit
    d, e = dit.hidden_size, dit.hidden_size // dit.num_heads
    values = d + 2 * dit.num_kv_heads * e + 3 * dit.ffn_width
    lengths = {
        "layers": (dit.num_layers, packing.joint),
        "noise_refiner": (dit.num_refiner_layers, packing.targets),
        "reference_refiner": (dit.num_refiner_layers, packing.references),
        "context_refiner": (dit.num_refiner_layers, packing.conditions),
    }
    for name, (layers, tokens) in lengths.items():
        # modulation and sandwich norms are in float32, and a token has a scale and a gate of each branch
        plain = 12 * d if name != "context_refiner" else 8 * d
        yield Stack(f"dit.{name}.", layers, tokens, d, d, plain, values, remat.dit)
    if "refiner" in parts:
        q = model.refiner
        queries = q.num_queries * packing.samples
        yield Stack(
            "refiner.layers.",
            q.num_layers,
            queries,
            q.width,
            2 * q.width,
            5 * q.width,
            6 * q.width + 3 * q.ffn_width,
            remat.dit,
        )


def carried(config: JointTraining) -> Mapping[str, int]:
    """Bytes of a row that live through the whole pass beside what layers keep, by name; activations of two bytes."""
    model, packing = config.model, config.data.packing
    d, found = model.backbone.decoder.hidden_size, {}
    parts = needed_parts(config.tasks, model.condition.mode)
    if "vision_tower" in parts:
        taps = model.backbone.decoder.num_deepstack
        merged = packing.patches // model.backbone.vision.spatial_merge_size**2
        found["vision features"] = (
            2 * (taps + 1) * (packing.tokens * d + merged * d)
            + 2 * taps * packing.patches * model.backbone.vision.hidden_size
        )
    if "dit" in parts:
        found["condition features"] = 2 * 4 * packing.tokens * d  # in float32, and their gradient
    return found
