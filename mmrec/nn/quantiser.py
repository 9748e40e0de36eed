"""Semantic IDs: a quantiser that gives each item of a modality a short tuple of code words.

Letters in names: N items, F feature columns, L levels, B batch, W words of all levels.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from mmrec.cache import Arrays, cached
from mmrec.config import changed, config, digest
from mmrec.data.dataset import Dense
from mmrec.data.features import rescaled
from mmrec.nn.optimizers import OptimizerKind, make_optimizer
from mmrec.nn.rqvae import RQVAE, Errors, kmeans, residual_codes

VERSION = 1
"""Raised when the same config is fitted to other codes than before."""

Scale = Literal["standardise", "unit", "both", "none"]


@config
class Quantiser:
    """How vectors become code words.

    What the paper on MGR (arXiv 2503.23333) leaves open is here as its nearest relatives have it:
    TIGER (Rajput et al. 2023), of which it is built, GRID (by the same group) and MQL4GRec. Not
    offered: GRID's warm-up of the learning rate, MQL4GRec's balanced assignment (Sinkhorn) on the
    last level and its mean, in place of a sum, of the levels' losses.
    """

    kind: Literal["rqvae", "rqkmeans"] = "rqvae"
    """rqvae: an autoencoder trained together with its words, as in the paper. rqkmeans: words are
    the centres of k-means on the scaled vectors, and on what each level leaves over (GRID's
    simpler tokeniser, whose residuals are scaled to length 1 each time; here they are not)."""
    levels: Annotated[int, Ge(1)] = 3
    """Code words of a vector (TIGER, GRID; MQL4GRec: 4)."""
    size: Annotated[int, Ge(2)] = 256
    """Words of each level's book (all three). Where there are fewer distinct vectors, a book has
    as many words as these; in rqkmeans also where a level has less left over."""
    scale: Scale = "standardise"
    """What is done to vectors first: each column to mean 0 and deviation 1 ("standardise"), each
    row to length 1 ("unit"), one after the other ("both", as GRID), nothing ("none", as
    MQL4GRec)."""
    kmeans_iterations: Annotated[int, Ge(1)] = 100
    """Of each k-means, at most (MQL4GRec)."""
    hidden: tuple[Annotated[int, Ge(1)], ...] = (512, 256, 128)
    """Widths of the encoder's hidden layers, and backwards the decoder's (TIGER); none: both are
    one linear map."""
    latent: Annotated[int, Ge(1)] = 32
    """Width of the words (TIGER, MQL4GRec; GRID: 64)."""
    beta: Annotated[float, Ge(0)] = 0.25
    """Weight of the commitment (all three)."""
    errors: Errors = "sum"
    """Whether squares are summed over the columns of a row, as the formulas read, or averaged, as
    MQL4GRec does: then words of few columns weigh more against vectors of many."""
    optimizer: OptimizerKind = "adamw"
    """adamw is MQL4GRec's; adagrad TIGER's and GRID's."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Constant (GRID, MQL4GRec; TIGER: 0.4). With a few hundred steps adamw needs 0.003 to 0.01;
    adagrad, whose steps shrink, hardly moves at GRID's 0.001 even in 300 and needs about 0.1."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Of maps and words (GRID; MQL4GRec: 1e-4)."""
    batch_size: Annotated[int, Ge(1)] = 1024
    """Rows of a step (TIGER; others 2,048); all of them where there are no more."""
    steps: Annotated[int, Ge(1)] = 3000
    """Of the optimiser (GRID)."""
    init_rows: Annotated[int, Ge(0)] = 3072
    """Words start as centres of k-means on what the untrained encoder makes of so many rows, drawn
    at random (GRID); 0: they are drawn from U(-1 / size, 1 / size) (MQL4GRec's other start)."""
    revive_every: Annotated[int, Ge(0)] = 100
    """Steps from one revival of dead words to the next: each is set to what its level is given of a
    row drawn from the batch; 0: never. From work on sound (Dhariwal et al., "Jukebox", 2020). Of
    12,000 made-up vectors of 512 columns in 60 clusters, the defaults used 99.5 % of the words and
    let 0.3 % of rows collide; without revival 24 % and 53 %."""
    dead_below: Annotated[int, Ge(1)] = 1
    """A word is dead that fewer rows than this chose since the last revival."""


