"""InfoNCE of a batch's pairs, whose anchors and targets recur, in one pass over the logits.

The numbers of `mmrec.losses.infonce` on gathered rows. But each distinct anchor is held against
each distinct candidate once, and the (Q, C) logits never exist as a whole: a few anchors at a time,
their exponentials give the loss and its gradient while they are still in the cache.

Letters in names: B pairs, Q anchors, C candidates, D width, R anchors of a chunk.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmrec.losses import Similarity
from mmrec.nn.formed import chunk_rows, chunks, formed
from mmrec.nn.maps import times_turned
from mmrec.nn.tables import occurrences

_CANDIDATES = 128
"""Their number is rounded up to a multiple of this."""


def _log_partition(
    anchor_QD: Tensor, candidate_CD: Tensor, weight_Q: Tensor, count_C: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum over q of weight_q ln(sum over c of count_c exp(anchor_q . candidate_c)).

    And its derivatives by anchors and candidates: the exponentials are formed once for all three.
    """
    given_Q, given_C = len(anchor_QD), len(candidate_CD)
    anchor_QD, candidate_CD, weight_Q, count_C = _padded(anchor_QD, candidate_CD, weight_Q, count_C)
    counted_CD = candidate_CD * count_C[:, None]
    # (D + 1, C): the product with it sums both the candidates and their counts.
    sums_EC = torch.cat((counted_CD, count_C[:, None]), 1).T.contiguous()
    candidate_CD = candidate_CD.contiguous()
    grad_QD = torch.empty_like(anchor_QD)
    grad_DC = torch.zeros_like(candidate_CD.T, memory_format=torch.contiguous_format)
    total = anchor_QD.new_zeros(())
    for part in chunks(len(anchor_QD), len(candidate_CD), anchor_QD.device):
        anchor_RD, weight_R = anchor_QD[part], weight_Q[part]
        logit_RC = times_turned(anchor_RD, candidate_CD)
        largest_R1 = logit_RC.amax(1, keepdim=True)
        exp_RC = logit_RC.sub_(largest_R1).exp_()
        sums_RE = times_turned(exp_RC, sums_EC)
        sum_R = sums_RE[:, -1]
        total = total + (weight_R * (sum_R.log() + largest_R1[:, 0])).sum()
        share_R1 = (weight_R / sum_R)[:, None]
        torch.mul(sums_RE[:, :-1], share_R1, out=grad_QD[part])
        grad_DC += times_turned((anchor_RD * share_R1).T.contiguous(), exp_RC.T)
    return total, grad_QD[:given_Q], (grad_DC.T * count_C[:, None])[:given_C]


def _padded(
    anchor_QD: Tensor, candidate_CD: Tensor, weight_Q: Tensor, count_C: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """More anchors and candidates, which do not count, up to shapes that come again.

    How many distinct ones a batch has is never the same twice, and every new shape of a large
    product costs a kernel (`mmrec.nn.maps`).
    """
    more_C = -len(candidate_CD) % _CANDIDATES
    candidate_CD = torch.cat((candidate_CD, candidate_CD[-1:].expand(more_C, -1)))
    rows = chunk_rows(len(candidate_CD), anchor_QD.device)
    more_Q = -len(anchor_QD) % rows if len(anchor_QD) > rows else 0
    anchor_QD = F.pad(anchor_QD, (0, 0, 0, more_Q))
    return anchor_QD, candidate_CD, F.pad(weight_Q, (0, more_Q)), F.pad(count_C, (0, more_C))


def indexed_infonce(
    anchor_QD: Tensor,
    candidate_CD: Tensor,
    tau: Tensor,
    anchor_B: Tensor,
    target_B: Tensor,
    *,
    similarity: Similarity = "dot",
    against: Literal["batch", "all"] = "batch",
) -> Tensor:
    """Mean over B pairs of InfoNCE; pair b is anchor `anchor_B[b]` and candidate `target_B[b]`.

    Differentiable once, in anchors and candidates; `tau` gets no gradient.

    Args:
        anchor_QD: (Q, D); those that no pair names do not count.
        candidate_CD: (C, D).
        tau: 0-dim temperature, above 0.
        anchor_B: (B,) int64.
        target_B: (B,) int64.
        similarity: dot products of the vectors as they are, or of their directions.
        against: "batch" holds a pair against the B targets, a repeated one as often as it occurs:
            `infonce(anchor[anchor_B], candidate[target_B], tau)`. "all" holds it against every
            candidate once: `infonce(..., candidates=candidate)`.
    """
    if similarity == "cosine":
        anchor_QD, candidate_CD = F.normalize(anchor_QD, dim=-1), F.normalize(candidate_CD, dim=-1)
    anchor_QD = anchor_QD / tau
    own_BD = anchor_QD.index_select(0, anchor_B) * candidate_CD.index_select(0, target_B)
    count_C = torch.ones_like(candidate_CD[:, 0])
    if against == "batch":
        count_C = occurrences(target_B, candidate_CD)
    weight_Q = occurrences(anchor_B, anchor_QD)
    total = formed(_log_partition, anchor_QD, candidate_CD, weight_Q, count_C.detach())
    return (total - own_BD.sum()) / len(anchor_B)
