"""One training run, as a generator of epoch reports with resumable state. Knows nothing of Ray.

Letters in names: S steps of an epoch, T loss terms.
"""

import ctypes
import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval, Len
from numpy.typing import NDArray
from pydantic import SerializeAsAny
from torch import Tensor

from mmrec import gap
from mmrec.config import config
from mmrec.data.dataset import Dataset, Dense, Part
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.evaluation import Evaluator, Protocol, Ranking, objective_of
from mmrec.models.base import Batch, ModelConfig, Recommender
from mmrec.nn.features import FeatureTable
from mmrec.nn.optimizers import make_optimizer

VERSION = 1
"""Part of every trial's name: raised when the same config trains to other numbers than before."""


@config
class TrainConfig:
    """How long and how fast to train."""

    epochs: Annotated[int, Ge(1)] = 50
    """Cap on the number of epochs."""
    patience: Annotated[int, Ge(0)] = 10
    """Stop after this many evaluations in a row without a strictly better one; 0 never stops."""
    eval_every: Annotated[int, Ge(1)] = 1
    """Epochs from one evaluation to the next; the last epoch is always evaluated."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """adam couples the weight decay to the gradient, adamw does not (torch's definitions)."""
    lr: Annotated[float, Gt(0)] = 1e-3
    lr_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Learning rate of epoch e (from 0) is lr * lr_decay ** (e / 50), as in the MMRec toolbox."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    batch_size: Annotated[int, Ge(1)] = 2048
    negatives: Annotated[int, Ge(0)] = 1
    """Sampled negatives a training row."""
    threads: Annotated[int, Ge(1)] = 1
    """CPU threads of the run. Part of the name: sums in another order are other numbers."""


@config
class RunConfig:
    """Everything that decides one trial's numbers, apart from dataset, condition and seed."""

    model: SerializeAsAny[ModelConfig]
    train: TrainConfig = TrainConfig()
    objective: str = "ndcg@10"
    """Validation metric that selects the epoch, the cell and the search's next point."""
    ks: Annotated[tuple[int, ...], Len(1)] = (5, 10, 20, 50)
    """Lengths of the lists that are scored."""
    gap: Literal["none", "end", "epochs"] = "none"
    """When `mmrec.gap` measures the trained items: never, once for the model that is ranked in the
    end, or then and at every evaluation."""

    def __post_init__(self) -> None:
        name, _, k = self.objective.partition("@")
        if not k.isdigit() or int(k) not in self.ks:
            raise ValueError(
                f"objective {self.objective!r} must be name@K with K among ks={list(self.ks)}"
            )
        del name


@dataclass(frozen=True)
class EpochReport:
    """What one evaluation, and the epochs since the last one, came to."""

    epoch: int
    """From 1."""
    losses: dict[str, float]
    """Mean over the steps of the last epoch, by term."""
    valid: dict[str, float]
    """Validation metrics."""
    seconds: float
    """Training and evaluation since the last report."""
    best_epoch: int
    finished: bool
    """True at the natural end: the cap is reached or patience ran out."""
    measures: dict[str, float] = field(default_factory=dict)
    """The modality gap of this epoch's model, where `RunConfig.gap` asks for it at every epoch."""


class Run:
    """One training in progress: model, optimiser, and the best state so far.

    It can be saved at any epoch boundary and continued elsewhere with the same numbers, since all
    randomness is keyed by (seed, stream, epoch).
    """

    def __init__(
        self,
        cfg: RunConfig,
        data: Dataset,
        *,
        seed: int,
        protocol: Protocol,
        device: torch.device | str = "cpu",
        evaluate_on: Dataset | None = None,
        baseline: Dataset | None = None,
    ) -> None:
        """Build the untrained model and what training it needs.

        Args:
            cfg: of model and training.
            data: what is trained on, and what chooses the epoch.
            seed: of all draws.
            protocol: of all rankings.
            device: where the model lies.
            evaluate_on: the same interactions with other features, of the same widths, on which
                the trained model is ranked in the end, perhaps without what they tell of its
                items (`Dataset.items_known`); by default `data`.
            baseline: the dataset before any condition, see `Evaluator`; by default `data`.

        Raises:
            ValueError: a dataset and the config, or the two datasets, do not fit (the message says
                how); the model needs interactions of the items that are to be ranked without; its
                gap is asked for, and it has none.
        """
        torch.set_num_threads(cfg.train.threads)
        _keep_freed_memory()
        if evaluate_on is not None:
            _require_same_shape(data, evaluate_on)
        if not data.items_known:
            raise ValueError(
                f"{data.name!r} ({data.condition}) hides the interactions of its items: it can be"
                " evaluated on, not trained on"
            )
        self.cfg, self.data, self.protocol = cfg, data, protocol
        self.evaluate_on = evaluate_on
        self.baseline = data if baseline is None else baseline
        self.device = torch.device(device)
        self.draws = Draws(seed)
        self.model: Recommender = self.untrained(data)
        self.model.require_trainable(data)
        if evaluate_on is not None and self.model.FITTED:
            raise ValueError(
                f"{type(cfg.model).__name__} makes codes of the features that it is trained on: it"
                f" cannot be evaluated on others ({evaluate_on.condition}); a condition at"
                " 'train+eval' fits"
            )
        if evaluate_on is not None and not evaluate_on.items_known:
            _require_item_rows(self.model, cfg.model)
        if cfg.gap != "none":
            _require_gap(self.model, data)
            if evaluate_on is not None:
                _require_gap(self.untrained(evaluate_on), evaluate_on)
        self._features = _trained_features(self.model) if evaluate_on is not None else {}
        self.pairs = TrainingPairs.of(data, self.device)
        self.valid = self._evaluator("valid")
        self.optimizer = _optimizer(self.model, cfg.train)
        self.epoch = 0
        self.best_epoch = 0
        self.best_value = -float("inf")
        self.best_model: dict[str, Tensor] = {}
        self.reports: list[EpochReport] = []

    def untrained(self, data: Dataset) -> Recommender:
        """The run's model as it starts, built on a dataset: its own, or another condition's."""
        return self.cfg.model.build(data, self.draws.generator("init")).to(self.device)

    @property
    def finished(self) -> bool:
        """Whether the cap is reached or patience ran out."""
        return bool(self.reports) and self.reports[-1].finished

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `load` continues; fit for `weights_only` loading."""
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_value": self.best_value,
            "best_model": self.best_model,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else {},
            "reports": [asdict(report) for report in self.reports],
        }

    def final_state(self) -> dict[str, Any]:
        """What is kept of a run at its natural end: the best weights and the curve."""
        return {k: v for k, v in self.state().items() if k not in ("model", "optimizer")}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` or `final_state` gave, for the same config, data and seed."""
        if "optimizer" in state:
            self.model.load_state_dict(state["model"])
            if self.optimizer:
                self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        self.best_value, self.best_model = state["best_value"], dict(state["best_model"])
        self.reports = [EpochReport(**report) for report in state["reports"]]

    def restore_best(self) -> Recommender:
        """The model with its weights of the best validation epoch, in evaluation mode."""
        self._require_best()
        self.model.load_state_dict(self.best_model)
        return self.model.eval()

    def scored(self) -> Recommender:
        """The model that is ranked in the end, in evaluation mode: by default `restore_best`.

        With `evaluate_on` it is another model, built on that dataset from the same initial draws,
        with the parameters and persistent buffers of the best validation epoch; the run's own stays
        as it is. What is made of features, such as an item graph, is made of that dataset's. A
        trained feature table is the features too: where that dataset's are others, or missing, it
        is these, as they come; where they are the same, it is the trained one. Where that dataset's
        items are not known, all that interactions teach of an item, `ITEM_ROWS` and trained feature
        tables, stays as it starts.
        """
        if self.evaluate_on is None:
            return self.restore_best()
        self._require_best()
        model = self.untrained(self.evaluate_on)
        fresh = model.state_dict()
        features = _trained_features(model)
        others = {k for k, v in features.items() if v != self._features[k]}
        if not self.evaluate_on.items_known:
            others = _require_item_rows(model, self.cfg.model) | set(features)
        state = {k: fresh[k] if k in others else v for k, v in self.best_model.items()}
        model.load_state_dict(state)
        return model.eval()

    def measures(self) -> dict[str, float]:
        """Numbers about the model of `scored` beyond ranking, with its gap if that is asked for."""
        model = self.scored()
        return model.measures() | (gap_of(model) if self.cfg.gap != "none" else {})

    def score_valid(self) -> Ranking:
        """Validation metrics of the best validation epoch, at the natural end.

        Without `evaluate_on` they are those of that epoch's report.
        """
        self._require_end("validation")
        return self.valid.rank(self.scored())

    def score_test(self) -> Ranking:
        """Test metrics of the best validation epoch: once, at the natural end."""
        self._require_end("test")
        return self._evaluator("test").rank(
            self.scored(), beyond=True, per_user=True, strata=self.cfg.objective
        )

    def _evaluator(self, part: Part) -> Evaluator:
        return Evaluator(
            self.data, part, self.protocol, self.cfg.ks, self.device, baseline=self.baseline
        )

    def _require_best(self) -> None:
        if not self.best_epoch:
            raise RuntimeError("no epoch has been evaluated yet: there is no best state")

    def _require_end(self, what: str) -> None:
        if not self.finished:
            raise RuntimeError(f"{what} is scored at the end of a run, not at epoch {self.epoch}")


def _require_same_shape(data: Dataset, other: Dataset) -> None:
    """ValueError unless parameters trained on one dataset fit the other."""
    for part in ("train", "valid", "test"):
        if not np.array_equal(data.part(part), other.part(part)):
            raise ValueError(
                f"a run is evaluated on the interactions it is trained on: the {part} parts of"
                f" {data.name!r} ({data.condition}) and {other.name!r} ({other.condition}) differ"
            )
    shape, other_shape = _widths(data), _widths(other)
    if shape != other_shape:
        raise ValueError(
            f"what is trained on the features {shape} does not fit those to evaluate on,"
            f" {other_shape}: modalities, kinds and widths must be the same"
        )


@torch.no_grad()
def gap_of(model: Recommender) -> dict[str, float]:
    """`mmrec.gap.measures` of the items as a model sees them by each modality."""
    return gap.measures(_views(model))


def _views(model: Recommender) -> dict[str, NDArray[np.floating]]:
    return {name: view_ID.detach().cpu().numpy() for name, view_ID in model.item_views().items()}


@torch.no_grad()
def _require_gap(model: Recommender, data: Dataset) -> None:
    """ValueError unless the gap between a model's views of a dataset's items can be measured."""
    views = _views(model.eval())
    try:
        gap.require_comparable(views)
    except ValueError as error:
        raise ValueError(
            f"the modality gap of {type(model).__name__} on {data.name!r} ({data.condition}) is"
            f" asked for, and it sees items by {', '.join(views) or 'no modality'}: {error};"
            " set gap='none'"
        ) from error


def _require_item_rows(model: Recommender, cfg: ModelConfig) -> set[str]:
    """`model.ITEM_ROWS`; ValueError if the model cannot do without its items' interactions."""
    if model.ITEM_ROWS is None:
        raise ValueError(
            f"{type(cfg).__name__} needs training interactions of the items that it ranks: it"
            " cannot be evaluated where they are missing; models that can, such as SiBraR, name"
            " in ITEM_ROWS what only interactions teach of an item"
        )
    return set(model.ITEM_ROWS)


def _widths(data: Dataset) -> dict[str, str]:
    """Kind of every item feature, and width of the dense ones."""
    return {
        name: f"dense {feature.values.shape[1]}" if isinstance(feature, Dense) else feature.kind
        for name, feature in sorted(data.features.items())
    }


def _trained_features(model: Recommender) -> dict[str, str]:
    """The parameters that are feature tables, by name, with a hash of what they hold."""
    return {
        f"{path}.{name}": hashlib.sha256(parameter.detach().cpu().numpy().data).hexdigest()
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, FeatureTable)
        for name, parameter in module.named_parameters()
    }


