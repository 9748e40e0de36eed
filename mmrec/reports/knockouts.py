"""What conditions change, arm by arm, as plain tables.

A change is a mean paired difference over the seeds that both sides have; relative, it is that over
the mean compared with, as in `mmrec.stats.Paired`, and so are the ends of its interval.
"""

import re
from typing import Any

import numpy as np
import pandas as pd

from mmrec.evaluation import INTEREST_STRATA, ITEM_STRATA, USER_STRATA
from mmrec.reports.arms import Scores, arms, conditions, controls, trained
from mmrec.reports.tables import cells, over_seeds
from mmrec.stats import Paired, holm, holm_levels
from mmrec.study.tables import StudyTables
from mmrec.study.views import ConditionForest, ConditionMap, FillerSensitivity, Strata

STRATA = {"items": ITEM_STRATA, "users": USER_STRATA, "interests": INTEREST_STRATA}
"""What follows the objective's name and a colon, from the thinnest third to the thickest.

Items by popularity, users by length of history, users by diversity of interests.
"""

_CHANGES = [
    "arm", "group", "condition", "knocked", "filler", "when", "base", "effect", "relative", "low",
    "high", "level", "n", "p", "p_corrected", "reason",
]  # fmt: skip
_FILLERS = [
    "arm", "group", "knocked", "when", "filler", "relative", "low", "high", "n", "range",
]  # fmt: skip
_STRATA = [
    "arm", "group", "condition", "kind", "stratum", "mean", "mean_low", "mean_high", "against",
    "relative", "low", "high", "n",
]  # fmt: skip
_GATES = [
    "arm", "group", "condition", "modality", "replaced", "mean", "half", "low", "high", "n",
]  # fmt: skip


def changes(tables: StudyTables, view: ConditionForest | ConditionMap) -> pd.DataFrame:
    """One row an arm and condition but `view.against`: its columns are `_CHANGES`.

    `effect`, `low` and `high` are differences of the test objective. The interval is at `level`,
    which Holm's correction over all rows of two seeds or more leaves to this one; `p` is that of
    the paired t test. `reason` says why there is no effect. Arms that are planned under no other
    condition, such as controls, are left out.
    """
    rows, scores = trained(tables), Scores(tables, tables.column("test"))
    turned = set(rows.loc[rows["condition"] != view.against, "arm"])
    known, others = cells(tables), conditions(tables, view.against)
    places, pairs = [], []
    for arm, group in arms(tables).items():
        for name, facts in others.items() if arm in turned else ():
            pair = scores.pair((arm, name), (arm, view.against))
            why = "" if pair else _why(known, arm, name, view.against)
            places.append({"arm": arm, "group": group, "condition": name, **facts, "reason": why})
            pairs.append(pair)
    return pd.DataFrame(places).join(_corrected(pairs)).reindex(columns=_CHANGES)


def _why(known: pd.DataFrame, arm: str, condition: str, against: str) -> str:
    at = known[(known["arm"] == arm) & (known["condition"] == condition)]
    if at.empty:
        return "not planned"
    reasons = [reason for reason in dict.fromkeys(at["reason"]) if reason]
    return "; ".join(reasons) or f"no seed in common with {against}"


def _corrected(pairs: list[Paired | None]) -> pd.DataFrame:
    """The numbers of each pair, intervals at the levels that Holm leaves."""
    p_M = np.array([pair.p() if pair else np.nan for pair in pairs])
    alphas, rows = holm_levels(p_M), []
    for pair, alpha in zip(pairs, alphas.tolist(), strict=True):
        if pair is None:
            rows.append({"n": 0})
            continue
        low, high = pair.interval(alpha)
        row = {"base": pair.base, "effect": pair.effect, "relative": pair.relative, "n": pair.n}
        rows.append({**row, "low": low, "high": high})
    return pd.DataFrame(rows).assign(level=1 - alphas, p=p_M, p_corrected=holm(p_M))


def _relative(pair: Paired) -> dict[str, Any]:
    """Relative change, its 95 % interval, and the number of seeds."""
    low, high = (end / abs(pair.base) if pair.base else np.nan for end in pair.interval())
    return {"relative": pair.relative, "low": low, "high": high, "n": pair.n}


