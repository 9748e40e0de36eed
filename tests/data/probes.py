"""Independent looks at a dataset: its tables, and closed forms that rank by them.

Letters in names: U users, I items, F columns of a modality.
"""

import numpy as np

from mmrec.data.dataset import Category, Dense, Tags


def table(feature):
    """A column a number, tag or level; the rows of those that have the modality."""
    if isinstance(feature, Dense):
        return feature.values[feature.present].astype(np.float64)
    marks = np.zeros((len(feature), len(feature.names)))
    if isinstance(feature, Tags):
        marks[np.repeat(np.arange(len(feature)), np.diff(feature.starts)), feature.ids] = 1
    else:
        assert isinstance(feature, Category)
        marks[np.arange(len(feature)), feature.codes] = 1
    return marks[feature.present]


def values(data, name):
    return table(data.features[name])


def share_explained(of_IF, by_IF):
    of_IF, by_IF = of_IF - of_IF.mean(0), by_IF - by_IF.mean(0)
    return np.square(np.linalg.qr(by_IF)[0].T @ np.linalg.qr(of_IF)[0]).sum() / of_IF.shape[1]


def explained(data, of, by):
    """Mean R^2 of linear regressions of a basis of the columns of `of` on those of `by`."""
    return share_explained(values(data, of), values(data, by))


def cosine(rows):
    rows = rows - rows.mean(0)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def train_matrix(data):
    liked_UI = np.zeros((data.num_users, data.num_items))
    liked_UI[data.train[:, 0], data.train[:, 1]] = 1
    return liked_UI


def ndcg_at_10(score_UI, data, part="valid"):
    """Of the items of a part, training items masked."""
    wanted_UI = np.zeros(score_UI.shape)
    wanted_UI[data.part(part)[:, 0], data.part(part)[:, 1]] = 1
    masked_UI = np.where(train_matrix(data) > 0, -np.inf, score_UI)
    hits = np.take_along_axis(wanted_UI, np.argsort(-masked_UI, axis=1)[:, :10], axis=1)
    discount = 1 / np.log2(np.arange(10) + 2)
    best = np.cumsum(discount)[np.minimum(wanted_UI.sum(1).astype(int), 10) - 1]
    return float(np.mean((hits @ discount / best)[wanted_UI.any(1)]))


def content(data, *names):
    """Best kernel ridge regression of a user's row on the items' features, over a small grid."""
    liked_UI = train_matrix(data)
    tables = [values(data, name) - values(data, name).mean(0) for name in names]
    rows = np.concatenate([table / np.sqrt(table.var(0).sum()) for table in tables], axis=1)
    kernel, own = rows @ rows.T, np.eye(data.num_items)
    popular_I = liked_UI.mean(0)
    return max(
        ndcg_at_10(
            popular_I + (liked_UI - popular_I) @ np.linalg.solve(kernel + w * own, kernel), data
        )
        for w in (1, 3, 10)
    )


def popularity(data):
    """Every user gets the items in order of their training count."""
    popular_I = train_matrix(data).mean(0)
    return ndcg_at_10(np.tile(popular_I, (data.num_users, 1)), data)


def ids_only(data):
    """Best of EASE (Steck 2019) and a truncated SVD, over a small grid."""
    liked_UI = train_matrix(data)
    scores = []
    for weight in (10, 30, 100):
        inverse = np.linalg.inv(liked_UI.T @ liked_UI + weight * np.eye(data.num_items))
        weights_II = -inverse / np.diag(inverse)
        np.fill_diagonal(weights_II, 0)
        scores.append(ndcg_at_10(liked_UI @ weights_II, data))
    left, size, right = np.linalg.svd(liked_UI, full_matrices=False)
    scores += [ndcg_at_10(left[:, :k] * size[:k] @ right[:k], data) for k in (4, 8, 16)]
    return max(scores)
