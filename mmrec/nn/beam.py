"""Beam search over the IDs of a catalogue: nothing but items that are allowed is ever found.

Letters in names: I items, T positions of an ID, B rows, K beams a row, W codes of a position, N
nodes of one length of prefix, M nodes that are one code longer, C most children of a node, A any
number a row, R rows with equals.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.nn.tables import Constant, rows

NOTHING = -1
"""Stands where a row has no further item."""

Step = Callable[[int, Tensor | None, Tensor | None], Tensor]


class Trie(nn.Module):
    """All prefixes of IDs. With items sorted by ID, each is a range of them.

    It moves with its model, but is no part of its state.
    """

    def __init__(self, order_I: Tensor, levels: list["Level"]) -> None:
        super().__init__()
        self.order = Constant(order_I)
        """The items, sorted by their IDs."""
        self.levels = nn.ModuleList(levels)
        """One a position of the ID."""

    @classmethod
    def of(cls, code_IT: ArrayLike, sizes: Sequence[int]) -> "Trie":
        """The trie of a catalogue.

        Args:
            code_IT: the IDs, integers, those of position t in [0, sizes[t]).
            sizes: how many codes each position has.

        Raises:
            ValueError: no items or positions, a code out of range, or two items with one ID.
        """
        codes_IT = _checked(np.asarray(code_IT), sizes)
        order_I = np.lexsort(codes_IT.T[::-1])
        sorted_IT = codes_IT[order_I]
        # A node begins where any code up to its position differs from that of the item before.
        differs_IT = np.ones(codes_IT.shape, dtype=np.bool_)
        differs_IT[1:] = np.logical_or.accumulate(sorted_IT[1:] != sorted_IT[:-1], axis=1)
        if not differs_IT[:, -1].all():
            at = int(np.flatnonzero(~differs_IT[:, -1])[0])
            first, second = order_I[at - 1 : at + 1].tolist()
            raise ValueError(
                f"items {first} and {second} have the same ID {sorted_IT[at].tolist()}"
            )
        levels = []
        start_N = np.zeros(1, dtype=np.int64)
        for position in range(codes_IT.shape[1]):
            start_M = np.flatnonzero(differs_IT[:, position])
            child_N1 = np.searchsorted(start_M, np.append(start_N, len(codes_IT)))
            levels.append(Level(child_N1, sorted_IT[start_M, position], start_M, len(codes_IT)))
            start_N = start_M
        return cls(torch.from_numpy(order_I), levels)


class Level(nn.Module):
    """How the nodes of one length of prefix go on by one code."""

    def __init__(
        self, child_N1: np.ndarray, code_M: np.ndarray, start_M: np.ndarray, items: int
    ) -> None:
        super().__init__()
        self.child = Constant(torch.from_numpy(child_N1))
        """(N + 1,): the children of node n are `child[n]` to `child[n + 1]` of the M."""
        self.code = Constant(torch.from_numpy(code_M))
        """(M,) the last code of each child."""
        self.start = Constant(torch.from_numpy(np.append(start_M, items)))
        """(M + 1,): the items below child m are `start[m]` to `start[m + 1]` of the sorted ones."""
        self.most = int(np.diff(child_N1).max())
        """C."""

    def grown(self, node_BK: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, C) children of nodes, the smaller code first, and which of them there are."""
        first_BK, end_BK = (rows(self.child.value, at_BK) for at_BK in (node_BK, node_BK + 1))
        child_BKC = first_BK[..., None] + torch.arange(self.most, device=node_BK.device)
        there_BKC = child_BKC < end_BK[..., None]
        return child_BKC.clamp(max=len(self.code.value) - 1), there_BKC

    def any_below(self, child_BKC: Tensor, before_BI: Tensor) -> Tensor:
        """(B, K, C) whether children have an allowed item, by what `_counted` gives."""
        flat_BA = child_BKC.flatten(1)
        first_BA, last_BA = rows(self.start.value, flat_BA), rows(self.start.value, flat_BA + 1)
        return (before_BI.gather(1, first_BA) < before_BI.gather(1, last_BA)).view_as(child_BKC)


