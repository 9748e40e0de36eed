"""A study of thousands of trials that do nothing: what a trial costs as their number grows.

    python benchmarks/scheduler.py
    python benchmarks/scheduler.py --trials 1000 --keep /tmp/many
    python benchmarks/scheduler.py --suggestions 1000

Trivial: BPR-MF of width 2 for one epoch on four hundred planted users. Two factors, five seeds and
two claims; Ray on this machine, a ledger in SQLite. The study runs in a process of its own and is
watched from outside, so that what is timed is what a user runs.

Printed for every 250 trials that ended: wall milliseconds a trial and, since other work on the
machine stretches those, CPU milliseconds of the driver and of Ray's processes; the driver's memory
and the ledger's size. Then what is done once at the end: opening the ledger and reading its rows,
and the report, built again by another process. `--suggestions` times Optuna alone: the next point
of TPE in a ledger of that many trials.
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from mmrec.models.bpr import BPR
from mmrec.study.claims import Better, Claim, Where
from mmrec.study.memory import resident
from mmrec.study.provenance import hardware, now, versions
from mmrec.study.ranges import Range
from mmrec.study.shapes import BestLevel
from mmrec.study.study import Factor, Study
from mmrec.training import RunConfig, TrainConfig

BLOCK = 250
"""Trials of one point of the curve."""
EVERY = 1.0
"""Seconds between two looks at the driver."""
SEEDS, WIDE = 5, 25
REG, LR = "model.reg_weight", "train.lr"
RANGES = {REG: Range(1e-4, 1.0, log=True), LR: Range(1e-4, 1e-1, log=True)}
MOST_MIB, MOST_SECONDS = 1536, 20
"""What the driver's memory and the building of the report may come to."""


def study(trials: int) -> Study:
    """A grid of 25 levels by as many as make up so many trials."""
    high = max(1, round(trials / SEEDS / WIDE))
    rates = tuple(round(1e-3 + i / 1000, 4) for i in range(high))
    return Study(
        name="scheduler",
        question="What does a trial cost that does nothing?",
        base=RunConfig(model=BPR(dim=2), train=TrainConfig(epochs=1)),
        factors=(Factor(REG, tuple(i / 1000 for i in range(WIDE))), Factor(LR, rates)),
        seeds=SEEDS,
        claims=(
            Claim("The regulariser helps", "", Better(Where({REG: "> 0"}), than=Where({REG: 0.0}))),
            Claim("A regulariser of 0.01 is best", "", BestLevel(REG, 0.01)),
        ),
    )


# --- in processes of their own


def serve(trials: int, out: str) -> None:
    """Run the study as a command line would."""
    from mmrec.tune.driver import run_study
    from mmrec.tune.job import Job, Options

    options = Options(dataset="planted", out=out, address="local")
    print(run_study(Job(study(trials), options)).report)


def build_report(trials: int, folder: str) -> None:
    """Build the report again from the run folder; seconds of each part, and the peak of memory.

    `cpu` is that of the whole process, with what it imports.
    """
    from mmrec.reports.publish import publish
    from mmrec.study import finish
    from mmrec.study.collect import rows_of
    from mmrec.study.store import Folder
    from mmrec.tune.job import open_ledger

    run = Folder.at(folder)
    manifest = json.loads(run.read("run.json"))
    marks = [time.perf_counter()]
    ledger = open_ledger(run, None, manifest["ledger"])
    rows_of(ledger)
    marks.append(time.perf_counter())
    tables = finish.tables_of(study(trials), ledger, run, manifest)
    marks.append(time.perf_counter())
    page = publish(tables, run)
    marks.append(time.perf_counter())
    reading, laying, writing = np.diff(marks).tolist()
    (peak,) = resident("VmHWM")
    found = {"read_ledger": reading, "tables": laying, "page": writing, "peak_mib": peak}
    found |= {"cpu": time.process_time(), "page_mb": Path(page).stat().st_size / 1e6}
    print(json.dumps(found))


