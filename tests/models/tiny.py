"""A dataset by hand: four tastes, users who share one, items that look like theirs."""

import numpy as np

from mmrec.data.dataset import Category, Dataset, Dense, Tags, csr_rows

USERS, ITEMS, TASTES = 24, 20, 4


def tiny(*, split: str = "given", missing: bool = False) -> Dataset:
    """24 users by 20 items; every user has trained on three of the five items of their taste.

    Args:
        split: what the dataset says of its split; the pairs stay as they are.
        missing: whether some entities lack some modalities.
    """
    rng = np.random.default_rng(7)
    taste_of_item = np.arange(ITEMS) % TASTES
    train, test = [], []
    for user in range(USERS):
        own = rng.permutation(np.flatnonzero(taste_of_item == user % TASTES))
        train += [(user, item) for item in own[:3]]
        test += [(user, item) for item in own[3:]]
    text = np.eye(TASTES)[taste_of_item] + 0.3 * rng.normal(size=(ITEMS, TASTES))
    labels = np.unique(
        [(i, t) for i in range(ITEMS) for t in (taste_of_item[i], rng.integers(6))], axis=0
    )
    starts, ids = csr_rows(labels, ITEMS)
    has_text, has_tags = np.ones(ITEMS, dtype=bool), np.ones(ITEMS, dtype=bool)
    has_level = np.ones(USERS, dtype=bool)
    if missing:
        has_text[[1, 5]] = False
        has_tags[[5, 9]] = False
        has_level[3] = False
        text[~has_text] = 0
        keep = has_tags[labels[:, 0]]
        starts, ids = csr_rows(labels[keep], ITEMS)
    return Dataset(
        "tiny",
        USERS,
        ITEMS,
        np.array(train),
        np.array(test),
        np.array(test),
        features={
            "tags": Tags(has_tags, starts, ids, tuple("abcdef")),
            "text": Dense(has_text, text.astype(np.float32)),
        },
        user_features={
            "level": Category(has_level, np.arange(USERS) % 3 * has_level, ("x", "y", "z"))
        },
        split=split,
        ordered=True,
    )
