"""What goes wrong while a study runs, and who is to blame. No Ray here.

* An error of the trial's own (a NaN too): failed at once; the next run of the driver tries again.
* A worker that died (preempted, killed, hung): nobody's fault; tried again, `MAX_ATTEMPTS` times.
* Memory: perhaps its company's fault; once more, alone, after all others; then failed.
* A node with other code: tried elsewhere; the node gets no further trial of this run.
* Storage that is full or cannot be written: the driver ends, and the same command goes on.
"""

from dataclasses import dataclass, field

from mmrec.tune.live import Live

MAX_ATTEMPTS = 4
"""A trial whose worker dies this often, without a further epoch in between, is given up."""


@dataclass(frozen=True)
class Death:
    """What a worker died of."""

    cause: str
    starved: bool = False
    """Whether Ray's memory monitor killed it."""


@dataclass
class Mishaps:
    """What has gone wrong under this driver; it outlives the Tuners."""

    avoid: dict[str, str] = field(default_factory=dict)
    """Node -> why it gets no trial."""
    halted: Exception | None = None
    """Why no trial can go on."""
    _deaths: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Hash -> how often in a row its worker has died, and the last epoch that it told of."""
    _starved: set[str] = field(default_factory=set)

    def died(self, live: Live) -> bool:
        """Count a worker's death; whether its trial is to be tried again."""
        epoch = live.last.get("epoch", 0)
        times, reached = self._deaths.get(live.planned.hash, (0, 0))
        times = 1 if epoch > reached else times + 1
        self._deaths[live.planned.hash] = (times, max(epoch, reached))
        return times < MAX_ATTEMPTS

    def starved(self, live: Live) -> bool:
        """Count a want of memory; whether the trial is to be tried once more, alone."""
        first = live.planned.hash not in self._starved
        self._starved.add(live.planned.hash)
        return first

    def halt(self, error: Exception) -> None:
        """End the run; the first reason counts."""
        self.halted = self.halted or error