def fillers(tables: StudyTables, view: FillerSensitivity) -> pd.DataFrame:
    """One row an arm, knocked set, time and filler: its columns are `_FILLERS`.

    `relative` is the change against `view.against` with its 95 % interval over seeds; `range` is
    the distance between the farthest fillers of that arm, knocked set and time. Sets that are
    knocked out in one way only are left out, and all of them if the study has only one filler.
    """
    scores, rows = Scores(tables, tables.column("test")), []
    others = conditions(tables, view.against)
    for arm, group in arms(tables).items():
        for condition, facts in others.items():
            pair = scores.pair((arm, condition), (arm, view.against))
            if pair is None or not facts["filler"] or "<-" in condition:
                continue  # an encoder swapped beside the knockout is another question
            draw = re.search(r"#\d+", condition)
            name = facts["filler"] + (draw[0] if draw else "")
            rows.append({"arm": arm, "group": group, **facts, "filler": name, **_relative(pair)})
    table = pd.DataFrame(rows, columns=_FILLERS)
    if len(table["filler"].unique()) < 2:
        return table.iloc[:0]
    ways = (table["filler"] + "@" + table["when"]).groupby(table["knocked"]).transform("nunique")
    table = table[ways > 1].reset_index(drop=True)
    same = table.groupby(["arm", "knocked", "when"], sort=False)["relative"]
    apart = same.transform("max") - same.transform("min")
    return table.assign(range=apart.where(same.transform("count") > 1))


def strata(tables: StudyTables, view: Strata) -> pd.DataFrame:
    """One row an arm, condition and stratum: its columns are `_STRATA`.

    `mean` is the test objective within the stratum, `relative` its change against `view.against`
    of the same arm; under `view.against` itself, against the control there. Empty `against`: held
    to nothing, as controls are. Intervals are the 95 % ones over seeds.
    """
    scored = []
    for kind, names in STRATA.items():
        for name in names:
            scores = Scores(tables, f"{tables.column('test')}:{name}")
            if len(scores.rows):
                scored.append((kind, name.split("-")[0], scores, scores.means()))
    rows, others, without = [], conditions(tables, view.against), controls(tables)
    for arm, group in arms(tables).items():
        for condition in [view.against, *others]:
            own = condition != view.against
            to = arm if own else view.control
            for kind, name, scores, means in scored:
                if (arm, condition) not in means.index:
                    continue
                mean = means.loc[(arm, condition)]
                row = {"arm": arm, "group": group, "condition": condition, "kind": kind}
                row |= {"stratum": name, "mean": mean["mean"], "n": int(mean["n"]), "against": ""}
                row |= {"mean_low": mean["low"], "mean_high": mean["high"]}
                pair = scores.pair((arm, condition), (to, view.against))
                if pair and (own or arm not in {to, *without}):
                    row |= {"against": view.against if own else to, **_relative(pair)}
                rows.append(row)
    return pd.DataFrame(rows, columns=_STRATA)


def gates(tables: StudyTables) -> pd.DataFrame:
    """One row an arm, condition and modality: its columns are `_GATES`.

    `mean` is the gate of the modality after training, with its 95 % interval over seeds, and
    `replaced` says whether training saw a filler in its place. What is replaced at evaluation only
    has the baseline's gates and is left out.
    """
    rows = trained(tables)
    rows = rows[(rows["state"] == "done") & (rows["when"] != "eval")]
    order = {name: nth for nth, name in enumerate(dict.fromkeys(rows["condition"]))}
    knocked = dict(zip(rows["condition"], rows["knocked"], strict=True))
    groups = arms(tables)
    places = {arm: nth * len(order) for nth, arm in enumerate(groups)}
    parts = []
    for measure in tables.measures():
        if measure.startswith("gate."):
            part = over_seeds(rows, ["arm", "condition"], f"measure.{measure}")
            parts.append(part.assign(modality=measure.removeprefix("gate.")))
    if not parts:
        return pd.DataFrame(columns=_GATES)
    table = pd.concat(parts, ignore_index=True)
    hidden = zip(table["modality"], table["condition"].map(knocked), strict=True)
    table["replaced"] = [modality in names.split("+") for modality, names in hidden]
    table["group"] = table["arm"].map(groups)
    table["place"] = table["arm"].map(places) + table["condition"].map(order)
    return table.sort_values("place", kind="stable", ignore_index=True)[_GATES]
