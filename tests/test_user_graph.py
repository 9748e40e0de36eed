import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmrec.data.dataset import Dataset
from mmrec.data.sampling import Draws
from mmrec.nn.user_graph import UserGraph, closest_users, urn
from tests.models.golden import golden, problem

RECORD = golden("dualgnn")


def dense(users: UserGraph) -> torch.Tensor:
    index = (users.graph.row_E, users.graph.column_E)
    return torch.zeros(users.graph.shape).index_put(index, users.weight_E)


def counted(counts: list[list[int]], slots: int) -> UserGraph:
    return UserGraph(sp.csr_array(np.array(counts)), slots)


def test_counts_of_common_items_are_those_of_the_release():
    found = closest_users(problem(RECORD["cases"]["main"]), 40).toarray()
    np.testing.assert_array_equal(found, RECORD["detail"]["user_graph"]["co_occurrence"])


@pytest.mark.parametrize("most", [1, 2, 3])
def test_the_closest_are_kept(most):
    found = closest_users(problem(RECORD["cases"]["main"]), most).toarray()
    every = np.array(RECORD["detail"]["user_graph"]["co_occurrence"])
    assert ((found == 0) | (found == every)).all()
    np.testing.assert_array_equal(-np.sort(-found)[:, :most], -np.sort(-every)[:, :most])
    assert (np.count_nonzero(found, axis=1) == most).all()


def test_ties_go_by_lot_and_not_by_id():
    none = np.zeros((0, 2), dtype=np.int64)
    train = np.array([(user, 0) for user in range(60)])
    found = closest_users(Dataset("shared", 60, 1, train, none, none), 5)
    assert (np.diff(found.indptr) == 5).all()
    assert 20 < found.indices.mean() < 40


def test_slots_of_an_urn():
    own_S = torch.tensor([1, 2, 4]).repeat_interleave(2000)
    slot_SK = urn(own_S, 4, torch.Generator().manual_seed(0))
    assert not slot_SK[:2000].any()
    assert (slot_SK[2000:4000, :2] == torch.tensor([0, 1])).all()
    assert (slot_SK[4000:] == torch.arange(4)).all()
    # Polya's law: from one each, every split of the slots is as likely as any other.
    first = (slot_SK[2000:4000] == 0).sum(1)
    frequency = torch.bincount(first, minlength=5) / 2000
    torch.testing.assert_close(frequency, torch.tensor([0, 1, 1, 1, 0]) / 3, rtol=0, atol=0.05)


def test_weights_are_the_softmax_over_slots():
    users = counted([[0, 3, 1, 1], [3, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], 5)
    e = np.exp
    expected = np.zeros((4, 4))
    expected[1, 0] = expected[3, 0] = 1
    expected[0, 1:] = np.array([e(3), e(1), e(1)]) / (e(3) + 2 * e(1))
    np.testing.assert_allclose(dense(users), expected, rtol=1e-6)
    # Slots 1 1 2 3 3 of user 0.
    users.fill(torch.tensor([2, 1, 2, 5, 5]))
    expected[0, 1:] = np.array([2 * e(3), e(1), 2 * e(1)]) / (2 * e(3) + 3 * e(1))
    np.testing.assert_allclose(dense(users), expected, rtol=1e-6)
    x = torch.randn(4, 2)
    torch.testing.assert_close(users(x), x + torch.tensor(expected).float() @ x)


def test_large_counts_do_not_overflow():
    torch.testing.assert_close(dense(counted([[0, 900], [900, 0]], 2)), 1 - torch.eye(2))


def test_every_epoch_fills_the_slots_of_those_who_have_few():
    ring = np.zeros((6, 6), dtype=int)
    for user in range(5):
        ring[user, [(user + 1) % 5, (user + 2) % 5]] = 1
    ring[0, [3, 4]] = 1
    users = counted(ring.tolist(), 4)
    start = dense(users)
    seen = []
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        users.start_epoch(Draws(seed), epoch)
        seen.append(dense(users))
        torch.testing.assert_close(seen[-1].sum(1), torch.tensor([1.0, 1, 1, 1, 1, 0]))
        # All counts are equal, so that the weights are shares of four slots, one at least.
        slots = 4 * seen[-1]
        torch.testing.assert_close(slots, slots.round())
        assert ((slots > 0) == torch.from_numpy(ring > 0)).all()
        assert torch.equal(seen[-1][0], start[0])
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[3])


def test_a_checkpoint_holds_the_slots():
    counts = [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]
    first, second = counted(counts, 9), counted(counts, 9)
    first.start_epoch(Draws(0), 3)
    assert not torch.equal(first.weight_E, second.weight_E)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.weight_E, second.weight_E)


def test_more_neighbours_than_slots_are_refused():
    with pytest.raises(ValueError, match="2 neighbours do not fit into 1 slots"):
        counted([[0, 1, 1], [1, 0, 0], [1, 0, 0]], 1)
