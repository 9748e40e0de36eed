"""The arms of a study, their order, and their scores by condition and seed.

Letters in names: S seeds.
"""

import numpy as np
import pandas as pd

from mmrec.reports.tables import over_seeds
from mmrec.stats import Paired
from mmrec.study.tables import StudyTables


def arms(tables: StudyTables) -> dict[str, str]:
    """Arm -> its group, in the order in which they are shown: group by group, as planned.

    A variant, `X such` beside `X`, stands behind `X`, and in its group if it has none itself.
    """
    trials, groups = tables.trials, tables.run.get("groups", {})
    if "arm" not in trials:
        return {}
    planned = dict.fromkeys([*tables.run.get("arms", []), *trials["arm"]])
    named = [arm for arm in planned if arm and arm in set(trials["arm"])]
    root = {arm: min((n for n in named if f"{arm} ".startswith(f"{n} ")), key=len) for arm in named}
    without = controls(tables)

    def group(arm: str) -> str:
        rest = "controls" if arm in without else "others" * bool(groups)
        return groups.get(arm, groups.get(root[arm], rest))

    order = [*dict.fromkeys(groups.values()), "", "others", "controls"]
    shown = sorted(named, key=lambda arm: (order.index(group(arm)), named.index(root[arm])))
    return {arm: group(arm) for arm in shown}


def controls(tables: StudyTables) -> set[str]:
    """The arms that only stand beside the others, under one condition."""
    return set(tables.trials.loc[tables.trials["phase"] == "control", "arm"])


def trained(tables: StudyTables) -> pd.DataFrame:
    """The trials of arms, planned ones too, but for tuning and search."""
    trials = tables.trials
    if "arm" not in trials:
        return trials.iloc[:0].assign(arm="", knocked="", filler="", when="")
    return trials[(trials["arm"] != "") & ~trials["phase"].isin(("tune", "search"))]


def compared(tables: StudyTables) -> bool:
    """Whether arms are compared under several conditions."""
    return len(trained(tables)["condition"].unique()) > 1


def conditions(tables: StudyTables, against: str) -> dict[str, dict[str, str]]:
    """Condition -> knocked, filler and when, in the order of the plan, without `against`."""
    first = trained(tables).drop_duplicates("condition")
    facts = zip(first["condition"], first["knocked"], first["filler"], first["when"], strict=True)
    return {
        name: {"knocked": knocked, "filler": filler, "when": when}
        for name, knocked, filler, when in facts
        if name != against
    }


class Scores:
    """A column's values by arm, condition and seed; cells of one place are averaged in a seed."""

    def __init__(self, tables: StudyTables, column: str):
        rows = trained(tables)
        rows = rows[rows["state"] == "done"]
        known = column in rows
        self.rows = rows[rows[column].notna()] if known else rows.iloc[:0].assign(**{column: 0.0})
        self.column = column
        by_seed = self.rows.pivot_table(column, ["arm", "condition"], "seed")
        self._values_S = dict(zip(by_seed.index.tolist(), by_seed.to_numpy(), strict=True))

    def pair(self, one: tuple[str, str], other: tuple[str, str]) -> Paired | None:
        """(arm, condition) less another, over the seeds of both; None if they share none."""
        if one not in self._values_S or other not in self._values_S:
            return None
        both_2S = np.stack([self._values_S[one], self._values_S[other]])
        both_2S = both_2S[:, ~np.isnan(both_2S).any(axis=0)]
        return Paired.of(*both_2S) if both_2S.size else None

    def means(self) -> pd.DataFrame:
        """`mean half low high n` by arm and condition; see `over_seeds`."""
        keys = ["arm", "condition"]
        return over_seeds(self.rows, keys, self.column).set_index(keys)
