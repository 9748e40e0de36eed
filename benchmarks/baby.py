"""BPR-MF and LightGCN on real Amazon Baby interactions, to the end, beside the MMRec toolbox.

    python benchmarks/baby.py bpr --data-root DATA --out benchmarks/results
    python benchmarks/baby.py lightgcn --data-root DATA --out benchmarks/results

Protocol `mmrec` (only training items hidden at test), validation R@20, patience 20, as the toolbox.
The recorded curve is what `tests/test_baby.py` compares its first epochs with.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmrec.data.sources import load
from mmrec.evaluation import PROTOCOLS
from mmrec.models.bpr import BPR
from mmrec.models.lightgcn import LightGCN
from mmrec.study.provenance import hardware, now, versions
from mmrec.training import Run, RunConfig, TrainConfig, fit

TRAIN = TrainConfig(epochs=1000, patience=20)
RUNS = {
    "bpr": RunConfig(model=BPR(reg_weight=0.1), train=TRAIN, objective="recall@20"),
    "lightgcn": RunConfig(
        model=LightGCN(layers=2, reg_weight=1e-3), train=TRAIN, objective="recall@20"
    ),
}
TARGETS = {
    "bpr": {"recall@20": (0.0575, 0.0010), "ndcg@20": (0.0249, 0.0005)},
    "lightgcn": {"recall@20": (0.0728, 0.0015)},
}
"""The toolbox's own test figures, seed 999, and how far from them other draws may come."""


def curve(
    name: str, data_root: Path | None, seed: int, epochs: int | None = None
) -> dict[str, Any]:
    """Train to the natural end (or `epochs`) and return curve, test metrics and times."""
    cfg = RUNS[name]
    if epochs is not None:
        cfg = replace(cfg, train=replace(cfg.train, epochs=epochs))
    run = Run(cfg, load("baby", data_root=data_root), seed=seed, protocol=PROTOCOLS["mmrec"])
    start = time.perf_counter()
    valid = [report.valid["recall@20"] for report in fit(run)]
    seconds = time.perf_counter() - start
    test = run.score_test().metrics
    return {
        "model": name,
        "dataset": run.data.digest,
        "seed": seed,
        "best_epoch": run.best_epoch,
        "epochs": run.epoch,
        "seconds": round(seconds, 1),
        "test": test,
        "valid_recall@20": valid,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=RUNS)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    runs = []
    for seed in arguments.seeds:
        runs.append(curve(arguments.model, arguments.data_root, seed))
        test = {metric: round(runs[-1]["test"][metric], 4) for metric in TARGETS[arguments.model]}
        print(f"seed {seed}: {test}, best epoch {runs[-1]['best_epoch']}, {runs[-1]['seconds']} s")
    for metric, (target, tolerance) in TARGETS[arguments.model].items():
        values = [run["test"][metric] for run in runs]
        value = statistics.mean(values)
        met = "met" if abs(value - target) <= tolerance else "not met"
        spread = f"{min(values):.4f} to {max(values):.4f}"
        print(f"test {metric}: mean {value:.4f} ({spread}), toolbox {target} +- {tolerance}: {met}")
    provenance = {"date": now(), "hardware": hardware(), "versions": versions()}
    file = arguments.out / f"baby-{arguments.model}.json"
    file.write_text(json.dumps({**provenance, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
