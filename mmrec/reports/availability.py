"""What is left of the ranking when modalities are missing at evaluation: all subsets of a size.

The modalities of a study are those that its conditions take away, and those that its models name,
so that all of them are counted where no condition takes one away. What is left of them is what a
condition does not name.

Letters in names: S seeds.
"""

import contextlib
import json
import re
from typing import Any

import numpy as np
import pandas as pd

from mmrec.data.dataset import INTERACTIONS
from mmrec.reports import dots
from mmrec.reports.arms import arms
from mmrec.reports.availability_figure import by_size
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.tables import cells
from mmrec.stats import Paired
from mmrec.study import text
from mmrec.study.claims import Absent, cells_by_seeds
from mmrec.study.tables import StudyTables
from mmrec.study.views import Availability

_SUBSETS = [
    "line", "group", "size", "left", "mean", "half", "low", "high", "n", "kept", "reason",
]  # fmt: skip
_SIZES = [
    "line", "group", "size", "mean", "half", "low", "high", "n", "kept", "kept_low", "kept_high",
    "lowest", "lowest_left", "highest", "highest_left", "subsets", "of", "reason",
]  # fmt: skip
ALL = "all"
"""What is left where nothing is missing, in the pictures of single modalities."""


def exhibits(tables: StudyTables, view: Availability) -> list[Exhibit]:
    """By size; the single modalities; all subsets."""
    sizes, subsets = availability(tables, view), left(tables, view)
    metric = text.metric(tables.run["objective"])
    title = f"{metric} by the number of modalities left at evaluation"
    known = sizes[sizes["mean"].notna()]
    if known.empty:
        said = "No finished trial has been evaluated with modalities missing."
        return [Exhibit("availability", title, said, sizes, None)]
    figure = by_size(known, subsets[subsets["mean"].notna()], metric)
    made = [Exhibit("availability", title, _by_size(sizes), sizes, figure)]
    alone = subsets[subsets["size"] == 1]
    if len(alone):
        made.append(_alone(subsets, metric))
    said = f"{text.count(len(subsets), 'row')}: every subset of every line, the largest first."
    said += " Kept: the mean over the same line's mean with all modalities."
    title = f"{metric} with every subset of modalities"
    return [*made, Exhibit("availability_subsets", title, said, subsets, None)]


# --- numbers


def missing(condition: str) -> frozenset[str] | None:
    """What a condition takes away at evaluation; None if it does anything else.

    The baseline takes nothing away.
    """
    if condition == "baseline":
        return frozenset()
    found = re.fullmatch(r"missing=([^,@#]+)@eval", condition)
    return frozenset(found[1].split("+")) if found else None


def modalities(rows: pd.DataFrame) -> tuple[str, ...]:
    """Those that the conditions of trials take away or their models name; interactions last."""
    taken = [missing(condition) or frozenset() for condition in rows["condition"].unique()]
    named = {name for config in rows["config"].unique() for name in _named(config)}
    every = named.union(*taken)
    return (*sorted(every - {INTERACTIONS}), *({INTERACTIONS} & every))


def _named(config: str) -> list[str]:
    """The item modalities that the model of a trial names."""
    model = json.loads(config).get("run", {}).get("model", {})
    one = model.get("modality")
    return [*(model.get("modalities") or ()), *([one] if one else [])]


def _trials(tables: StudyTables, view: Availability) -> pd.DataFrame:
    """The trials of lines that meet a missing modality, with `line group left size reason`.

    Sorted by line, then from all modalities to one.

    Raises:
        KeyError: `view.by` is no column.
    """
    rows = tables.trials[~tables.trials["phase"].isin(("tune", "search", "control"))]
    if view.by not in rows:
        have = ", ".join([*tables.factors(), "arm"])
        raise KeyError(f"availability by {view.by!r}: no such column; there are: {have}")
    groups = arms(tables) if view.by == "arm" else {}
    lines = list(groups) or rows[view.by].dropna().unique().tolist()
    rows = rows.assign(nth=rows[view.by].map({level: nth for nth, level in enumerate(lines)}))
    rows = rows.assign(line=[text.number(level) for level in rows[view.by]])
    rows = rows.assign(group=[groups.get(line, "") for line in rows["line"]])
    rows = rows[rows["condition"].map(missing).notna()]
    met = (rows["condition"] != "baseline").groupby(rows["line"]).transform("any")
    rows = rows[met & rows["nth"].notna()]
    every = modalities(rows)
    kept = [[m for m in every if m not in (missing(c) or ())] for c in rows["condition"]]
    rows = rows.assign(left=["+".join(names) for names in kept], size=[len(n) for n in kept])
    rows = rows.assign(reason=rows["cell"].map(cells(tables).set_index("cell")["reason"]))
    return rows.sort_values(["nth", "size"], ascending=[True, False], kind="stable")


