"""Made-up studies of arms under conditions: given scores in, so that what is reported is known."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmrec.stats import Paired, Verdict, judge_better
from mmrec.study.tables import StudyTables
from tests.reports.synthetic import Said, curves, run_facts, trial, without_score

Scores = Mapping[tuple[str, str], Sequence[float]]
"""(arm, condition) -> test objective by seed; NaN: the trial failed."""


def facts_of(condition: str) -> dict[str, str]:
    """What a condition's name says of it."""
    if "=" not in condition:
        return {"knocked": "", "filler": "", "when": "train+eval"}
    knocked, _, rest = condition.rpartition("=")
    filler, _, when = rest.partition("@")
    return {
        "knocked": knocked.split(",")[-1],
        "filler": filler.split("#")[0],
        "when": when or "train+eval",
    }


def study(
    scores: Scores,
    more: Callable[[str, str, int, float], Mapping[str, Any]] = lambda *_: {},
    controls: Sequence[str] = (),
    claims: Any = (),
    views: Any = (),
    tuned: Sequence[Mapping[str, Any]] = (),
    **run: Any,
) -> StudyTables:
    """A trial for every score, and a try of tuning for every entry of `tuned` that was not chosen.

    `more` gives further columns of (arm, condition, seed, score).
    """
    rows = []
    for (arm, condition), by_seed in scores.items():
        label = arm if arm in controls else f"{arm} {condition}"
        for seed, score in enumerate(by_seed):
            row = trial(len(rows), label, seed, score, condition=condition, model=arm.split()[0])
            row |= {"arm": arm, **facts_of(condition), **more(arm, condition, seed, score)}
            row["phase"] = "control" if arm in controls else "grid"
            failed = math.isnan(score)
            rows.append(without_score(row, "failed", error="ValueError: no") if failed else row)
    for one in tuned:
        if not one["chosen"]:
            label = f"{one['arm']} tune {one['nth']}"
            value = math.nan if one["valid"] is None else one["valid"]
            row = trial(len(rows), label, 0, math.nan, phase="tune", state=one["state"])
            row |= {"arm": one["arm"], **facts_of(""), "valid.ndcg@10": value}
            rows.append(row | {"test.recall@10": math.nan, "best_epoch": 50})
    frame = pd.DataFrame(rows)
    arms = list(dict.fromkeys(arm for arm, _ in scores))
    run = {"arms": arms, "groups": {}, "choices": {}, "tries": list(tuned), **run}
    run = {"planned": len(rows), **run}
    return StudyTables(run_facts(**run), frame, curves(frame), tuple(claims), tuple(views))


# --- a study of the size of a real one

GROUPS = {
    "VBPR": "concatenation", "BM3": "concatenation", "SLMRec": "concatenation",
    "MMGCN": "user-item graphs", "GRCN": "user-item graphs", "DualGNN": "user-item graphs",
    "LGMRec": "user-item graphs", "LATTICE": "item-item graphs", "FREEDOM": "item-item graphs",
    "MGCN": "both graphs", "DRAGON": "both graphs", "DAMRS": "both graphs", "PGL": "both graphs",
    "SMORE": "both graphs",
}  # fmt: skip
CONDITIONS = (
    "baseline", "image=noise", "text=noise", "image+text=noise", "image=constant",
    "text=constant", "image+text=constant", "text=noise@eval",
)  # fmt: skip
_COST = {"image": 0.03, "text": 0.25, "image+text": 0.36}
_STRATA = {
    "rare-items": (0.3, 1.6), "mid-items": (0.8, 1.1), "popular-items": (1.6, 0.7),
    "short-histories": (1.1, 1.2), "mid-histories": (1.0, 1.0), "long-histories": (0.9, 0.8),
}  # fmt: skip
"""Share of the objective, and how much harder than on average the stratum is hit."""


