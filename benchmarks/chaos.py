"""A study under random kills: is a trial lost, counted twice, or changed?

    sudo python -m benchmarks.chaos --trials 200 --every 15

Three hosts of the cluster lab (tests/cluster/lab.py) run a study; every so many seconds a seeded
choice falls on a worker process (SIGKILL) or a whole worker node (a power cut, switched on again
after a second). The same study runs undisturbed before, on one machine, and both tables are
compared to the last bit.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mmrec.study.ledger import Ledger
from mmrec.study.provenance import hardware, now, versions
from tests.cluster.lab import SHARED, TREE, WORKERS, Lab, why_not
from tests.cluster.on_prem import OnPrem
from tests.e2e.conftest import finish, run_folder, start, trials
from tests.e2e.test_kill import TIMES

SCRIPT = Path("tests/e2e/mini.py")
CELLS = 3
"""Of that study: so many trials a seed."""


@dataclass
class Chaos:
    """Kills something every so many seconds, as its seed says."""

    lab: Lab
    seed: int
    every: float
    nodes: float = 0.3
    """Share of the kills that fall on a whole node."""
    kills: Counter[str] = field(default_factory=Counter)

    def until_done(self, study: subprocess.Popen[str], limit: float) -> str:
        """Kill until the study has ended; what it printed.

        Raises:
            RuntimeError: it did not end well, or not within `limit` seconds.
        """
        rng, end = random.Random(self.seed), time.monotonic() + limit
        while True:
            try:
                output, _ = study.communicate(timeout=self.every)
            except subprocess.TimeoutExpired:
                if time.monotonic() > end:
                    study.kill()
                    raise RuntimeError(f"not done after {limit:.0f} s, {self.kills}") from None
                self._kill(rng)
                continue
            if study.returncode:
                raise RuntimeError(f"the study ended with {study.returncode}:\n{output}")
            return output

    def _kill(self, rng: random.Random) -> None:
        host = rng.choice(WORKERS)
        if rng.random() < self.nodes:
            self.lab.kill(host)
            time.sleep(1.0)
            self.lab.revive(host)
            self.kills["node"] += 1
        else:
            # The workers of a host that is only just back may not be there yet.
            command = "pkill -9 -o -f '[r]ay::ResourceTrainable' && echo one || true"
            found = self.lab.run(host, command)
            self.kills["worker process" if found.strip() else "nobody there"] += 1


def undisturbed(out: Path, words: list[str]) -> pd.DataFrame:
    """The trial table of a run on this machine alone."""
    finish(start("--address", "local", "--out", str(out), *words), timeout=3600)
    return trials(run_folder(out))


def account(folder: Path) -> dict[str, int]:
    """How the ledger's rows add up: attempts, trials done, and done more than once."""
    name = json.loads((folder / "run.json").read_text())["ledger"]
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}", name)
    rows = ledger.studies["grid"].get_trials(deepcopy=False)
    done = Counter(row.user_attrs["hash"] for row in rows if row.state.name == "COMPLETE")
    return {
        "attempts": len(rows),
        "done": len(done),
        "done_twice": sum(count > 1 for count in done.values()),
    }


def differing(table: pd.DataFrame, expected: pd.DataFrame) -> list[str]:
    """Columns in which two tables differ at all; `hash` if they are not of the same trials."""
    if list(table["hash"]) != list(expected["hash"]):
        return ["hash"]
    table, expected = table.reset_index(drop=True), expected.reset_index(drop=True)
    columns = [str(c) for c in expected if c not in TIMES]
    return [c for c in columns if not table[c].equals(expected[c])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=60, help="of a trial")
    parser.add_argument("--every", type=float, default=15.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/chaos.json"))
    arguments = parser.parse_args()
    reason = why_not()
    if reason:
        sys.exit(f"no lab here: {reason}")
    seeds = -(-arguments.trials // CELLS)
    words = ["--seeds", str(seeds), "--epochs", str(arguments.epochs)]
    with tempfile.TemporaryDirectory(prefix="mmrec-chaos-") as scratch:
        begun = time.monotonic()
        expected = undisturbed(Path(scratch) / "undisturbed", words)
        alone = time.monotonic() - begun
        print(f"undisturbed: {len(expected)} trials in {alone:.0f} s", flush=True)
        with Lab(Path(scratch) / "lab") as lab:
            cluster = OnPrem(lab)
            cluster.up()
            begun = time.monotonic()
            study = cluster.submit(str(TREE / SCRIPT), "--out", str(SHARED / "runs"), *words)
            chaos = Chaos(lab, arguments.seed, arguments.every)
            chaos.until_done(study, arguments.limit)
            seconds = time.monotonic() - begun
            folder = run_folder(lab.shared / "runs")
            table, rows = trials(folder), account(folder)
    result = {
        "date": now(),
        "hardware": hardware(),
        "versions": versions(),
        "seed": arguments.seed,
        "every_seconds": arguments.every,
        "planned": len(expected),
        "kills": dict(chaos.kills),
        "seconds_undisturbed_on_one_machine": round(alone),
        "seconds_under_kills": round(seconds),
        "lost": len(set(expected["hash"]) - set(table[table["state"] == "done"]["hash"])),
        **rows,
        "columns_that_differ": differing(table, expected),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    wrong = result["lost"] or rows["done_twice"] or result["columns_that_differ"]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
