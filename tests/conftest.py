import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

# Tiny arrays: threads only fight over the cores. Set before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A process asks once how Ray authenticates: as mmrec.tune.local says, whoever imports it first.
os.environ.setdefault("RAY_AUTH_MODE", "token")

import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory) -> Iterator[None]:
    """Neither the cache nor the cluster nor the database of the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_ADDRESS", "local")
        patch.delenv("MMREC_STORAGE", raising=False)
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Where the real datasets lie."""
    root = os.environ.get("MMREC_DATA")
    if not root:
        pytest.skip("real data not found: set MMREC_DATA to the folder that holds it")
    return Path(root)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> pd.DataFrame:
    """The trial table of tests/e2e/mini.py, run on this machine alone and not disturbed."""
    from tests.e2e.conftest import finish, run_folder, start, trials

    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # that of all processes: one of them runs it for the others too
    out = place / "undisturbed"
    with FileLock(place / "undisturbed.lock"):
        if not any(out.glob("*/*/report/tables/trials.csv")):
            finish(start("--out", str(out)))
    table = trials(run_folder(out))
    assert len(table) == 6
    assert set(table["state"]) == {"done"}
    return table
