"""Configuration of the alignment module's Q-Former."""

import dataclasses
from typing import Literal

Stage = Literal["dit", "llm"]


def choose_num_heads(width: int, proposed: int, preferred_head_width: int = 128) -> int:
    """The proposed number of heads if it divides ``width``, else the divisor nearest to ``width / 128``.

    Divisors above 128 are not considered; of two equally near ones the larger is taken (released rule).
    """
    if proposed > 0 and width % proposed == 0:
        return proposed
    target = max(1, round(width / preferred_head_width))
    divisors = [d for d in range(1, min(128, width) + 1) if width % d == 0]
    return min(divisors, key=lambda d: (abs(d - target), -d))


@dataclasses.dataclass(frozen=True)
class QFormerConfig:
    """A Q-Former: learned queries that read a variable number of features into a fixed number of tokens.

    Attributes:
      input_width: width of the features, the backbone's.
      width: width of the queries and of the output.
      stage: where the output joins the text condition. ``dit``: in the DiT's width, after its caption embedder (Dev);
        ``llm``: in the backbone's width, before the caption embedder (Preview).
      num_heads: proposed number of heads; see :func:`choose_num_heads`. ``None`` proposes ``width // 128``.
    """

    input_width: int
    width: int
    stage: Stage = "dit"
    num_queries: int = 128
    num_layers: int = 2
    num_heads: int | None = None
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.stage == "llm" and self.width != self.input_width:
            raise ValueError(
                f"a Q-Former at stage 'llm' keeps the width: {self.width=} differs from {self.input_width=}"
            )
        if min(self.num_queries, self.num_layers) < 1:
            raise ValueError(f"{self.num_queries=} and {self.num_layers=} must be positive")

    @property
    def heads(self) -> int:
        """The number of heads used."""
        proposed = max(1, self.width // 128) if self.num_heads is None else self.num_heads
        return choose_num_heads(self.width, proposed)

    @property
    def ffn_width(self) -> int:
        """Width of the feed-forward layers: four times the width, rounded up to a multiple of 256."""
        return 256 * -(-4 * self.width // 256)
