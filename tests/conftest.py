import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tiny arrays: threads only fight over the cores. Set before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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
