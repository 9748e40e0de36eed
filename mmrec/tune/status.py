"""How a study goes: a live line on a terminal, plain lines elsewhere; and when to end."""

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from mmrec.tune.live import Live, Watch

_AGAIN = {
    "retried": "retried",
    "aside": "to be tried once more, alone",
    "interrupted": "interrupted",
}
"""Ends that are none, and what is said of them."""


@dataclass
class Status(Watch):
    """Counts what happens and shows it."""

    planned: int
    """Trials of this phase, those already done among them."""
    done: int
    epochs: int
    """Cap of a trial, for the time left."""
    max_trials: int | None = None
    """Trials that this invocation may start."""
    deadline: float | None = None
    """On the clock of `time.monotonic`."""
    objective: str = "objective"
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    every: float = 15.0
    """Seconds between plain lines."""

    def __post_init__(self) -> None:
        self.running: dict[str, int] = {}
        self.stopped = self.failed = self.begun = 0
        self.best, self.best_label = -float("inf"), ""
        self.start = self._shown = time.monotonic()
        self._trained_from: float | None = None
        """When the first trial began to train: what Ray takes to start is no part of a rate."""
        self.ended_here = 0

    def enough(self) -> bool:
        if self.max_trials is not None and self.begun >= self.max_trials:
            return True
        return self.deadline is not None and time.monotonic() >= self.deadline

    def started(self, live: Live) -> None:
        self.begun += 1
        self.running[live.planned.hash] = 0
        self._show()

    def reported(self, live: Live) -> None:
        if self._trained_from is None and "seconds" in live.last:
            self._trained_from = max(self.start, time.monotonic() - live.last["seconds"])
        self.running[live.planned.hash] = live.last.get("epoch", 0)
        self._remember(live)
        self._show()

    def ended(self, live: Live, how: str) -> None:
        self.running.pop(live.planned.hash, None)
        if how in _AGAIN:
            self.begun -= 1
        else:
            self.ended_here += 1
            self.done += how == "done"
            self.stopped += how == "stopped"
            self.failed += how == "failed"
        self._remember(live)
        if how == "failed" or how in _AGAIN:
            words = _AGAIN.get(how, how)
            self.say(f"{live.planned.label}, seed {live.planned.trial.seed}: {words}. {_why(live)}")
        self._show()

    def _remember(self, live: Live) -> None:
        value = live.last.get("best")
        if value is not None and value > self.best:
            self.best, self.best_label = value, live.planned.label

    def line(self) -> str:
        """The status in one line."""
        left = self.planned - self.done - self.stopped - self.failed
        words = [f"{self.done}/{self.planned} done", f"{len(self.running)} running"]
        words += [f"{self.stopped} stopped"] * bool(self.stopped)
        words += [f"{self.failed} failed"] * bool(self.failed)
        if self.best_label:
            words.append(f"best {self.objective} {self.best:.4f} ({self.best_label})")
        words.append(self._time_left(left))
        return " | ".join(words)

    def _time_left(self, left: int) -> str:
        seconds = time.monotonic() - (self._trained_from or self.start)
        # Trials under way count for the share of their epochs that is behind them.
        halves = sum(min(epoch / self.epochs, 1.0) for epoch in self.running.values())
        ended = self.ended_here + halves
        if ended < 0.5:
            return "time left: not known yet"
        return f"{duration(seconds / ended * max(left - halves, 0))} left"

    def _show(self) -> None:
        now = time.monotonic()
        live = self.stream.isatty()
        if now - self._shown < (0.2 if live else self.every):
            return
        self._shown = now
        if live:
            self.stream.write(f"\r\x1b[2K{self.line()}")
        else:
            self.stream.write(f"{self.line()}\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        prefix = "\r\x1b[2K" if self.stream.isatty() else ""
        self.stream.write(f"{prefix}{text}\n")
        self.stream.flush()

    def close(self) -> None:
        """The last word."""
        self.say(f"{self.line()} | took {duration(time.monotonic() - self.start)}")


def _why(live: Live) -> str:
    return live.last.get("error", "The worker died.")


def duration(seconds: float) -> str:
    """`90 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
