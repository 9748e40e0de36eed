"""How do time and memory of CRANE's recursive attention (RCA) grow with the number of nodes?

Dai et al. (arXiv 2601.11151) give O(N^2) and say "near-linear in practice", without a measurement
of either. Here one forward and backward pass is measured at sizes that double until a limit is
met, for every way of computing it that the project has, beside the formula as it stands. N is the
rows of one call; CRANE calls it for items and for users.

What restricts the columns (`near`) is built before the clock starts, from random columns: what a
step costs does not depend on which they are. Finding the nearest compares all pairs once, and has
a line of its own.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional as F

from mmrec.cli_scaling import main_scaling, scaling_parser
from mmrec.graphs import Graph, nearest
from mmrec.nn.rca import RCA, Reading
from mmrec.study.claims import Claim
from mmrec.study.scaling import GrowsAtLeast, GrowsAtMost, Method, Problem, Scaling

MODALITIES, DIM, DEPTH, TOP_K = 2, 64, 3, 64
PAPER = "Dai et al., arXiv 2601.11151, complexity: O(N^2) in theory, near-linear in practice"
NEAR_LINEAR, LINEAR, QUADRATIC = 1.2, 1.1, 1.8

CHUNKED, DENSE, TOPK = "nodes-tiled", "nodes-full", f"nodes-top{TOP_K}"
FEATURES, SEARCH = "features", f"search-top{TOP_K}"


class InFull(RCA):
    """The formula in plain autograd: every (N, N) matrix is in memory, for the way back too."""

    def _heard(
        self, key_ND: Tensor, joint_ND: Tensor, value_ND: Tensor, near: Graph | None
    ) -> Tensor:
        return F.relu(torch.tanh(key_ND @ joint_ND.T) @ (value_ND / len(value_ND)))


def views(problem: Problem) -> list[Tensor]:
    """Random views, which want gradients as those of a model do."""
    rng = torch.Generator().manual_seed(problem.seed + 1)  # a generator takes no negative seed
    drawn = [torch.randn(problem.nodes, DIM, generator=rng) for _ in range(MODALITIES)]
    return [view_ND.to(problem.device).requires_grad_() for view_ND in drawn]


def built(kind: type[RCA], reading: Reading) -> RCA:
    """As CRANE builds it, with weights that are the same every time."""
    init = torch.Generator().manual_seed(0)
    return kind(MODALITIES, DIM, DEPTH, init, reading=reading, shared=True, mean=True)


def both_ways(rca: RCA, view_MND: list[Tensor], near: Graph | None = None) -> Tensor:
    """One forward and backward pass; the loss."""
    loss = torch.stack([out_ND.square().mean() for out_ND in rca(view_MND, near)]).sum()
    loss.backward()
    return loss


def prepared(
    problem: Problem, kind: type[RCA] = RCA, reading: Reading = "nodes", k: int = 0
) -> Callable[[], Tensor]:
    """A step of one way to compute the attention; `k` columns, or with 0 all."""
    rca = built(kind, reading).to(problem.device)
    view_MND = views(problem)
    near = columns(problem, k).to(problem.device) if k else None
    return lambda: both_ways(rca, view_MND, near)


def columns(problem: Problem, k: int) -> Graph:
    """(N, N) with k random columns a row, one out of each k-th of the nodes.

    Raises:
        ValueError: fewer nodes than columns.
    """
    nodes = problem.nodes
    if nodes < k:
        raise ValueError(f"{k} columns of {nodes} nodes are not to be had")
    # Parts of N / k nodes each do not overlap, so that no column is drawn twice.
    start_K = np.arange(k) * nodes // k
    end_K = np.arange(1, k + 1) * nodes // k
    column_NK = np.random.default_rng(problem.seed + 1).integers(start_K, end_K, size=(nodes, k))
    first_N = np.arange(nodes + 1) * k
    ones_E = np.ones(nodes * k, dtype=np.float32)
    return Graph(sp.csr_array((ones_E, column_NK.ravel(), first_N), shape=(nodes, nodes)))


def search(problem: Problem) -> Callable[[], Tensor]:
    """A step of finding the nearest nodes by cosine, which needs no gradient."""
    view_ND = views(problem)[0].detach()
    return lambda: nearest(view_ND, TOP_K)


def check() -> None:
    """AssertionError unless tiles and the full formula give one result and one gradient."""
    found = []
    for kind in (InFull, RCA):
        rca, view_MND = built(kind, "nodes"), views(Problem(nodes=300, seed=0))
        loss = both_ways(rca, view_MND)
        slopes = [x.grad for x in (*view_MND, *rca.parameters())]
        found.append([loss.detach(), *slopes])
    torch.testing.assert_close(
        found[1], found[0], rtol=1e-3, atol=1e-6,
        msg=lambda why: f"tiles and the full formula differ, so their times mean nothing: {why}",
    )  # fmt: skip


def near_linear(method: str, text: str) -> Claim:
    """The paper's sentence, for one way of computing it."""
    return Claim(text, PAPER, GrowsAtMost(method, "seconds", NEAR_LINEAR))


SCALING = Scaling(
    name="rca_scaling",
    question="How do time and memory of CRANE's recursive attention grow with the number of nodes?",
    script=__file__,
    work=f"one forward and backward pass, {MODALITIES} modalities, width {DIM}, depth {DEPTH}",
    methods=(
        Method(
            CHUNKED,
            prepared,
            "all nodes correlate; tiles of the matrix are formed, and again on the way back",
        ),
        Method(
            DENSE, partial(prepared, kind=InFull), "the same in plain autograd, N x N in memory"
        ),
        Method(
            TOPK,
            partial(prepared, k=TOP_K),
            f"{TOP_K} given columns a node; finding them is not in its numbers",
        ),
        Method(
            FEATURES, partial(prepared, reading="features"), "features correlate, in place of nodes"
        ),
        Method(
            SEARCH,
            search,
            f"finding {TOP_K} columns a node: all pairs compared, once a training; no gradient",
        ),
    ),
    sizes=tuple(1000 * 2**k for k in range(7)),
    check=check,
    code=("mmrec.nn.rca", "mmrec.graphs"),
    claims=(
        near_linear(CHUNKED, "RCA's time grows near-linearly in practice: all nodes, in tiles"),
        near_linear(DENSE, "RCA's time grows near-linearly: all nodes, the whole matrix in memory"),
        near_linear(TOPK, f"RCA's time grows near-linearly: {TOP_K} columns a node"),
        near_linear(FEATURES, "RCA's time grows near-linearly: features correlate"),
        Claim(
            "RCA's memory grows linearly: all nodes, in tiles",
            "this project's RCA: no N x N array is kept",
            GrowsAtMost(CHUNKED, "mib", LINEAR),
        ),
        Claim(
            "RCA's memory grows quadratically: all nodes, the whole matrix in memory",
            "Dai et al., arXiv 2601.11151, complexity: O(N^2) in theory",
            GrowsAtLeast(DENSE, "mib", QUADRATIC),
        ),
    ),
    smoke_sizes=(500, 1000),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return scaling_parser(SCALING)


if __name__ == "__main__":
    sys.exit(main_scaling(SCALING))
