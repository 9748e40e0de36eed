"""InfoNCE between two views of nodes, in which no node is its own negative.

Beside `mmrec.nn.contrast`, whose pairs are held against a batch with its repetitions.

Letters in names: B pairs, Q nodes, C others, D width, R nodes of a chunk,
N all nodes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmrec.nn.formed import chunks, formed
from mmrec.nn.tables import occurrences


def drawn_nodes(num_nodes: int, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Some of N nodes, or all if `size` is more, drawn uniformly without replacement.

    Returns:
        (C,) the nodes, and (N,) where among them each is; C stands for nowhere.
    """
    drawn_C = torch.randperm(num_nodes, generator=rng)[:size]
    place_N = torch.full((num_nodes,), len(drawn_C))
    place_N[drawn_C] = torch.arange(len(drawn_C))
    return drawn_C, place_N


def node_infonce(
    anchor_QD: Tensor,
    target_QD: Tensor,
    tau: Tensor,
    at_B: Tensor,
    *,
    others_CD: Tensor | None = None,
    place_Q: Tensor | None = None,
) -> Tensor:
    """Mean over B pairs of InfoNCE with cosines; pair b is the two views of node `at_B[b]`.

    A node's own target counts once, and so does the target of every other node it is held against.
    Differentiable once, in anchors, targets and others; `tau` gets no gradient.

    Args:
        anchor_QD: one view of distinct nodes; those that no pair names do not count.
        target_QD: the other view of the same nodes.
        tau: 0-dim temperature, above 0.
        at_B: (B,) int64.
        others_CD: targets of other distinct nodes; None: of all nodes that pairs name.
        place_Q: (Q,) int64 where in `others_CD` each node is itself, and C where it is not.
    """
    anchor_QD, target_QD = F.normalize(anchor_QD, dim=-1) / tau, F.normalize(target_QD, dim=-1)
    weight_Q = occurrences(at_B, anchor_QD)
    if others_CD is None:
        others_CD, count_C = target_QD, weight_Q.clamp(max=1)
        place_Q = torch.arange(len(target_QD), device=target_QD.device)
    else:
        others_CD = F.normalize(others_CD, dim=-1)
        count_C = torch.ones_like(others_CD[:, 0]).detach()
    # A last row that never counts, so that a node without a place has one to leave out.
    others_CD, count_C = F.pad(others_CD, (0, 0, 0, 1)), F.pad(count_C, (0, 1))
    own_Q = (anchor_QD * target_QD).sum(-1)
    total = formed(_log_partition, anchor_QD, others_CD, own_Q, weight_Q, count_C, place_Q)
    return (total - (weight_Q * own_Q).sum()) / len(at_B)


def _log_partition(
    anchor_QD: Tensor,
    others_CD: Tensor,
    own_Q: Tensor,
    weight_Q: Tensor,
    count_C: Tensor,
    place_Q: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum over q of weight_q ln(exp(own_q) + sum of count_c exp(anchor_q . other_c)).

    The second sum leaves out c = place_q. And its derivatives by anchors, others and own logits.
    """
    counted_CD = others_CD * count_C[:, None]
    # The product with it sums both the others and their counts.
    sums_CE = torch.cat((counted_CD, count_C[:, None]), 1)
    grad_QD, grad_CD = torch.empty_like(anchor_QD), torch.zeros_like(others_CD)
    grad_Q = torch.empty_like(own_Q)
    total = own_Q.new_zeros(())
    for part in chunks(len(anchor_QD), len(others_CD), anchor_QD.device):
        anchor_RD, own_R1 = anchor_QD[part], own_Q[part, None]
        weight_R1 = weight_Q[part, None]
        logit_RC = anchor_RD @ others_CD.T
        logit_RC[:, -1] = -torch.inf
        logit_RC.scatter_(1, place_Q[part, None], -torch.inf)
        largest_R1 = torch.maximum(logit_RC.amax(1, keepdim=True), own_R1)
        exp_RC, exp_R1 = logit_RC.sub_(largest_R1).exp_(), (own_R1 - largest_R1).exp()
        sums_RE = exp_RC @ sums_CE
        sum_R1 = sums_RE[:, -1:] + exp_R1
        total = total + (weight_R1 * (sum_R1.log() + largest_R1)).sum()
        share_R1 = weight_R1 / sum_R1
        torch.mul(sums_RE[:, :-1], share_R1, out=grad_QD[part])
        grad_Q[part] = (share_R1 * exp_R1)[:, 0]
        grad_CD += exp_RC.T @ (anchor_RD * share_R1)
    return total, grad_QD, grad_CD * count_C[:, None], grad_Q
