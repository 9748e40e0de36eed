"""MambaRec: dilated attention refines each modality, and both are drawn towards one distribution.

Ren, Ju & Lee, "Modality Alignment with Multi-scale Bilateral Attention for Multimodal
Recommendation", CIKM 2025. It has no state-space layer. X_m are the features of modality m, Q the
items' embeddings, s the logistic function:

    reduced      Y_m = X_m R_m' O_m', R_m to a width of F // r of the raw F, O_m to `dim`
    refined      D_m = DREAM_m(Y_m), see `mmrec.nn.dream`
    purified     V_m = Q * s(B_m dropout(LayerNorm(D_m)) + b_m), one LayerNorm for all modalities
    scores       MGCN's of these V_m, see `mmrec.models.mgcn`: behaviour plus side

The losses are MGCN's `bpr` and `reg`; `mmd`, the maximum mean discrepancy of the D_m of the batch's
positive items at length 1; and `contrast`. What is refined reaches scores through the gate alone.

The described variant follows the paper:
* every modality is reduced to the same width, the widest modality's F // r. As in the release
  nothing stands between the two maps, since no paper says what: they are one map of lower rank;
* DREAM weighs channels one by one, and its weighed views are its output;
* `contrast` is InfoNCE between the D_m of the same item, both directions halved. Of its temperature
  the paper is said to give 0.01, which is also the loss's weight: the release's 0.2 is kept.

The released variant is the authors' code:
* the modality called "image", or without one the widest, is reduced to its own F // r; others go
  straight to `dim`;
* DREAM's items are maps of one position, where dilations do nothing and weights are one number an
  item, and its views are multiplied with what is weighed once more;
* `contrast` is MGCN's, of side and behaviour: no modality meets another in it.

Kept in both: item graphs of the raw features; trained feature tables; DREAM's normalisation over
all items of the catalogue in every step, batch or not; the L2 term over the size of a full batch.

Departures: two linear maps are multiplied into one before they meet the features (the numbers are
the same; a model of less rank trains in the same time). Biases are left out where normalisation
subtracts what they add, so that running means start at 0 without them; in the release these biases
drift by rounding alone. Taps of a convolution that never meet a map do not exist. MMD and
contrast look at each distinct positive item once, and count it as often as it occurs. An all-zero
row of features has itself alone as neighbour (in the release it makes every number NaN).

Several modalities: the release has image and text. MMD and the described contrast are summed over
all pairs; 3 in the side is M + 1. One modality has neither; its side is what its content is, as in
the release, and not half of that, as in MGCN.

`spatial_shape` makes true maps of the refined width, on which dilations and positions have a
meaning; no release has it. `attention` leaves weights of DREAM out.

Letters in names: U users, I items, M modalities, D embedding width, F feature columns, H reduced
width, Q distinct nodes of a batch (users, then items), or all nodes, P distinct positive items.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import prod
from typing import Annotated, Literal, cast

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.graphs import symmetric
from mmrec.losses import mmd
from mmrec.metrics import modality_gap
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.contrast import indexed_infonce
from mmrec.nn.dream import DREAM, Attention
from mmrec.nn.features import FeatureTable, item_modalities, values_of
from mmrec.nn.init import uniform, xavier_uniform
from mmrec.nn.item_graphs import neighbours
from mmrec.nn.maps import linear
from mmrec.nn.tables import occurrences, rows
from mmrec.nn.views import (
    Gate,
    Views,
    attention,
    batch_nodes,
    common_and_apart,
    preferences,
    ranking_losses,
    view_losses,
)


@config
class MambaRec(ModelConfig):
    """Width, graphs and grid: the authors' code's."""

    CARD = Card(
        "MambaRec",
        2025,
        "CIKM",
        "dilated attention, distributions drawn together",
        "one or more",
        "dilations act on maps of one position; contrast without modalities",
    )
    search_space = {"model.mmd_weight": (0.1, 0.15, 0.2), "model.bandwidth": (1.0, 1.5, 2.0)}
    released_training = {"train.lr_decay": 0.96}
    STRUCTURE = ("dropout",)

    modalities: tuple[str, ...] | None = None
    """Names of item features, all tables; None takes all there are."""
    dim: Annotated[int, Ge(1)] = 64
    """Width of embeddings and of refined features."""
    ui_layers: Annotated[int, Ge(0)] = 4
    """How many times embeddings are spread over the user-item graph."""
    item_layers: Annotated[int, Ge(0)] = 1
    """How many times gated embeddings are spread over each modality's item graph."""
    knn_k: Annotated[int, Ge(1)] = 10
    """Neighbours of an item in each modality's graph, itself among them."""
    reduction: Annotated[int, Ge(0)] = 8
    """What the width of the features is divided by, and rounded down, before they are mapped; 1
    keeps the width, with a map more than 0, which takes every modality straight to `dim`."""
    mmd_weight: Annotated[float, Ge(0)] = 0.15
    """Weight of the distance between the modalities' distributions."""
    bandwidth: Annotated[float, Gt(0)] = 1.5
    """Standard deviation of that distance's Gaussian kernel, for vectors of length 1."""
    more_bandwidths: tuple[Annotated[float, Gt(0)], ...] = ()
    """Those of further kernels, averaged with the first; our addition, the release has but one."""
    cl_weight: Annotated[float, Ge(0)] = 0.01
    """Weight of the contrast."""
    tau: Annotated[float, Gt(0)] = 0.2
    """Temperature of the contrast, a constant in the release."""
    reg_weight: Annotated[float, Ge(0)] = 1e-4
    """Weight of the L2 term on the batch's final representations."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Share of the refined features' entries that a training step sets to 0 before the gate."""
    attention: Attention = "both"
    """Which of DREAM's weights there are."""
    spatial_shape: tuple[Annotated[int, Ge(1)], ...] = ()
    """Channels, height and width of the maps that DREAM sees, whose product is `dim`; () is maps of
    one position, as in the release."""
    dilations: tuple[Annotated[int, Ge(1)], ...] = (6, 12, 18)
    """Of DREAM's 3 x 3 convolutions, one each. From a map's height or width on, a dilation leaves
    no tap but the middle one: of 8 x 8, 6 joins the rims and 12 and 18 do nothing."""
    train_features: bool = True
    """Whether the feature tables are parameters, as in the release."""
    variant: Literal["described", "released"] = "described"
    """As the paper describes it, or as the authors' code computes it; see the module."""

    def build(self, data: Dataset, init: torch.Generator) -> "MambaRecModel":
        return MambaRecModel(self, data, init)


