import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmrec.study.ledger import Ledger

OpenLedger = Callable[..., Ledger]


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with nothing in it: laying out its tables takes Optuna longer than most tests."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    Ledger(f"sqlite:///{path}", "made_up").storage.engine.dispose()
    assert [file.name for file in path.parent.iterdir()] == ["ledger.db"]
    return path


@pytest.fixture
def open_ledger(laid_out: Path, tmp_path: Path) -> OpenLedger:
    """Opens the test's ledger, as often as it is asked: each time as a new driver would."""
    path = tmp_path / "ledger.db"
    shutil.copy(laid_out, path)
    return lambda name="made_up": Ledger(f"sqlite:///{path}", name)
