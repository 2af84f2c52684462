"""What a benchmark is asked for, how it measures, and what it reports."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax

from mammoth_jax.benchmarks.roofline import Roofline
from mammoth_jax.benchmarks.timing import Timing, time_calls
from mammoth_jax.models.costs import Cost
from mammoth_jax.pipelines.loading import LoadedModel


@dataclasses.dataclass(frozen=True)
class BenchSettings:
    """Sizes of a run; ``None`` takes the model's own.

    Attributes:
      size: (width, height) in pixels.
      grid: (columns, rows) of visual tokens.
      batch: pictures at once.
      steps: of the diffusion.
      repeats: samples that are counted.
      implementation: of attention or of the routed feed-forward layer, instead of their table's.
      options: options of the pipeline beside these (``generate``, ``dit``).
    """

    size: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    batch: int = 1
    steps: int = 50
    repeats: int = 5
    implementation: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Work:
    """What one call does: its cost, and how many of what it produces."""

    cost: Cost
    items: float
    unit: str


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One timed piece of work on one device (or mesh)."""

    bench: str
    case: str
    timing: Timing
    work: Work
    roofline: Roofline
    facts: Mapping[str, Any]

    @property
    def fraction(self) -> float:
        """The least time that the device needs for the counted work, over the time that it took."""
        return self.roofline.seconds(self.work.cost) / self.timing.median

    def with_facts(self, **more: Any) -> "Measurement":
        """The same with further facts."""
        return dataclasses.replace(self, facts={**self.facts, **more})

    def to_json(self) -> dict[str, Any]:
        """A flat object."""
        seconds, work = self.timing.median, self.work
        return {
            "bench": self.bench,
            "case": self.case,
            **self.facts,
            **self.timing.to_json(),
            f"{work.unit}_per_s": work.items / seconds,
            "flops": work.cost.flops,
            "bytes": work.cost.bytes,
            "flops_per_s": work.cost.flops / seconds,
            "bytes_per_s": work.cost.bytes / seconds,
            "bound": self.roofline.bound(work.cost),
            "roofline_s": self.roofline.seconds(work.cost),
            "roofline_fraction": self.fraction,
        }

    def line(self) -> str:
        """For a person."""
        t, work = self.timing, self.work
        facts = ", ".join(f"{name} {short(value)}" for name, value in self.facts.items())
        return (
            f"{self.bench} {self.case} ({facts}): {_seconds(t.median)} [{_seconds(t.low)} to {_seconds(t.high)}, "
            f"{len(t.samples)} samples], {work.items / t.median:.4g} {work.unit}/s, "
            f"{work.cost.flops / t.median / 1e12:.3g} TFLOP/s, {work.cost.bytes / t.median / 1e9:.3g} GB/s, "
            f"{100 * self.fraction:.1f} % of the {self.roofline.bound(work.cost)} roofline"
        )


@dataclasses.dataclass(frozen=True)
class Meter:
    """Measures for one benchmark on one device."""

    bench: str
    roofline: Roofline
    repeats: int
    mesh: jax.sharding.Mesh

    def measure(self, case: str, call: Callable[[], Any], work: Work, **facts: Any) -> Measurement:
        """Times ``call``, which returns what is to be waited for."""
        with jax.set_mesh(self.mesh):
            return self.record(case, time_calls(call, repeats=self.repeats), work, **facts)

    def record(self, case: str, timing: Timing, work: Work, **facts: Any) -> Measurement:
        """A measurement from times that were taken elsewhere."""
        return Measurement(self.bench, case, timing, work, self.roofline, facts)


class Bench(Protocol):
    """A benchmark: which parts of the model it needs, and what it measures on them."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def parts(self) -> frozenset[str]: ...

    def measure(self, loaded: LoadedModel, settings: BenchSettings, meter: Meter) -> Iterator[Measurement]:
        """Measures its cases one after another."""
        ...


def short(value: Any) -> str:
    """A fact for a person: three digits of a number that is not whole."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{value:.3f} s"
    return f"{value * 1e3:.3f} ms" if value >= 1e-3 else f"{value * 1e6:.1f} us"