@torch.no_grad()
def beam_search(step: Step, trie: Trie, allowed_BI: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """(B, width) the items whose IDs are found the likeliest, best first, and log-probabilities.

    At every position the `width` likeliest prefixes of a row go on, out of those with an allowed
    item below them; hence a row gets `width` items if it is allowed so many, else all of them,
    with item -1 and log-probability -inf behind. Of equals the one with the smaller ID is first,
    whatever the width.

    Args:
        step: called with a position, which code each beam took at the position before and which
            beam of before it continues, (B, K) both, None at position 0, where K is 1. Gives
            (B, K, W) log-probabilities of the codes of the position, finite. K changes from step
            to step. Beams that are left over in rows with few items take any codes.
        trie: the catalogue.
        allowed_BI: which items each row may be given, bool.
        width: beams a row.

    Raises:
        ValueError: no beam, or `allowed_BI` is of another catalogue.
        FloatingPointError: a log-probability is not a number.
    """
    order_I = trie.order.value
    if width < 1:
        raise ValueError(f"width must be 1 or more, got {width}")
    if allowed_BI.shape[1] != len(order_I):
        raise ValueError(f"allowed is of {allowed_BI.shape[1]} items, the trie of {len(order_I)}")
    before_BI = _counted(allowed_BI, order_I)
    node_BK = torch.zeros(len(allowed_BI), 1, dtype=torch.int64, device=allowed_BI.device)
    logp_BK = torch.zeros(len(allowed_BI), 1, device=allowed_BI.device)
    code_BK = parent_BK = None
    for position, level in enumerate(trie.levels):
        assert isinstance(level, Level)
        step_BKW = step(position, code_BK, parent_BK)
        child_BKC, there_BKC = level.grown(node_BK)
        logp_BKC = logp_BK[..., None] + step_BKW.gather(2, rows(level.code.value, child_BKC))
        live_BKC = there_BKC & level.any_below(child_BKC, before_BI)
        score_BA = logp_BKC.masked_fill(~live_BKC, -torch.inf).flatten(1)
        beams = min(width, len(level.code.value), score_BA.shape[1])
        logp_BK, at_BK = _best(score_BA, beams)
        if position < len(trie.levels) - 1:
            # In the order of IDs, so that among equals the smaller ID stays in front.
            at_BK = at_BK.sort(1).values
            logp_BK = score_BA.gather(1, at_BK)
        node_BK = child_BKC.flatten(1).gather(1, at_BK)
        code_BK, parent_BK = rows(level.code.value, node_BK), at_BK // level.most
    if logp_BK.isnan().any():
        raise FloatingPointError("beam search: a log-probability is not a number")
    # The nodes are now items.
    item_BK = rows(order_I, node_BK).masked_fill(logp_BK == -torch.inf, NOTHING)
    more = (0, width - item_BK.shape[1])
    return F.pad(item_BK, more, value=NOTHING), F.pad(logp_BK, more, value=-torch.inf)


def _counted(allowed_BI: Tensor, order_I: Tensor) -> Tensor:
    """(B, I + 1) how many of the first 0, 1, ... I items of an order are allowed, plus a constant.

    The constant, 0 or 1, is what stands in the column in front; differences do not show it.
    """
    column_I = torch.cat((order_I[:1], order_I))
    # A gather reads along rows, and is five times as fast as selecting columns.
    return allowed_BI.gather(1, column_I.expand(len(allowed_BI), -1)).cumsum(1, dtype=torch.int32)


def _best(score_BA: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, count) the highest scores and where they are, of equals the first ones first.

    As a stable sort gives them, which is only made of the rows in which `topk` met equals.
    """
    score_BK, at_BK = score_BA.topk(min(count + 1, score_BA.shape[1]))
    equal_BK = (score_BK[:, 1:] == score_BK[:, :-1]) & (score_BK[:, 1:] > -torch.inf)
    (row_R,) = equal_BK.any(1).nonzero(as_tuple=True)
    if len(row_R):
        sorted_RA, order_RA = score_BA[row_R].sort(dim=1, descending=True, stable=True)
        kept = score_BK.shape[1]
        score_BK[row_R], at_BK[row_R] = sorted_RA[:, :kept], order_RA[:, :kept]
    return score_BK[:, :count], at_BK[:, :count]


def _checked(code_IT: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The IDs, if they are what `Trie.of` asks for; else ValueError."""
    if code_IT.ndim != 2 or not code_IT.size or code_IT.shape[1] != len(sizes):
        raise ValueError(f"IDs must be items x {len(sizes)} positions, got {code_IT.shape}")
    if not np.issubdtype(code_IT.dtype, np.integer):
        raise ValueError(f"IDs must be integers, got {code_IT.dtype}")
    outside = (code_IT < 0) | (code_IT >= np.asarray(sizes))
    if outside.any():
        item, position = np.argwhere(outside)[0].tolist()
        raise ValueError(
            f"item {item} has code {code_IT[item, position]} at position {position},"
            f" where there are {sizes[position]}"
        )
    return code_IT.astype(np.int64)
