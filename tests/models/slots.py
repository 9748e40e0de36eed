"""What the tests of DualGNN and DRAGON have in common: recorded slots, and towers in dense form."""

from collections import Counter
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from mmrec.data.dataset import Dataset, Dense
from mmrec.models.base import Recommender
from mmrec.nn.towers import Tower
from mmrec.nn.user_graph import UserGraph
from tests.models.golden import filled, problem


def fill_parameters(model: Recommender, case: dict[str, Any]) -> list[str]:
    """Set every parameter by the case's rule; the released names in the model's order."""
    names = [p["name"] for p in case["parameters"] if case["grad_l2"].get(p["name"])]
    by_name = {p["name"]: p for p in case["parameters"]}
    with torch.no_grad():
        for name, parameter in zip(names, model.parameters(), strict=True):
            parameter.copy_(filled(by_name[name]).view(parameter.shape))
    return names


def recorded_users(record: dict[str, Any], slots: dict[str, Any]) -> UserGraph:
    """The slots of the record: neighbours and how often each was put in."""
    copies = [Counter(row) for row in slots["neighbours"]]
    ends = sorted((u, v) for u, row in enumerate(copies) for v in row)
    user_E, other_E = np.array(ends).T
    count_E = np.array(record["detail"]["user_graph"]["co_occurrence"])[user_E, other_E]
    users = UserGraph(sp.csr_array((count_E, (user_E, other_E)), shape=(6, 6)), slots["k"])
    users.fill(torch.tensor([copies[u][v] for u, v in ends]))
    return users


def three_modalities(case: dict[str, Any], *names: str) -> Dataset:
    """The golden users and items with any of image (8 x 10), text (8 x 7) and audio (8 x 3)."""
    rng = np.random.default_rng(5)
    values = {n: rng.normal(size=(8, w)) for n, w in {"image": 10, "text": 7, "audio": 3}.items()}
    return problem(case, features={n: Dense(np.ones(8, dtype=bool), values[n]) for n in names})


def dense_tower(
    tower: Tower, data: Dataset, values_IF: np.ndarray, layers: int, gate: float = 1.0
) -> np.ndarray:
    """(U + I, D) by matrix powers of the whole graph; a gate on the items' unit rows."""
    of = {name: parameter.detach().numpy() for name, parameter in tower.named_parameters()}
    hidden = values_IF @ of["inner.weight"].T + of["inner.bias"]
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    content_ID = hidden @ of["outer.weight"].T + of["outer.bias"]
    x = np.concatenate((of["preference_UD"], content_ID))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    num_users, num_items = data.num_users, data.num_items
    x[num_users:] *= gate
    seen = np.zeros((num_users, num_items))
    seen[tuple(data.train.T)] = 1
    graph = np.zeros((len(x), len(x)))
    graph[:num_users, num_users:] = seen / np.sqrt(np.outer(seen.sum(1), seen.sum(0)))
    graph += graph.T
    return np.sum([np.linalg.matrix_power(graph, k) @ x for k in range(layers + 1)], axis=0)


def ranking_loss(user: np.ndarray, item: np.ndarray, case: dict[str, Any]) -> float:
    """Mean of -ln sigmoid over the case's batch, in nats."""
    users, positives, negatives = (
        np.array(case["batch"][n]) for n in ("users", "positives", "negatives")
    )
    margin = (user[users] * (item[positives] - item[negatives])).sum(1)
    return float(np.log1p(np.exp(-margin)).mean())
