"""Where a numeric knob may be looked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Where a search may look for a numeric knob."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range needs low < high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(
                f"a logarithmic range cannot start at {self.low}; plan 0 as a level instead"
            )

    @property
    def ends(self) -> tuple[float, float]:
        """Low and high as a search hands them out: whole numbers only where it says `integer`."""
        kind = int if self.integer else float
        return kind(self.low), kind(self.high)

    def at(self, share: float) -> float:
        """The value at a share of the way, 0 to 1, from low to high; three digits if it is real."""
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return round(value) if self.integer else float(f"{value:.3g}")
