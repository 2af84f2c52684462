"""Drawing without a model: flat pictures whose colour tells their prompt, seed and source."""

import hashlib
from collections.abc import Iterator, Sequence

from PIL import Image

from mammoth_jax.evals.jobs import Drawn, Request

SIDE = 8


def colour_of(request: Request) -> tuple[int, int, int]:
    """The colour that stands for a request."""
    name = "" if request.source is None else request.source.name
    red, green, blue, *_ = hashlib.sha256(f"{request.prompt}|{request.seed}|{name}".encode()).digest()
    return red, green, blue


class StandIn:
    """Draws in reverse order, notes what it was asked for, and can be interrupted after some pictures."""

    def __init__(self, interrupt_after: int | None = None):
        self.asked: list[Request] = []
        self.interrupt_after = interrupt_after

    def check(self, requests: Sequence[Request]) -> None:
        """Draws everything."""

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, Drawn]]:
        for count, number in enumerate(reversed(range(len(requests)))):
            if count == self.interrupt_after:
                raise KeyboardInterrupt
            request = requests[number]
            self.asked.append(request)
            if request.source is not None:
                request.source.open()
            yield number, Drawn(Image.new("RGB", (SIDE, SIDE), colour_of(request)), {"seed": request.seed})


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody reads."""
