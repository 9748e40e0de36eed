"""Whole semantic IDs of items: the code words of all modalities one after the other, as tokens.

Letters in names: N = I items, L levels of a modality, T positions of an ID.
"""

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PADDING = 0
"""The token that stands where there is none."""
BEGIN = 1
"""The token that a decoder is given first."""
FIRST = 2
"""The first token that is a code."""

Codes = NDArray[np.int64]
Coded = tuple[str, Codes, tuple[int, ...], NDArray[np.bool_]]
"""(modality, codes (N, L), sizes (L), present (N,)); codes of missing rows do not count."""


class SemanticIDs(NamedTuple):
    """Every item's ID, all of one length, no two alike."""

    code_IT: Codes
    """(I, T) within a position: in [0, sizes[t])."""
    sizes: tuple[int, ...]
    """How many codes each position has."""
    token_IT: Codes
    """(I, T) `first_T + code_IT`: each position has tokens of its own."""
    first_T: Codes
    """(T,) each position's first token."""
    vocabulary: int
    """Number of tokens, padding and begin among them."""
    spans: dict[str, slice]
    """The positions of each modality, in their order."""
    collisions: float
    """Share of items that share the codes of all modalities with another."""


def semantic_ids(parts: Sequence[Coded], *, transition_tokens: bool) -> SemanticIDs:
    """IDs from the codes of modalities, in the order given.

    C = [c_0, ..., c_i, s_1, c_{i+1}, ..., s_{k-1}, ..., c_n] (arXiv 2503.23333), a token s_i where
    modality i ends and the next begins, if asked for. A modality that some item lacks has one code
    more at each level, the last one, which stands for that. If any items share all of this, one
    position more at the very end, for all items, counts those that do: 0, 1, 2 ... by their number
    (GRID's; whether one a modality or one in all the paper does not say).

    Raises:
        ValueError: there is no modality or one twice, arrays do not fit, or a code is not in its
            level's range.
    """
    names = [name for name, *_ in parts]
    if not parts or len(set(names)) < len(names):
        raise ValueError(f"an ID is made of one or more distinct modalities, got {names}")
    columns, sizes, spans = [], [], {}
    for name, code_NL, size_L, present_N in parts:
        code_NL, size_L = _whole(name, code_NL, size_L, present_N)
        if columns and len(code_NL) != len(columns[0]):
            raise ValueError(
                f"modality {name!r} has codes of {len(code_NL)} items,"
                f" {names[0]!r} of {len(columns[0])}"
            )
        if columns and transition_tokens:
            columns.append(np.zeros((len(code_NL), 1), dtype=np.int64))
            sizes.append(1)
        spans[name] = slice(len(sizes), len(sizes) + len(size_L))
        columns.append(code_NL)
        sizes.extend(size_L)
    code_IT = np.concatenate(columns, axis=1)
    nth_I, collisions = _nth_of_alike(code_IT)
    if nth_I.any():
        code_IT = np.concatenate([code_IT, nth_I[:, None]], axis=1)
        sizes.append(int(nth_I.max()) + 1)
    *first, vocabulary = accumulate(chain([FIRST], sizes))
    first_T = np.array(first)
    return SemanticIDs(
        code_IT, tuple(sizes), first_T + code_IT, first_T, vocabulary, spans, collisions
    )


def _whole(
    name: str, code_NL: Codes, size_L: tuple[int, ...], present_N: NDArray[np.bool_]
) -> tuple[Codes, tuple[int, ...]]:
    """A modality's codes and sizes with a code word for rows that are missing, if any are."""
    if code_NL.shape != (len(present_N), len(size_L)) or not code_NL.size:
        raise ValueError(
            f"modality {name!r}: codes {code_NL.shape} of {len(present_N)} items at"
            f" {len(size_L)} levels"
        )
    here_NL = code_NL[present_N]
    wrong_L = ((here_NL < 0) | (here_NL >= np.array(size_L))).any(0)
    if wrong_L.any():
        level = int(wrong_L.argmax())
        found = here_NL[:, level]
        raise ValueError(
            f"modality {name!r}, level {level}: codes are in [0, {size_L[level]}), got some in"
            f" [{found.min()}, {found.max()}]"
        )
    if present_N.all():
        return code_NL, size_L
    return np.where(present_N[:, None], code_NL, size_L), tuple(size + 1 for size in size_L)


def _nth_of_alike(code_IT: Codes) -> tuple[Codes, float]:
    """((I,) how many items before this one have its codes, share of items that are not alone)."""
    _, alike_I, count = np.unique(code_IT, axis=0, return_inverse=True, return_counts=True)
    order_I = np.argsort(alike_I, kind="stable")
    begin = np.cumsum(count) - count
    nth_I = np.empty(len(code_IT), dtype=np.int64)
    nth_I[order_I] = np.arange(len(code_IT)) - np.repeat(begin, count)
    return nth_I, float(count[count > 1].sum() / len(code_IT))
