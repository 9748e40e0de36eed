"""The test scores of a study, sealed: written by workers, opened once, after selection.

Nothing in a search, a scheduler or a selection imports this file; a test holds them to it.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec.evaluation import Ranking
from mmrec.study.store import Folder


@dataclass(frozen=True)
class TestScores:
    """What one trial came to on the test split, at the epoch that validation chose."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    metrics: Mapping[str, float]
    users: NDArray[np.int64]
    per_user: Mapping[str, NDArray[np.float32]]
    """Metric name -> one value a user; the objective's."""


def write(folder: Folder, name: str, ranking: Ranking, objective: str) -> None:
    """Store a trial's test scores in `trials/<name>/test.npz`."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        names=np.array(list(ranking.metrics)),
        values=np.array(list(ranking.metrics.values()), dtype=np.float64),
        users=ranking.users.numpy(),
        per_user=ranking.per_user[objective].numpy().astype(np.float32),
        objective=np.array(objective),
    )
    folder.write(f"trials/{name}/test.npz", buffer.getvalue())


def unseal(folder: Folder, name: str) -> TestScores:
    """Open a trial's test scores; FileNotFoundError where the trial never came to its end."""
    with np.load(io.BytesIO(folder.read(f"trials/{name}/test.npz")), allow_pickle=False) as file:
        metrics = dict(zip(file["names"].tolist(), file["values"].tolist(), strict=True))
        return TestScores(metrics, file["users"], {str(file["objective"]): file["per_user"]})
