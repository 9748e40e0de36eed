"""Our arms beside published tables of models by metrics, for the split at hand.

No number stands beside one of another split or protocol. One of another dataset, the nearest
there is, stands under its own name and without a ratio; and beside the numbers stands, in words,
what tells them apart: data, features, split, protocol, size, tuning and seeds.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from mmrec.data.conditions import Condition
from mmrec.reports import dots
from mmrec.reports.arms import Scores, arms
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.papers import BySplit, printed
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.trials import Trial
from mmrec.study.views import Published
from mmrec.training import RunConfig

_COLUMNS = [
    "arm", "metric", "theirs", "dataset", "published", "ours", "ours_low", "ours_high", "n",
    "ratio", "source",
]  # fmt: skip
_CONDITION = Condition().name
"""Published are models whose data were left as they are."""
_SPLITS = {
    "warm": "of each user's interactions, a tenth (rounded up) at random is valid and another test",
    "cold item": "a tenth of the items are valid and another tenth test, with all interactions",
    "cold user": "a tenth of the users are valid and another tenth test, with all interactions",
}
"""Their splits in words."""
_RANKED = {
    "full": "all items are ranked; what training and, at test, validation knows is hidden",
    "split-items": "only the items of the evaluated part are ranked",
}
_SIZE = (
    "SiBraR: embeddings of 128 to 768 columns, modalities projected to 512, hidden layers of 256 or"
    " 512, batches of 256, 10 negatives, at most 50 epochs"
)
_TUNING = "15 to 100 trials of a search, by model and dataset"


def theirs(tables: StudyTables, source: BySplit) -> str:
    """The name of their dataset that is ours, or nearest to ours; empty if there is none."""
    ours = tables.run["dataset"]["name"]
    same = {mine: name for name, mine in source.datasets.items()}
    return same.get(ours, source.near.get(ours, ""))


def obstacles(tables: StudyTables, source: BySplit) -> list[str]:
    """Why no published number may stand beside ours; empty if one may."""
    run = tables.run
    dataset, split, protocol = run["dataset"]["name"], run["dataset"]["split"], run["protocol"]
    said = []
    if not theirs(tables, source):
        known = ", ".join([*source.datasets.values(), *source.near])
        said.append(f"the dataset is {dataset}; there are published numbers for {known}")
    if split not in source.splits:
        said.append(f"the split is {split}; theirs are {', '.join(source.splits)}")
    elif protocol["name"] != (wanted := source.protocols[source.splits[split]]):
        said.append(f"the protocol is {protocol['name']}, theirs is {wanted}")
    return said


def beside(tables: StudyTables, source: BySplit) -> pd.DataFrame:
    """One row an arm, metric and published number that both have: its columns are `_COLUMNS`.

    `theirs` is their name of the model (an arm may stand beside several), `dataset` their dataset,
    `ratio` ours over theirs where that is ours too. Empty where `obstacles` are in the way.
    """
    if obstacles(tables, source):
        return pd.DataFrame(columns=_COLUMNS)
    rows = list(_rows(tables, source))
    order = {arm: nth for nth, arm in enumerate(arms(tables))}
    table = pd.DataFrame(rows, columns=_COLUMNS)
    place = table["arm"].map(order)
    return table.assign(place=place).sort_values("place", kind="stable").drop(columns="place")


def _rows(tables: StudyTables, source: BySplit) -> Iterator[dict[str, Any]]:
    name, split = theirs(tables, source), source.splits[tables.run["dataset"]["split"]]
    table = printed(source)
    table = table[(table["split"] == split) & table[name].notna()]
    same = source.datasets.get(name) == tables.run["dataset"]["name"]
    for metric, part in table.groupby("metric", sort=False):
        if (split, metric) in source.unlike or f"test.{metric}" not in tables.trials:
            continue
        means = Scores(tables, f"test.{metric}").means()
        for row in part.to_dict("records"):
            place: Any = (source.labels.get(row["model"]), _CONDITION)
            if place not in means.index:
                continue
            ours, value = means.loc[place], row[name]
            yield {
                "arm": place[0], "metric": metric, "theirs": row["model"], "dataset": name,
                "published": value, "ours": ours["mean"], "n": int(ours["n"]),
                "ours_low": ours["low"], "ours_high": ours["high"], "source": row["source"],
                "ratio": ours["mean"] / value if same and value else float("nan"),
            }  # fmt: skip


def differences(tables: StudyTables, source: BySplit) -> pd.DataFrame:
    """What tells their numbers from ours: columns `what`, `theirs` and `ours`, in words."""
    run, name = tables.run, theirs(tables, source)
    data, split = run["dataset"], source.splits[run["dataset"]["split"]]
    total = sum(data["interactions"].values())
    own = (
        f"{data['name']}: {data['num_users']:,} users, {data['num_items']:,} items, {total:,}"
        " interactions"
    )
    model = _their_run(tables, source)
    rows = [
        ("data", source.facts[name]["data"], own),
        ("features", source.facts[name]["features"], _features(tables, model)),
        ("split", _SPLITS[split], _own_split(tables)),
        ("protocol", _RANKED[source.protocols[split]], run["protocol"]["text"]),
        ("size", _SIZE, _size(model)),
        ("tuning", _TUNING, f"{text.count(run.get('tune', 0), 'trial')} an arm on validation"),
        ("seeds", "1", str(len(run["seeds"]))),
    ]
    return pd.DataFrame(rows, columns=["what", "theirs", "ours"])


def _own_split(tables: StudyTables) -> str:
    data = tables.run["dataset"]
    if data["split"] != "given":
        return f"{data['split']}: drawn in the same way"
    total = sum(data["interactions"].values())
    shares = (f"{100 * n / total:.0f} % {part}" for part, n in data["interactions"].items())
    return f"given, the file's own: {', '.join(shares)}"


def _their_run(tables: StudyTables, source: BySplit) -> RunConfig | None:
    """The arm that is their own model, as its first trial has it; None if there is none."""
    trials = tables.trials[tables.trials["arm"] == source.labels["SiBraR_best"]]
    return None if trials.empty else Trial.from_json(str(trials["config"].iloc[0])).run


def _features(tables: StudyTables, run: RunConfig | None) -> str:
    """What it is given of the dataset's features; all where nothing says."""
    have: dict[str, str] = tables.run["dataset"]["modalities"]
    used = [*(getattr(run and run.model, "modalities", None) or ())]
    used += [f"user:{name}" for name in getattr(run and run.model, "user_modalities", None) or ()]
    shown = [name for name in have if name in used] or list(have)
    return "; ".join(f"{name}: {have[name]}" for name in shown)