class Fitted(NamedTuple):
    """Code words, and how good they are."""

    codes: NDArray[np.int64]
    """(N, L), level l in [0, sizes[l]); 0 in missing rows."""
    sizes: tuple[int, ...]
    """Words of each level's book, at most those of the config."""
    measures: dict[str, float]
    """`reconstruction`: share of the scaled vectors' variance that is kept, 1 - sum |x - x'|^2 /
    sum |x - mean|^2, at most 1, and 1 where nothing varies. `usage`: share of a book's words that
    are some row's. `perplexity`: exp of the words' entropy in nats, as a share of the book; both
    mean over levels. `collisions`: share of rows that share all their codes with another."""


def fitted(
    values_NF: NDArray[np.float32], present_N: NDArray[np.bool_], cfg: Quantiser, seed: int
) -> Fitted:
    """Fit a quantiser to the rows that are present; kept on disk by all that decides the result.

    One thread, whatever the process may use, so that this does not decide it too. Draws have
    generators of their own, keyed by the seed; other levels or sizes leave the autoencoder's start
    and its batches as they are.

    Raises:
        ValueError: no row is present, shapes do not fit, or a present row is not finite.
        FloatingPointError: the loss is not finite; the message says at which step.
    """
    if values_NF.ndim != 2 or present_N.shape != values_NF.shape[:1]:
        raise ValueError(
            f"values are (N, F) and present (N,), got {values_NF.shape} and {present_N.shape}"
        )
    x_NF = values_NF[present_N]
    if not x_NF.size:
        raise ValueError(f"none of {len(present_N)} rows is there to be quantised")
    bad = int((~np.isfinite(x_NF)).any(1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(x_NF)} vectors to be quantised are not finite")

    def build() -> Arrays:
        with _one_thread():
            return _fit(_scaled(x_NF, cfg.scale), cfg, seed)

    inputs = {"values": x_NF, "config": digest(changed(cfg)), "seed": seed}
    found = dict(cached(f"codes-{VERSION}", inputs, build))
    here_NL, sizes = found.pop("codes"), tuple(found.pop("sizes").tolist())
    codes_NL = np.zeros((len(present_N), cfg.levels), dtype=np.int64)
    codes_NL[present_N] = here_NL
    return Fitted(codes_NL, sizes, {name: float(value) for name, value in found.items()})


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        with threadpool_limits(1):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)


