"""What is shown of a study under way."""

import io
from types import SimpleNamespace
from typing import Any

import pytest

from tests.study.fabricated import plan


class Screen(io.StringIO):
    def __init__(self, *, live: bool) -> None:
        super().__init__()
        self.live = live

    def isatty(self) -> bool:
        return self.live


class Clock:
    """Instead of `time`: seconds as told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    from mmrec.tune import status

    clock = Clock()
    monkeypatch.setattr(status, "time", clock)
    return clock


def shown(*, live: bool = False, **given: Any) -> tuple[Any, Screen]:
    from mmrec.tune.status import Status

    screen = Screen(live=live)
    known = {"planned": 10, "done": 2, "epochs": 20, "objective": "ndcg@10", "stream": screen}
    return Status(**{**known, **given}), screen


def lives(count: int) -> list[Any]:
    """Trials in a worker's hands, as the searcher knows them."""
    from mmrec.tune.live import Live

    return [Live(planned, 1, SimpleNamespace()) for planned in plan(2)[:count]]  # type: ignore[arg-type]


def end(status: Any, live: Any, how: str, **last: Any) -> None:
    live.last = last
    status.ended(live, how)


def test_the_line_counts_every_trial_once(clock):
    status, _ = shown()
    assert status.line() == "2/10 done | 0 running | time left: not known yet"
    a, b, c, d, e = lives(5)
    for live in (a, b, c, d, e):
        status.started(live)
    end(status, a, "done", best=0.25)
    end(status, b, "stopped", best=0.5)
    end(status, c, "failed", error="a NaN")
    end(status, d, "retried")
    clock.now += 30
    assert status.line() == (
        f"3/10 done | 1 running | 1 stopped | 1 failed | best ndcg@10 0.5000"
        f" ({b.planned.label}) | 50 s left"
    )  # 3 trials in 30 s, 5 to go
    assert (status.done, status.stopped, status.failed, status.begun) == (3, 1, 1, 4)


def test_trials_under_way_count_by_their_epochs(clock):
    status, _ = shown(planned=4, done=0)
    a, b = lives(2)
    status.started(a)
    status.started(b)
    for live, epoch in ((a, 15), (b, 5)):
        live.last = {"epoch": epoch, "best": 0.1}
        status.reported(live)
    clock.now += 60
    # One trial's worth of 20 epochs in 60 s: three more.
    assert status.line().endswith("| 180 s left") or status.line().endswith("| 3 min left")


def test_the_start_of_ray_is_no_part_of_the_time_left(clock):
    status, _ = shown(planned=101, done=0)
    (live,) = lives(1)
    status.started(live)
    clock.now += 30  # of which the trial trained the last second
    live.last = {"epoch": 20, "best": 0.1, "seconds": 1.0}
    status.reported(live)
    status.ended(live, "done")
    assert status.line().endswith("| 100 s left")


def test_a_worse_trial_does_not_replace_the_best(clock):
    status, _ = shown()
    a, b = lives(2)
    for live, best in ((a, 0.5), (b, 0.25)):
        live.last = {"epoch": 1, "best": best}
        status.reported(live)
    assert f"best ndcg@10 0.5000 ({a.planned.label})" in status.line()


def test_the_budget_of_trials_counts_those_started_and_not_those_retried(clock):
    status, _ = shown(max_trials=2)
    a, b = lives(2)
    status.started(a)
    assert not status.enough()
    status.started(b)
    assert status.enough()
    end(status, b, "retried")
    assert not status.enough()
    status.started(b)
    assert status.enough()
    assert shown(max_trials=0)[0].enough()
    assert not shown()[0].enough()


def test_the_budget_of_time_ends_at_its_deadline(clock):
    status, _ = shown(deadline=clock.now + 3600)
    clock.now += 3599
    assert not status.enough()
    clock.now += 1
    assert status.enough()


def test_a_log_gets_a_line_now_and_then(clock):
    status, screen = shown(every=15.0)
    (live,) = lives(1)
    status.started(live)
    for epoch in range(1, 61):
        clock.now += 1
        live.last = {"epoch": epoch % 20, "best": 0.1}
        status.reported(live)
    lines = screen.getvalue().splitlines()
    assert len(lines) == 4
    assert all(line.startswith("2/10 done | 1 running") for line in lines)
    assert "\r" not in screen.getvalue()
    assert "\x1b" not in screen.getvalue()


def test_a_terminal_gets_one_line_that_is_written_over(clock):
    status, screen = shown(live=True)
    (live,) = lives(1)
    for _ in range(10):
        clock.now += 0.125
        status.started(live)
    text = screen.getvalue()
    assert "\n" not in text
    assert text.count("\r\x1b[2K2/10 done") == 5  # at most five a second


def test_a_failure_is_said_at_once_with_its_reason(clock):
    status, screen = shown()
    a, b = lives(2)
    end(status, a, "failed", error="FloatingPointError: epoch 3")
    end(status, b, "retried")
    first, second = screen.getvalue().splitlines()
    assert first == f"{a.planned.label}, seed 0: failed. FloatingPointError: epoch 3"
    assert second == f"{b.planned.label}, seed 0: retried. The worker died."


def test_the_last_word_says_how_long_it_took(clock):
    status, screen = shown(planned=2, done=2)
    clock.now += 600
    status.close()
    assert screen.getvalue().rstrip().endswith("| took 10 min")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2.0 h"),
        (9e4, "25.0 h"),
    ],
)
def test_durations_are_said_in_the_unit_that_fits(seconds, said):
    from mmrec.tune.status import duration

    assert duration(seconds) == said
