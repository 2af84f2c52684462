"""Faults of the released inference code that can be reproduced on purpose; all are off by default."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ReleaseFaults:
    """Which faults of the release to reproduce, for comparison with pictures that it made.

    Attributes:
      padded_context: with unequal text lengths in a batch, padding enters the DiT's sequence and the last query tokens
        of the alignment module are dropped (``models/dit/release_context.py``).
      sticky_guidance: once a step lies outside ``cfg_range``, no later step is guided.
      rounded_time: time is rounded to the weights' number format before the sinusoid.
    """

    padded_context: bool = False
    sticky_guidance: bool = False
    rounded_time: bool = False


NO_FAULTS = ReleaseFaults()