def left(tables: StudyTables, view: Availability) -> pd.DataFrame:
    """One row a line and subset that any line meets: its columns are `_SUBSETS`.

    `left` names what is there, `size` counts it, `mean` is the test objective with its 95 % t
    interval over seeds, `kept` that mean over the line's with all modalities. `reason` says why
    there is no mean.
    """
    rows, column = _trials(tables, view), tables.column("test")
    sizes = dict(zip(rows["left"], rows["size"], strict=True))
    subsets = sorted(sizes, key=lambda name: (-sizes[name], name.split("+")))
    made = []
    for (line, group), part in rows.groupby(["line", "group"], sort=False):
        for name in subsets:
            at = part[part["left"] == name]
            row: dict[str, Any] = {"line": line, "group": group, "left": name, "size": sizes[name]}
            made.append({**row, **_mean(_by_seed(at, column)[1]), "reason": _why(at, column)})
    table = pd.DataFrame(made, columns=_SUBSETS)
    whole = table[table["size"] == table["size"].max()].set_index("line")["mean"]
    return table.assign(kept=table["mean"] / table["line"].map(whole))


def availability(tables: StudyTables, view: Availability) -> pd.DataFrame:
    """One row a line and number of modalities left: its columns are `_SIZES`.

    `mean` is that over all subsets of the size within a seed, with its 95 % t interval over seeds,
    `kept` the mean over seeds of this over the line's objective with all modalities, likewise.
    `lowest` and `highest` are the means of single subsets, which `lowest_left` and `highest_left`
    name. `subsets` of the `of` subsets that any line meets have a number; of the others `reason`
    says why not.
    """
    rows, column = _trials(tables, view), tables.column("test")
    of = rows.groupby("size")["left"].nunique()
    made = []
    for (line, group), part in rows.groupby(["line", "group"], sort=False):
        whole_S = _by_seed(part[part["size"] == of.index.max()], column)[1]
        for size in sorted(of.index, reverse=True):
            at = part[part["size"] == size]
            table_CS, mean_S = _by_seed(at, column)
            row: dict[str, Any] = {"line": line, "group": group, "size": size, "of": of[size]}
            row |= _mean(mean_S) | _ends(at, table_CS)
            kept = _mean((mean_S / whole_S).dropna()) if (whole_S > 0).all() else {}
            row |= {name: kept.get(key) for name, key in _KEPT.items()}
            made.append({**row, "reason": _holes(at, table_CS, column, int(of[size]))})
    table = pd.DataFrame(made, columns=_SIZES)
    numbers = {name: table[name].astype(float) for name in _KEPT}
    return table.assign(**numbers, of=table["of"].astype(int))


_KEPT = {"kept": "mean", "kept_low": "low", "kept_high": "high"}


def _by_seed(rows: pd.DataFrame, column: str) -> tuple[pd.DataFrame, pd.Series]:
    """Cells by the seeds that they share, and the mean over cells; empty if there is no number."""
    rows = rows[(rows["state"] == "done") & rows[column].notna()]
    table_CS = pd.DataFrame(dtype=float)
    if len(rows):
        with contextlib.suppress(Absent):  # no seed in common
            table_CS, _ = cells_by_seeds(rows, column)
    return table_CS, table_CS.mean()


def _mean(value_S: pd.Series) -> dict[str, Any]:
    """`mean half low high n` over seeds."""
    if value_S.empty:
        return {"n": 0}
    pair = Paired.of(value_S, np.zeros(len(value_S)))
    low, high = pair.interval()
    return {"mean": pair.effect, "half": high - pair.effect, "low": low, "high": high, "n": pair.n}


def _ends(rows: pd.DataFrame, table_CS: pd.DataFrame) -> dict[str, Any]:
    """The lowest and the highest subset, of those with a number, and how many these are."""
    if table_CS.empty:
        return {"subsets": 0, "lowest_left": "", "highest_left": ""}
    left_of = dict(zip(rows["cell"], rows["left"], strict=True))
    mean = table_CS.mean(axis=1).groupby(left_of).mean()
    ends = {"lowest": mean.min(), "lowest_left": mean.idxmin(), "subsets": len(mean)}
    return {**ends, "highest": mean.max(), "highest_left": mean.idxmax()}


