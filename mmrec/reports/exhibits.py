"""What the report shows, in order: each exhibit is a table, its finding in words, and a figure."""

import math
from collections.abc import Iterator

import pandas as pd

from mmrec.reports import (
    arm_exhibits,
    availability,
    beyond,
    clouds,
    convergence,
    correspondence,
    course,
    curves,
    importance,
    lines,
    maps,
    measured,
    sensitivity,
    shared_hits,
    sweep_exhibits,
)
from mmrec.reports.arms import compared
from mmrec.reports.design import crossed, sweeps
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.tables import best_cell, cells
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.views import (
    ArmMeasures,
    ArmView,
    Availability,
    BeyondAccuracy,
    CellForest,
    Clouds,
    Convergence,
    Correspondence,
    Curve,
    FactorView,
    HeatMap,
    MainEffects,
    MeasureCourse,
    Measures,
    Pareto,
    RatioCurve,
    SharedHits,
    StateView,
    Tuning,
    View,
    default_views,
)

MOST_SQUARES = 30
"""Levels of a factor above which a heat map gives way to a point for every trial."""
MOST_LINES = 40
"""Cells that the forest shows."""


def exhibits(tables: StudyTables) -> list[Exhibit]:
    """Every exhibit of the study, keys distinct; those without a single number are told so."""
    seen: dict[str, int] = {}
    named = []
    for exhibit in _made(tables):
        seen[exhibit.key] = seen.get(exhibit.key, 0) + 1
        nth = seen[exhibit.key]
        named.append(exhibit if nth == 1 else exhibit._replace(key=f"{exhibit.key}_{nth}"))
    return named


def _made(tables: StudyTables) -> Iterator[Exhibit]:
    """Of the views that nobody asked for, those about arms are left out where they are empty.

    So are maps of two factors that were not turned together.
    """
    suggested = default_views(tables.factors(), tables.measures(), compared(tables))
    views = tables.views or tuple(
        v for v in suggested if not isinstance(v, HeatMap) or crossed(tables, v.x, v.y)
    )
    for view in views:
        for exhibit in _of_view(tables, view):
            if tables.views or not isinstance(view, ArmView) or len(exhibit.table):
                yield exhibit
    if Tuning() not in views:
        yield from _of_view(tables, Tuning())
    if tables.run["kind"] == "search":
        yield _history(tables)
        yield _slices(tables)
    yield _importance(tables)
    yield _curves(tables)


def _of_view(tables: StudyTables, view: View) -> list[Exhibit]:
    match view:
        case HeatMap() | RatioCurve() | MainEffects() | Measures() | CellForest():
            made = [_of_factors(tables, view)]
        case Curve() | Pareto():
            made = [sweep_exhibits.of_view(tables, view)]
        case Availability():
            made = availability.exhibits(tables, view)
        case BeyondAccuracy():
            made = [beyond.exhibit(tables, view)]
        case SharedHits():
            made = shared_hits.exhibits(tables, view)
        case ArmMeasures() | MeasureCourse() | Convergence() | Correspondence():
            made = _of_states(tables, view)
        case Clouds():
            made = [clouds.exhibit(tables, view)]
        case Tuning():
            made = [arm_exhibits.tuned(tables)] if tables.run.get("tries") else []
        case _:
            made = arm_exhibits.of_view(tables, view)
    return made


def _of_states(tables: StudyTables, view: StateView) -> list[Exhibit]:
    match view:
        case ArmMeasures() | MeasureCourse():
            return [measured.exhibit(tables, view)]
        case Convergence():
            return convergence.exhibits(tables, view)
        case Correspondence():
            return [correspondence.exhibit(tables, view)]


def _of_factors(tables: StudyTables, view: FactorView) -> Exhibit:
    match view:
        case HeatMap():
            return _heat_map(tables, view)
        case RatioCurve():
            return _ratio(tables, view)
        case MainEffects():
            return _effects(tables, view)
        case Measures():
            return _measures(tables, view)
        case CellForest():
            return _forest(tables)


def _metric(tables: StudyTables) -> str:
    return text.metric(tables.run["objective"])


def _score(row: pd.Series) -> str:
    """`0.3121 (0.3050 to 0.3190, 5 seeds)`."""
    between = "" if math.isnan(row["low"]) else f"{text.interval(row['low'], row['high'])}, "
    return f"{text.score(row['mean'])} ({between}{text.count(int(row['n']), 'seed')})"


