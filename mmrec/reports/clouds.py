"""Item embeddings before training and after: their numbers as plain tables, and in words.

A row of `CloudTables` belongs to an arm, a condition, a seed, a stage and a modality; a cloud here
is an arm's modality under a condition, over all seeds.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import cloud_figures
from mmrec.reports.cloud_figures import STAGE_NAMES
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.tables import over_seeds
from mmrec.stats import Paired
from mmrec.study import text
from mmrec.study.cloud_tables import PERPLEXITY, PICTURED, UMAP_NEIGHBOURS
from mmrec.study.clouds import STAGES
from mmrec.study.tables import CloudTables, StudyTables
from mmrec.study.views import Clouds

RELATIONS = ("neighbour_overlap", "linear_cka", "modality_gap", "centroid_distance")
"""Measures of two clouds; the others are of one."""
_KEYS = ["measure", "arm", "condition", "modality"]
_MEASURES = [
    *_KEYS, "stage", "mean", "half", "low", "high", "n", "chance", "change", "change_low",
    "change_high",
]  # fmt: skip
_LINES = ["arm", "condition", "modality", "stage"]
_SPECTRA = [*_LINES, "component", "share", "cumulative", "half", "low", "high", "n"]
_METHODS = {
    "tsne": f"t-SNE (scikit-learn, started from principal components, perplexity {PERPLEXITY:.0f},"
    f" less for fewer than {3 * PERPLEXITY + 1:.0f} points)",
    "umap": f"UMAP (umap-learn, started from principal components, {UMAP_NEIGHBOURS} neighbours)",
}
_TITLES = {
    "measures": "Item embeddings before training and after",
    "relations": "Modalities beside each other, before training and after",
    "spectra": "Variance by principal component",
    "pictures": "Item embeddings on a plane",
}


def exhibit(tables: StudyTables, view: Clouds) -> Exhibit:
    """What a view of the clouds shows; it says so where trials kept none."""
    key, title = f"cloud_{view.show}", _TITLES[view.show]
    clouds = tables.clouds
    if clouds is None or clouds.measures.empty:
        return Exhibit(key, title, "No trial kept its item embeddings.", pd.DataFrame(), None)
    if view.show == "spectra":
        made = spectra(clouds)
    elif view.show == "pictures":
        made = pictures(clouds, view.method)
    else:
        made = measures(clouds, relations=view.show == "relations")
    if made.empty:
        return Exhibit(key, title, "No model sees its modalities one by one.", made, None)
    said, figure = {
        "measures": _measured,
        "relations": _measured,
        "spectra": _spectra,
        "pictures": _pictures,
    }[view.show](made)
    if clouds.without:
        said += f" {text.count(clouds.without, 'finished trial')} kept no embeddings."
    return Exhibit(key, title, said, made, figure)


# --- numbers


def measures(clouds: CloudTables, *, relations: bool) -> pd.DataFrame:
    """One row a cloud, stage and measure: its columns are `_MEASURES`.

    `mean` and its 95 % interval are over seeds. Beside `trained` stands its paired difference from
    `start`, seed by seed, with a 95 % interval. `chance` is what an overlap would be by chance.
    """
    rows = clouds.measures
    rows = rows[rows["measure"].isin(RELATIONS) == relations]
    if rows.empty:
        return pd.DataFrame(columns=_MEASURES)
    keys = [*_KEYS, "stage"]
    table = over_seeds(rows, keys, "value")
    table = table.merge(rows.groupby(keys, as_index=False)["chance"].mean(), "left", on=keys)
    table = table.merge(_changes(rows).assign(stage="trained"), "left", on=keys)
    return _in_order(table, rows, keys)[_MEASURES]


def _changes(rows: pd.DataFrame) -> pd.DataFrame:
    """`_KEYS change change_low change_high`: trained less untrained."""
    by_seed = rows.pivot_table("value", [*_KEYS, "seed"], "stage")  # the mean of a seed's cells
    by_seed = by_seed.reindex(columns=list(STAGES)).dropna(subset=["start", "trained"])
    found = []
    for key, part in by_seed.groupby(level=_KEYS):
        pair = Paired.of(part["trained"].to_numpy(), part["start"].to_numpy())
        found.append((*key, pair.effect, *pair.interval()))
    return pd.DataFrame(found, columns=[*_KEYS, "change", "change_low", "change_high"])


def spectra(clouds: CloudTables) -> pd.DataFrame:
    """One row a cloud, stage and component: its columns are `_SPECTRA`.

    `share` is the mean share of variance; `cumulative` that of all components up to this one, with
    its 95 % interval over seeds.
    """
    rows = clouds.spectra.sort_values(["hash", "stage", "modality", "component"], kind="stable")
    rows["cumulative"] = rows.groupby(["hash", "stage", "modality"])["share"].cumsum()
    keys = [*_LINES, "component"]
    share = over_seeds(rows, keys, "share")[[*keys, "mean"]].rename(columns={"mean": "share"})
    table = over_seeds(rows, keys, "cumulative").rename(columns={"mean": "cumulative"})
    table = table.merge(share, on=keys)
    return _in_order(table, clouds.spectra, keys)[_SPECTRA]


def pictures(clouds: CloudTables, method: str) -> pd.DataFrame:
    """The points of a method's pictures, as they are: all columns but `hash`."""
    points = clouds.points[clouds.points["method"] == method]
    return points.drop(columns="hash").reset_index(drop=True)


