"""What the golden vectors of released implementations have in common."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmrec.data.dataset import Dataset, Dense
from mmrec.models.base import Batch

FOLDER = Path(__file__).parents[1] / "golden"


def golden(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def pairs(items_of_user: list[list[int]]) -> np.ndarray:
    return np.array([(u, i) for u, items in enumerate(items_of_user) for i in items])


def problem(case: dict[str, Any], **more: Any) -> Dataset:
    none = np.zeros((0, 2), dtype=np.int64)
    return Dataset("golden", 6, 8, pairs(case["train"]), none, none, **more)


def features(*names: str) -> dict[str, Dense]:
    """The features of every golden problem, in float64: image 8 x 10 and text 8 x 7."""
    i, j = np.ogrid[:8, :10]
    values = {"image": np.sin(1 + 0.7 * i + 1.3 * j)}
    i, j = np.ogrid[:8, :7]
    values["text"] = np.cos(2 + 1.1 * i - 0.9 * j)
    # float64 where the class says float32: the golden vectors were made from these.
    return {name: Dense(np.ones(8, dtype=bool), values[name]) for name in names or values}


def batch_of(case: dict[str, Any], *, full_size: int = 0, **extra: Tensor) -> Batch:
    """The case's batch, with one or more negatives a row."""
    users, positives, negatives = (
        torch.tensor(case["batch"][name]) for name in ("users", "positives", "negatives")
    )
    return Batch(users, positives, negatives.view(len(users), -1), extra, full_size)


def filled(parameter: dict[str, Any]) -> Tensor:
    """amplitude * sin(0.37 n + p) in C order."""
    at = torch.arange(int(np.prod(parameter["shape"])), dtype=torch.float64)
    return (parameter["amplitude"] * torch.sin(0.37 * at + parameter["p"])).view(parameter["shape"])


def assert_like(actual: Tensor, expected: Any) -> None:
    """max|a - b| <= 1e-6 max|b|."""
    assert actual.dtype == torch.float64
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    assert actual.shape == wanted.shape
    assert (actual - wanted).abs().max() <= 1e-6 * wanted.abs().max()


def assert_norm(gradient: Tensor, expected: float) -> None:
    """|a - b| <= 1e-6 b + 1e-12."""
    assert abs(float(gradient.norm()) - expected) <= 1e-6 * expected + 1e-12


def assert_adam(model: torch.nn.Module, batch: Batch, record: dict[str, Any]) -> None:
    """`assert_course`, for a model whose parameters are the record's, in its order."""
    assert_course(model, batch, record)
    norms = [p.detach().norm() for p in model.parameters()]
    assert_like(torch.stack(norms), list(record["final_param_l2"].values()))


def assert_course(model: torch.nn.Module, batch: Batch, record: dict[str, Any]) -> None:
    """Five steps of Adam on one batch: the loss before each, and the scores after the last."""
    optimizer = torch.optim.Adam(model.parameters(), lr=record["lr"])
    losses = []
    for _ in range(5):
        total = sum(model.losses(batch).terms.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.detach())
    assert_like(torch.stack(losses), record["losses"])
    scores = model.score(*model.embeddings()).detach()
    assert_like(scores, record["scores_after_5_steps"])