class MambaRecModel(Recommender):
    """Dot products of behaviour plus side; content gates the items before they spread."""

    mmd_weight: Tensor
    bandwidth: Tensor
    more_bandwidths: Tensor
    cl_weight: Tensor
    tau: Tensor
    reg_weight: Tensor

    def __init__(self, cfg: MambaRec, data: Dataset, init: torch.Generator) -> None:
        """Raise ValueError if `reduction` leaves no column, or `spatial_shape` is not of `dim`."""
        super().__init__()
        names = item_modalities(cfg.modalities, data.features, "MambaRec")
        values = [values_of(data.features[name]) for name in names]
        dim, released = cfg.dim, cfg.variant == "released"
        self.names, self.released, self.dropout = names, released, cfg.dropout
        self.user_UD = xavier_uniform(data.num_users, dim, init)
        self.item_ID = xavier_uniform(data.num_items, dim, init)
        shape = [v.shape[1] for v in values]
        widths = reduced_widths(names, shape, cfg.reduction, only_one=released)
        # One more number an entry is lost in DREAM's normalisation if all entries are channels.
        bias = prod(cfg.spatial_shape[1:]) > 1
        self.reduced = nn.ModuleList(
            Reduced(v, width, dim, init, trained=cfg.train_features, bias=bias)
            for v, width in zip(values, widths, strict=True)
        )
        self.gates = nn.ModuleList(Gate(dim, init) for _ in names)
        self.several = len(names) > 1
        if self.several:
            self.attention = attention(dim, init)
            self.preferences = preferences(len(names), dim, init)
        self.dreams = nn.ModuleList(
            DREAM(
                dim,
                init,
                released=released,
                attention=cfg.attention,
                shape=cfg.spatial_shape,
                dilations=cfg.dilations,
            )
            for _ in names
        )
        self.norm = nn.LayerNorm(dim)
        self.views = Views(
            data,
            [symmetric(neighbours(v, cfg.knn_k)) for v in values],
            ui_layers=cfg.ui_layers,
            item_layers=cfg.item_layers,
        )
        dtype = torch.get_default_dtype()
        for name in (
            "mmd_weight", "bandwidth", "more_bandwidths", "cl_weight", "tau", "reg_weight",
        ):  # fmt: skip
            value = torch.tensor(getattr(cfg, name), dtype=dtype)
            self.register_buffer(name, value, persistent=False)

    def refined(self) -> list[Tensor]:
        """(I, D) of each modality, under the running statistics."""
        return [dream(own()) for dream, own in zip(self.dreams, self.reduced, strict=True)]

    def train_refined(self) -> tuple[list[Tensor], dict[str, Tensor]]:
        """(I, D) of each modality under the catalogue's own statistics, and the new running ones.

        By buffer name.
        """
        refined: list[Tensor] = []
        buffers: dict[str, Tensor] = {}
        for m, (dream, own) in enumerate(zip(self.dreams, self.reduced, strict=True)):
            refined_ID, new = cast(DREAM, dream).train_rows(own())
            refined.append(refined_ID)
            buffers |= {f"dreams.{m}.{name}": value for name, value in new.items()}
        return refined, buffers

    def purified(self, refined: Sequence[Tensor], kept: Tensor | None = None) -> list[Tensor]:
        """(I, D) of each modality; `kept` (M, I, D) bool says which entries dropout leaves."""
        normal = [self.norm(refined_ID) for refined_ID in refined]
        if kept is not None:
            scale = 1 / (1 - self.dropout)
            normal = [scale * kept_ID * x_ID for kept_ID, x_ID in zip(kept, normal, strict=True)]
        return [self.item_ID * gate(x_ID) for gate, x_ID in zip(self.gates, normal, strict=True)]

    def behaviour_and_side(
        self,
        purified: Sequence[Tensor],
        users: Tensor | None = None,
        items: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(Q, D) each, at the users and items wanted, or at all."""
        behaviour_QD, content_QMD = self.views(self.user_UD, self.item_ID, purified, users, items)
        if not self.several:
            return behaviour_QD, content_QMD[:, 0]
        side_QD = common_and_apart(behaviour_QD, content_QMD, self.attention, self.preferences)
        return behaviour_QD, side_QD

    def losses(self, batch: Batch) -> Losses:
        """`bpr`, `reg`, `contrast` and `mmd`; with one modality those that it has."""
        nodes = batch.extra
        refined, buffers = self.train_refined()
        purified = self.purified(refined, nodes.get("kept"))
        behaviour_QD, side_QD = self.behaviour_and_side(purified, nodes["users"], nodes["items"])
        size = batch.full_size or len(batch.user)
        positive_P = rows(nodes["items"], nodes["positives"])
        aligned = [rows(refined_ID, positive_P) for refined_ID in refined]
        terms: dict[str, Tensor] = {}
        if self.released:
            terms["bpr"], squares, contrast = view_losses(
                behaviour_QD, side_QD, nodes, self.tau, size=size
            )
            terms["contrast"] = self.cl_weight * contrast
        else:
            terms["bpr"], squares = ranking_losses(behaviour_QD + side_QD, nodes, size=size)
            if self.several:
                contrast = self.modal_contrast(aligned, nodes["positive_of"])
                terms["contrast"] = self.cl_weight * contrast
        terms["reg"] = self.reg_weight * squares
        if self.several:
            terms["mmd"] = self.mmd_weight * self.discrepancy(aligned, nodes["positive_of"])
        return Losses(terms, buffers)

    def modal_contrast(self, aligned: Sequence[Tensor], positive_of_B: Tensor) -> Tensor:
        """InfoNCE of the batch's rows between all pairs of modalities, the two directions halved.

        Args:
            aligned: (P, D) of each modality.
            positive_of_B: which of these each row of the batch is.
        """
        pairs = [p for pair in combinations(aligned, 2) for p in (pair, pair[::-1])]
        terms = [
            indexed_infonce(
                anchor, target, self.tau, positive_of_B, positive_of_B, similarity="cosine"
            )
            for anchor, target in pairs
        ]
        return torch.stack(terms).sum() / 2

    def discrepancy(self, aligned: Sequence[Tensor], positive_of_B: Tensor) -> Tensor:
        """MMD of the batch's rows at length 1, summed over all pairs of modalities.

        Arguments as for `modal_contrast`.
        """
        count_P = occurrences(positive_of_B, aligned[0])
        unit = [F.normalize(x_PD, dim=1) for x_PD in aligned]
        every = torch.cat((self.bandwidth[None], self.more_bandwidths))
        terms = [mmd(a, b, every, weight=count_P) for a, b in combinations(unit, 2)]
        return torch.stack(terms).sum()

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows, with their distinct nodes (`batch_nodes`), and dropout's `kept` (M, I, D)."""
        chance = draws.generator("dropout", epoch)
        size = (len(self.names), *self.item_ID.shape)
        for batch in super().epoch_batches(data, draws, epoch, shape):
            extra: Mapping[str, Tensor] = batch_nodes(batch.user, batch.positive, batch.negative)
            if self.dropout:
                kept = torch.rand(size, generator=chance) >= self.dropout
                extra = {**extra, "kept": kept.to(batch.user.device)}
            yield replace(batch, extra=extra)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        behaviour_VD, side_VD = self.behaviour_and_side(self.purified(self.refined()))
        user_UD, item_ID = (behaviour_VD + side_VD).split((len(self.user_UD), len(self.item_ID)))
        return user_UD, item_ID

    def measures(self) -> dict[str, float]:
        """`modality_gap` of the refined features, where there is more than one modality."""
        return {"modality_gap": modality_gap(self.item_views())} if self.several else {}

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the refined features, before they gate."""
        return dict(zip(self.names, self.refined(), strict=True))


class Reduced(nn.Module):
    """One modality of all items under a linear map, which may be made of two."""

    def __init__(
        self,
        values_IF: NDArray[np.float32],
        width: int | None,
        dim: int,
        init: torch.Generator,
        *,
        trained: bool,
        bias: bool,
    ) -> None:
        """To width `dim`, by way of `width` if there are two; all start as torch's own do."""
        super().__init__()
        columns = values_IF.shape[1]
        self.features = FeatureTable(values_IF, trained=trained)
        self.inner_HF = None if width is None else uniform((width, columns), columns**-0.5, init)
        fan_in = columns if width is None else width
        self.outer_DH = uniform((dim, fan_in), fan_in**-0.5, init)
        self.bias_D = uniform((dim,), fan_in**-0.5, init) if bias else None

    def forward(self) -> Tensor:
        """(I, D)."""
        weight_DF = self.outer_DH
        if self.inner_HF is not None:
            weight_DF = linear(weight_DF, self.inner_HF.T)
        return linear(self.features(), weight_DF, self.bias_D)


def reduced_widths(
    names: Sequence[str], columns: Sequence[int], reduction: int, *, only_one: bool
) -> list[int | None]:
    """The width between a modality's two maps; None where there is but one map.

    Args:
        names: the modalities.
        columns: how wide each is.
        reduction: what a width is divided by; 0 is no reduction.
        only_one: whether only "image", or without one the widest, is reduced, by its own width;
            otherwise all are, to the same width.

    Raises:
        ValueError: nothing is left.
    """
    if not reduction:
        return [None] * len(names)
    widest = max(range(len(names)), key=columns.__getitem__)
    if only_one and "image" in names:
        widest = list(names).index("image")
    width = columns[widest] // reduction
    if width < 1:
        raise ValueError(
            f"reduction={reduction} leaves nothing of the {columns[widest]} columns of"
            f" {names[widest]!r}; it can be {columns[widest]} at most"
        )
    return [width if not only_one or at == widest else None for at in range(len(names))]
