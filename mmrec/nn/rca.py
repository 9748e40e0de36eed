"""Recursive cross-modal attention (RCA): modalities refined by how they agree with a joint space.

CRANE's attention (arXiv 2601.11151), whose equations its text leaves open, as reconstructed from
the joint cross-attention it follows (Praveen & Alam, CVPRW 2024, arXiv 2403.13659): nodes stand
where that has clip frames, and its weights of the frames' number become ones of the width.

Letters in names: N nodes, M columns (nodes too), D width, E width of values, P stored
entries, R rows and Q columns of a tile, F fan-in, O fan-out.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmrec.graphs import Graph, apart, each_lane, edge_dots, spmm
from mmrec.nn.init import linear, xavier_uniform
from mmrec.nn.maps import one_dnn

Reading = Literal["nodes", "features"]


class RCA(nn.Module):
    """A residual refinement of the views of nodes, as often as `depth` says.

    In a recursion each modality m meets each partner p, the other modalities; a lone one is its
    own. All are refined at once, from the views before it:

        J = [X_m | X_p] W_J + b, in the order of modalities, with a map for each unordered pair
        nodes:    C = tanh(Q' J'.T / sqrt(D)), (N, N), with Q = X_m W_jm;  H = ReLU(C X_m W_cm)
        features: C = tanh(X_m'.T J' / sqrt(N)), (D, D);                   H = ReLU(X_m W_cm C)
        X_m <- X_m + (mean over partners of H) W_hm

    What is primed is normalised, so that the argument of tanh is a cosine at any number of nodes:
    summed profiles, as long as their users' histories, would saturate it. W_cm and the residual
    meet the views as they are.

    * nodes: the rows of Q and J get length D^(1/4): a cosine of two nodes.
    * features: the rows of X_m and J get unit length, then the columns length N^(1/4): a cosine of
      two features, in which no node outweighs others by the length of its history.

    A row or column of zeros stays one, so a node without a modality is not refined in it.
    C with all its columns is never in memory as a whole (see `correlated`).
    """

    def __init__(
        self,
        modalities: int,
        dim: int,
        depth: int,
        init: torch.Generator,
        *,
        reading: Reading,
        shared: bool,
        mean: bool,
        normalise: bool = True,
    ) -> None:
        """Weights are drawn recursion by recursion: joint maps, then W_j, W_c and W_h.

        Args:
            modalities: how many views are refined together.
            dim: D, their width.
            depth: recursions; with 0 there are no parameters and views stay as they are.
            init: where the weights are drawn.
            reading: what correlates, nodes or features. Features need no W_j.
            shared: one set of weights for all recursions, else one for each.
            mean: in the nodes reading the sum over columns is divided by their number: the sum
                itself grows with it, and drowns the residual.
            normalise: as above; if not, what is primed is taken as it is.

        Raises:
            ValueError: no modality, or a negative depth.
        """
        super().__init__()
        if modalities < 1 or depth < 0:
            raise ValueError(
                "modalities must be at least 1 and depth at least 0,"
                f" got modalities={modalities} and depth={depth}"
            )
        self.modalities, self.depth = modalities, depth
        self.reading, self.mean, self.normalise = reading, mean, normalise
        sets = min(depth, 1) if shared else depth
        self.sets = nn.ModuleList(
            _Weights(modalities, dim, init, query=reading == "nodes") for _ in range(sets)
        )

    def forward(self, views: Sequence[Tensor], near: Graph | None = None) -> list[Tensor]:
        """(N, D) each: the refined views.

        Args:
            views: (N, D) each, one for each modality, row n of the same node in all.
            near: (N, N): only the entries that it stores, such as a node's nearest, are in C, and
                `mean` divides by their number in a row. Its weights are not used.

        Raises:
            ValueError: another number of views; or `near` for the features reading, or not of
                these nodes.
        """
        refined = list(views)
        if len(refined) != self.modalities:
            raise ValueError(f"{self.modalities} modalities need as many views, got {len(refined)}")
        if near is not None and self.reading == "features":
            raise ValueError("reading 'features' correlates no nodes: it takes no graph of them")
        if near is not None and near.shape != (len(refined[0]), len(refined[0])):
            raise ValueError(
                f"views of {len(refined[0])} nodes need a graph among them, got one of shape"
                f" {near.shape}"
            )
        for recursion in range(self.depth):
            refined = self._refined(self._weights(recursion), refined, near)
        return refined

    def _weights(self, recursion: int) -> "_Weights":
        return cast(_Weights, self.sets[recursion % len(self.sets)])

    def _refined(
        self, weights: "_Weights", views: list[Tensor], near: Graph | None
    ) -> list[Tensor]:
        heard: list[list[Tensor]] = [[] for _ in views]
        values = [view_ND @ map_DD for view_ND, map_DD in zip(views, weights.value, strict=True)]
        keys = self._keys(weights, views)
        for (first, second), joint in zip(weights.pairs, weights.joint, strict=True):
            joint_ND = self._primed(joint(torch.cat((views[first], views[second]), dim=1)))
            for m in sorted({first, second}):
                heard[m].append(self._heard(keys[m], joint_ND, values[m], near))
        return [
            view_ND + (sum(of[1:], of[0]) / len(of)) @ back_DD
            for view_ND, of, back_DD in zip(views, heard, weights.back, strict=True)
        ]

    def _keys(self, weights: "_Weights", views: list[Tensor]) -> list[Tensor]:
        """What is correlated with the joint space, over the root under the argument of tanh."""
        summed = 0
        if self.reading == "nodes":
            views = [view_ND @ map_DD for view_ND, map_DD in zip(views, weights.query, strict=True)]
            summed = 1
        if self.normalise:  # to unit length: the root takes away what it is to have beyond it
            return [self._primed(view_ND) for view_ND in views]
        return [view_ND * view_ND.shape[summed] ** -0.5 for view_ND in views]

    def _primed(self, x_ND: Tensor) -> Tensor:
        if not self.normalise:
            return x_ND
        x_ND = unit(x_ND, dim=1)
        return x_ND if self.reading == "nodes" else unit(x_ND, dim=0)

    def _heard(
        self, key_ND: Tensor, joint_ND: Tensor, value_ND: Tensor, near: Graph | None
    ) -> Tensor:
        """(N, D) H."""
        if self.reading == "features":
            return F.relu(value_ND @ torch.tanh(key_ND.T @ joint_ND))
        if near is None:
            value_ND = value_ND / len(value_ND) if self.mean else value_ND
            return F.relu(correlated(key_ND, joint_ND, value_ND))
        weight_P = torch.tanh(edge_dots(near, key_ND, joint_ND))
        sum_ND = spmm(near, value_ND, weight_P)
        if self.mean:
            sum_ND = sum_ND / near.length_N.clamp(min=1)[:, None]
        return F.relu(sum_ND)


class _Weights(nn.Module):
    """Those of one recursion."""

    def __init__(self, modalities: int, dim: int, init: torch.Generator, *, query: bool) -> None:
        super().__init__()
        each = range(modalities)
        self.pairs = [(a, b) for a in each for b in each if a < b] or [(0, 0)]
        self.joint = nn.ModuleList(linear(2 * dim, dim, init, "default") for _ in self.pairs)
        maps = [[xavier_uniform(dim, dim, init) for _ in each] for _ in range(2 + query)]
        self.query = nn.ParameterList(maps[0] if query else [])
        self.value, self.back = nn.ParameterList(maps[-2]), nn.ParameterList(maps[-1])


def unit(x_ND: Tensor, dim: int) -> Tensor:
    """(N, D) rows (`dim` 1) or columns (0) of unit length; zeros stay, and have a finite slope."""
    square = x_ND.square().sum(dim, keepdim=True)
    return x_ND * torch.where(square > 0, square, 1).rsqrt()


# --- the correlation of all nodes with all


def correlated(x_ND: Tensor, j_MD: Tensor, v_ME: Tensor) -> Tensor:
    """(N, E) tanh(x j^T) v, differentiable once, without an (N, M) array in memory.

    Tile by tile, in both directions: what is kept for the way back are the operands, and there
    each tile is formed again. Lanes go one after the other.
    """
    return cast(Tensor, _Correlated.apply(x_ND, j_MD, v_ME))


class _Correlated(torch.autograd.Function):
    @staticmethod
    def forward(x_ND: Tensor, j_MD: Tensor, v_ME: Tensor) -> Tensor:
        x_ND, j_MD = x_ND.contiguous(), j_MD.contiguous()  # as oneDNN's fast kernels need them
        out_NE = x_ND.new_zeros(len(x_ND), v_ME.shape[1])
        rows, columns = _tiles(x_ND, j_MD)
        for column in columns:
            j_QD, turned_EQ = j_MD[column], v_ME[column].T.contiguous()
            for row in rows:
                out_NE[row] += _turned(_turned(x_ND[row], j_QD, "tanh"), turned_EQ)
        return out_NE

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - what the decorator makes of it
        inputs = cast(tuple[Tensor, ...], ctx.saved_tensors)
        slopes = apart(_slopes, grads[0], *inputs).split([x.numel() for x in inputs])
        return tuple(slope.view(x.shape) for slope, x in zip(slopes, inputs, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Tensor) -> tuple[Tensor, int]:
        return torch.stack([_Correlated.apply(*lane) for lane in each_lane(info, in_dims, args)]), 0


def _slopes(grad_NE: Tensor, x_ND: Tensor, j_MD: Tensor, v_ME: Tensor) -> Tensor:
    """The gradients by x, j and v, one after the other in one vector."""
    grad_NE, x_ND, j_MD, v_ME = (part.contiguous() for part in (grad_NE, x_ND, j_MD, v_ME))
    sizes = [x_ND.numel(), j_MD.numel(), v_ME.numel()]
    slopes = x_ND.new_zeros(sum(sizes))
    x_slope, j_slope, v_slope = slopes.split(sizes)
    dx_ND, dj_MD, dv_ME = x_slope.view_as(x_ND), j_slope.view_as(j_MD), v_slope.view_as(v_ME)
    rows, columns = _tiles(x_ND, j_MD)
    # (D, R) and (E, R): narrow ones on the left, so that no large array is turned.
    turned = [(x_ND[row].T.contiguous(), grad_NE[row].T.contiguous()) for row in rows]
    for column in columns:
        j_QD, v_QE = j_MD[column], v_ME[column]
        dj_DQ, dv_EQ = (part.new_zeros(part.T.shape) for part in (j_QD, v_QE))
        for row, (x_DR, grad_ER) in zip(rows, turned, strict=True):
            tile_RQ = _turned(x_ND[row], j_QD, "tanh")
            dv_EQ += _turned(grad_ER, tile_RQ.T)
            slope_RQ = _turned(grad_NE[row], v_QE)
            _through_tanh(slope_RQ, tile_RQ)
            dx_ND[row] += _turned(slope_RQ, j_QD.T)
            dj_DQ += _turned(x_DR, slope_RQ.T)
        dj_MD[column], dv_ME[column] = dj_DQ.T, dv_EQ.T
    return slopes


def _through_tanh(slope_RQ: Tensor, tanh_RQ: Tensor) -> None:
    """Times 1 - tanh^2, in the slope's memory and in one pass."""
    torch.ops.aten.tanh_backward.grad_input(slope_RQ, tanh_RQ, grad_input=slope_RQ)


