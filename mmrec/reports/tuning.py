"""What the tries of nuisance knobs came to, as plain tables.

Read from what the run says of its tries: a try that was chosen is a trial of the grid as well, and
among the trials it stands there.
"""

import math
from typing import Any

import pandas as pd

from mmrec.reports.arms import arms
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.trials import describe

_FACTS = ("arm", "condition", "nth", "state", "valid", "chosen")
_TRIES = ["of", "group", "arm", "condition", "nth", "knobs", "state", "valid", "chosen"]
_TUNING = [
    "of", "group", "done", "failed", "missing", "knobs", "default", "best", "gain", "kept",
]  # fmt: skip


def tries(tables: StudyTables) -> pd.DataFrame:
    """One row a try: its columns are `_TRIES`.

    `of` is what the settings are for, an arm, and its condition where each is tuned by itself;
    `nth` 0 are the arm's own settings; `valid` is the validation objective, NaN if not done.
    """
    groups = arms(tables)
    place = {arm: nth for nth, arm in enumerate(groups)}
    given = sorted(tables.run.get("tries", []), key=lambda one: place.get(one["arm"], len(place)))
    conditions: dict[str, set[str]] = {}
    for one in given:
        conditions.setdefault(one["arm"], set()).add(one["condition"])
    rows = []
    for one in given:
        arm, knobs = one["arm"], {k: v for k, v in one.items() if k not in _FACTS}
        words = ", ".join(f"{text.short(path)} = {describe(v)}" for path, v in knobs.items())
        of = f"{arm} | {one['condition']}" if len(conditions[arm]) > 1 else arm
        value = math.nan if one["valid"] is None else float(one["valid"])
        row = {**one, "of": of, "group": groups.get(arm, ""), "knobs": words}
        rows.append({**row, "valid": value})
    return pd.DataFrame(rows, columns=_TRIES)


def tuning(tables: StudyTables) -> pd.DataFrame:
    """One row an arm (and condition, where each is tuned): its columns are `_TUNING`.

    `default` is the validation objective of the arm's own settings, `best` that of the chosen
    `knobs`, `gain` their difference; `kept` says that the own settings were chosen.
    """
    rows = []
    for of, part in tries(tables).groupby("of", sort=False):
        chosen, own = part[part["chosen"]].iloc[0], part[part["nth"] == 0].iloc[0]
        row: dict[str, Any] = {"of": of, "group": chosen["group"], "knobs": chosen["knobs"]}
        row |= {state: int((part["state"] == state).sum()) for state in ("done", "failed")}
        row |= {"missing": len(part) - row["done"] - row["failed"], "kept": chosen["nth"] == 0}
        row |= {"default": own["valid"], "best": chosen["valid"]}
        rows.append({**row, "gain": chosen["valid"] - own["valid"]})
    return pd.DataFrame(rows, columns=_TUNING)
