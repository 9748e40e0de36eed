"""SMORE: content is filtered by frequency along its width, and modalities meet in a spectrum.

Ong & Khong, "Spectrum-based Modality Representation Fusion Graph Convolutional Network for
Multimodal Recommendation", WSDM 2025. Z_m = A_m X_m + a_m are the mapped features, F the real
Fourier transform of a row along its D entries (orthonormal, D // 2 + 1 bins), Q the items'
embeddings, P the users', s the logistic function:

    filtered     Y_m = F^-1(F Z_m * f_m);  of all modalities  Y_f = F^-1(prod_m F Z_m * f_f)
    gated items  V_x = Q * s(B_x Y_x + b_x),  x each modality and the fusion
    behaviour    E = the mean of layers 0 to ui_layers of A^l [P; Q], A the user-item graph
    views        T_x = G_x^item_layers V_x of items, summed over a user's items by A; G_f has the
                 largest entry of all G_m at each place where one of them has any
    attention    b_m = softmax over the D ENTRIES of O_m tanh(C_m T_f + c_m), a node each
    side         S = (p_f * T_f + sum_m p_m * b_m * T_m) / (M + 1),  p_x = dropout(s(D_x E + e_x))
    scores       dot products of E + S

The losses are MGCN's. Kept from the MMRec toolbox (the authors' release has the same model): all of
the above, dropout of preferences in training only; item graphs of the raw features, which do not
follow the trained feature tables. In the released variant the attention sums to 1 over entries, so
that modalities enter at about 1 / D of the fusion's scale.

The described variant has attention that chooses between modalities, entry by entry (our mend):

    attention    b_m = exp(l_m) / sum over m' of exp(l_m'),  l_m = O_m tanh(C_m T_f + c_m)

so that the modalities together weigh as much as the fusion, whatever D and M. With one modality
b = 1, and the queries, which then decide nothing, are left out.

Several modalities: the release has image and text, and crashes without either. Here the product and
the maximum are over all there are, and M + 1 stands for the release's 3, so that with M modalities
the fused signal is of degree M in the features; with one it is a second filtered copy.

Departures: an all-zero row of features has itself alone as neighbour (in the release it makes every
number NaN). Item graphs always belong to these features (the release reloads whatever was built for
that k). A filter of a transform is a matrix, and so is what follows it up to the gate: the model
multiplies with these instead of transforming, and computes what behaviour decides at the batch's
own nodes; the numbers are the same, also that the imaginary parts of bin 0 and, for even D, of the
last bin have no effect.

Gates g of modalities (not the s above) multiply T_m, of items and of users. The fusion would be 0
without one of its factors, so there a closed gate leaves a factor of 1: it has g_m F Z_m + 1 - g_m
for F Z_m, and G_f the largest of g_m G_m. So with all gates but one closed the fusion is that of
one modality, where graphs have no entries below 0, and with all closed there is none. The cosines
of `contrast` are multiplied by the largest gate, which learns nothing from that.

Letters in names: U users, I items, X views (modalities, then the fusion), D embedding width, H
bins, S = 2 H real parts of all bins and then imaginary ones, Q distinct nodes of a batch (users,
then items), or all nodes, M modalities, E entries of the fusion's graph.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from typing import Annotated, Literal, cast

import numpy as np
import scipy.sparse as sp
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.graphs import Graph, symmetric
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn import maps
from mmrec.nn.features import MappedFeatures, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.init import linear, normal, xavier_uniform
from mmrec.nn.item_graphs import neighbours
from mmrec.nn.tables import Constant
from mmrec.nn.views import Gate, Views, batch_nodes, view_losses


@config
class SMORE(ModelConfig):
    """Width and grid: the toolbox's, whose lists are entered at the values that its timing used."""

    VERSION = 2
    CARD = Card(
        "SMORE",
        2025,
        "WSDM",
        "modalities fused in Fourier space",
        "one or more",
        "attention over entries, not modalities; crashes with one modality",
    )
    search_space = {
        "model.ui_layers": (3, 4),
        "model.image_knn_k": (10, 15, 20, 40),
        "model.knn_k": (10, 15, 20, 40),
        "model.reg_weight": (1e-5, 1e-4),
        "model.dropout": (0.0, 0.1),
    }
    released_training = {"train.lr_decay": 0.96}
    STRUCTURE = ("dropout",)

    modalities: tuple[str, ...] | None = None
    """Names of item features, all tables; None takes all there are."""
    dim: Annotated[int, Ge(2)] = 64
    """Width of embeddings and of mapped features."""
    ui_layers: Annotated[int, Ge(0)] = 4
    """How many times embeddings are spread over the user-item graph."""
    item_layers: Annotated[int, Ge(0)] = 1
    """How many times gated embeddings are spread over each view's item graph."""
    knn_k: Annotated[int, Ge(1)] = 10
    """Neighbours of an item in each modality's graph, itself among them."""
    image_knn_k: Annotated[int, Ge(1)] | None = None
    """The same for the modality called "image"; None: `knn_k`, as for the others."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Share of the preferences' entries that a training step sets to 0."""
    reg_weight: Annotated[float, Ge(0)] = 1e-4
    """Weight of the L2 term on the batch's final representations."""
    cl_weight: Annotated[float, Ge(0)] = 0.01
    """Weight of the contrast of side and behaviour."""
    tau: Annotated[float, Gt(0)] = 0.2
    """Temperature of the contrast, a constant in the release."""
    train_features: bool = True
    """Whether the feature tables are parameters, as in the release."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released", "described"] = "released"
    """Over what attention sums to 1: a row's entries, or the modalities; see the module."""

    def build(self, data: Dataset, init: torch.Generator) -> "SMOREModel":
        return SMOREModel(self, data, init)


