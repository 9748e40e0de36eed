"""Samples of item embeddings before training and after, as trials keep them.

A cloud is named `<stage>/<modality>`. Stages: `features`, the raw features under the trial's
condition; `start`, the untrained model; `trained`, the model that is ranked in the end. At the last
two a modality's cloud is what the model sees by it alone (`Recommender.item_views`), and `all` are
the items' embeddings as they are scored.

Letters in names: I items, N sampled items, D width.
"""

import hashlib
import io
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from mmrec.data.dataset import Category, Dataset, Dense, Tags
from mmrec.models.base import Recommender
from mmrec.nn.features import values_of
from mmrec.study.store import Folder
from mmrec.training import Run

STAGES = ("features", "start", "trained")
ALL = "all"
"""Stands for a modality: the embeddings that are scored."""
ITEMS = "items"
"""Stands for a stage: which items a modality's clouds are of."""
_SAMPLE_SEED = 0


# --- at a trial's end


def clouds_of(run: Run, limit: int = 2000) -> dict[str, NDArray]:
    """The clouds of a run that has come to its end, (N, D) float32 each, and their items.

    The sample depends on the dataset and on which modalities the model sees, never on the seed:
    items that have all of them come first, so that all clouds are of the same items where `limit`
    of them do; `items/<modality>` (N,) says which. A modality that fewer than two items have makes
    no cloud. Empty for a closed form, which nothing trains.

    Args:
        run: its model may be left in its best state.
        limit: at most this many items a cloud.

    Raises:
        FloatingPointError: a cloud holds numbers that are not finite.
    """
    if run.cfg.model.closed_form:
        return {}
    data = run.data if run.evaluate_on is None else run.evaluate_on
    tables = {"start": _seen(run.untrained(data).eval()), "trained": _seen(run.scored())}
    views = {name: view_ID for name, view_ID in tables["trained"].items() if name != ALL}
    present = {name: _present(data, name, view_ID) for name, view_ID in views.items()}
    names = [name for name, has_I in present.items() if has_I.sum() > 1]
    present = {name: present[name] for name in names}
    sample = _sample(present, data.num_items, limit)
    raw = {name: data.features.get(name) for name in names}
    tables["features"] = {
        name: values_of(feature)
        for name, feature in raw.items()
        if isinstance(feature, Dense | Tags | Category)
    }
    clouds: dict[str, NDArray] = {f"{ITEMS}/{name}": items for name, items in sample.items()}
    for stage in STAGES:
        for name, item_N in sample.items():
            if name not in tables[stage]:
                continue
            cloud_ND = tables[stage][name][item_N].astype(np.float32)
            if not np.isfinite(cloud_ND).all():
                raise FloatingPointError(f"the cloud {stage}/{name} is not finite")
            clouds[f"{stage}/{name}"] = cloud_ND
    return clouds


@torch.no_grad()
def _seen(model: Recommender) -> dict[str, NDArray]:
    """(I, D) by modality, and by `ALL`."""
    tables = {**model.item_views(), ALL: model.embeddings()[1]}
    return {name: table_ID.cpu().numpy() for name, table_ID in tables.items()}


def _present(data: Dataset, name: str, view_ID: NDArray) -> NDArray[np.bool_]:
    """(I,) which items have the modality; where it is no feature, the view's rows of nan say so."""
    feature = data.features.get(name)
    return np.asarray(~np.isnan(view_ID).any(axis=1)) if feature is None else feature.present


def _sample(
    present: Mapping[str, NDArray[np.bool_]], num_items: int, limit: int
) -> dict[str, NDArray[np.int64]]:
    """(N,) items by modality, ascending: complete ones first, each kind in one random order."""
    order_I = np.random.default_rng(_SAMPLE_SEED).permutation(num_items)
    present = {**present, ALL: np.ones(num_items, dtype=np.bool_)}
    complete_I = np.logical_and.reduce(list(present.values()))
    order_I = order_I[np.argsort(~complete_I[order_I], kind="stable")]
    return {name: np.sort(order_I[has_I[order_I]][:limit]) for name, has_I in present.items()}


# --- in the run folder


def write(folder: Folder, name: str, clouds: Mapping[str, NDArray]) -> None:
    """Store a trial's clouds in `trials/<name>/clouds.npz`.

    Raw features, which all trials under one condition share and which are the widest, lie once in
    `features/<digest>.npz`, named by content.
    """
    own = dict(clouds)
    for key, cloud_ND in clouds.items():
        if key.startswith("features/"):
            digest = hashlib.sha256(np.ascontiguousarray(cloud_ND).data).hexdigest()[:16]
            own[key] = np.array(digest)
            if not folder.exists(_features_file(digest)):
                folder.write(_features_file(digest), _packed({"values": cloud_ND}))
    folder.write(_file(name), _packed(own))


def kept(folder: Folder, name: str) -> bool:
    """Whether a trial kept clouds."""
    return folder.exists(_file(name))


def read(folder: Folder, name: str) -> dict[str, NDArray]:
    """What `write` was given; FileNotFoundError where the trial kept no clouds."""
    clouds = _unpacked(folder.read(_file(name)))
    for key, stored in clouds.items():
        if key.startswith("features/"):
            clouds[key] = _features(folder, str(stored))
    return clouds


@lru_cache(maxsize=8)
def _features(folder: Folder, digest: str) -> NDArray:
    return _unpacked(folder.read(_features_file(digest)))["values"]


def _file(name: str) -> str:
    return f"trials/{name}/clouds.npz"


def _features_file(digest: str) -> str:
    return f"features/{digest}.npz"


def _packed(arrays: Mapping[str, NDArray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def _unpacked(content: bytes) -> dict[str, NDArray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file)
