"""Our means beside tables that papers printed, where dataset, protocol and features are theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

from mmrec.reports.arms import Scores, arms
from mmrec.study.tables import StudyTables
from mmrec.study.views import Published

_COLUMNS = [
    "model", "condition", "metric", "published", "ours", "ours_low", "ours_high", "n", "ratio",
]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A printed table, and how its words are ours."""

    file: str
    """Beside this module, in `published`."""
    cite: str
    note: str
    """What else tells its numbers from ours."""
    protocol: str
    datasets: Mapping[str, str]
    """Their name -> ours."""
    conditions: Mapping[int, str]
    """Number of their table -> the name of our condition; others have no counterpart."""


SOURCES = {
    "knockout": Source(
        file="knockout.csv",
        cite="Ye et al., arXiv 2508.07399, appendix",
        note="theirs is one seed, with settings picked on test and a new split in every condition",
        protocol="mmrec",
        datasets={"Baby": "baby", "Clothing": "clothing", "Sports": "sports"},
        conditions={
            4: "baseline",
            5: "image+text=noise",
            6: "text=noise",
            7: "image=noise",
            8: "image+text=constant",
            9: "image+text=zero",
        },
    )
}


def source(view: Published) -> Source:
    """The printed table that a view names; KeyError lists those that there are."""
    if view.name not in SOURCES:
        raise KeyError(f"no published table {view.name!r}; there are: {', '.join(SOURCES)}")
    return SOURCES[view.name]


def printed(source: Source) -> pd.DataFrame:
    """The table as it was printed."""
    path = resources.files("mmrec.reports") / "published" / source.file
    with path.open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#")


def obstacles(tables: StudyTables, source: Source) -> list[str]:
    """Why no published number may stand beside ours; empty if one may."""
    dataset, protocol = tables.run["dataset"]["name"], tables.run["protocol"]["name"]
    said = []
    if dataset not in source.datasets.values():
        said.append(f"the dataset is {dataset}, theirs are {', '.join(source.datasets.values())}")
    if protocol != source.protocol:
        said.append(f"the protocol is {protocol}, theirs is {source.protocol}")
    if "released" not in tables.run.get("choices", {}).get("train-features", ()):
        said.append("no arm trained its feature tables as the released code does")
    return said


def beside(tables: StudyTables, source: Source) -> pd.DataFrame:
    """One row a model, condition and metric that both have: its columns are `_COLUMNS`.

    An arm is the model whose name it bears, with nothing behind it: variants, and the frozen ones
    beside the released, are not what was published. `ratio` is ours over theirs. Empty where
    `obstacles` are in the way.
    """
    if obstacles(tables, source):
        return pd.DataFrame(columns=_COLUMNS)
    theirs = printed(source)
    dataset = theirs["dataset"].map(dict(source.datasets))
    theirs = theirs[dataset == tables.run["dataset"]["name"]]
    theirs = theirs.assign(condition=theirs["table"].map(source.conditions))
    order = {arm: nth for nth, arm in enumerate(arms(tables))}
    theirs = theirs[theirs["condition"].notna() & theirs["model"].isin(order)]
    theirs = theirs.assign(place=theirs["model"].map(order)).sort_values(["table", "place"])
    metrics = [name for name in theirs if f"test.{str(name).lower()}" in tables.trials]
    rows: list[dict[str, Any]] = []
    for metric in map(str, metrics):
        means = Scores(tables, f"test.{metric.lower()}").means()
        for row in theirs.to_dict("records"):
            if (row["model"], row["condition"]) not in means.index:
                continue
            ours = means.loc[(row["model"], row["condition"])]
            rows.append(
                {"model": row["model"], "condition": row["condition"], "metric": metric.lower()}
                | {"published": row[metric], "ours": ours["mean"], "n": int(ours["n"])}
                | {"ours_low": ours["low"], "ours_high": ours["high"]}
                | {"ratio": ours["mean"] / row[metric] if row[metric] else float("nan")}
            )
    return pd.DataFrame(rows, columns=_COLUMNS)
