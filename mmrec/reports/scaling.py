"""The page of a scaling study: exponents first, then cost against size on log axes.

Numbers are geometric means over seeds, since growth is a matter of ratios; a fitted line is drawn
where it was fitted.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import page, theme
from mmrec.reports.claims import claim_rows
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.markup import columns, drawn
from mmrec.study import text
from mmrec.study.claims import Absent
from mmrec.study.probe import LEAST
from mmrec.study.scaling import QUANTITIES, ScalingTables, interval, least_squares, series, slopes
from mmrec.study.store import Folder

_SECTIONS = (("claims", "Claims"), ("figures", "Figures"), ("provenance", "Provenance"))
_CLOCKS = {
    "processor": "processor time of the one thread, in which other work on the machine is not",
    "wall": "by the clock on the wall",
}
_UNITS = {"seconds": "seconds a step", "mib": "peak MiB a step"}
_BUSY = 0.5
"""A machine whose load was this much above the measuring threads had other work to do."""


def publish(tables: ScalingTables, folder: Folder) -> str:
    """Write `report/` into the run folder and return the page's address."""
    shown = exhibits(tables)
    csv = {exhibit.key: exhibit.table for exhibit in shown}
    csv |= {
        "claims": claim_rows(tables.claims),
        "provenance": provenance(tables),
        "measurements": tables.rows,
        "pilots": tables.pilots,
    }
    results = {
        "run": tables.run,
        "answer": tables.answer,
        "findings": {exhibit.key: exhibit.finding for exhibit in shown},
        "flags": flags(tables),
        "tables": {
            name: dict(zip(map(str, table.columns), columns(table), strict=True))
            for name, table in csv.items()
        },
    }
    report = folder / "report"
    for name, table in csv.items():
        report.write(f"tables/{name}.csv", table.to_csv(index=False).encode())
    report.write("results.json", (json.dumps(results, allow_nan=False) + "\n").encode())
    report.write("index.html", whole_page(tables, shown).encode())
    return f"{report.address}/index.html"


def whole_page(tables: ScalingTables, shown: list[Exhibit]) -> str:
    """The HTML document."""
    run = tables.run
    about = (
        f"{run['study']} · {run['host']} · {run['device']}, {text.count(run['threads'], 'thread')}"
    )
    body = [
        page.header(about, run, tables.answer, _SECTIONS),
        "<main>",
        page.claims_section(tables.claims, users=False),
        *page.figures_section(shown),
        page.provenance_section(provenance(tables), flags(tables)),
        "</main>",
        page.footer(run),
    ]
    return page.document(f"{run['study']} on {run['host']}", "\n".join(body))


# --- tables


def exponents(tables: ScalingTables) -> pd.DataFrame:
    """One row a method and quantity: the exponent of its growth, and where it was fitted."""
    rows: list[list[Any]] = []
    for method in tables.run["methods"]:
        for quantity, name in QUANTITIES.items():
            try:
                found = slopes(tables.rows, method, quantity)
            except Absent:
                continue  # stands among the sizes not reached
            fitted = f"{found.sizes[0]:,} to {found.sizes[-1]:,}"
            ends = interval(found.slope_S)
            rows.append([method, name, *ends, len(found.slope_S), len(found.sizes), fitted])
    names = ["method", "quantity", "exponent", "low", "high", "seeds", "sizes", "fitted over N"]
    return pd.DataFrame(rows, columns=names)


def costs(tables: ScalingTables) -> pd.DataFrame:
    """One row a method and size: both costs with intervals, and how they grew from the size before.

    `growth` is the exponent between two neighbouring sizes: where a constant cost hides the power
    of N, it rises from size to size.
    """
    rows = []
    for method in tables.run["methods"]:
        rows += _costs(tables.rows, method)
    return pd.DataFrame(rows)