def fit(run: Run) -> Iterator[EpochReport]:
    """Train until the natural end, yielding at every evaluation; stop by not asking on.

    Raises:
        FloatingPointError: a loss term is not finite (the message names epoch, step and term), or
            an embedding is not.
    """
    cfg = run.cfg.train
    torch.set_num_threads(cfg.threads)
    clock = time.perf_counter()
    while not run.finished:
        losses = train_epoch(run)
        run.epoch += 1
        if run.optimizer and run.epoch % cfg.eval_every and run.epoch < cfg.epochs:
            continue
        report = _evaluate(run, losses, clock)
        run.reports.append(report)
        clock = time.perf_counter()
        yield report


def train_epoch(run: Run) -> dict[str, float]:
    """Train the epoch that is next; the mean of each loss term over the steps that have it."""
    cfg, epoch = run.cfg.train, run.epoch
    if run.optimizer is None:
        return {}
    for group in run.optimizer.param_groups:
        group["lr"] = cfg.lr * cfg.lr_decay ** (epoch / 50)
    run.model.train()
    run.model.start_epoch(run.draws, epoch)
    shape = BatchShape(cfg.batch_size, cfg.negatives)
    buffers = dict(run.model.named_buffers())
    steps: list[tuple[str, ...]] = []
    values: list[Tensor] = []
    for batch in run.model.epoch_batches(run.pairs, run.draws, epoch, shape):
        terms = _step(run.model, run.optimizer, buffers, batch)
        steps.append(tuple(terms))
        values.append(torch.stack(list(terms.values())).detach().double())
    # One look an epoch, so that the GPU need not be waited for at every step.
    value_V = torch.cat(values).tolist()
    found: dict[str, list[float]] = {}
    for value, (step, name) in zip(value_V, _named(steps), strict=True):
        if not math.isfinite(value):
            # The first one: after its step the weights are bad, and all else.
            raise FloatingPointError(
                f"epoch {epoch + 1}, step {step}: the loss term {name!r} is {value}"
            )
        found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _named(steps: list[tuple[str, ...]]) -> Iterator[tuple[int, str]]:
    """(step from 1, name) of every term of every step; stages of an epoch may differ in theirs."""
    return ((step, name) for step, names in enumerate(steps, start=1) for name in names)