def _why(rows: pd.DataFrame, column: str) -> str:
    """Why a line has no number for a subset; empty if it has one."""
    if rows.empty:
        return "not planned"
    if len(_by_seed(rows, column)[0]):
        return ""
    return "; ".join(sorted(set(rows["reason"]) - {""})) or "no test score"


def _holes(rows: pd.DataFrame, table_CS: pd.DataFrame, column: str, of: int) -> str:
    """Which of the subsets of a size do not enter its mean, and why."""
    without = rows[~rows["cell"].isin(table_CS.index)]
    found = {
        str(name): _why(part, column) or "too few seeds"
        for name, part in without.groupby("left", sort=False)
    }
    unplanned = of - rows["left"].nunique()
    parts = [f"{name}: {reason}" for name, reason in found.items()]
    return "; ".join([*parts, *([f"{unplanned} not planned"] if unplanned else [])])


# --- in words


def _by_size(sizes: pd.DataFrame) -> str:
    """Who is best with all and with one modality left, what each keeps, and the holes."""
    known = sizes[sizes["mean"].notna()]
    parts = []
    for size in sorted({known["size"].max(), known["size"].min()}, reverse=True):
        rows = known[known["size"] == size].sort_values("mean", ascending=False, kind="stable")
        named = ", ".join(f"{r['line']} {text.score(r['mean'])}" for r in rows.to_dict("records"))
        parts.append(
            f"With {text.count(int(size), 'modality').replace('ys', 'ies')} left: {named}."
        )
    least = known[known["size"] == known["size"].min()].dropna(subset="kept")
    least = least.sort_values("kept", ascending=False, kind="stable")
    if len(least) and known["size"].min() < known["size"].max():
        kept = [f"{r['line']} {100 * r['kept']:.0f} %" for r in least.to_dict("records")]
        parts.append(f"Kept there of what each has with all: {', '.join(kept)}.")
    spread = least.assign(spread=least["highest"] - least["lowest"]).dropna(subset="spread")
    if len(spread):
        row = spread.sort_values("spread", kind="stable").iloc[-1]
        parts.append(
            f"Subsets differ most for {row['line']}: from {text.score(row['lowest'])} with"
            f" {row['lowest_left']} to {text.score(row['highest'])} with {row['highest_left']}."
        )
    holes = sizes[sizes["reason"] != ""]
    if len(holes):
        listed = [
            f"{r['line']}, {r['size']} left ({r['reason']})" for r in holes.to_dict("records")
        ]
        parts.append(f"Not complete: {'; '.join(listed)}.")
    parts.append(
        "A subset is a faint point; their mean has its 95 % interval over seeds. Hollow: one seed,"
        " or not all subsets. Read off the test scores: it describes and does not select."
    )
    return " ".join(parts)


def _alone(subsets: pd.DataFrame, metric: str) -> Exhibit:
    """One modality left, beside all of them: a panel each."""
    whole = subsets["size"] == subsets["size"].max()
    shown = subsets[whole | (subsets["size"] == 1)]
    shown = shown.assign(label=shown["line"], panel=shown["left"].where(~whole, ALL))
    title, key = f"{metric} with one modality left", "availability_alone"
    known = shown[shown["mean"].notna()].copy()
    if known.empty:
        return Exhibit(key, title, "No line has a number with one modality left.", shown, None)
    known["show"] = [
        f"{text.score(r['mean'])} ({text.interval(r['low'], r['high'])}), n = {r['n']}"
        for r in known.to_dict("records")
    ]
    parts = []
    for name, rows in known[known["size"] == 1].groupby("left", sort=False):
        best = rows.sort_values("mean", kind="stable").iloc[-1]
        parts.append(f"{name}: {best['line']} {text.score(best['mean'])}")
    holes = shown[shown["mean"].isna()]
    said = f"The best line with each alone: {'; '.join(parts)}."
    if len(holes):
        listed = [f"{r['line']} with {r['left']} ({r['reason']})" for r in holes.to_dict("records")]
        said += f" Without a number: {'; '.join(listed)}."
    said += " Bars: 95 % intervals over seeds, not corrected."
    figure = dots.means(known).update_xaxes(matches="x", title_text=f"test {metric}")
    return Exhibit(key, title, said, shown[_SUBSETS], figure)
