"""Exhibits of curves over one factor and of quality against cost: tables, findings, figures."""

import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from mmrec.reports import sweep_figures, sweeps
from mmrec.reports.design import base_levels, studied, varies
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.maps import Row
from mmrec.reports.tables import cells
from mmrec.stats import MIN_SEEDS
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.views import Curve, Pareto, SweepView

MOST_NAMES = 8
"""Cells of a front that the finding names."""
LIKELY = 0.05
"""Probability of being the best from which the runner-up is named."""


def of_view(tables: StudyTables, view: SweepView) -> Exhibit:
    """What a view shows."""
    return _curve(tables, view) if isinstance(view, Curve) else _pareto(tables, view)


def column_in_words(column: str) -> str:
    """`test NDCG@10, wide interests` for `test.ndcg@10:wide-interests`."""
    kind, _, name = column.partition(".")
    if kind in ("test", "valid"):
        return f"{'test' if kind == 'test' else 'validation'} {text.metric(name)}"
    return text.metric(column)


def _key(*words: str) -> str:
    """Names joined to what a file and a div may be called."""
    return re.sub(r"[^0-9a-z]+", "_", "_".join(filter(None, words)).lower()).strip("_")


def _shown(row: Row, show: Callable[[float], str]) -> str:
    """`0.2131 (0.2100 to 0.2160, 5 seeds)`."""
    between = "" if pd.isna(row["low"]) else f"{text.interval(row['low'], row['high'], show)}, "
    return f"{show(row['mean'])} ({between}{text.count(int(row['n']), 'seed')})"


def _curve(tables: StudyTables, view: Curve) -> Exhibit:
    column = view.column or tables.column("test")
    objective, x = column == tables.column("test"), text.short(view.x)
    value, by = column_in_words(column), text.short(view.by)
    title = f"{value[0].upper()}{value[1:]} against {x}"
    title += f", by {by}" if view.by else ""
    key = _key("curve", x, by, "" if objective else column.partition(".")[2])
    table = sweeps.curve(tables, view)
    known = table[table["x"].notna() & table["mean"].notna()]
    held = sweeps.held_at(tables, view)
    level = ", ".join(f"{text.short(k)} = {_level(v)}" for k, v in held.items())
    if known.empty:
        said = f"No finished trial over {x} has a number{f' where {level}' if level else ''}."
        return Exhibit(key, title, said, table, None)
    score = text.score if column.partition(".")[0] in ("test", "valid") else text.number
    parts = []
    for name, line in known.groupby("by", sort=False):
        words = _peak(line, x, score) if objective else _reach(line, x, score)
        parts.append(f"{_line_name(by, name)}{words}")
    said = f"{'; '.join(parts)}."
    said = said[0].upper() + said[1:] if not view.by else said
    holes = table[table["x"].notna() & table["mean"].isna()]
    if len(holes):
        places = [
            f"{_line_name(by, r.by)}{x} {_level(r.x)} ({r.reason})" for r in holes.itertuples()
        ]
        said += f" Without a number: {'; '.join(places)}."
    controls = table[table["x"].isna()]
    if len(controls):
        beside = [f"{row['by']} {_shown(row, score)}" for row in controls.to_dict("records")]
        said += f" Dashed: {', '.join(beside)}."
    if level:
        said += f" All else held at the base: {level}."
    if objective:
        said += " What is best was read off the test scores: it describes and does not select."
    figure = sweep_figures.curve(table, x, by, value)
    return Exhibit(key, title, f"{said} Intervals: 95 %, over seeds.", table, figure)


def _level(value: Any) -> str:
    """A level in a sentence."""
    return "none" if value is None else text.number(value)


def _line_name(by: str, level: Any) -> str:
    """`reading = nodes: ` before what is said of a line; nothing where there is only one."""
    return f"{by} = {_level(level)}: " if by else ""


def _peak(line: pd.DataFrame, x: str, score: Callable[[float], str]) -> str:
    """Where a line is highest, how sure that is, and what the base has."""
    *others, best = sorted(line.to_dict("records"), key=lambda row: row["mean"])
    if not others:
        return f"only {x} {_level(best['x'])}: {_shown(best, score)}"
    said = f"highest at {x} {_level(best['x'])}: {_shown(best, score)}"
    if pd.notna(best["p_best"]) and best["n"] >= MIN_SEEDS:
        said += f", P(best) {best['p_best']:.2f}"
        rival = max(others, key=lambda row: row["p_best"])
        if rival["p_best"] >= LIKELY:
            said += f", of {x} {_level(rival['x'])} {rival['p_best']:.2f}"
    for row in others:
        if row["base"]:
            said += f"; at the base, {x} {_level(row['x'])}, {_shown(row, score)}"
    return said


def _reach(line: pd.DataFrame, x: str, score: Callable[[float], str]) -> str:
    """Between which ends a line lies."""
    low, *_, high = sorted(line.to_dict("records") * 2, key=lambda row: row["mean"])
    if len(line) == 1:
        return f"only {x} {_level(low['x'])}: {_shown(low, score)}"
    if low["mean"] == high["mean"]:
        return f"{_shown(low, score)} at every {x}"
    return (
        f"from {_shown(low, score)} at {x} {_level(low['x'])}"
        f" to {_shown(high, score)} at {x} {_level(high['x'])}"
    )


def _pareto(tables: StudyTables, view: Pareto) -> Exhibit:
    metric, cost = text.metric(tables.run["objective"]), column_in_words(view.cost)
    by = text.short(view.by)
    title = f"{metric} against {cost}"
    key = _key("pareto", view.cost.partition(".")[2] or view.cost, by)
    table = sweeps.pareto(tables, view)
    if table.empty:
        said = f"No finished trial has both a test score and a number for {cost}."
        return Exhibit(key, title, said, table, None)
    names = _distinct(table["label"].tolist())
    table.insert(1, "name", names)
    front = table[table["front"]]
    each = view.by == "condition"
    listed = [
        f"{nth} {row['name']} ({text.score(row['mean'])} at {text.number(row['cost'], 3)})"
        for nth, row in enumerate(front.head(MOST_NAMES).to_dict("records"), start=1)
    ]
    said = (
        f"Of {text.count(len(table), 'cell')}, {len(front)} on the front: no other"
        f"{' of their condition' * each} ranks as well for less. From the cheapest:"
        f" {', '.join(listed)}"
    )
    said += f", {len(front) - len(listed)} more." if len(front) > len(listed) else "."
    if not each and varies(studied(tables)["condition"]):
        said += f" Under {base_levels(tables)['condition']} only: other conditions are other tasks."
    if without := _without(tables, view, table):
        said += f" Not shown: {text.count(without, 'cell')} with a score whose cost is not known."
    said += " By means over seeds; bars are their 95 % intervals, both ways."
    figure = sweep_figures.pareto(table, names, cost, by, metric, each=each)
    return Exhibit(key, title, said, table, figure)


def _without(tables: StudyTables, view: Pareto, table: pd.DataFrame) -> int:
    """Cells that have a score but no cost."""
    known = cells(tables)
    known = known[known["n"] > 0]
    if view.by != "condition":
        known = known[known["condition"] == base_levels(tables)["condition"]]
    return len(known) - len(table)


def _distinct(labels: list[str]) -> list[str]:
    """Labels without the words that all of them have; a label of none but these stays whole."""
    words = [label.split() for label in labels]
    levels = [w for w in words if any("=" in word for word in w)]  # controls have other words
    shared = set.intersection(*map(set, levels)) if len(levels) > 1 else set()
    return [" ".join(x for x in w if x not in shared) or " ".join(w) for w in words]
