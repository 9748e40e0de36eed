"""Beam search against definitions in plain Python, on log-probabilities of whole prefixes."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmrec.nn.beam import Trie, beam_search

SIZES = (3, 4, 1, 2)
EVERY = list(product(*map(range, SIZES)))


class Language:
    """Random log-probabilities of the next code, another for every row and every prefix."""

    def __init__(self, rows: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.table = [
            torch.tensor(rng.normal(size=(rows, *SIZES[: t + 1]))).log_softmax(-1)
            for t in range(len(SIZES))
        ]
        self.prefix_BKT = torch.zeros(rows, 1, 0, dtype=torch.int64)

    def step(self, position: int, code_BK: Tensor | None, parent_BK: Tensor | None) -> Tensor:
        if code_BK is not None and parent_BK is not None:
            known = parent_BK[..., None].expand(-1, -1, self.prefix_BKT.shape[2])
            self.prefix_BKT = torch.cat((self.prefix_BKT.gather(1, known), code_BK[..., None]), 2)
        row_B1 = torch.arange(len(self.prefix_BKT))[:, None]
        return self.table[position][(row_B1, *self.prefix_BKT.unbind(2))]

    def logp(self, row: int, prefix: tuple[int, ...]) -> float:
        return sum(float(self.table[t][row][prefix[: t + 1]]) for t in range(len(prefix)))


def catalogue(items: int, seed: int = 0) -> list[tuple[int, ...]]:
    chosen = np.random.default_rng(seed).permutation(len(EVERY))[:items]
    return [EVERY[at] for at in chosen]


def by_definition(language: Language, row: int, items: dict[tuple[int, ...], int], width: int):
    """A beam search of one row: (item, log-probability) of `items`, those allowed."""
    beams: list[tuple[int, ...]] = [()]
    for position in range(len(SIZES)):
        longer = {ID[: position + 1] for ID in items if ID[:position] in beams}
        beams = sorted(longer, key=lambda prefix: (-language.logp(row, prefix), prefix))[:width]
    return [(items[ID], language.logp(row, ID)) for ID in beams]


def assert_found(found: tuple[Tensor, Tensor], row: int, expected: list, width: int) -> None:
    missing = width - len(expected)
    items, logps = zip(*expected, strict=True) if expected else ((), ())
    assert found[0][row].tolist() == [*items, *[-1] * missing]
    assert found[1][row].tolist() == pytest.approx([*logps, *[-np.inf] * missing], abs=1e-12)


def test_wide_enough_it_is_the_ranking_of_all_items():
    ids, width = catalogue(15), 17
    language, trie = Language(4), Trie.of(np.array(ids), SIZES)
    allowed = torch.rand(4, 15, generator=torch.Generator().manual_seed(1)) < 0.6
    allowed[0], allowed[3] = True, False
    found = beam_search(language.step, trie, allowed, width)
    for row in range(4):
        every = [(item, language.logp(row, ids[item])) for item in range(15) if allowed[row, item]]
        assert_found(found, row, sorted(every, key=lambda pair: -pair[1]), width)


@given(
    items=st.integers(1, len(EVERY)),
    width=st.integers(1, 9),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_it_finds_what_the_definition_finds_and_nothing_forbidden(items, width, share, seed):
    ids = catalogue(items, seed)
    language, trie = Language(2, seed), Trie.of(np.array(ids), SIZES)
    allowed = torch.rand(2, items, generator=torch.Generator().manual_seed(seed)) < share
    found = beam_search(language.step, trie, allowed, width)
    for row in range(2):
        there = {ids[item]: item for item in range(items) if allowed[row, item]}
        assert_found(found, row, by_definition(language, row, there, width), width)
        listed = found[0][row][found[0][row] >= 0].tolist()
        assert len(set(listed)) == len(listed) == min(width, len(there))
        assert set(listed) <= set(there.values())


@pytest.mark.parametrize("width", [1, 3, 11])
def test_of_equals_the_smaller_id_is_first(width):
    ids = catalogue(11, seed=3)
    trie = Trie.of(np.array(ids), SIZES)

    def step(position: int, code_BK: Tensor | None, parent_BK: Tensor | None) -> Tensor:
        beams = 1 if code_BK is None else code_BK.shape[1]
        return torch.zeros(1, beams, SIZES[position])

    item, logp = beam_search(step, trie, torch.ones(1, 11, dtype=torch.bool), width)
    assert item[0].tolist() == sorted(range(11), key=lambda i: ids[i])[:width]
    assert not logp.any()


def test_ids_that_name_no_items_are_refused():
    with pytest.raises(ValueError, match=r"items 0 and 2 have the same ID \[1, 0\]"):
        Trie.of(np.array([[1, 0], [0, 1], [1, 0]]), (2, 2))
    with pytest.raises(ValueError, match="item 1 has code 2 at position 0, where there are 2"):
        Trie.of(np.array([[1, 0], [2, 1]]), (2, 2))
    with pytest.raises(ValueError, match="items x 3 positions"):
        Trie.of(np.array([[1, 0]]), (2, 2, 2))
    with pytest.raises(ValueError, match="integers"):
        Trie.of(np.array([[0.5, 0]]), (2, 2))


def test_what_is_no_number_is_refused():
    trie = Trie.of(np.array([[0], [1]]), (2,))
    with pytest.raises(FloatingPointError, match="not a number"):
        beam_search(lambda *_: torch.full((1, 1, 2), torch.nan), trie, torch.ones(1, 2).bool(), 2)
    with pytest.raises(ValueError, match="allowed is of 3 items, the trie of 2"):
        beam_search(lambda *_: torch.zeros(1, 1, 2), trie, torch.ones(1, 3).bool(), 2)


def test_of_equals_by_other_ways_the_smaller_id_is_first():
    trie = Trie.of(np.array([[1, 0], [0, 0], [1, 1]]), (2, 2))
    table = torch.tensor([[-2.0, -1.0]]), torch.tensor([[-1.0, 0.0], [-2.0, -4.0]])

    def step(position: int, code_BK: Tensor | None, parent_BK: Tensor | None) -> Tensor:
        return table[0][:, None] if code_BK is None else table[1][code_BK]

    item, logp = beam_search(step, trie, torch.ones(1, 3, dtype=torch.bool), 3)
    assert item.tolist() == [[1, 0, 2]]
    assert logp.tolist() == [[-3.0, -3.0, -5.0]]
