"""BPR-MF and LightGCN on real Amazon Baby interactions, to the end, beside the MMRec toolbox.

    python benchmarks/baby.py bpr --data-root DATA --out benchmarks/results
    python benchmarks/baby.py lightgcn --data-root DATA --out benchmarks/results

Protocol `mmrec` (only training items hidden at test), validation R@20, patience 20, as the toolbox.
The recorded curve is what `tests/test_baby.py` compares its first epochs with.
"""

import argparse
import json
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
    parser.add_argument("--seed", type=int, default=999)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    result = curve(arguments.model, arguments.data_root, arguments.seed)
    for metric, (target, tolerance) in TARGETS[arguments.model].items():
        value = result["test"][metric]
        met = "met" if abs(value - target) <= tolerance else "not met"
        print(f"test {metric} {value:.4f}, toolbox {target:.4f} +- {tolerance:.4f}: {met}")
    print(f"best epoch {result['best_epoch']} of {result['epochs']}, {result['seconds']} s")
    provenance = {"date": now(), "hardware": hardware(), "versions": versions()}
    file = arguments.out / f"baby-{arguments.model}.json"
    file.write_text(json.dumps({**provenance, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
