"""A made-up study whose answer is known: what the report must show can be worked out by hand.

The true objective is a bump in log10(alpha / tau) around -1, less a fall beyond 10; alpha = 0 lies
below the bump. Validation is the truth plus noise of a seed and of a trial; test likewise.
"""

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from mmrec.stats import Verdict
from mmrec.study.tables import StudyTables
from mmrec.study.views import CellForest, HeatMap, MainEffects, Measures, RatioCurve, View

ALPHAS = (0.001, 0.01, 0.1, 1.0)
TAUS = (0.01, 0.03, 0.1, 0.3, 1.0)
VIEWS: tuple[View, ...] = (
    HeatMap(x="model.tau", y="model.alpha"),
    RatioCurve("model.alpha", "model.tau"),
    Measures(("mean_cosine", "effective_rank", "modality_gap"), ("model.alpha", "model.tau")),
    MainEffects(("model.alpha", "model.tau")),
    CellForest(),
)


class Said:
    """A claim, as far as a report needs it."""

    def __init__(
        self, text: str, source: str = "Some paper, fig. 3", topic: str = "", arm: str = ""
    ):
        self.text, self.source, self.topic, self.arm = text, source, topic, arm


CLAIMS = (
    (
        Said("A contrastive weight above 0 beats alpha = 0", "RecSys 2024, fig. 4"),
        Verdict(
            "supported", 0.0212, 0.0731, 0.0148, 0.0276, 2e-5, 8e-5, 0.0109, 0.0315, 0.008, 5,
            "ndcg@10", "alpha=0.01 tau=0.1 (best of 20 by validation) against alpha=0;"
            " interval at 98.8 %",
        ),
    ),
    (
        Said("NDCG depends on (alpha, tau) mainly through alpha / tau"),
        Verdict(
            "supported", 0.913, low=0.871, high=0.944, p=3e-4, p_corrected=9e-4, n=5,
            unit="share of variance", detail="20 cells; interval at 98.3 %",
        ),
    ),
    (
        Said("Beyond alpha / tau = 10 the embeddings collapse"),
        Verdict(
            "not separable", -0.0101, -0.031, -0.0254, 0.0052, 0.11, 0.22, -0.02, 0.001, 0.0187, 5,
            "ndcg@10", "interval at 97.5 %",
        ),
    ),
    (Said("It holds for cold items too"), Verdict("not tested", detail="no cold split")),
)  # fmt: skip


def truth(alpha: float, tau: float) -> float:
    """The true objective of a cell."""
    if alpha == 0:
        return 0.29
    place = math.log10(alpha / tau)
    return 0.29 + 0.025 * math.exp(-((place + 1) ** 2)) - 0.05 * max(0.0, place - 1)


def run_facts(**changes: Any) -> dict[str, Any]:
    """What `run.json` holds."""
    facts = {
        "study": "alpha_tau",
        "question": "How do contrastive weight and temperature change a single-branch model?",
        "objective": "ndcg@10",
        "kind": "grid",
        "dataset": {
            "name": "planted",
            "digest": "0123456789abcdef",
            "num_users": 800,
            "num_items": 500,
            "interactions": {"train": 20000, "valid": 2500, "test": 2500},
            "modalities": {"image": "dense 500 x 32", "text": "dense 500 x 48, 12 missing"},
            "split": "random",
            "notes": ["text: 12 rows missing"],
        },
        "protocol": {"name": "masked", "text": "full ranking, train and valid masked at test"},
        "seeds": [0, 1, 2, 3, 4],
        "planned": 0,
        "selected": None,
        "command": "python studies/alpha_tau.py",
        "created": "2025-03-01T12:00:00+00:00",
        "git_commit": "8f3c2ab91d0e",
        "git_dirty": False,
        "versions": {"mmrec": "0.1.0", "torch": "2.13.0", "ray": "2.60.0", "optuna": "5.0.0"},
        "hardware": ["Xeon, 2 cores"],
        "smoke": False,
        "out": "runs/alpha_tau/planted-01234567",
    }
    return {**facts, **changes}