def _step(
    model: Recommender,
    optimizer: torch.optim.Optimizer,
    buffers: Mapping[str, Tensor],
    batch: Batch,
) -> dict[str, Tensor]:
    terms, changed = model.losses(batch)
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    for name, value in changed.items():
        buffers[name].copy_(value.detach())
    return terms


def _evaluate(run: Run, losses: dict[str, float], clock: float) -> EpochReport:
    cfg = run.cfg.train
    metrics = run.valid.rank(run.model.eval()).metrics
    value = objective_of(metrics, run.cfg.objective)
    if not abs(value) < float("inf"):
        raise FloatingPointError(f"epoch {run.epoch}: validation {run.cfg.objective} is {value}")
    if value > run.best_value:
        run.best_value, run.best_epoch = value, run.epoch
        run.best_model = {k: v.detach().clone() for k, v in run.model.state_dict().items()}
    waited = sum(report.epoch > run.best_epoch for report in run.reports)
    waited += run.epoch > run.best_epoch
    finished = run.epoch >= cfg.epochs or 0 < cfg.patience <= waited or run.optimizer is None
    seconds = time.perf_counter() - clock
    measures = gap_of(run.model) if run.cfg.gap == "epochs" else {}  # no part of what it costs
    return EpochReport(run.epoch, losses, metrics, seconds, run.best_epoch, finished, measures)


def _optimizer(model: Recommender, cfg: TrainConfig) -> torch.optim.Optimizer | None:
    """None for a closed form, which is evaluated once and has nothing to train."""
    if not list(model.parameters()):
        return None
    weights = model.parameters()
    return make_optimizer(cfg.optimizer, weights, lr=cfg.lr, weight_decay=cfg.weight_decay)


ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Environment of a process that trains, set before it starts: memory comes in pages of 2 MiB, and
a fresh gradient of a wide feature table, 126 MB, in 11 ms in place of 45 (benchmarks/LOG.md)."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def _keep_freed_memory() -> None:
    """Have glibc keep freed tensors of up to 32 MiB, and 256 MiB in all, for the next step.

    Left alone it hands them back to the system, and page faults take 13 % of a SiBraR epoch
    (benchmarks/LOG.md). Larger ones are not kept: holes of that size fill up with small tensors,
    and the process grows. The environment's MALLOC_ settings win; without glibc nothing is done.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and not any(name.startswith("MALLOC_") for name in os.environ):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**28)