def _in_order(table: pd.DataFrame, like: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sorted by `keys`, each in the order in which `like` first has its values."""
    places = [
        table[key].map({value: n for n, value in enumerate(dict.fromkeys(like[key]))})
        for key in keys
    ]
    return table.iloc[np.lexsort(places[::-1])].reset_index(drop=True)


# --- words


def _measured(table: pd.DataFrame) -> tuple[str, go.Figure]:
    parts = []
    for measure, part in table.groupby("measure", sort=False):
        changed = part[part["change"].notna()]
        if len(changed):
            up, down = (changed["change_low"] > 0).sum(), (changed["change_high"] < 0).sum()
            parts.append(
                f"{text.words(str(measure))} rises in {up} and falls in {down} of {len(changed)}"
            )
    noun = "pairs of clouds" if table["measure"].isin(RELATIONS).all() else "clouds"
    said = f"From untrained to trained, {'; '.join(parts)} {noun}. " if parts else ""
    said += (
        "Counted are paired changes whose 95 % interval over seeds excludes 0, uncorrected for"
        " their number; bars are 95 % intervals of the means."
    )
    if table["chance"].notna().any():
        low, high = table["chance"].min(), table["chance"].max()
        between = text.number(low, 2) if low == high else f"{low:.2g} to {high:.2g}"
        said += f" Ticks: what lists of neighbours drawn at random would share ({between})."
    return said, cloud_figures.forest(table)


def _spectra(table: pd.DataFrame) -> tuple[str, go.Figure]:
    shown = table[table["condition"] == table["condition"].iloc[0]]
    first = shown[shown["component"] == 1].groupby("stage", sort=False)["share"]
    parts = [
        f"{STAGE_NAMES[str(stage)]}: {part.min():.2f} to {part.max():.2f}" for stage, part in first
    ]
    said = f"Share of the first component, from the lowest cloud to the highest: {'; '.join(parts)}"
    said += f". Means over seeds, centred clouds, under {shown['condition'].iloc[0]}"
    if len(shown) < len(table):
        said += "; other conditions are in the table"
    return f"{said}.", cloud_figures.cumulative(shown)


def _pictures(table: pd.DataFrame) -> tuple[str, go.Figure]:
    seeds = sorted(set(table["seed"]))
    which = f"seed {seeds[0]}" if len(seeds) == 1 else "each arm's first seed"
    said = (
        f"{_METHODS[table['method'].iloc[0]]} of at most {PICTURED} vectors a picture,"
        f" scaled to length 1; {which}, under {table['condition'].iloc[0]}. Raw features of"
        " different modalities have no space in common and stand apart. Who is near whom has a"
        " meaning; axes, and sizes and distances of groups, have none."
    )
    return said, cloud_figures.planes(table)