def cost_of(arm: str, condition: str) -> float:
    """The share of its baseline that an arm loses under a condition."""
    facts = facts_of(condition)
    if not facts["knocked"]:
        return 0.0
    weight = 0.06 if GROUPS.get(arm.split()[0]) == "concatenation" else 1.0
    filler = 0.6 if facts["filler"] == "constant" else 1.0
    late = 1.4 if facts["when"] == "eval" else 1.0
    return weight * filler * late * _COST[facts["knocked"]]


def large(seeds: int = 5, conditions: Sequence[str] = CONDITIONS, **run: Any) -> StudyTables:
    """Fourteen arms, one described anew and one gated, two controls; one cell fails wholly."""
    rng = np.random.default_rng(5)
    arms = [*GROUPS, "FREEDOM described", "BM3 described", "MGCN gated"]
    base = {arm: 0.024 + 0.0009 * nth for nth, arm in enumerate(GROUPS)}
    scores: dict[tuple[str, str], list[float]] = {}
    luck = rng.normal(0, 0.0004, seeds)
    for arm in arms:
        for condition in conditions:
            mean = base[arm.split()[0]] * (1 - cost_of(arm, condition))
            scores[arm, condition] = (mean + luck + rng.normal(0, 0.0003, seeds)).tolist()
    scores["SMORE", "image+text=constant"] = [math.nan] * seeds
    for arm, mean in (("LightGCN", 0.027), ("BPR-MF", 0.021)):
        scores[arm, "baseline"] = (mean + luck).tolist()

    def more(arm: str, condition: str, seed: int, score: float) -> dict[str, float]:
        found = {}
        for name, (share, hit) in _STRATA.items():
            left = (1 - hit * cost_of(arm, condition)) / (1 - cost_of(arm, condition))
            value = score * share * left * (1 + rng.normal(0, 0.02))
            found[f"test.ndcg@10:{name}"] = value
        if arm.endswith("gated"):
            out = facts_of(condition)["knocked"].split("+")
            for name in ("image", "text"):
                found[f"measure.gate.{name}"] = (0.2 if name in out else 0.8) + rng.normal(0, 0.05)
        for name, factor in (("ndcg@5", 0.8), ("recall@5", 1.2), ("precision@10", 0.2)):
            found[f"test.{name}"] = factor * score
        return found

    run = {"study": "knockout", "question": "Are the images, or the text, used at all?", **run}
    run = {"groups": {**GROUPS, **{a: GROUPS[a.split()[0]] for a in arms}}, **run}
    claims = [claim for topic in TOPICS for claim in _claims(topic, arms, scores)]
    tuned = [one for arm in [*arms, "LightGCN"] for one in _tries(arm, rng)]
    controls = ("LightGCN", "BPR-MF")
    selected = "SMORE baseline"
    return study(scores, more, controls, claims, tuned=tuned, selected=selected, **run)


TOPICS = {
    "text knockout hurts": "text=noise",
    "image knockout hurts": "image=noise",
    "with all modalities knocked out it ranks below its baseline": "image+text=noise",
    "training with the text knockout is better than meeting it at evaluation": "text=noise@eval",
}


def _claims(topic: str, arms: Sequence[str], scores: Scores) -> list[tuple[Said, Verdict]]:
    found = []
    for arm in arms:
        pair = Paired.of(scores[arm, "baseline"], scores[arm, TOPICS[topic]])
        source = "Ye et al., arXiv 2508.07399, appendix tables 4 to 9: NDCG@10"
        found.append((Said(f"{arm}: {topic}", source, topic, arm), judge_better(pair, 0.001)))
    return found


def _tries(arm: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    value = 0.02 + 0.004 * rng.random(20)
    best = int(value.argmax())
    return [
        {
            "arm": arm,
            "condition": "baseline",
            "nth": nth,
            "train.lr": float(f"{10 ** rng.uniform(-3.5, -2):.3g}"),
            "model.reg_weight": float(f"{10 ** rng.uniform(-5, -1):.3g}"),
            "state": "failed" if nth == 7 and nth != best else "done",
            "valid": None if nth == 7 and nth != best else float(value[nth]),
            "chosen": nth == best,
        }
        for nth in range(20)
    ]
