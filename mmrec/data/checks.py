"""What every dataset must hold to; what does not is refused by name, with a count and an example.

Letters in names: E interactions, N entities.
"""

from collections.abc import Mapping

import numpy as np

from mmrec.data.dataset import (
    Category,
    Codes,
    Dataset,
    Dense,
    Feature,
    Neighbours,
    Pairs,
    Tags,
    freeze,
)
from mmrec.data.features import within

PARTS = ("train", "valid", "test")


def seal(data: Dataset) -> Dataset:
    """`data`, checked, and its arrays made read-only in place."""
    check(data)
    freeze(data.part(part) for part in PARTS)
    for features in (data.features, data.user_features):
        for feature in features.values():
            freeze(feature.arrays().values())
    return data


def check(data: Dataset) -> None:
    """Raise unless a dataset is whole.

    Raises:
        ValueError: a part is empty; an id is out of range; a pair occurs twice, in one part or in
            two; a feature has not one row an entity, or holds values that it must not.
    """
    for part in PARTS:
        pairs = data.part(part)
        if not len(pairs):
            notes = "; ".join(data.notes)
            raise ValueError(
                f"dataset {data.name!r}: the {part} part of the split {data.split!r} is empty"
                + (f" ({notes})" if notes else "")
            )
        check_ids(pairs, data.num_users, data.num_items, f"{data.name} {part}")
    check_unique(np.concatenate([data.part(part) for part in PARTS]), data.num_items, data.name)
    check_features(data.features, data.num_items, "items")
    check_features(data.user_features, data.num_users, "users")


def check_ids(pairs: Pairs, num_users: int, num_items: int, what: str) -> None:
    """ValueError unless `pairs` is an (E, 2) int64 array of users and items that exist."""
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != np.int64:
        raise ValueError(
            f"{what!r}: pairs must be an (E, 2) int64 array, got {pairs.shape} of {pairs.dtype}"
        )
    within(pairs[:, 0], num_users, f"{what} users")
    within(pairs[:, 1], num_items, f"{what} items")


def check_unique(pairs: Pairs, num_items: int, what: str) -> None:
    """ValueError, with the count and an example, when a pair occurs twice."""
    key_E = np.sort(pairs[:, 0] * num_items + pairs[:, 1])
    again = np.flatnonzero(key_E[1:] == key_E[:-1])
    if len(again):
        user, item = divmod(int(key_E[again[0]]), num_items)
        raise ValueError(
            f"{what!r}: {len(again)} interactions are duplicates of others, counting across the"
            f" parts of the split (first: user {user}, item {item})"
        )


def check_features(features: Mapping[str, Feature], count: int, entities: str) -> None:
    """ValueError unless each modality has a sound row for each of `count` entities."""
    for name, feature in features.items():
        if len(feature) != count:
            raise ValueError(
                f"modality {name!r} has {len(feature)} rows, but there are {count} {entities}:"
                " row n must be the feature of id n"
            )
        _check_values(name, feature)


def _check_values(name: str, feature: Feature) -> None:
    count = len(feature)
    match feature:
        case Dense():
            _check_rows(name, len(feature.values), count)
            broken = int((~np.isfinite(feature.values).all(axis=1)).sum())
            if broken:
                raise ValueError(f"modality {name!r}: {broken} rows hold NaN or infinities")
            filled = int(feature.values[~feature.present].any(axis=1).sum())
            if filled:
                raise ValueError(f"modality {name!r}: {filled} missing rows are not zero")
        case Category():
            _check_rows(name, len(feature.codes), count)
            within(feature.codes, len(feature.names), f"{name} levels")
        case Codes():
            _check_rows(name, len(feature.codes), count)
            if feature.codes.shape[1] != len(feature.sizes):
                raise ValueError(
                    f"modality {name!r}: {feature.codes.shape[1]} codes an item, but"
                    f" {len(feature.sizes)} code-book sizes"
                )
            for level, size in enumerate(feature.sizes):
                within(feature.codes[:, level], size, f"{name} level {level}")
        case Tags():
            _check_rows(name, len(feature.starts) - 1, count)
            within(feature.ids, len(feature.names), f"{name} labels")
        case Neighbours():
            _check_rows(name, len(feature.starts) - 1, count)
            within(feature.ids, count, f"{name} neighbours")
        case _:
            raise TypeError(f"modality {name!r} is of an unknown kind, {type(feature).__name__}")


def _check_rows(name: str, rows: int, count: int) -> None:
    if rows != count:
        raise ValueError(f"modality {name!r}: {rows} rows of values, but {count} of presence")