def _costs(measured: pd.DataFrame, method: str) -> Iterator[dict[str, Any]]:
    try:
        tables = {name: series(measured, method, name) for name in QUANTITIES}
    except Absent:
        return
    sizes = tables["seconds"].index.to_numpy(float)
    for place, nodes in enumerate(sizes):
        row: dict[str, Any] = {"method": method, "N": int(nodes)}
        row["seeds"] = tables["seconds"].shape[1]
        for quantity, table in tables.items():
            log_NS = np.log(table.to_numpy(float))
            for name, value in zip(("", "_low", "_high"), interval(log_NS[place]), strict=True):
                row[f"{quantity}{name}"] = math.exp(value)
            local = (math.nan,) * 3
            if place:
                pair = slice(place - 1, place + 1)
                local = interval(least_squares(np.log(sizes[pair]), log_NS[pair]))
            for name, value in zip(("", "_low", "_high"), local, strict=True):
                row[f"growth_{quantity}{name}"] = value
        yield row


def unreached(tables: ScalingTables) -> pd.DataFrame:
    """One row a method: the largest size measured, and why the next one was not."""
    rows = []
    for method in tables.run["methods"]:
        own = tables.rows[tables.rows["method"] == method]
        most = int(own["nodes"].max()) if len(own) else math.nan
        first = tables.unreached[tables.unreached["method"] == method]
        stop = [(int(row.nodes), row.reason) for row in first.itertuples()]
        after, reason = stop[0] if stop else (math.nan, "all sizes were reached")
        note = tables.run["methods"][method]
        rows.append([method, most, after, reason, note])
    names = ["method", "largest N", "not reached", "why", "note"]
    return pd.DataFrame(rows, columns=names)


def provenance(tables: ScalingTables) -> pd.DataFrame:
    """Where the numbers come from: `what` and `value`, one row a fact."""
    run = tables.run
    dirty = " (with uncommitted changes)" if run["git_dirty"] else ""
    facts = [
        ("command", run["command"]),
        ("created", run["created"]),
        ("git commit", f"{run['git_commit'] or 'none: an installed package'}{dirty}"),
        ("measured", run["work"]),
        ("hardware", run["hardware"]),
        ("device", f"{run['device']}, {text.count(run['threads'], 'thread')}"),
        ("torch", run["torch"]),
        ("code that decides the numbers", run["code"]),
        ("limits", f"{run['seconds']:g} s and {run['mib'] / 1024:.3g} GiB a step"),
        ("replicates", f"{text.count(run['seeds'], 'seed')} a size, in one shuffled order, each in"
         " a process of its own, one at a time"),
        ("time", f"{_CLOCKS[run['clock']]}; median of the steps that fill {LEAST:g} s"),
        ("memory", "how far the first step's peak rose above what its inputs and weights take"),
        ("packages", ", ".join(f"{name} {v}" for name, v in sorted(run["versions"].items()))),
    ]  # fmt: skip
    return pd.DataFrame(facts, columns=["what", "value"]).astype(str)


def flags(tables: ScalingTables) -> list[str]:
    """What a reader should know before trusting the numbers; empty when there is nothing."""
    said = []
    if tables.run["git_dirty"]:
        said.append("the working tree had uncommitted changes, so the commit does not say it all")
    load = tables.rows["load"].astype(float)
    busy = int((load > tables.run["threads"] + _BUSY).sum())
    if busy:
        said.append(
            f"the machine's load was above {tables.run['threads'] + _BUSY:g} at {busy} of"
            f" {len(load)} measurements (up to {load.max():.1f}): other work ran beside them"
        )
    return said


# --- exhibits


def exhibits(tables: ScalingTables) -> list[Exhibit]:
    """Exponents, both costs against size, and how far each method went."""
    grown, table = exponents(tables), costs(tables)
    fit = (
        "Each seed's series gives a slope of log cost on log N over the upper half of its method's"
        " sizes, where constant costs no longer hide the power; 1 is linear, 2 quadratic."
        " Intervals are over seeds, at 95 % each."
    )
    return [
        Exhibit("exponents", "How fast each method grows", fit, grown, None),
        *(
            Exhibit(
                f"cost_{quantity}",
                f"{name.capitalize()} against the number of nodes",
                _finding(grown, name),
                table,
                curve(tables, table, quantity),
            )
            for quantity, name in QUANTITIES.items()
            if len(table)
        ),
        Exhibit(
            "reach",
            "How far each method went",
            "Sizes double until a step would pass a limit; what is larger was not tried.",
            unreached(tables),
            None,
        ),
    ]


