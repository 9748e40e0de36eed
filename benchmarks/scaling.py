"""Trials a minute with one worker node and with two, of one core each, in one run.

    sudo python -m benchmarks.scaling

On the hosts of the cluster lab (tests/cluster/lab.py): the same study with one worker, with two,
and with two of which one was cut off its power and came back. Rates are between a study's first
end of a trial and its last, so that the start of workers is not part of them; efficiency is the
rate of two over twice the rate of one. Head, driver and workers share this machine's cores, which
should be more than two: what the driver takes is missing to the workers otherwise.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from mmrec.study.provenance import hardware, now, versions
from tests.cluster.lab import SHARED, TREE, WORKERS, Lab, finish, why_not
from tests.cluster.on_prem import OnPrem
from tests.e2e.conftest import run_folder, trials

SCRIPT = Path("tests/e2e/mini.py")


def rate(table: pd.DataFrame) -> float:
    """Trials a minute, between the first end and the last."""
    ends = table["ended"]  # in seconds
    return 60 * (len(ends) - 1) / (ends.max() - ends.min())


def measured(cluster: OnPrem, name: str, words: list[str]) -> dict[str, float]:
    """One run of the study on what the cluster has now."""
    out = SHARED / name
    start = time.monotonic()
    finish(cluster.submit(str(TREE / SCRIPT), "--out", str(out), *words), timeout=1800)
    seconds = time.monotonic() - start
    table = trials(run_folder(cluster.lab.shared / name))
    if set(table["state"]) != {"done"}:
        raise RuntimeError(f"{name}: {table['state'].value_counts().to_dict()}")
    found = {
        "trials": len(table),
        "hosts": table["host"].nunique(),
        "trials_a_minute": round(rate(table), 2),
        "seconds_of_training_a_trial": round(float(table["seconds"].mean()), 2),
        "seconds_in_all": round(seconds, 1),
    }
    print(name, found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12, help="three trials each")
    parser.add_argument("--epochs", type=int, default=150, help="of a trial")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scaling.json"))
    arguments = parser.parse_args()
    reason = why_not()
    if reason:
        sys.exit(f"no lab here: {reason}")
    words = ["--seeds", str(arguments.seeds), "--epochs", str(arguments.epochs)]
    with (
        tempfile.TemporaryDirectory(prefix="mmrec-scaling-") as scratch,
        Lab(Path(scratch) / "lab") as lab,
    ):
        cluster = OnPrem(lab)
        cluster.up()
        two = measured(cluster, "two", words)
        lab.kill(WORKERS[1])
        lab.revive(WORKERS[1])
        start = time.monotonic()
        cluster.wait_for_nodes(2)  # until the head has noticed
        cluster.wait_for_nodes(3)
        back = time.monotonic() - start
        replaced = measured(cluster, "replaced", words)
        lab.kill(WORKERS[1])
        cluster.wait_for_nodes(2)
        one = measured(cluster, "one", words)
    result = {
        "date": now(),
        "hardware": hardware(),
        "versions": versions(),
        "load_before": os.getloadavg()[0],
        "one_worker": one,
        "two_workers": two,
        "two_workers_one_replaced": replaced,
        "seconds_until_a_replaced_node_had_joined": round(back, 1),
        "efficiency": _efficiency(two, one),
        "efficiency_one_replaced": _efficiency(replaced, one),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def _efficiency(two: dict[str, float], one: dict[str, float]) -> float:
    return round(two["trials_a_minute"] / (2 * one["trials_a_minute"]), 3)


if __name__ == "__main__":
    main()
