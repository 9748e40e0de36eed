"""What the clouds of a study's trials measure and look like, as plain tables.

A cloud is known by its stage and modality; see `mmrec.study.clouds`.

Letters in names: N points, D width, K neighbours, R components.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmrec import gap, geometry
from mmrec.cache import Arrays, cached
from mmrec.study.clouds import ALL, ITEMS, STAGES, kept, read
from mmrec.study.store import Folder
from mmrec.study.tables import CloudTables

K = 10
"""Neighbours a point; in a cloud of 10 points or fewer, all others."""
COMPONENTS = 64
"""Principal components whose shares of variance are told."""
PICTURED = 500
"""Points of a picture, shared out evenly among its modalities."""
PERPLEXITY = 30.0
"""Of t-SNE; in a picture of fewer than 91 points a third of the others."""
UMAP_NEIGHBOURS = 15
"""Of UMAP, as its authors have it."""

_ALONE = ("effective_rank", "mean_cosine", "hubness", "hub_share")
"""What `_facts` measures, in its order."""


class Cloud(NamedTuple):
    """One cloud of a trial, with what is known of it by itself."""

    x_ND: NDArray
    item_N: NDArray[np.int64]
    facts: Arrays
    """What `_facts` gives."""


Clouds = Mapping[tuple[str, str], Cloud]
"""By stage and modality."""


def cloud_tables(
    trials: pd.DataFrame, folder: Folder, methods: Sequence[str] = ("tsne",)
) -> CloudTables:
    """All numbers and pictures of the clouds that a study's trials kept.

    Args:
        trials: with the columns `hash state phase arm label condition seed`; those that are done
            count, but for tries of a tuning or a search. A trial without an arm goes by its label.
        folder: the run folder.
        methods: of `PLANES`, by each of which pictures are made.
    """
    done = trials[(trials["state"] == "done") & ~trials["phase"].isin(("tune", "search"))]
    done = done.assign(arm=done["arm"].where(done["arm"] != "", done["label"]))
    facts = [
        {str(name): value for name, value in row.items()}
        for row in done[["hash", "arm", "condition", "seed"]].to_dict("records")
    ]
    have = [trial for trial in facts if kept(folder, trial["hash"])]
    measures: list[dict[str, Any]] = []
    spectra: list[dict[str, Any]] = []
    for trial in have:
        clouds = clouds_from(read(folder, trial["hash"]))
        measures += [{**trial, **row} for row in measured(clouds)]
        spectra += [{**trial, **row} for row in _spectra(clouds)]
    return CloudTables(
        pd.DataFrame(measures, columns=list(CloudTables.MEASURES)),
        pd.DataFrame(spectra, columns=list(CloudTables.SPECTRA)),
        pd.DataFrame(_points(have, folder, methods), columns=list(CloudTables.POINTS)),
        without=len(facts) - len(have),
    )


def clouds_from(arrays: Mapping[str, NDArray]) -> dict[tuple[str, str], Cloud]:
    """The clouds of one trial, from what `mmrec.study.clouds.read` gives."""
    clouds = {}
    for key, x_ND in arrays.items():
        stage, name = key.split("/", 1)
        if stage != ITEMS:
            clouds[stage, name] = Cloud(x_ND, arrays[f"{ITEMS}/{name}"], _facts(x_ND))
    return clouds


def _facts(x_ND: NDArray) -> Arrays:
    """`measures` (4,), `spectrum` (R,) and `near` (N, K), from the cache where it has them."""

    def build() -> Arrays:
        near_NK = geometry.neighbours(x_ND, min(K, len(x_ND) - 1))
        values = (
            geometry.effective_rank(x_ND),
            geometry.mean_cosine(x_ND),
            geometry.hubness(near_NK),
            geometry.hub_share(near_NK),
        )
        spectrum_R = geometry.variance_spectrum(x_ND)[:COMPONENTS]
        near_NK = near_NK.astype(np.int32)
        return {"measures": np.array(values), "spectrum": spectrum_R, "near": near_NK}

    return cached("cloud-1", {"cloud": x_ND, "k": K, "components": COMPONENTS}, build)


# --- numbers


def measured(clouds: Clouds) -> Iterator[dict[str, Any]]:
    """Rows `stage modality measure value chance` of one trial's clouds.

    Of each cloud: `effective_rank`, `mean_cosine`, `hubness` and `hub_share` as in
    `mmrec.geometry`, `first_component_share` of the variance, and of what a model makes of a
    modality `kept_neighbours`, its neighbour overlap with the raw features. Of two clouds of one
    stage, whose modality is then `image|text`: `neighbour_overlap`, `linear_cka`, and, between two
    views of one width, `modality_gap` and `centroid_distance` (see `mmrec.gap`). `chance` is what
    an overlap would be by chance, else nan.
    """
    for (stage, name), cloud in clouds.items():
        for measure, value in zip(_ALONE, cloud.facts["measures"].tolist(), strict=True):
            yield _row(stage, name, measure, value)
        yield _row(stage, name, "first_component_share", float(cloud.facts["spectrum"][0]))
        raw = clouds.get(("features", name))
        if raw is not None and stage != "features":
            yield _row(stage, name, "kept_neighbours", *_overlap(raw, cloud))
    for stage in STAGES:
        names = sorted((name for at, name in clouds if at == stage), key=lambda n: (n == ALL, n))
        for pair in itertools.combinations(names, 2):
            yield from _compared(stage, pair, clouds)


def _compared(stage: str, pair: tuple[str, str], clouds: Clouds) -> Iterator[dict[str, Any]]:
    a, b = (clouds[stage, name] for name in pair)
    both = np.intersect1d(a.item_N, b.item_N)
    if len(both) < 2:  # modalities that no two items share have nothing to compare
        return
    name, views = "|".join(pair), {"a": _of(a, both), "b": _of(b, both)}
    yield _row(stage, name, "neighbour_overlap", *_overlap(a, b))
    yield _row(stage, name, "linear_cka", gap.linear_cka(views))
    # A gap lies between views in one space; raw features have none in common.
    if stage != "features" and ALL not in pair and a.x_ND.shape[1] == b.x_ND.shape[1]:
        yield _row(stage, name, "modality_gap", 1 - gap.intra_cosine(views))
        yield _row(stage, name, "centroid_distance", gap.centroid_distance(views))


def _row(
    stage: str, modality: str, measure: str, value: float, chance: float = np.nan
) -> dict[str, Any]:
    names = ("stage", "modality", "measure", "value", "chance")
    return dict(zip(names, (stage, modality, measure, value, chance), strict=True))


def _overlap(a: Cloud, b: Cloud) -> tuple[float, float]:
    """Share of neighbours in common, and what it would be by chance, among the items of both."""
    near_NK, other_NK = a.facts["near"], b.facts["near"]
    if not np.array_equal(a.item_N, b.item_N):
        both = np.intersect1d(a.item_N, b.item_N)
        k = min(K, len(both) - 1)
        near_NK, other_NK = (geometry.neighbours(_of(cloud, both), k) for cloud in (a, b))
    return geometry.neighbour_overlap(near_NK, other_NK), geometry.overlap_by_chance(near_NK)


def _of(cloud: Cloud, item_N: NDArray[np.int64]) -> NDArray:
    """The rows of some of its items, which are ascending."""
    return cloud.x_ND[np.searchsorted(cloud.item_N, item_N)]


def _spectra(clouds: Clouds) -> Iterator[dict[str, Any]]:
    for (stage, name), cloud in clouds.items():
        for nth, share in enumerate(cloud.facts["spectrum"].tolist(), start=1):
            yield {"stage": stage, "modality": name, "component": nth, "share": share}


# --- pictures


def _points(
    trials: Sequence[Mapping[str, Any]], folder: Folder, methods: Sequence[str]
) -> list[dict[str, Any]]:
    """Pictures of each arm's first trial, under the condition of the first trial of all.

    Raw features, which arms share, are pictured once; their arm is empty.
    """
    points: list[dict[str, Any]] = []
    done = set()
    for trial in _first_of_each_arm(trials):
        arrays = read(folder, trial["hash"])
        for stage, names in _panels(arrays):
            arm = "" if stage == "features" else trial["arm"]
            panel = "+".join(names)
            if (arm, stage, panel) not in done:
                done.add((arm, stage, panel))
                facts = {**trial, "arm": arm, "stage": stage, "panel": panel}
                points += [
                    {**facts, "method": method, **point}
                    for method in methods
                    for point in _picture(stage, names, arrays, PLANES[method])
                ]
    return points


def _first_of_each_arm(trials: Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    first: dict[str, Mapping[str, Any]] = {}
    like = [trial for trial in trials if trial["condition"] == trials[0]["condition"]]
    for trial in sorted(like, key=lambda trial: trial["seed"]):
        first.setdefault(trial["arm"], trial)
    return first.values()


def _panels(arrays: Mapping[str, NDArray]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Stage and modalities of each picture: those of one width together, raw features apart."""
    for stage in STAGES:
        by_space: dict[object, list[str]] = {}
        for name in _modalities(arrays):
            x_ND = arrays.get(f"{stage}/{name}")
            if x_ND is not None:
                space = name if stage == "features" else x_ND.shape[1]
                by_space.setdefault(space, []).append(name)
        for names in by_space.values():
            yield stage, tuple(names)


