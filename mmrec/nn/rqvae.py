"""Vectors as short tuples of code words, each level a word for what those before it left over.

Lee et al., "Autoregressive Image Generation using Residual Quantization", CVPR 2022; of items as
in TIGER: Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023, section 3.1.

Letters in names: N all rows, B batch, F feature columns, D width of words, L levels, K words of a
level, W words of all levels.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.nn import init as start
from mmrec.nn.maps import FEW_SHAPES, linear
from mmrec.nn.tables import rows

Errors = Literal["sum", "mean"]


def nearest_word(residual_BD: Tensor, book_KD: Tensor) -> Tensor:
    """(B,) the word with the smallest squared distance, of equal ones the first.

    From one product: |r - e|^2 is |e|^2 - 2 r e but for what all words have in common.
    """
    return torch.addmm(book_KD.square().sum(1), residual_BD, book_KD.T, alpha=-2).argmin(1)


@torch.no_grad()
def residual_codes(z_BD: Tensor, books: Sequence[Tensor]) -> Tensor:
    """(B, L) c_l = argmin_k |r_l - E^l_k|^2 with r_0 = z and r_{l+1} = r_l - E^l_{c_l}."""
    codes = []
    for book_KD in books:
        codes.append(nearest_word(z_BD, book_KD))
        z_BD = z_BD - rows(book_KD, codes[-1])
    return torch.stack(codes, 1)


def kmeans(x_ND: Tensor, most: int, iterations: int, seed: int) -> Tensor:
    """(K, D) float64 centres of k-means, K at most `most` and the number of distinct rows.

    scikit-learn's, by Lloyd from one greedy k-means++ start, in float32; deterministic on one
    thread. Centres are then the means of their rows in float64, so that of a row that is alone
    nothing is left over.
    """
    from sklearn.cluster import KMeans  # half a second, and few come here
    from sklearn.exceptions import ConvergenceWarning

    found = KMeans(
        min(most, len(x_ND)),
        n_init=1,  # pyright: ignore[reportArgumentType]
        max_iter=iterations,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # there are fewer distinct rows
        label_N = found.fit_predict(x_ND.float().numpy())
    _, label_N, count_K = np.unique(label_N, return_inverse=True, return_counts=True)
    sum_KD = torch.zeros(len(count_K), x_ND.shape[1], dtype=torch.float64)
    sum_KD.index_add_(0, torch.from_numpy(label_N), x_ND.double())
    return sum_KD / torch.from_numpy(count_K)[:, None]


class Terms(NamedTuple):
    """The loss, as its parts, and the codes that it is of."""

    reconstruction: Tensor
    codebook: Tensor
    commitment: Tensor
    code_BL: Tensor

    @property
    def total(self) -> Tensor:
        """What is trained on."""
        return self.reconstruction + self.codebook + self.commitment


class RQVAE(nn.Module):
    """An autoencoder whose code is a sum of code words, one of each level's book.

    Encoder and decoder are linear maps with a ReLU between two of them, the decoder's widths those
    of the encoder backwards. They start as torch's own, words from U(-1 / K, 1 / K).
    """

    first_L: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        sizes: Sequence[int],
        *,
        beta: float,
        errors: Errors,
        init: torch.Generator,
    ) -> None:
        """Untrained.

        Args:
            widths: of the encoder: of what goes in, of hidden layers, of the words.
            sizes: words of each level.
            beta: weight of the commitment.
            errors: whether squares are summed or averaged over the columns of a row.
            init: where the start is drawn: maps first, so that they are alike for all books.
        """
        super().__init__()
        self.sizes, self.beta, self.errors = tuple(sizes), beta, errors
        self.encoder = _maps(widths, init)
        self.decoder = _maps(tuple(reversed(widths)), init)
        books = [start.uniform((size, widths[-1]), 1 / size, init).detach() for size in sizes]
        self.word_WD = nn.Parameter(torch.cat(books))
        first_L = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("first_L", first_L, persistent=False)

    def books(self) -> tuple[Tensor, ...]:
        """(K, D) the words of each level, views without a gradient."""
        return self.word_WD.detach().split(self.sizes)

    def encode(self, x_BF: Tensor) -> Tensor:
        """(B, D) z = Enc(x)."""
        return _mapped(self.encoder, x_BF)

    def decode(self, code_BL: Tensor) -> Tensor:
        """(B, F) what the sum of a row's words stands for."""
        return _mapped(self.decoder, self._words(code_BL).sum(1))

    def _words(self, code_BL: Tensor) -> Tensor:
        """(B, L, D)."""
        return rows(self.word_WD, code_BL + self.first_L)

    def losses(self, x_BF: Tensor) -> Terms:
        """|x - x'|^2 + sum_l (|sg[r_l] - E^l_c|^2 + beta |r_l - sg[E^l_c]|^2), mean over rows.

        x' = Dec(z + sg[sum_l E^l_c - z]): the reconstruction's gradient reaches the encoder as if
        nothing were quantised, and no word. r_l is z less the words of earlier levels as constants,
        so that words are moved by the second term alone and the encoder by the others.
        """
        z_BD = self.encode(x_BF)
        code_BL = residual_codes(z_BD, self.books())
        word_BLD = self._words(code_BL)
        sum_BLD = word_BLD.detach().cumsum(1)
        seen_BLD = z_BD[:, None] - F.pad(sum_BLD[:, :-1], (0, 0, 1, 0))
        decoded_BF = _mapped(self.decoder, z_BD + (sum_BLD[:, -1] - z_BD).detach())
        return Terms(
            self._error(x_BF, decoded_BF),
            self._error(seen_BLD.detach(), word_BLD),
            self.beta * self._error(seen_BLD, word_BLD.detach()),
            code_BL,
        )

    def _error(self, a: Tensor, b: Tensor) -> Tensor:
        error = (a - b).square().sum() / len(a)
        return error / a.shape[-1] if self.errors == "mean" else error

    @torch.no_grad()
    def start_books(self, x_BF: Tensor, iterations: int, seeds: Sequence[int]) -> None:
        """Set words to the centres of k-means on what each level has left over of some rows.

        Where there are fewer centres than words, these are repeated; of equal words only the first
        is ever chosen.
        """
        left_BD = self.encode(x_BF).double()
        for book_KD, seed in zip(self.books(), seeds, strict=True):
            centres = kmeans(left_BD, len(book_KD), iterations, seed)
            book_KD.copy_(centres[torch.arange(len(book_KD)) % len(centres)])
            left_BD -= rows(book_KD, nearest_word(left_BD.to(book_KD.dtype), book_KD))

    @torch.no_grad()
    def revive(self, x_BF: Tensor, dead_W: Tensor, rng: torch.Generator) -> None:
        """Set dead words (W,) bool to what their level is given of rows drawn at random.

        Of more dead words of a level than there are rows, the first ones only.
        """
        left_BD = self.encode(x_BF)
        for book_KD, dead_K in zip(self.books(), dead_W.split(self.sizes), strict=True):
            row = torch.randperm(len(left_BD), generator=rng)[: int(dead_K.sum())]
            book_KD[dead_K.nonzero()[: len(row), 0]] = left_BD[row]
            left_BD = left_BD - rows(book_KD, nearest_word(left_BD, book_KD))


def _maps(widths: Sequence[int], init: torch.Generator) -> nn.ModuleList:
    return nn.ModuleList(start.linear(i, o, init, "default") for i, o in pairwise(widths))


def _mapped(maps: nn.ModuleList, x_BF: Tensor) -> Tensor:
    for at, layer in enumerate(cast(Sequence[nn.Linear], maps)):
        x_BF = linear(x_BF.relu() if at else x_BF, layer.weight, layer.bias, least=FEW_SHAPES)
    return x_BF