def _ends(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The rows with the lowest and the highest mean."""
    ordered = table.sort_values("mean", kind="stable")
    return ordered.iloc[0], ordered.iloc[-1]


def _heat_map(tables: StudyTables, view: HeatMap) -> Exhibit:
    metric, x, y = _metric(tables), text.short(view.x), text.short(view.y)
    title = f"{metric} over {y} and {x}"
    levels = tables.factors()
    if max(len(levels[view.x]), len(levels[view.y])) > MOST_SQUARES:
        table = sensitivity.search_map(tables, view)
        said = "Every suggested trial in its place. Crosses were stopped early, at fewer epochs."
        figure = maps.search_map(table, x, y, metric) if len(table) else None
        return Exhibit("search_map", title, said, table, figure)
    table = sensitivity.heat_map(tables, view)
    best, holes = table[table["best"]], table[table["mean"].isna()]
    parts = []
    if len(best):
        row = best.iloc[0]
        where = f"{y} = {text.number(row['y'])}" + (
            "" if row["spans"] else f", {x} = {text.number(row['x'])}"
        )
        parts.append(f"The framed cell is the best by validation: {where}, test {_score(row)}.")
    if table["spans"].any():
        parts.append(f"Where {y} is 0, {x} has no effect: that one cell fills its row.")
    parts.append(
        f"Hatched: {len(holes)} of {text.count(len(table), 'cell')} without a score"
        f" ({'; '.join(sorted(set(holes['reason'])))})."
        if len(holes)
        else "Every cell has a score."
    )
    parts.append("± is half of the 95 % interval over n seeds.")
    figure = maps.heat_map(table, x, y, metric) if table["mean"].notna().any() else None
    return Exhibit("heat_map", title, " ".join(parts), table, figure)


def _ratio(tables: StudyTables, view: RatioCurve) -> Exhibit:
    metric = _metric(tables)
    ratio = f"{text.short(view.numerator)} / {text.short(view.denominator)}"
    zero = f"{text.short(view.numerator)} = 0"
    table, points = sensitivity.ratio_curve(tables, view), sensitivity.ratio_points(tables, view)
    title = f"{metric} against {ratio}"
    above = table[table["ratio"] > 0]
    if above.empty:
        return Exhibit("ratio_curve", title, "No trial with a ratio is done.", table, None)
    again = above[above["n"] > 1]
    shown = above if again.empty else again
    peak, last = _ends(shown)[1], shown.iloc[-1]
    said = f"Highest at {ratio} = {text.number(peak['ratio'])}: {_score(peak)}."
    if len(again) < len(above):
        said = f"Of {len(above)} ratios, {len(again)} were tried under several seeds. {said}"
    if last["ratio"] != peak["ratio"]:
        said += f" At the largest ratio, {text.number(last['ratio'])}: {_score(last)}."
    base = table[table["ratio"] == 0]
    if len(base):
        said += f" With {zero}: {_score(base.iloc[0])}."
    said += " Cells of one ratio are averaged within a seed. Where the curve peaks was read off the"
    said += " test scores, so it describes and does not select."
    figure = lines.ratio_curve(table, points, ratio, zero, metric)
    return Exhibit("ratio_curve", title, said, table, figure)


def _effects(tables: StudyTables, view: MainEffects) -> Exhibit:
    metric, levels = _metric(tables), tables.factors()
    title = "Main effects of the factors"
    few = tuple(path for path in view.factors if 1 < len(levels[path]) <= MOST_SQUARES)
    if not few:
        said = f"No factor has between 2 and {MOST_SQUARES} levels."
        return Exhibit("main_effects", title, said, pd.DataFrame(), None)
    table = sensitivity.main_effects(tables, MainEffects(few))
    if table.empty:
        return Exhibit("main_effects", title, "No trial with all factors is done.", table, None)
    parts = []
    for factor, part in table.groupby("factor", sort=False):
        low, high = _ends(part)
        parts.append(
            f"{text.short(str(factor))}: from {text.score(low['mean'])} at"
            f" {text.number(low['level'])} to {text.score(high['mean'])} at"
            f" {text.number(high['level'])}"
        )
    said = (
        f"{'; '.join(parts)}. Adjusted for the other factors; bars are 95 % intervals over seeds."
    )
    swept = bool(sweeps(tables))
    if swept:
        said += " Not all of them were turned together: that effects add up is assumed, not tested."
    if (table["cells"] < table["of"]).any():
        said += f" Open circles: levels with fewer cells than {'planned' if swept else 'others'}."
    many = [text.short(path) for path in view.factors if len(levels[path]) > MOST_SQUARES]
    if many:
        said += f" Not drawn, of more than {MOST_SQUARES} levels: {', '.join(many)}."
    shown = table.assign(factor=[text.short(factor) for factor in table["factor"]])
    return Exhibit("main_effects", title, said, table, lines.main_effects(shown, metric))


def _measures(tables: StudyTables, view: Measures) -> Exhibit:
    table = sensitivity.measures(tables, view)
    if isinstance(view.over, tuple):
        at = " / ".join(text.short(path) for path in view.over)
        zero = f"{text.short(view.over[0])} = 0"
    else:
        at = text.short(view.over)
        zero = f"{at} = 0"
    title = f"The trained state against {at}"
    if table.empty:
        return Exhibit("measures", title, "No trial recorded them.", table, None)
    parts = []
    for name, part in table.groupby("measure", sort=False):
        low, high = _ends(part)
        parts.append(
            f"{text.words(str(name))} lies between {text.number(low['mean'], 3)} at {at} ="
            f" {text.number(low['at'])} and {text.number(high['mean'], 3)} at {at} ="
            f" {text.number(high['at'])}"
        )
    absent = [text.words(name) for name in view.names if name not in tables.measures()]
    if absent:
        parts.append(f"not recorded by any trial: {', '.join(absent)}")
    figure = lines.measures(table, at, zero)
    return Exhibit("measures", title, f"{'; '.join(parts)}.", table, figure)


def _forest(tables: StudyTables) -> Exhibit:
    table = cells(tables).sort_values("valid", ascending=False, na_position="last", kind="stable")
    scored = table[table["test"].notna()].reset_index(drop=True)
    title = "Cells in the order of their validation score"
    if scored.empty:
        return Exhibit("cell_scores", title, "No cell has a test score yet.", scored, None)
    shown = scored[(scored.index < MOST_LINES) | (scored["phase"] == "control")]
    best = best_cell(table)
    said = "" if best is None else f"Star: {best['label']}, the best by validation. "
    said += "Diamonds: controls. Bars: 95 % intervals over seeds of the test score."
    if len(shown) < len(scored):
        said += f" The first {MOST_LINES} of {len(scored)} cells, and the controls."
    names = ["label", "phase", "best", "valid", "test", "test_half", "test_low", "test_high", "n"]
    return Exhibit("cell_scores", title, said, scored[names], course.forest(shown, _metric(tables)))


def _history(tables: StudyTables) -> Exhibit:
    table = curves.history(tables)
    title = "Course of the search"
    if table["value"].isna().all():
        return Exhibit("history", title, "No trial of the search has a value.", table, None)
    states = table["state"].value_counts()
    said = (
        f"{text.count(len(table), 'trial')}: {states.get('done', 0)} finished,"
        f" {states.get('stopped', 0)} stopped early, {states.get('failed', 0)} failed. The line"
        " counts finished trials only: a stopped trial's value belongs to fewer epochs."
    )
    return Exhibit("history", title, said, table, course.history(table, _metric(tables)))


def _slices(tables: StudyTables) -> Exhibit:
    table = sensitivity.slices(tables)
    title = "The search, factor by factor"
    if table.empty:
        return Exhibit("slices", title, "No trial of the search has a value.", table, None)
    said = "Validation objective of every suggested trial; crosses were stopped early."
    shown = table.assign(factor=[text.short(factor) for factor in table["factor"]])
    return Exhibit("slices", title, said, table, course.slices(shown, _metric(tables)))


def _importance(tables: StudyTables) -> Exhibit:
    found = importance.importance(tables)
    title = "Which factors matter"
    if found.table.empty:
        return Exhibit("importance", title, found.ground, found.table, None)
    top = found.table.iloc[0]
    if "omega2" in found.table:
        whole = f"the variance{' in its sweep' * ('sweep' in found.table)}"
        axis = f"share of {whole} (omega squared)"
        said = (
            f"{top['effect']} explains {100 * top['share']:.0f} % of {whole} (partial omega"
            f" squared {top['omega2']:.2f}, 90 % interval {top['low']:.2f} to {top['high']:.2f})."
        )
    else:
        axis = "share of importance (PED-ANOVA)"
        said = f"{top['effect']} has {100 * top['share']:.0f} % of the importance."
    figure = course.importance(found.table, axis)
    return Exhibit("importance", title, f"{said} {found.ground}", found.table, figure)


def _curves(tables: StudyTables) -> Exhibit:
    hashes, rule = curves.choose(tables)
    table = curves.learning_curves(tables, hashes)
    title = "Learning curves"
    if table.empty:
        return Exhibit("curves", title, "No trial has finished an epoch.", table, None)
    best = best_cell(cells(tables))
    figure = course.learning_curves(
        table, None if best is None else str(best["cell"]), _metric(tables)
    )
    stopped = (tables.trials["state"] == "stopped").sum()
    said = f"{rule} Crosses: where ASHA stopped a trial ({stopped} in the study)."
    return Exhibit("curves", title, said, table, figure)