def _finding(grown: pd.DataFrame, name: str) -> str:
    own = grown[grown["quantity"] == name]
    parts = [f"{row.method} N^{row.exponent:.2f}" for row in own.itertuples()]
    return f"Growth of {name}: {', '.join(parts)}. Dashed: the fitted powers." if parts else ""


def curve(tables: ScalingTables, table: pd.DataFrame, quantity: str) -> go.Figure:
    """Cost against size on log axes: means with intervals, single seeds, fitted powers."""
    traces = []
    for nth, method in enumerate(tables.run["methods"]):
        own = table[table["method"] == method]
        if own.empty:
            continue
        look = theme.mark(nth)
        traces.append(_points(tables.rows, method, quantity, look["color"]))
        traces.append(_means(own, method, quantity, look))
        traces += _fit(tables.rows, method, quantity, look["color"])
    fig = theme.figure(*traces, height=520)
    sizes = [float(n) for n in sorted(table["N"].unique())]
    fig.update_xaxes(
        type="log",
        title_text="nodes N",
        tickvals=sizes,
        ticktext=[f"{n / 1000:g}k" for n in sizes],
    )
    # Intervals of two seeds are wider than any picture: the points say what is in it.
    value_R = tables.rows[quantity]
    ends = [math.log10(value_R.min() / 1.4), math.log10(value_R.max() * 1.4)]
    fig.update_yaxes(type="log", title_text=_UNITS[quantity], range=ends)
    fig.update_yaxes(exponentformat="power", dtick=1)
    return fig


def _points(rows: pd.DataFrame, method: str, quantity: str, colour: str) -> go.Scatter:
    own = rows[rows["method"] == method]
    return go.Scatter(
        x=own["nodes"].to_numpy(float),
        y=own[quantity].to_numpy(float),
        mode="markers",
        marker={"symbol": "circle-open", "size": 4, "color": colour, "opacity": 0.6},
        legendgroup=method,
        showlegend=False,
        hoverinfo="skip",
    )


def _means(own: pd.DataFrame, method: str, quantity: str, look: dict[str, str]) -> go.Scatter:
    mean, low, high = (own[f"{quantity}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    facts = zip(own["N"], mean, low, high, own[f"growth_{quantity}"], strict=True)
    hover = [
        f"{drawn(method)}, N = {n:,}<br>{text.number(y)}"
        f" ({text.interval(a, b, text.number)})<br>growth from the size before: {text.number(g, 3)}"
        for n, y, a, b, g in facts
    ]
    return go.Scatter(
        x=own["N"].to_numpy(float),
        y=mean,
        error_y={
            "array": np.nan_to_num(high - mean),
            "arrayminus": np.nan_to_num(mean - low),
            "thickness": 1.5,
        },
        mode="markers",
        name=drawn(method),
        legendgroup=method,
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        marker={"size": 9, **look},
    )


def _fit(rows: pd.DataFrame, method: str, quantity: str, colour: str) -> list[go.Scatter]:
    """The power that was fitted, over the sizes that it was fitted to."""
    try:
        found = slopes(rows, method, quantity)
    except Absent:
        return []
    ends = np.array([found.sizes[0], found.sizes[-1]], dtype=float)
    height = np.exp(found.at_S.mean() + found.slope_S.mean() * np.log(ends / ends[-1]))
    return [
        go.Scatter(
            x=ends,
            y=height,
            mode="lines",
            legendgroup=method,
            showlegend=False,
            hoverinfo="skip",
            line={"color": colour, "width": 2, "dash": "dash"},
        )
    ]
