"""Makes trials misbehave as a test asks: Python imports this from any folder on its path.

A file in the folder $MMREC_FAULTS (on the hosts of the cluster lab /srv/faults) is a fault. It
holds the name of the trial that is to meet it, such as `BPR 0` (model and seed), or `all`.

    hold    waits while the file is there
    hang    sleeps for ever, once: the file is gone then
    eat     takes memory until something stops it, every time
    nan     its weights become NaN

The code of mmrec is left as it is: only `fit` is replaced, as its module is loaded.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(os.environ.get("MMREC_FAULTS", "/srv/faults"))
MODULE = "mmrec.training"
EPOCH = 6
"""A fault is met after so many epochs, the first checkpoint being at 5."""


def misbehave(run: Any) -> None:
    """What the files say."""
    name = f"{type(run.cfg.model).__name__} {run.draws.seed}"
    while is_asked("hold", name):
        time.sleep(0.05)
    if is_asked("hang", name):
        (FOLDER / "hang").unlink()
        while True:
            time.sleep(1)
    if is_asked("eat", name):
        eaten = []
        while True:
            eaten.append(b"x" * 2**26)
            time.sleep(0.02)
    if is_asked("nan", name):
        next(run.model.parameters()).data.fill_(float("nan"))


def is_asked(fault: str, name: str) -> bool:
    """Whether a trial is to meet a fault."""
    try:
        return (FOLDER / fault).read_text().strip() in (name, "all")
    except FileNotFoundError:
        return False


class Faulty(Loader):
    """Loads a module as ever, and puts faults into its `fit`."""

    def __init__(self, usual: Loader) -> None:
        self.usual = usual

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.usual.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.usual.exec_module(module)
        fit = vars(module)["fit"]

        def faulty_fit(run: Any) -> Iterator[Any]:
            for report in fit(run):
                if report.epoch == EPOCH:
                    misbehave(run)
                yield report

        vars(module)["fit"] = faulty_fit


class Finder(MetaPathFinder):
    """Finds the module where it is."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = Faulty(spec.loader)
        return spec


if FOLDER.is_dir():
    sys.meta_path.insert(0, Finder())
