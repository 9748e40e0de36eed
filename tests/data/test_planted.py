import dataclasses
import time
from itertools import combinations, product

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmrec.data.dataset import Dense
from mmrec.data.interests import diversity
from mmrec.data.planted import BUILT_IN, Modality, Planted, noise_only, planted, planted_raw

SMALL = Planted(users=60, items=120, interactions=1200)


def values(data, name):
    feature = data.features[name]
    assert isinstance(feature, Dense)
    return feature.values[feature.present].astype(np.float64)


def cosine(rows):
    rows = rows - rows.mean(0)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def signal(data, name):
    """Mean cosine of two items of one user, less that of two items at random."""
    cosine_II = cosine(values(data, name))
    liked_UI = np.zeros((data.num_users, data.num_items))
    liked_UI[data.train[:, 0], data.train[:, 1]] = 1
    together_II = liked_UI.T @ liked_UI
    np.fill_diagonal(together_II, 0)
    apart = ~np.eye(data.num_items, dtype=bool)
    return np.average(cosine_II, weights=together_II) - cosine_II[apart].mean()


def test_items_of_one_user_are_alike_as_far_as_a_modality_informs():
    levels = [0.0, 0.3, 0.6, 1.0]
    modalities = tuple(Modality(name=f"m{n}", informativeness=v) for n, v in enumerate(levels))
    data = planted(Planted(modalities=modalities))
    found = [signal(data, f"m{n}") for n in range(4)]
    assert found == sorted(found)
    assert abs(found[0]) < 0.01
    assert found[3] > 0.04


def ndcg_at_10(score_UI, data):
    """Of the validation items, training items masked."""
    wanted_UI = np.zeros(score_UI.shape)
    wanted_UI[data.valid[:, 0], data.valid[:, 1]] = 1
    masked_UI = np.where(train_matrix(data) > 0, -np.inf, score_UI)
    hits = np.take_along_axis(wanted_UI, np.argsort(-masked_UI, axis=1)[:, :10], axis=1)
    discount = 1 / np.log2(np.arange(10) + 2)
    best = np.cumsum(discount)[np.minimum(wanted_UI.sum(1).astype(int), 10) - 1]
    return float(np.mean((hits @ discount / best)[wanted_UI.any(1)]))


def train_matrix(data):
    liked_UI = np.zeros((data.num_users, data.num_items))
    liked_UI[data.train[:, 0], data.train[:, 1]] = 1
    return liked_UI


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


def test_content_beats_ids_in_planted_and_is_useless_in_planted_noise():
    informed, blind = planted(BUILT_IN["planted"]), planted(BUILT_IN["planted-noise"])
    assert content(informed, "text", "image") > 1.2 * ids_only(informed)
    assert content(blind, "text", "image") < 1.05 * popularity(blind) < ids_only(blind)


def test_in_planted_text_the_text_alone_informs():
    worlds = {name: planted(BUILT_IN[name]) for name in ("planted", "planted-noise")}
    data = planted(BUILT_IN["planted-text"])
    np.testing.assert_array_equal(data.train, worlds["planted"].train)
    np.testing.assert_array_equal(values(data, "text"), values(worlds["planted"], "text"))
    np.testing.assert_array_equal(values(data, "image"), values(worlds["planted-noise"], "image"))
    assert content(data, "text") > 1.2 * popularity(data) > 1.1 * content(data, "image")


def test_in_planted_encoders_the_second_of_each_modality_is_worse():
    data = planted(BUILT_IN["planted-encoders"])
    for name in ("text", "image"):
        np.testing.assert_array_equal(values(data, name), values(planted(), name))
        assert content(data, name) > 1.2 * content(data, f"{name}_b")
        assert content(data, f"{name}_b") > 1.2 * popularity(data)


def explained(data, of, by):
    """Mean R^2 of linear regressions of a basis of the columns of `of` on those of `by`."""
    of_IF, by_IF = (values(data, name) - values(data, name).mean(0) for name in (of, by))
    return np.square(np.linalg.qr(by_IF)[0].T @ np.linalg.qr(of_IF)[0]).sum() / of_IF.shape[1]