def trial(number: int, label: str, seed: int, score: float, **more: Any) -> dict[str, Any]:
    """One finished trial; `more` changes it."""
    start = 1_740_000_000 + 30.0 * (number // 2)
    row = {
        "hash": f"{number:016x}",
        "cell": label,
        "label": label,
        "phase": "grid",
        "attempt": 1,
        "state": "done",
        "seed": seed,
        "condition": "baseline",
        "model": "SiBraR",
        "best_epoch": 30,
        "epochs": 40,
        "epoch_cap": 50,
        "seconds": 28.0 + number % 5,
        "host": "node-1",
        "device": "cpu",
        "threads": 1,
        "started": start,
        "ended": start + 28.0 + number % 5,
        "error": "",
        "config": json.dumps({"label": label, "seed": seed}),
        "cpus": 1.0,
        "gpus": 0.0,
        "valid.ndcg@10": score + 0.004,
        "test.ndcg@10": score,
        "test.recall@10": 2 * score,
    }
    return {**row, **more}


def without_score(row: dict[str, Any], state: str, **more: Any) -> dict[str, Any]:
    """The same trial had it not come to its end."""
    scores = {k: math.nan for k in row if k.startswith(("valid.", "test.", "measure."))}
    return {**row, **scores, "state": state, **more}


def grid(seeds: int = 5, noise: float = 0.003, **facts: Any) -> StudyTables:
    """5 x 4 grid, alpha = 0 and a control; one cell fails wholly, a few trials are not done."""
    rng = np.random.default_rng(7)
    luck = rng.normal(0, noise, seeds)
    points = [(0.0, 0.2), *((a, t) for a in ALPHAS for t in TAUS)]
    rows = []
    for seed in range(seeds):
        for alpha, tau in points:
            label = "alpha=0" if alpha == 0 else f"alpha={alpha:g} tau={tau:g}"
            score = truth(alpha, tau) + luck[seed] + rng.normal(0, noise)
            place = math.log10(alpha / tau) if alpha else -3.0
            row = trial(len(rows), label, seed, score)
            row |= {"model.alpha": alpha, "model.tau": tau}
            row["measure.mean_cosine"] = (
                0.1 + 0.8 / (1 + math.exp(-2 * place)) + rng.normal(0, 0.01)
            )
            row["measure.effective_rank"] = 60 - 18 * place + rng.normal(0, 1)
            row["measure.modality_gap"] = 0.8 - 0.1 * place + rng.normal(0, 0.02)
            rows.append(_unlucky(row, alpha, tau, seed))
        rows.append(
            trial(len(rows), "BPR-MF", seed, 0.262 + luck[seed], phase="control", model="Bpr")
        )
    trials = pd.DataFrame(rows)
    facts = {"planned": len(rows), "selected": "alpha=0.01 tau=0.1", **facts}
    return StudyTables(run_facts(**facts), trials, curves(trials), CLAIMS, VIEWS)


def _unlucky(row: dict[str, Any], alpha: float, tau: float, seed: int) -> dict[str, Any]:
    if (alpha, tau) == (1.0, 0.01):
        error = "Traceback ...\nFloatingPointError: epoch 3: infonce is nan"
        return without_score(row, "failed", epochs=3, seconds=4.0, error=error)
    if (alpha, tau) == (0.1, 0.03) and seed > 2:
        return without_score(row, "planned", seconds=math.nan, epochs=math.nan, started=math.nan)
    if (alpha, tau) == (1.0, 0.03):
        valid = row["valid.ndcg@10"]
        return without_score(row, "stopped", epochs=12, seconds=9.0) | {"valid.ndcg@10": valid}
    if (alpha, tau) == (0.001, 1.0):
        return {**row, "best_epoch": 49, "epochs": 50}
    return row


def search(trials: int = 60, seeds: int = 5, **facts: Any) -> StudyTables:
    """A search over log alpha and log tau, thinned by ASHA, and a confirmation of two cells."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(trials):
        alpha, tau = 10 ** rng.uniform(-3, 0), 10 ** rng.uniform(-2, 0)
        row = trial(number, f"alpha={alpha:.4g} tau={tau:.4g}", 0, 0.0, phase="search")
        score = truth(alpha, tau) + rng.normal(0, 0.003)
        row |= {"model.alpha": alpha, "model.tau": tau, "valid.ndcg@10": score}
        if number % 3:
            row = without_score(row, "stopped", epochs=10, seconds=7.0)
            row["valid.ndcg@10"] = score - 0.02
        else:
            row["test.ndcg@10"] = score - 0.004
        row["measure.effective_rank"] = 60 - 18 * math.log10(alpha / tau)
        rows.append(row)
    for label, alpha, tau in (("alpha=0.0102 tau=0.11", 0.0102, 0.11), ("alpha=0", 0.0, 0.2)):
        for seed in range(seeds):
            score = truth(alpha, tau) + rng.normal(0, 0.003)
            row = trial(len(rows), label, seed, score, phase="confirm")
            rows.append(row | {"model.alpha": alpha, "model.tau": tau})
    frame = pd.DataFrame(rows)
    facts = {"kind": "search", "planned": len(rows), "selected": "alpha=0.0102 tau=0.11", **facts}
    return StudyTables(run_facts(**facts), frame, curves(frame), CLAIMS[:1], VIEWS)


def curves(trials: pd.DataFrame) -> pd.DataFrame:
    """Saturating learning curves that end where each trial's validation score says."""
    parts = []
    for row in trials[trials["epochs"].notna()].to_dict("records"):
        epoch = np.arange(1, int(row["epochs"]) + 1)
        top = row["valid.ndcg@10"] if math.isfinite(row["valid.ndcg@10"]) else 0.2
        value = top * (1 - np.exp(-epoch / 6)) / (1 - np.exp(-int(row["epochs"]) / 6))
        parts.append(
            pd.DataFrame(
                {"hash": row["hash"], "epoch": epoch, "seconds": 0.7, "valid.ndcg@10": value}
            )
        )
    return pd.concat(parts, ignore_index=True)