def _modalities(arrays: Mapping[str, NDArray]) -> list[str]:
    return sorted({key.split("/", 1)[1] for key in arrays} - {ALL})


def _picture(
    stage: str,
    names: Sequence[str],
    arrays: Mapping[str, NDArray],
    plane: Callable[[NDArray], NDArray[np.float64]],
) -> Iterator[dict[str, Any]]:
    """Rows `modality item x y`, the points of all `names` on one plane.

    A modality's points are of the same items in all of its pictures.
    """
    share = max(1, PICTURED // len(_modalities(arrays)))
    parts = []
    for name in names:
        item_N = arrays[f"{ITEMS}/{name}"]
        at = np.linspace(0, len(item_N) - 1, min(share, len(item_N))).round().astype(int)
        parts.append((name, item_N[at].tolist(), arrays[f"{stage}/{name}"][at]))
    place_N2 = plane(np.concatenate([x_ND for _, _, x_ND in parts]))
    points = ((name, item) for name, item_N, _ in parts for item in item_N)
    for (name, item), (x, y) in zip(points, place_N2.tolist(), strict=True):
        yield {"modality": name, "item": item, "x": x, "y": y}


def tsne(x_ND: NDArray, perplexity: float = PERPLEXITY) -> NDArray[np.float64]:
    """(N, 2) places on a plane: points near in direction are near (van der Maaten & Hinton 2008).

    scikit-learn's t-SNE of the rows scaled to length 1, so that nearness is by cosine, started from
    their first two principal components, under one fixed seed. Only who is near whom has a meaning:
    neither axes nor the sizes and distances of groups. Points that are all alike are all at 0.

    Args:
        x_ND: 4 points or more.
        perplexity: about how many neighbours a point attends to; at most a third of the others.
    """
    from sklearn.manifold import TSNE  # takes a second, and few come here
    from threadpoolctl import threadpool_limits

    unit_ND = _unit(x_ND)
    if not geometry.variance_spectrum(unit_ND).any():
        return np.zeros((len(x_ND), 2))
    # The start needs a second component, even if nothing varies along it.
    unit_ND = np.pad(unit_ND, ((0, 0), (0, max(0, 2 - unit_ND.shape[1]))))
    perplexity = min(perplexity, (len(x_ND) - 1) / 3)

    def build() -> Arrays:
        made = TSNE(init="pca", perplexity=perplexity, random_state=0)
        # Threads would sum in another order on another machine, and on a busy one wait for each
        # other: 230 s where one takes 5.
        with threadpool_limits(1):
            return {"place": made.fit_transform(unit_ND).astype(np.float64)}

    return cached("tsne-1", {"cloud": unit_ND, "perplexity": perplexity}, build)["place"]


def umap(x_ND: NDArray, neighbours: int = UMAP_NEIGHBOURS) -> NDArray[np.float64]:
    """(N, 2) places on a plane, points near in direction near (McInnes, Healy & Melville 2018).

    umap-learn's UMAP by cosine of the rows scaled to length 1, started from their first two
    principal components, under one fixed seed; to be read as `tsne`.

    Args:
        x_ND: 4 points or more.
        neighbours: how many neighbours a point has in the graph; at most all others.
    """
    from umap import UMAP  # of the extra `umap`  # pyright: ignore[reportMissingImports]

    unit_ND = _unit(x_ND)
    if not geometry.variance_spectrum(unit_ND).any():
        return np.zeros((len(x_ND), 2))
    neighbours = min(neighbours, len(x_ND) - 1)

    def build() -> Arrays:
        made = UMAP(n_neighbors=neighbours, metric="cosine", init="pca", random_state=0, n_jobs=1)
        return {"place": made.fit_transform(unit_ND).astype(np.float64)}

    return cached("umap-1", {"cloud": unit_ND, "neighbours": neighbours}, build)["place"]


def _unit(x_ND: NDArray) -> NDArray[np.float32]:
    norm_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return (x_ND / np.where(norm_N1 == 0, 1.0, norm_N1)).astype(np.float32)


PLANES = {"tsne": tsne, "umap": umap}
"""Method -> what lays points on a plane."""
