import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tiny tensors: threads only fight over the cores


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Where the real datasets lie."""
    root = os.environ.get("MMREC_DATA")
    if not root:
        pytest.skip("real data not found: set MMREC_DATA to the folder that holds it")
    return Path(root)