def _generator(seed: int, stream: str) -> torch.Generator:
    key = hashlib.sha256(f"mmrec/quantiser/{seed}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)


def _kmeans_seeds(cfg: Quantiser, seed: int) -> list[int]:
    """One a level, the same ones however many levels follow."""
    rng = _generator(seed, "kmeans")
    return [int(torch.randint(2**31, (), generator=rng)) for _ in range(cfg.levels)]


def _scaled(x_NF: NDArray[np.float32], scale: Scale) -> NDArray[np.float32]:
    if scale in ("standardise", "both"):
        whole = Dense(np.ones(len(x_NF), dtype=np.bool_), x_NF)
        x_NF = rescaled(whole, "quantised", "standard")[0].values
    if scale in ("unit", "both"):
        length_N1 = np.linalg.norm(x_NF, axis=1, keepdims=True)
        x_NF = np.divide(x_NF, length_N1, out=np.zeros_like(x_NF), where=length_N1 > 0)
    return x_NF


def _fit(x_NF: NDArray[np.float32], cfg: Quantiser, seed: int) -> Arrays:
    fit = _rqkmeans if cfg.kind == "rqkmeans" else _rqvae
    codes_NL, decoded_NF, sizes = fit(x_NF, cfg, seed)
    measures = measured(x_NF, decoded_NF, codes_NL, sizes)
    arrays = {name: np.array(value) for name, value in measures.items()}
    return {"codes": codes_NL, "sizes": np.array(sizes), **arrays}


_Found = tuple[NDArray[np.int64], NDArray[np.floating], tuple[int, ...]]
"""(codes (N, L), decoded (N, F), sizes)."""


def _rqkmeans(x_NF: NDArray[np.float32], cfg: Quantiser, seed: int) -> _Found:
    x = torch.from_numpy(x_NF).double()
    left, books = x, []
    for level_seed in _kmeans_seeds(cfg, seed):
        books.append(kmeans(left, cfg.size, cfg.kmeans_iterations, level_seed))
        left = left - books[-1][residual_codes(left, books[-1:])[:, 0]]
    return residual_codes(x, books).numpy(), (x - left).numpy(), tuple(map(len, books))


def _rqvae(x_NF: NDArray[np.float32], cfg: Quantiser, seed: int) -> _Found:
    sizes = (min(cfg.size, len(np.unique(x_NF, axis=0))),) * cfg.levels
    widths = (x_NF.shape[1], *cfg.hidden, cfg.latent)
    init = _generator(seed, "init")
    model = RQVAE(widths, sizes, beta=cfg.beta, errors=cfg.errors, init=init)
    x = torch.from_numpy(x_NF)
    if cfg.init_rows:
        row = torch.randperm(len(x), generator=_generator(seed, "buffer"))[: cfg.init_rows]
        model.start_books(x[row], cfg.kmeans_iterations, _kmeans_seeds(cfg, seed))
    _train(model, x, cfg, seed)
    with torch.no_grad():
        code_NL = residual_codes(model.encode(x), model.books())
        return code_NL.numpy(), model.decode(code_NL).numpy(), sizes


def _train(model: RQVAE, x_NF: Tensor, cfg: Quantiser, seed: int) -> None:
    weights = model.parameters()
    optimizer = make_optimizer(cfg.optimizer, weights, lr=cfg.lr, weight_decay=cfg.weight_decay)
    revival = _generator(seed, "revival")
    chosen_W = torch.zeros(len(model.word_WD), dtype=torch.int64)
    drawn = batches(x_NF, cfg.batch_size, _generator(seed, "order"))
    for step, x_BF in zip(range(1, cfg.steps + 1), drawn, strict=False):
        terms = model.losses(x_BF)
        loss = terms.total
        if not torch.isfinite(loss):
            raise FloatingPointError(f"step {step} of the quantiser: its loss is {loss.item()}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not cfg.revive_every:
            continue
        word_BL = terms.code_BL + model.first_L
        chosen_W += torch.bincount(word_BL.flatten(), minlength=len(chosen_W))
        # Not at the very end: what is revived has to be trained.
        if step % cfg.revive_every == 0 and step < cfg.steps:
            dead_W = chosen_W < cfg.dead_below
            model.revive(x_BF, dead_W, revival)
            forget(optimizer, model.word_WD, dead_W)
            chosen_W.zero_()


def forget(optimizer: torch.optim.Optimizer, table_WD: Tensor, dead_W: Tensor) -> None:
    """Zero what an optimiser remembers of a parameter's rows that were set anew (W,) bool."""
    for memory in optimizer.state[table_WD].values():
        if memory.shape == table_WD.shape:
            memory[dead_W] = 0


def batches(x_NF: Tensor, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Rows without end, all of one number: a batch may reach over from one pass to the next."""
    if size >= len(x_NF):
        while True:
            yield x_NF
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < size:
            rest = torch.cat((rest, torch.randperm(len(x_NF), generator=rng)))
        yield x_NF[rest[:size]]
        rest = rest[size:]


def measured(
    x_NF: NDArray[np.floating],
    decoded_NF: NDArray[np.floating],
    codes_NL: NDArray[np.int64],
    sizes: tuple[int, ...],
) -> dict[str, float]:
    """The measures of `Fitted`, of vectors, what their codes are decoded to, and the codes."""
    x_NF = x_NF.astype(np.float64)
    variance = np.square(x_NF - x_NF.mean(0)).sum()
    lost = np.square(x_NF - decoded_NF).sum()
    usage, perplexity = [], []
    for code_N, size in zip(codes_NL.T, sizes, strict=True):
        share_K = np.bincount(code_N, minlength=size) / len(code_N)
        share_K = share_K[share_K > 0]
        usage.append(len(share_K) / size)
        perplexity.append(np.exp(-(share_K * np.log(share_K)).sum()) / size)
    _, count = np.unique(codes_NL, axis=0, return_counts=True)
    return {
        "reconstruction": float(1 - lost / variance) if variance else 1.0,
        "usage": float(np.mean(usage)),
        "perplexity": float(np.mean(perplexity)),
        "collisions": float(count[count > 1].sum() / len(codes_NL)),
    }
