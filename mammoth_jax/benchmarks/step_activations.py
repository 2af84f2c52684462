"""What a training step keeps of its forward pass, and what one layer needs while it is computed again.

Every number that a layer makes is counted once for each token of a full row, whether padding or not: arrays have
fixed shapes.  What is kept follows the stack's policy (``layers/remat.py``).
"""

import dataclasses
from collections.abc import Iterator, Mapping

from mammoth_jax.layers.remat import ATTENTION, LAYER_INPUT, Remat
from mammoth_jax.models.backbone.vision_config import Qwen3VLVisionConfig
from mammoth_jax.training.joint_config import JointTraining


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """Equal layers over the tokens of a row; counts are numbers a token.

    Attributes:
        prefix: of its parameters' names.
        width: of a layer's input.
        plain: other values that a layer makes outside of heads and feed-forward layer.
        heads: what attention gives.
        projected: queries, keys and values.
        inner: of the feed-forward layer.
        num_heads, ffn_width: what ``tensor`` must divide to divide the last three.
        policy: what is kept; None keeps everything.
    """

    prefix: str
    layers: int
    tokens: int
    width: int
    plain: int
    heads: int
    projected: int
    inner: int
    num_heads: int
    ffn_width: int
    policy: Remat | None

    def kept(self, tensor: int = 1, cut: int = 1) -> int:
        """Numbers of a row that all layers keep on a device for the backward pass.

        Args:
          tensor: devices that divide heads and widths.
          cut: parts that the row's tokens are cut into between layers.
        """
        if self.policy is None:
            return self.layers * self.made(tensor, cut)
        saved = {LAYER_INPUT, *self.policy.save} - set(self.policy.offload)
        return self.layers * sum(self._named(tensor, cut)[name] for name in saved)

    def offloaded(self, tensor: int = 1, cut: int = 1) -> int:
        """Numbers of a row that lie in the host's memory meanwhile."""
        names = () if self.policy is None else self.policy.offload
        return self.layers * sum(self._named(tensor, cut)[name] for name in names)

    def working(self, tensor: int = 1, cut: int = 1) -> int:
        """Numbers of a row while one layer is differentiated: its values, and the gradient of each."""
        gathered = self.tokens * self.width if cut > 1 else 0  # both halves read all tokens
        return 2 * (self.made(tensor, cut) + gathered)

    def made(self, tensor: int = 1, cut: int = 1) -> int:
        """Numbers of a row that one layer makes on a device."""
        attention = (self.heads + self.projected) // (tensor if self.num_heads % tensor == 0 else cut)
        inner = self.inner // (tensor if self.ffn_width % tensor == 0 else cut)
        return self.tokens * ((self.width + self.plain) // cut + attention + inner)

    def summed_halves(self, tensor: int) -> int:
        """Halves of a layer whose results are sums over ``tensor``."""
        return 0 if tensor == 1 else (self.num_heads % tensor == 0) + (self.ffn_width % tensor == 0)

    def _named(self, tensor: int, cut: int) -> dict[str, int]:
        divided = tensor if self.num_heads % tensor == 0 else cut
        return {
            LAYER_INPUT: self.tokens * self.width // cut,
            ATTENTION: self.tokens * self.heads // divided,
        }


def stacks(config: JointTraining) -> Iterator[Stack]:
    """The stacks of layers that a stage runs."""
    model, packing, remat = config.model, config.data.packing, config.remat
    parts = config.parts(config.data)
    c = model.backbone.decoder
    experts = c.experts.kind != "none" and "generation_experts" in parts
    heads, pairs = c.num_heads * c.head_dim, 2 * c.num_kv_heads * c.head_dim
    yield Stack(
        prefix="decoder.segments.",
        layers=c.num_layers,
        tokens=packing.tokens,
        width=c.hidden_size,
        plain=(5 if experts else 3) * c.hidden_size,  # tokens are also held in the order of their experts
        heads=heads,
        projected=heads + pairs,
        inner=3 * c.intermediate_size,
        num_heads=c.num_kv_heads,
        ffn_width=c.intermediate_size,
        policy=remat.decoder,
    )
    tower = model.backbone.vision
    if "vision_tower" in parts and isinstance(tower, Qwen3VLVisionConfig):
        d = tower.hidden_size
        yield Stack(
            prefix="vision.layers.",
            layers=tower.num_layers,
            tokens=packing.patches,
            width=d,
            plain=3 * d,
            heads=d,
            projected=3 * d,
            inner=2 * tower.intermediate_size,
            num_heads=tower.num_heads,
            ffn_width=tower.intermediate_size,
            policy=remat.vision,
        )
    if "dit" not in parts:
        return
    dit = model.dit
    d, e = dit.hidden_size, dit.hidden_size // dit.num_heads
    lengths = {
        "layers": (dit.num_layers, packing.joint),
        "noise_refiner": (dit.num_refiner_layers, packing.targets),
        "reference_refiner": (dit.num_refiner_layers, packing.references),
        "context_refiner": (dit.num_refiner_layers, packing.conditions),
    }
    for name, (layers, tokens) in lengths.items():
        yield Stack(
            prefix=f"dit.{name}.",
            layers=layers,
            tokens=tokens,
            width=d,
            # modulation and sandwich norms are in float32, and a token has a scale and a gate of each branch
            plain=8 * d if name == "context_refiner" else 12 * d,
            heads=d,
            projected=d + 2 * dit.num_kv_heads * e,
            inner=3 * dit.ffn_width,
            num_heads=dit.num_kv_heads,
            ffn_width=dit.ffn_width,
            policy=remat.dit,
        )
    if "refiner" in parts:
        q = model.refiner
        yield Stack(
            prefix="refiner.layers.",
            layers=q.num_layers,
            tokens=q.num_queries * packing.samples,
            width=q.width,
            plain=5 * q.width,
            heads=2 * q.width,
            projected=6 * q.width,
            inner=3 * q.ffn_width,
            num_heads=q.heads,
            ffn_width=q.ffn_width,
            policy=remat.dit,
        )


def carried(config: JointTraining) -> Mapping[str, int]:
    """Bytes of a row that live through the whole pass beside what layers keep, by name; activations of two bytes."""
    model, packing = config.model, config.data.packing
    d, found = model.backbone.decoder.hidden_size, {}
    parts = config.parts(config.data)
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
