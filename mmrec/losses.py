"""Losses: pure functions from scores or embeddings to one 0-dim tensor.

All work under `torch.func`: no Python branch on data, no data-dependent shape. Temperatures are
tensors, so that runs which differ only in them can be stacked.

Letters in names: B batch, N negatives a row, Q vectors compared with each other, C candidates,
D width.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

Similarity = Literal["dot", "cosine"]


def bpr(positive: Tensor, negative: Tensor, *, floor: float = 0.0) -> Tensor:
    """Bayesian personalised ranking, the mean of -ln sigmoid(positive - negative), in nats.

    Rendle et al., UAI 2009, eq. 4. With a `floor` of 1e-10 it is the `BPRLoss` of the MMRec
    toolbox, -ln(floor + sigmoid(.)): never above 23.03, and without a gradient where the positive
    is 23 or more below the negative. Without a floor it is what SiBraR's authors use.

    Args:
        positive: scores of any shape that broadcasts with `negative`, e.g. (B, 1).
        negative: scores, e.g. (B, N); the mean is over all pairs.
        floor: what is added to the sigmoid before the logarithm.
    """
    difference = positive - negative
    if floor:
        return -torch.log(floor + torch.sigmoid(difference)).mean()
    return F.softplus(-difference).mean()


def emb_loss(*matrices: Tensor) -> Tensor:
    """Sum of the matrices' Frobenius norms, over the rows of the last one.

    The `EmbLoss` of the MMRec toolbox: the norms are NOT squared, so that its weight means
    something else than an L2 penalty's. An all-zero matrix has gradient 0.
    """
    norms = [torch.linalg.vector_norm(matrix) for matrix in matrices]
    return torch.stack(norms).sum() / matrices[-1].shape[0]


def half_squares(*matrices: Tensor, size: int) -> Tensor:
    """Half the sum of all squared entries, over `size`.

    The L2 term of LATTICE, MGCN and SMORE, whose `size` is that of a full batch, also for the
    last, shorter one.
    """
    return torch.stack([matrix.square().sum() for matrix in matrices]).sum() / (2 * size)


def cosine_distance(first: Tensor, second: Tensor) -> Tensor:
    """1 - the mean cosine of rows that belong together, (..., D) each, of lengths 1e-8 at least."""
    return 1 - F.cosine_similarity(first, second, dim=-1, eps=1e-8).mean()


_MMD_CELLS = 2**20
"""Kernel values at a time."""


def mmd(
    first: Tensor, second: Tensor, bandwidth: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """The squared maximum mean discrepancy of two samples under a Gaussian kernel.

    Gretton et al., JMLR 2012, eq. 5, the biased estimate: mean k(x, x') + mean k(y, y') - 2 mean
    k(x, y), pairs of a row with itself included, k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)). It is
    the squared length of a signed measure, 1 / B on each x and -1 / C on each y: never negative,
    and 0 for equal samples, in both cases up to rounding.

    Differentiable once, in both samples. Value and gradient are formed together, a few rows at a
    time: neither a difference of two rows nor all kernel values are ever held.

    Args:
        first: (B, D).
        second: (C, D).
        bandwidth: 0-dim, above 0; or (K,), of kernels whose mean is k.
        weight: (B,) how often each row of both counts, B = C; None counts each once.
    """
    rows = torch.cat((first, second))
    if weight is None:
        share_B, share_C = (torch.ones_like(x[:, 0]).detach() / len(x) for x in (first, second))
    else:
        share_B = share_C = (weight / weight.sum()).detach()
    signed = torch.cat((share_B, -share_C))
    value, slope = _signed_length(rows.detach(), signed, bandwidth.detach())
    # The second term is 0, and has the gradient.
    return value + (slope * (rows - rows.detach())).sum()


def _signed_length(x_ND: Tensor, weight_N: Tensor, bandwidth: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of weight_n weight_m k(x_n, x_m) over all pairs, and its gradient (N, D)."""
    # Distances do not see a shift; their rounding grows with what rows have in common.
    x_ND = x_ND - x_ND.mean(0)
    one_N1 = torch.ones_like(x_ND[:, :1])
    sums_NE = torch.cat((weight_N[:, None] * x_ND, weight_N[:, None]), 1)
    size = max(1, _MMD_CELLS // len(x_ND))
    sigmas = bandwidth.reshape(-1).unbind()
    value, slope_ND = x_ND.new_zeros(()), torch.zeros_like(x_ND)
    for sigma in sigmas:
        scaled_ND = x_ND / sigma
        half_N1 = scaled_ND.square().sum(1, keepdim=True) / 2
        # Of the two the product is x . y - x . x / 2 - y . y / 2, the kernel's exponent.
        left_NF = torch.cat((scaled_ND, -half_N1, one_N1), 1)
        right_FN = torch.cat((scaled_ND, one_N1, -half_N1), 1).T
        sum_NE = torch.cat([(part @ right_FN).exp_() @ sums_NE for part in left_NF.split(size)])
        value = value + weight_N @ sum_NE[:, -1]
        towards_ND = sum_NE[:, :-1] - sum_NE[:, -1:] * x_ND
        slope_ND = slope_ND + 2 * weight_N[:, None] * towards_ND / sigma.square()
    return value / len(sigmas), slope_ND / len(sigmas)


def infonce(
    anchor: Tensor,
    target: Tensor,
    tau: Tensor,
    *,
    similarity: Similarity = "dot",
    weight: Tensor | None = None,
    candidates: Tensor | None = None,
) -> Tensor:
    """InfoNCE of each anchor's own target against the candidates (van den Oord 2018, eq. 4).

    Args:
        anchor: (..., Q, D).
        target: (..., Q, D); row q belongs to anchor q.
        tau: 0-dim temperature, above 0.
        similarity: dot products of the vectors as they are, or of their directions.
        weight: (..., Q) weight of each anchor in the mean; None weighs all alike. Where all
            weights are 0 the loss is 0.
        candidates: (..., C, D) what each target is held against, itself among them; None: the
            Q targets.
    """
    if candidates is None:
        return _cross_entropy(_logits(anchor, target, tau, similarity), -1, weight)
    if similarity == "cosine":
        anchor, target, candidates = (F.normalize(x, dim=-1) for x in (anchor, target, candidates))
    own = (anchor * target).sum(-1) / tau
    return _mean((anchor @ candidates.transpose(-1, -2) / tau).logsumexp(-1) - own, weight)


def symmetric_infonce(
    first: Tensor,
    second: Tensor,
    tau: Tensor,
    *,
    similarity: Similarity = "dot",
    weight: Tensor | None = None,
) -> Tensor:
    """`infonce` in both directions, SUMMED (not halved), as SiBraR's authors release it.

    Arguments as for `infonce`. The negatives of an anchor come from the other view only.
    """
    logits = _logits(first, second, tau, similarity)
    return _cross_entropy(logits, -1, weight) + _cross_entropy(logits, -2, weight)


def mean_pair_infonce(
    views: Sequence[Tensor],
    tau: Tensor,
    *,
    similarity: Similarity = "dot",
    counts: Sequence[Tensor] | None = None,
) -> Tensor:
    """`symmetric_infonce` of all pairs of views, the mean over anchors of all pairs together.

    With two views it is `symmetric_infonce`. Beyond the paper, which draws two.

    Args:
        views: two or more of shape (..., Q, D).
        tau: 0-dim temperature, above 0.
        similarity: as for `infonce`.
        counts: for every view (..., Q), whether an anchor has it; an anchor of a pair weighs the
            product of its two. None: all have all.
    """
    pairs = list(combinations(range(len(views)), 2))
    if counts is None:
        each = [symmetric_infonce(views[a], views[b], tau, similarity=similarity) for a, b in pairs]
        return sum(each[1:], each[0]) / len(each)
    weights = [counts[a] * counts[b] for a, b in pairs]
    each = [
        symmetric_infonce(views[a], views[b], tau, similarity=similarity, weight=weight)
        for (a, b), weight in zip(pairs, weights, strict=True)
    ]
    if len(each) == 1:
        return each[0]
    return _mean(torch.stack(each), torch.stack([weight.sum() for weight in weights]))


def _logits(first: Tensor, second: Tensor, tau: Tensor, similarity: Similarity) -> Tensor:
    """(..., Q, Q) similarities over the temperature."""
    if similarity == "cosine":
        first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    return cast(Tensor, _Dots.apply(first, second)) / tau


class _Dots(torch.autograd.Function):
    """(..., Q, C) dot products of the rows of two stacks, differentiable once.

    The gradient of the second comes as rows too: torch forms it turned round, with a slower
    product, and copies it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(first: Tensor, second: Tensor) -> Tensor:
        return first @ second.transpose(-1, -2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        first, second = ctx.saved_tensors
        return grad @ second, grad.transpose(-1, -2) @ first


def _cross_entropy(logits: Tensor, dim: int, weight: Tensor | None) -> Tensor:
    """Mean of -log softmax over `dim` at the diagonal."""
    own = logits.diagonal(dim1=-2, dim2=-1)
    return _mean(logits.logsumexp(dim) - own, weight)


def _mean(loss: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return loss.mean()
    total = weight.sum()
    return (weight * loss).sum() / torch.where(total > 0, total, torch.ones_like(total))
