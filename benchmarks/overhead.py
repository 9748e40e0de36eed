"""What the machinery costs: seconds a trivial trial, and from the command to the first epoch.

    python benchmarks/overhead.py

Trivial: BPR-MF of width 2 for one epoch on a hundred users; what it trains is subtracted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmrec.models.bpr import BPR
from mmrec.study.provenance import hardware, now, versions
from mmrec.study.study import Factor, Study
from mmrec.training import RunConfig, TrainConfig

LEVELS = tuple(i / 1000 for i in range(25))
STUDY = Study(
    name="overhead",
    question="What does a trial cost that does nothing?",
    base=RunConfig(model=BPR(dim=2), train=TrainConfig(epochs=1)),
    factors=(Factor("model.reg_weight", LEVELS),),
    seeds=4,
)


def per_trial(out: Path) -> tuple[float, float, int]:
    """Seconds a trial in steady state, of which training, and the number of trials."""
    from mmrec.study.collect import rows_of
    from mmrec.tune.job import Job, Options
    from mmrec.tune.rounds import Rounds

    job = Job(STUDY, Options(dataset="planted", out=str(out)))
    ledger = job.open_ledger()
    plan = job.grid_plan()
    with Rounds(job, ledger) as rounds:
        rounds.run_planned(plan[:4])  # starts the workers' first processes
        start = time.perf_counter()
        rounds.run_planned(plan)
        seconds = time.perf_counter() - start
    done = [row for row in rows_of(ledger).values() if row.state == "done"]
    count = len(plan) - 4
    training = sum(row.seconds for row in done) * count / len(done) / rounds.slots
    return seconds / count, training / count, count


def first_epoch(out: Path) -> float:
    """Seconds from the command to the end of a first trial of three epochs on disk."""
    root = Path(__file__).parents[1]
    start = time.perf_counter()
    driver = subprocess.Popen(
        [sys.executable, str(root / "studies/alpha_tau.py"), "--smoke", "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any(out.glob("*/*/trials/*/epochs.parquet")):
        if driver.poll() not in (None, 0):
            raise RuntimeError(f"the study ended with {driver.returncode}")
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    driver.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        first = first_epoch(Path(scratch) / "first")
        seconds, training, count = per_trial(Path(scratch) / "trials")
    overhead = seconds - training
    result = {
        "date": now(),
        "hardware": hardware(),
        "versions": versions(),
        "trials": count,
        "seconds_per_trial": round(seconds, 3),
        "of_which_training": round(training, 3),
        "overhead_per_trial": round(overhead, 3),
        "command_to_first_epochs": round(first, 1),
    }
    print(f"overhead a trivial trial: {overhead:.3f} s (target 0.3), over {count} trials")
    print(f"from the command to three epochs of a first trial: {first:.1f} s (target 12)")
    (arguments.out / "overhead.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