def test_an_encoder_shows_the_share_of_the_same_latent_that_it_keeps():
    """As wide as what they keep and without white noise, columns are the factors, turned."""
    informed, third = 0.7, {"width": 8, "kept": 1 / 3}
    text, image = (
        Modality(name=name, width=24, informativeness=informed, noise=0)
        for name in ("text", "image")
    )
    modalities = (
        text,
        image,
        *(
            dataclasses.replace(m, name=f"{m.name}_b", encodes=m.name, **third)
            for m in (text, image)
        ),
        dataclasses.replace(text, name="text_c", encodes="text"),
        dataclasses.replace(text, name="taste", informativeness=1.0),
    )
    spec = Planted(users=20, items=3000, interactions=400, modalities=modalities, factors=24)
    raw = planted_raw(spec)
    expected = {
        # Taste is a share of the variance of each latent factor.
        ("taste", "text"): informed,
        ("taste", "text_b"): informed / 3,
        # Encoders of one modality differ in what they keep, and in nothing else.
        ("text", "text_c"): 1,
        ("text_b", "text"): 1,
        ("text", "text_b"): 1 / 3,
        # Two modalities have taste in common.
        ("text", "image"): informed**2,
        ("text_b", "image_b"): informed**2,
        ("text_b", "image"): informed**2,
    }
    found = {pair: explained(raw, *pair) for pair in expected}
    assert found == pytest.approx(expected, abs=0.02)


def test_planted_noise_has_the_interactions_of_planted():
    informed, blind = planted(SMALL), planted(noise_only(SMALL))
    for part in ("train", "valid", "test"):
        np.testing.assert_array_equal(informed.part(part), blind.part(part))
    assert informed.digest != blind.digest


def test_a_modality_does_not_depend_on_the_others():
    alone = planted(dataclasses.replace(SMALL, modalities=(Modality(name="image", width=48),)))
    np.testing.assert_array_equal(values(alone, "image"), values(planted(SMALL), "image"))


def test_noise_correlates_as_much_as_asked():
    def correlation(asked):
        # As wide as the factors and free of taste and white noise, cosines show the noise alone.
        blind = Modality(name="a", width=200, informativeness=0, noise=0)
        modalities = (blind, dataclasses.replace(blind, name="b"))
        spec = Planted(
            users=30,
            items=120,
            interactions=600,
            modalities=modalities,
            factors=8,
            noise_correlation=asked,
        )
        pair = np.triu_indices(120, 1)
        a, b = (cosine(values(planted(spec), name))[pair] for name in "ab")
        return np.corrcoef(a, b)[0, 1]

    assert abs(correlation(0.0)) < 0.03
    # Products of two rows share both factors: noise correlated by c gives cosines by c^2.
    assert correlation(0.5) == pytest.approx(0.25, abs=0.06)
    assert correlation(1.0) > 0.95


def test_same_spec_same_bytes_and_the_seed_counts():
    assert planted(SMALL).digest == planted(SMALL).digest
    assert planted(dataclasses.replace(SMALL, seed=1)).digest != planted(SMALL).digest


def test_the_chunks_in_which_users_are_drawn_do_not_show(monkeypatch):
    whole = planted_raw(SMALL).pairs
    diverse = dataclasses.replace(SMALL, second_taste=0.5)
    second = planted_raw(diverse).pairs
    monkeypatch.setattr("mmrec.data.planted._CHUNK_CELLS", 7 * SMALL.items)
    np.testing.assert_array_equal(planted_raw(SMALL).pairs, whole)
    np.testing.assert_array_equal(planted_raw(diverse).pairs, second)


def test_digests_of_the_built_in_sets_stay():
    """A changed digest renames every trial on planted data: change it on purpose only."""
    digests = {name: planted(spec).digest for name, spec in BUILT_IN.items() if spec.users < 1000}
    assert digests == {
        "planted": "20af03d349791b0c",
        "planted-noise": "6815ecad638c785e",
        "planted-text": "f677ee96ea1fe671",
        "planted-encoders": "4bc6c3fa84c658d6",
        "planted-diverse": "14dc55ac6f0bc538",
    }


