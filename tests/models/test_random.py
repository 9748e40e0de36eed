from math import comb, log2, sqrt

import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dataset
from mmrec.models.random import RandomModel, RandomRanking, mixed

USERS, ITEMS, RELEVANT, K = 1500, 40, 6, 5


def built(seed: int = 0) -> RandomModel:
    none = np.zeros((0, 2), dtype=np.int64)
    data = Dataset("sizes", USERS, ITEMS, none, none, none)
    return RandomRanking().build(data, torch.Generator().manual_seed(seed))


def test_splitmix64_gives_its_published_numbers():
    """The first words of Java's and the reference implementation's stream of seed 1234567."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + golden * np.arange(5, dtype=np.uint64)
    words = mixed(torch.from_numpy(states.view(np.int64))).numpy().view(np.uint64)
    assert words.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_lists_are_as_good_as_chance():
    """Means over users against their expectations, each within four standard deviations."""
    model = built()
    top = model.score(*model.embeddings()).topk(K).indices.numpy()
    # What is relevant is low ids for some users and high ids for others.
    wanted = np.where(np.arange(USERS)[:, None] % 2, top < RELEVANT, top >= ITEMS - RELEVANT)
    share = RELEVANT / ITEMS
    hit = 1 - comb(ITEMS - RELEVANT, K) / comb(ITEMS, K)
    discount = 1 / np.log2(np.arange(2, K + 2))
    measured = {
        share: wanted.mean(1),
        hit: wanted.any(1),
        share * sum(1 / log2(k + 1) for k in range(1, K + 1)): wanted @ discount,
    }
    assert len(measured) == 3
    for expected, per_user in measured.items():
        assert abs(per_user.mean() - expected) < 4 * per_user.std() / sqrt(USERS)


def test_every_item_is_at_every_place_equally_often():
    model = built(1)
    place = model.score(*model.embeddings()).argsort(1).argsort(1).numpy()
    count = np.stack([np.bincount(place[:, i], minlength=ITEMS) for i in range(ITEMS)])
    expected = USERS / ITEMS
    freedom = (ITEMS - 1) ** 2
    chi_square = ((count - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 4 * sqrt(2 * freedom)


def test_users_and_seeds_agree_on_nothing():
    """Correlations over 40 items have deviation 1 / sqrt(39)."""
    scores = [built(seed).score(*built(seed).embeddings()).numpy() for seed in (0, 1)]
    pairs = ((scores[0], scores[1]), (scores[0][:-1], scores[0][1:]))
    for left, right in pairs:
        unit = [x - x.mean(1, keepdims=True) for x in (left, right)]
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in unit]
        found = (unit[0] * unit[1]).sum(1)
        assert abs(np.mean(found)) < 4 / sqrt((ITEMS - 1) * len(found))
        assert np.std(found) == pytest.approx(1 / sqrt(ITEMS - 1), rel=0.1)


def test_chunks_and_repetition_change_nothing():
    model = built()
    user, item = model.embeddings()
    whole = model.score(user, item)
    some, few = torch.tensor([7, 3, 1499]), torch.tensor([39, 0, 11])
    assert torch.equal(built().score(user[some], item[few]), whole[some][:, few])
    assert not torch.equal(built(1).score(user, item), whole)
    assert float(whole.min()) >= 0
    assert float(whole.max()) < 1