_TILE = (512, 2048)
"""Rows and columns: 4 MiB, the fastest measured on a CPU for 1,425 to 23,033 nodes."""
_TILE_ELSEWHERE = (4096, 16384)
"""A GPU wants few large products."""


def _tiles(x_ND: Tensor, j_MD: Tensor) -> tuple[list[slice], list[slice]]:
    sides = _TILE if x_ND.device.type == "cpu" else _TILE_ELSEWHERE
    rows, columns = (
        [slice(at, at + side) for at in range(0, len(table), side)]
        for table, side in zip((x_ND, j_MD), sides, strict=True)
    )
    return rows, columns


_ONE_DNN = one_dnn()
"""Its tanh of a product takes a tenth of the time of torch's tanh."""
_LEAST = 2**20
"""Multiplications from which it is asked: it builds a kernel for each new shape."""


def _turned(left_RF: Tensor, right_OF: Tensor, then: Literal["none", "tanh"] = "none") -> Tensor:
    """(R, O) left @ right.T, or its tanh, without a gradient."""
    plain = left_RF.device.type == "cpu" and left_RF.dtype == torch.float32
    if _ONE_DNN is not None and plain and left_RF.numel() * len(right_OF) >= _LEAST:
        return cast(Tensor, _ONE_DNN(left_RF, right_OF, None, then, [], None))
    out_RO = left_RF @ right_OF.T
    return out_RO.tanh_() if then == "tanh" else out_RO