def as_lists(raw):
    return [raw.pairs[raw.pairs[:, 0] == user, 1].tolist() for user in range(raw.num_users)]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_second_taste_takes_every_other_interaction_of_its_users_alone(share):
    one = as_lists(planted_raw(SMALL))
    both = as_lists(planted_raw(dataclasses.replace(SMALL, second_taste=share)))
    assert [len(items) for items in both] == [len(items) for items in one]
    assert all(len(set(items)) == len(items) for items in both)
    changed = [user for user in range(60) if both[user] != one[user]]
    assert len(changed) == 60 * share
    for user in changed:
        assert both[user][::2] == one[user][: (len(one[user]) + 1) // 2]


def test_two_tastes_are_equally_strong_and_unrelated():
    """Items of one are alike, those of the other as much, and one of each are two at random."""
    text = (Modality(name="text", width=16, informativeness=1, noise=0),)
    spec = Planted(users=300, items=400, interactions=9000, modalities=text, factors=6)
    spec = dataclasses.replace(spec, second_taste=1.0)
    alike_II = cosine(values(planted(spec), "text"))
    means = []
    for items in as_lists(planted_raw(spec)):
        one, other = items[::2], items[1::2]
        pairs = (list(combinations(one, 2)), list(combinations(other, 2)), product(one, other))
        means.append([np.mean([alike_II[a, b] for a, b in some]) for some in pairs])
    first, second, across = np.mean(means, axis=0)
    assert first > 0.3
    assert second == pytest.approx(first, rel=0.1)
    assert abs(across) < 0.1 * first


def test_users_of_two_tastes_have_more_diverse_interests_than_users_of_one():
    spec = BUILT_IN["planted-diverse"]
    data = planted(spec)
    one = planted_raw(dataclasses.replace(spec, second_taste=0.0))
    two = [a != b for a, b in zip(as_lists(planted_raw(spec)), as_lists(one), strict=True)]
    assert sum(two) == 200
    assert roc_auc_score(two, diversity(data)) > 0.8
    assert np.isfinite(diversity(data)).all()


def test_popularity_follows_the_power_law():
    """Without taste, and while few items are used up, item r gets a share r ** -popularity."""
    spec = Planted(users=4000, items=500, interactions=40_000, taste=0, popularity=0.8)
    counts = np.sort(np.bincount(planted_raw(spec).pairs[:, 1], minlength=500))[::-1]
    ranks = np.arange(1, 501)
    slope = np.polyfit(np.log(ranks[5:200]), np.log(counts[5:200]), 1)[0]
    assert slope == pytest.approx(-0.8, abs=0.06)
    flat = dataclasses.replace(spec, popularity=0)
    counts = np.bincount(planted_raw(flat).pairs[:, 1], minlength=500)
    assert counts.std() < 1.3 * np.sqrt(counts.mean())


def test_the_number_of_interactions_is_met_and_varies_by_user():
    raw = planted_raw(SMALL)
    counts = np.bincount(raw.pairs[:, 0], minlength=60)
    assert counts.sum() == 1200
    assert counts.max() > 2 * counts.min() > 0


def test_missing_rows_are_as_many_as_asked_and_zero():
    modality = Modality(name="text", missing=0.25)
    feature = planted(dataclasses.replace(SMALL, modalities=(modality,))).features["text"]
    assert isinstance(feature, Dense)
    assert (~feature.present).sum() == 30
    assert not feature.values[~feature.present].any()
    assert feature.values[feature.present].any(axis=1).all()


def test_too_many_interactions_and_twin_names_are_refused():
    with pytest.raises(ValueError, match=r"a user would have .* of 120 items, over three quarters"):
        planted(dataclasses.replace(SMALL, interactions=60 * 60))
    with pytest.raises(ValueError, match=r"distinct names, got \['a', 'a'\]"):
        planted(dataclasses.replace(SMALL, modalities=(Modality(name="a"), Modality(name="a"))))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"encodes": "b"}, "'b' encodes 'b', which has no latent rows of its own; there are: a"),
        ({"encodes": "c"}, "'b' encodes 'c', which has no latent rows of its own; there are: a"),
        (
            {"encodes": "a", "informativeness": 0.1},
            "'b' has an informativeness of 0.1, but that of 'a', whose latent rows it shows, is",
        ),
    ],
)
def test_an_encoder_of_what_has_no_such_latent_is_refused(encoder, message):
    modalities = (Modality(name="a"), Modality(name="b", **encoder))
    with pytest.raises(ValueError, match=message):
        planted(dataclasses.replace(SMALL, modalities=modalities))


@pytest.mark.slow
def test_a_million_interactions_take_seconds():
    start = time.perf_counter()
    raw = planted_raw(BUILT_IN["planted-1m"])
    assert len(raw.pairs) == 1_000_000
    assert time.perf_counter() - start < 20
