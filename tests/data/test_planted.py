import dataclasses
import time
from itertools import combinations, product

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmrec.data.interests import diversity
from mmrec.data.planted import BUILT_IN, Planted, noise_only, planted, planted_raw
from mmrec.data.planted_features import Modality
from tests.data.probes import (
    content,
    cosine,
    ids_only,
    ndcg_at_10,
    popularity,
    table,
    train_matrix,
    values,
)

SMALL = Planted(users=60, items=120, interactions=1200)


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


@pytest.mark.slow
def test_in_planted_five_each_modality_informs_and_interactions_most():
    data = planted(BUILT_IN["planted-five"])
    rng = np.random.default_rng(0)
    chance = ndcg_at_10(rng.random((data.num_users, data.num_items)), data)
    alone = [content(data, name) for name in ("text", "image", "audio", "genres")]
    assert min(alone) > 1.5 * popularity(data) > 5 * chance
    assert ids_only(data) > 1.1 * max(alone)
    assert content(data, "text", "image", "audio", "genres") > 1.2 * max(alone)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["valid", "test"])
def test_in_planted_five_new_users_are_ranked_for_by_what_they_are(part):
    """Ridge regression of a user's row on gender, occupation and age, from the other users."""
    data = planted(BUILT_IN["planted-five"], how="cold-user")
    liked_UI = train_matrix(data)
    old_U = liked_UI.any(axis=1)
    popular_I = liked_UI[old_U].mean(0)

    def score(*names):
        tables = [table(data.user_features[name]) for name in names]
        rows = np.concatenate([t - t[old_U].mean(0) for t in tables], axis=1)
        rows /= rows.std(0)
        inverse = np.linalg.inv(rows[old_U].T @ rows[old_U] + 30 * np.eye(rows.shape[1]))
        found_UI = popular_I + rows @ inverse @ rows[old_U].T @ (liked_UI[old_U] - popular_I)
        return ndcg_at_10(found_UI, data, part)

    popular = ndcg_at_10(np.tile(popular_I, (data.num_users, 1)), data, part)
    alone = [score(name) for name in ("gender", "occupation", "age")]
    assert min(alone) > 1.1 * popular
    assert score("gender", "occupation", "age") > 1.3 * popular


@pytest.mark.slow
@pytest.mark.parametrize("part", ["valid", "test"])
def test_in_planted_five_new_items_are_ranked_by_each_modality(part):
    """Ridge regression of an item's column on its features, from the other items."""
    data = planted(BUILT_IN["planted-five"], how="cold-item")
    liked_UI = train_matrix(data)
    old_I = liked_UI.any(axis=0)
    of_part_I = np.isin(np.arange(data.num_items), data.part(part)[:, 1])

    def score_of_part(score_UI):
        return ndcg_at_10(np.where(of_part_I, score_UI, -np.inf), data, part)

    chance = score_of_part(np.random.default_rng(0).random(liked_UI.shape))
    for name in ("text", "image", "audio", "genres"):
        rows = values(data, name) - values(data, name).mean(0)
        rows /= rows.std(0)
        inverse = np.linalg.inv(rows[old_I].T @ rows[old_I] + 100 * np.eye(rows.shape[1]))
        assert score_of_part(liked_UI[:, old_I] @ rows[old_I] @ inverse @ rows.T) > 2 * chance


def test_planted_noise_has_the_interactions_of_planted():
    informed, blind = planted(SMALL), planted(noise_only(SMALL))
    for part in ("train", "valid", "test"):
        np.testing.assert_array_equal(informed.part(part), blind.part(part))
    assert informed.digest != blind.digest


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
        "planted-five": "418a52f41ae6494f",
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


@pytest.mark.slow
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


def test_too_many_interactions_and_twin_names_are_refused():
    with pytest.raises(ValueError, match=r"a user would have .* of 120 items, over three quarters"):
        planted(dataclasses.replace(SMALL, interactions=60 * 60))
    with pytest.raises(ValueError, match=r"distinct names, got \['a', 'a'\]"):
        planted(dataclasses.replace(SMALL, modalities=(Modality(name="a"), Modality(name="a"))))


@pytest.mark.slow
def test_a_million_interactions_take_seconds():
    start = time.perf_counter()
    raw = planted_raw(BUILT_IN["planted-1m"])
    assert len(raw.pairs) == 1_000_000
    assert time.perf_counter() - start < 20