def _size(run: RunConfig | None) -> str:
    if run is None:
        return text.DASH
    model, train = run.model, run.train
    words = {name: getattr(model, name, None) for name in ("dim", "common_dim", "hidden")}
    said = ", ".join(f"{text.words(name)} {value}" for name, value in words.items() if value)
    return (
        f"{model.CARD.name}: {said}, batches of {train.batch_size:,},"
        f" {text.count(train.negatives, 'negative')}, at most {text.count(train.epochs, 'epoch')}"
    )


def exhibits(tables: StudyTables, view: Published, source: BySplit) -> list[Exhibit]:
    """The numbers beside each other, and what tells them apart; one that says why there are none.

    The figure has a panel a metric.
    """
    key, title = f"published_{view.name}", f"Published numbers beside ours: {source.cite}"
    why, table = obstacles(tables, source), beside(tables, source)
    if why or table.empty:
        reason = "; ".join(why) or "no model is in both"
        return [Exhibit(key, title, f"No published column stands here: {reason}.", table, None)]
    apart = differences(tables, source)
    drawn = table.assign(
        condition=[text.metric(name) for name in table["metric"]], model=table["arm"]
    )
    figure = dots.published(drawn, "").update_xaxes(title_text="")  # the panels' titles say it
    return [
        Exhibit(key, title, _finding(tables, source, table), table, figure),
        Exhibit(
            f"{key}_differences",
            "What tells the published numbers from ours",
            "None of these was made alike, so no verdict follows from a difference.",
            apart,
            None,
        ),
    ]


def _finding(tables: StudyTables, source: BySplit, table: pd.DataFrame) -> str:
    name, ours = theirs(tables, source), tables.run["dataset"]["name"]
    split = source.splits[tables.run["dataset"]["split"]]
    said = f"Their {split} start on {name}"
    if source.datasets.get(name) == ours:
        parts = [
            f"{text.metric(str(metric))} {rows['ratio'].min():.2f} to {rows['ratio'].max():.2f}"
            for metric, rows in table.groupby("metric", sort=False)
        ]
        said += f": ours is, as a multiple of theirs, {', '.join(parts)}."
    else:
        said += f", the nearest to {ours} but another dataset: only orders can be compared."
    said += _orders(table)
    said += "".join(
        f" {text.metric(metric)} is left out: {why}."
        for (of, metric), why in source.unlike.items()
        if of == split
    )
    return f"{said} No verdict: {source.note}."


def _orders(table: pd.DataFrame) -> str:
    """How alike the orders of three arms or more are; of one that has several, their last name."""
    parts = []
    for metric, rows in table.groupby("metric", sort=False):
        each = rows.drop_duplicates("arm", keep="last")
        if len(each) > 2:
            rank = each["published"].rank().corr(each["ours"].rank())
            parts.append(f"{text.metric(str(metric))} {text.score(rank, 2)} ({len(each)} arms)")
    return f" Rank correlation: {', '.join(parts)}." if parts else ""