def child(*words: str | int | Path, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.Popen(command, text=True, **options)


# --- from outside


class Watcher:
    """Looks at a driver once a second."""

    def __init__(self, pid: int, out: Path) -> None:
        self.process, self.out = psutil.Process(pid), out
        self.begun = time.perf_counter()
        self.samples: list[tuple[float, ...]] = []
        self.lines: list[float] = []
        """When each line of the status came."""

    def listen(self, stream: Any) -> None:
        """Pass on what the driver says."""
        for line in stream:
            self.lines.append(time.perf_counter() - self.begun)
            sys.stderr.write(line)

    def look(self) -> None:
        found = list(self.out.glob("*/*/ledger.db"))
        ended = _ended(found[0]) if found else 0
        ray = sum(_cpu(process) for process in self.process.children(recursive=True))
        size = sum(file.stat().st_size for file in self.out.glob("*/*/ledger.db*")) / 1e6
        rss = self.process.memory_info().rss / 2**20
        wall = time.perf_counter() - self.begun
        cpu, load = _cpu(self.process), os.getloadavg()[0]
        self.samples.append((ended, wall, cpu, ray, rss, size, load))

    def curve(self) -> list[dict[str, float]]:
        """One entry a block of trials: what a trial of it cost, and how things stood at its end."""
        ended, wall, driver, ray, rss, size, _ = np.array(self.samples).T
        ray = np.maximum.accumulate(ray)  # its processes are gone before the driver is
        at = np.append(np.arange(0, ended.max(), BLOCK), ended.max())
        # Of equal counts the first sample; of none the last, as workers begin before a trial ends.
        some = np.unique(ended, return_index=True)[1]
        some[0] = np.flatnonzero(ended == 0)[-1]
        at_ends = [np.interp(at, ended[some], values[some]) for values in (wall, driver, ray)]
        each_ms = [1000 * np.diff(values) / np.diff(at) for values in at_ends]
        levels = [np.interp(at[1:], ended[some], values[some]) for values in (rss, size)]
        names = ("wall_ms", "driver_cpu_ms", "ray_cpu_ms", "rss_mib", "ledger_mb")
        rows = zip(at[1:], at_ends[0][1:], *each_ms, *levels, strict=True)
        return [
            {"ended": int(n), "seconds": round(s, 1)}
            | {name: round(float(v), 2) for name, v in zip(names, values, strict=True)}
            for n, s, *values in rows
        ]


def _ended(ledger: Path) -> int:
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=5) as database:
            (count,) = database.execute(
                "select count(*) from trials where state in ('COMPLETE', 'PRUNED', 'FAIL')"
            ).fetchone()
    except sqlite3.OperationalError:
        return 0  # its tables are being made
    return count


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def watched(trials: int, out: Path) -> tuple[Watcher, str]:
    """Run the study to its end; what was seen, and the page's address."""
    with child("--serve", out, "--trials", trials, stdout=-1, stderr=-1) as driver:
        watcher = Watcher(driver.pid, out)
        listener = threading.Thread(target=watcher.listen, args=(driver.stderr,))
        listener.start()
        while driver.poll() is None:
            try:
                watcher.look()
            except psutil.NoSuchProcess:
                break
            time.sleep(EVERY)
        listener.join()
        if driver.wait() != 0 or driver.stdout is None:
            raise RuntimeError(f"the study ended with {driver.returncode}")
        return watcher, driver.stdout.read().strip()


def measure(trials: int, out: Path) -> dict[str, Any]:
    """Everything about one study of so many trials."""
    watcher, page = watched(trials, out)
    curve = watcher.curve()
    with child("--report", Path(page).parents[1], "--trials", trials, stdout=-1) as builder:
        text = builder.communicate()[0]
    if builder.returncode != 0:
        raise RuntimeError(f"the report ended with {builder.returncode}")
    gaps = np.diff([line for line in watcher.lines if line < curve[-1]["seconds"]])
    return {
        "trials": curve[-1]["ended"],
        "seconds": round(watcher.samples[-1][1], 1),
        "curve": curve,
        "driver_peak_mib": round(max(sample[4] for sample in watcher.samples)),
        "status_line_longest_gap": round(float(gaps.max(initial=0)), 1),
        "report": {name: round(value, 2) for name, value in json.loads(text).items()},
        "median_load": statistics.median(sample[-1] for sample in watcher.samples),
    }


# --- Optuna alone


def suggestions(count: int, out: Path) -> list[dict[str, float]]:
    """Milliseconds of the ledger's `ask`, and of all else that a suggestion writes, by blocks."""
    from mmrec.study.ledger import Ledger
    from mmrec.tune.job import Job, Options

    job = Job(study(SEEDS * WIDE), Options(dataset="planted", out=str(out)))
    ledger = Ledger(f"sqlite:///{out / 'ledger.db'}", "x")
    draws = np.random.default_rng(0)
    asked: list[tuple[float, float]] = []
    for _ in range(count):
        start = time.process_time()
        row = ledger.ask(RANGES, sampler_seed=0)
        middle = time.process_time()
        ledger.describe(row, job.planned_at(row.params), attempt=1)
        row.report(0.5, 1)
        ledger.finish(row, draws.uniform(), {"seconds": 1.0}, stopped=False)
        asked.append((1000 * (middle - start), 1000 * (time.process_time() - middle)))
    blocks = range(0, count, BLOCK)
    medians = [
        [statistics.median(values) for values in zip(*asked[b : b + BLOCK], strict=True)]
        for b in blocks
    ]
    return [
        {"asked": min(b + BLOCK, count), "ask_cpu_ms": round(ask, 2), "rest_cpu_ms": round(rest, 2)}
        for b, (ask, rest) in zip(blocks, medians, strict=True)
    ]


def show(rows: list[dict[str, float]]) -> None:
    print("".join(f"{name:>15}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:>15,}" for value in row.values()), flush=True)


def tell(found: dict[str, Any]) -> None:
    """The curve and whether the targets are met."""
    show(found["curve"])
    first, last = found["curve"][0], found["curve"][-1]
    report = found["report"]
    seconds = sum(report[name] for name in ("read_ledger", "tables", "page"))
    growth = last["driver_cpu_ms"] / first["driver_cpu_ms"]
    print(f"driver's CPU a trial, last block against first: {growth:.2f} times")
    print(f"driver's memory at most {found['driver_peak_mib']} MiB (target {MOST_MIB})")
    print(f"report {seconds:.1f} s (target {MOST_SECONDS}): {report}")
    print(f"status line: at most {found['status_line_longest_gap']} s apart (15 s meant)")
    print(f"median load of the machine {found['median_load']}: wall times are stretched by it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--suggestions", type=int, help="time TPE alone")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--keep", type=Path, help="where the study's run folder stays")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--report", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.trials, arguments.serve)
        return
    if arguments.report:
        build_report(arguments.trials, arguments.report)
        return
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.suggestions:
            found = {"curve": suggestions(arguments.suggestions, Path(scratch))}
            show(found["curve"])
        else:
            found = measure(arguments.trials, arguments.keep or Path(scratch))
            tell(found)
    path = arguments.out / "scheduler.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    about = {"date": now(), "hardware": hardware(), "versions": versions()}
    result["suggestions" if arguments.suggestions else "planned"] = about | found
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
