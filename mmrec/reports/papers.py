"""Our means beside tables that papers printed, where dataset, protocol and features are theirs.

Tables of arms by split and metric are in `mmrec.reports.split_papers`.
"""

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
    datasets: Mapping[str, str]
    """Their name -> ours."""


@dataclass(frozen=True)
class ByCondition(Source):
    """Models by conditions, in numbered tables, under one protocol."""

    protocol: str
    conditions: Mapping[int, str]
    """Number of their table -> the name of our condition; others have no counterpart."""


@dataclass(frozen=True)
class BySplit(Source):
    """Models by metrics, for several splits; columns: source, split, metric, model, datasets."""

    near: Mapping[str, str]
    """Our dataset -> theirs that is nearest, where it is another one."""
    splits: Mapping[str, str]
    """Our name -> theirs."""
    protocols: Mapping[str, str]
    """Their split -> our name of how it was ranked."""
    labels: Mapping[str, str]
    """Their model -> our arm; others have no counterpart."""
    unlike: Mapping[tuple[str, str], str]
    """(their split, metric) -> why theirs and ours are not the same quantity."""
    facts: Mapping[str, Mapping[str, str]]
    """Their dataset -> what tells its numbers from others: data, features and so on, in words."""


SOURCES: Mapping[str, Source] = {
    "knockout": ByCondition(
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
    ),
    "sibrar-cold-start": BySplit(
        file="sibrar_cold_start.csv",
        cite="Ganhoer et al., RecSys 2024, supplement; NDCG: TORS 2025, as quoted in notes",
        # MAP@10 is left out: theirs divides by all that a user has to find, ours by 10 at most.
        note="theirs is one seed, the best of 15 to 100 searched settings",
        datasets={"ML-1M": "ml-1m"},
        near={"lfm2k": "Onion"},
        splits={
            "random": "warm",
            "given": "warm",
            "cold-item": "cold item",
            "cold-user": "cold user",
        },
        protocols={"warm": "full", "cold item": "split-items", "cold user": "full"},
        labels={
            "Rand": "Random",
            "Pop": "Popularity",
            "MF": "BPR-MF",
            "DropoutNet_one": "DropoutNet",
            "DropoutNet_best": "DropoutNet",
            "CLCRec": "CLCRec",
            "SiBraR_one": "SiBraR SC",
            "SiBraR_best": "SiBraR SC",
            "SiBraR_S": "SiBraR S",
            "SiBraR_SC": "SiBraR SC",
            "MuBraR": "MuBraR",
            "MuBraR_S": "MuBraR S",
            "MuBraR_SC": "MuBraR SC",
        },
        unlike={
            (
                "cold item",
                "coverage@10",
            ): "theirs is a share of the ranked part's items, ours of the whole catalogue"
        },
        facts={
            "ML-1M": {
                "data": "ML-1M: 5,816 users, 3,299 items, 813,792 interactions (ratings from 3 up,"
                " items with a plot, users with attributes, 5-core)",
                "features": "genres and plots (all-mpnet-base-v2, 768 columns); users: age as a"
                " number, gender, occupation",
            },
            "Onion": {
                "data": "Music4All-Onion: 5,192 users, 13,610 items, 407,653 interactions"
                " (listened to twice or more in 2018, 5-core)",
                "features": "genres (853 tags), text (768 columns), audio (50 to 4,800), image"
                " (4,096); users: age as a number, gender, country",
            },
        },
    ),
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


def obstacles(tables: StudyTables, source: ByCondition) -> list[str]:
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


def beside(tables: StudyTables, source: ByCondition) -> pd.DataFrame:
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