class SMOREModel(Recommender):
    """Dot products of behaviour plus side, which sums views by what a node's behaviour prefers."""

    reg_weight: Tensor
    cl_weight: Tensor
    tau: Tensor

    def __init__(self, cfg: SMORE, data: Dataset, init: torch.Generator) -> None:
        """Raise ValueError if `image_knn_k` is given and no modality is called "image"."""
        super().__init__()
        names = item_modalities(cfg.modalities, data.features, "SMORE")
        if cfg.image_knn_k is not None and "image" not in names:
            raise ValueError(f'image_knn_k needs a modality "image"; there are: {", ".join(names)}')
        values = [values_of(data.features[name]) for name in names]
        self.names, self.modality_gates = names, gates_if(cfg.gate_modalities, names)
        dim, num_views = cfg.dim, len(names) + 1
        self.dropout, self.described = cfg.dropout, cfg.variant == "described"
        self.user_UD = xavier_uniform(data.num_users, dim, init)
        self.item_ID = xavier_uniform(data.num_items, dim, init)
        self.mapped = nn.ModuleList(
            MappedFeatures(v, dim, init, trained=cfg.train_features) for v in values
        )
        self.spectra = Spectra(dim)
        self.filter_H2 = nn.ParameterList(
            normal((dim // 2 + 1, 2), 1.0, init) for _ in range(num_views)
        )
        self.gates = nn.ModuleList(Gate(dim, init) for _ in range(num_views))
        self.preferences = nn.ModuleList(
            linear(dim, dim, init, "default") for _ in range(num_views)
        )
        self.queries = nn.ModuleList(
            nn.Sequential(
                linear(dim, dim, init, "default"),
                nn.Tanh(),
                linear(dim, dim, init, "default", bias=False),
            )
            for _ in (() if self.described and len(names) == 1 else names)
        )
        ks = [cfg.image_knn_k or cfg.knn_k if n == "image" else cfg.knn_k for n in names]
        graphs = [symmetric(neighbours(v, k)) for v, k in zip(values, ks, strict=True)]
        self.views = Views(
            data,
            [*graphs, largest(graphs)],
            ui_layers=cfg.ui_layers,
            item_layers=cfg.item_layers,
        )
        if self.modality_gates is not None:
            fusion = cast(Graph, self.views.item_graphs[-1])
            self.parts = Parts(graphs, fusion)
        for name in ("reg_weight", "cl_weight", "tau"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)

    def gated(self) -> list[Tensor]:
        """(I, D) each view of the items before it spreads."""
        spectra = [self.spectra.of(mapped()) for mapped in self.mapped]
        factors = spectra
        if self.modality_gates is not None:
            gates = self.modality_gates().unbind()
            factors = [self.spectra.towards_one(*x) for x in zip(spectra, gates, strict=True)]
        spectra = [*spectra, reduce(self.spectra.product, factors)]
        parts = zip(spectra, self.filter_H2, self.gates, strict=True)
        return [self.item_ID * gate(x_IS, self.spectra.back(f)) for x_IS, f, gate in parts]

    def behaviour_and_side(
        self, users: Tensor | None = None, items: Tensor | None = None, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(Q, D) each, at the users and items wanted, or at all; `keep` is as in `side`."""
        last_E = None
        if self.modality_gates is not None:
            last_E = self.parts(self.modality_gates())
        behaviour_QD, content_QXD = self.views(
            self.user_UD, self.item_ID, self.gated(), users, items, last_E
        )
        if self.modality_gates is not None:
            gate_X = F.pad(self.modality_gates(), (0, 1), value=1.0)
            content_QXD = gate_X[:, None] * content_QXD
        return behaviour_QD, self.side(behaviour_QD, content_QXD, keep)

    def side(self, behaviour_QD: Tensor, content_QXD: Tensor, keep: Tensor | None) -> Tensor:
        """(Q, D) of each node; `keep` (Q, X, D) bool says which preferences dropout leaves."""
        preference_QXD = torch.stack([p(behaviour_QD) for p in self.preferences], 1).sigmoid()
        if keep is not None:
            preference_QXD = preference_QXD * keep / (1 - self.dropout)
        fused_QD = content_QXD[:, -1]
        if self.queries:
            logit_QMD = torch.stack([query(fused_QD) for query in self.queries], 1)
            share_QMD = logit_QMD.softmax(1 if self.described else 2)
            content_QXD = torch.cat((share_QMD * content_QXD[:, :-1], content_QXD[:, -1:]), 1)
        return (preference_QXD * content_QXD).sum(1) / content_QXD.shape[1]

    def losses(self, batch: Batch) -> Losses:
        """`bpr`, `reg` and `contrast`, the two of users and of items summed."""
        nodes = batch.extra
        views = self.behaviour_and_side(nodes["users"], nodes["items"], _keep(nodes))
        size = batch.full_size or len(batch.user)
        ranking, squares, contrast = view_losses(
            *views, nodes, self.tau, size=size, gates=self.modality_gates
        )
        return Losses(
            {
                "bpr": ranking,
                "reg": self.reg_weight * squares,
                "contrast": self.cl_weight * contrast,
            }
        )

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows, with their distinct nodes (`batch_nodes`) and these nodes' dropout masks."""
        rng = draws.generator("dropout", epoch)
        for batch in super().epoch_batches(data, draws, epoch, shape):
            extra = batch_nodes(batch.user, batch.positive, batch.negative)
            if self.dropout:
                for name in ("users", "items"):
                    size = (len(extra[name]), len(self.gates), self.item_ID.shape[1])
                    keep = torch.rand(size, generator=rng) >= self.dropout
                    extra[f"keep_{name}"] = keep.to(batch.user.device)
            yield replace(batch, extra=extra)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        behaviour_VD, side_VD = self.behaviour_and_side()
        sizes = (len(self.user_UD), len(self.item_ID))
        user_UD, item_ID = (behaviour_VD + side_VD).split(sizes)
        return user_UD, item_ID

    def measures(self) -> dict[str, float]:
        return gate_measures(self.modality_gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) each modality's gated items, before they spread, and not the fusion."""
        return {
            name: gated(self.modality_gates, name, view_ID)
            for name, view_ID in zip(self.names, self.gated()[:-1], strict=True)
        }


def _keep(extra: Mapping[str, Tensor]) -> Tensor | None:
    if "keep_users" not in extra:
        return None
    return torch.cat((extra["keep_users"], extra["keep_items"]))


class Spectra(nn.Module):
    """The real Fourier transform of rows of D entries, orthonormal, as products with matrices.

    Of some thousand rows of 64 entries that is several times as fast as a transform. Bins without
    an imaginary part have an exact zero there.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        bins_DH = torch.fft.rfft(torch.eye(dim), norm="ortho")
        one_HH = torch.eye(bins_DH.shape[1])
        self.one_S = Constant(torch.arange(2 * len(one_HH)).lt(len(one_HH)).to(bins_DH.real.dtype))
        self.forth_SD = Constant(torch.cat((bins_DH.real, bins_DH.imag), 1).T.contiguous())
        # What a 1 and what an i in one bin become.
        self.real_HD, self.imag_HD = (
            Constant(torch.fft.irfft(unit * one_HH, n=dim, norm="ortho")) for unit in (1, 1j)
        )

    def of(self, x_ID: Tensor) -> Tensor:
        """(I, S)."""
        return maps.linear(x_ID, self.forth_SD.value)

    def product(self, first_IS: Tensor, second_IS: Tensor) -> Tensor:
        """(I, S) bin by bin."""
        (a, b), (c, d) = first_IS.chunk(2, 1), second_IS.chunk(2, 1)
        return torch.cat((a * c - b * d, a * d + b * c), 1)

    def towards_one(self, x_IS: Tensor, gate: Tensor) -> Tensor:
        """(I, S) `gate` times the spectra and 1 - gate times a one in every bin."""
        return gate * x_IS + (1 - gate) * self.one_S.value

    def back(self, filter_H2: Tensor) -> Tensor:
        """(S, D) by which a spectrum is filtered and transformed back."""
        real_H1, imag_H1 = filter_H2.split(1, 1)
        cosine_HD, sine_HD = self.real_HD.value, self.imag_HD.value
        of_real = real_H1 * cosine_HD + imag_H1 * sine_HD
        return torch.cat((of_real, real_H1 * sine_HD - imag_H1 * cosine_HD))


class Parts(nn.Module):
    """What each of several matrices has at the places where any has something."""

    def __init__(self, matrices: list[sp.csr_array], whole: Graph) -> None:
        """Of these matrices, for the entries of their `largest`."""
        super().__init__()
        width = whole.shape[1]
        place_E = (whole.row_E * width + whole.column_E).numpy()
        entry_ME = np.zeros((len(matrices), len(place_E)))
        lacking_ME = np.full_like(entry_ME, -np.inf)
        for m, matrix in enumerate(matrices):
            own = sp.coo_array(matrix)
            at = np.searchsorted(place_E, own.row.astype(np.int64) * width + own.col)
            entry_ME[m, at], lacking_ME[m, at] = own.data, 0
        self.entry_ME, self.lacking_ME = (
            Constant(torch.tensor(part, dtype=torch.get_default_dtype()))
            for part in (entry_ME, lacking_ME)
        )

    def forward(self, gate_M: Tensor) -> Tensor:
        """(E,) at each place the largest entry of those there are, each times its matrix's gate."""
        return (gate_M[:, None] * self.entry_ME.value + self.lacking_ME.value).amax(0)


def largest(matrices: list[sp.csr_array]) -> sp.csr_array:
    """The largest entry at each place where one of the matrices stores any, even below 0."""
    entries = [sp.coo_array(matrix) for matrix in matrices]
    row_E, column_E, data_E = (
        np.concatenate(parts)
        for parts in zip(*((e.row, e.col, e.data) for e in entries), strict=True)
    )
    order_E = np.lexsort((-data_E, column_E, row_E))
    row_E, column_E, data_E = row_E[order_E], column_E[order_E], data_E[order_E]
    first_E = np.ones(len(row_E), dtype=bool)
    first_E[1:] = (np.diff(row_E) != 0) | (np.diff(column_E) != 0)
    kept = (data_E[first_E], (row_E[first_E], column_E[first_E]))
    return sp.csr_array(kept, shape=matrices[0].shape)
