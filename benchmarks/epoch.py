"""Seconds per epoch of every model at the size of Amazon Baby, beside the MMRec toolbox.

    python benchmarks/epoch.py --data-root DATA --out benchmarks/results/epoch
    python benchmarks/epoch.py VBPR FREEDOM --data-root DATA
    python benchmarks/epoch.py --curve --data-root DATA

19,445 users, 7,050 items, 118,551 training interactions, an image modality of 4096 columns and a
text modality of 384, batches of 2048, 2 threads. With a data root the interactions are the real
ones, and so are the features if the folder has feature files; else they are planted in them.
Without a data root all is planted.

Every model runs in a process of its own. After an epoch to warm up, each of `--runs` rounds
measures the machine (`Calibration`), one training epoch and one evaluation, and the machine again,
so that the toolbox's figures (`benchmarks/peers.json`) are scaled to that minute.
A model that trains its feature tables in the release is timed with the tables frozen too.
`--curve` trains a few epochs instead and prints the validation Recall@20 after each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse.linalg as spla
import torch
from numpy.typing import NDArray

from mmrec.config import override
from mmrec.data.dataset import Dataset, Dense
from mmrec.data.planted import Planted, planted
from mmrec.data.sources import load
from mmrec.evaluation import PROTOCOLS
from mmrec.graphs import binary
from mmrec.models import all_models
from mmrec.models.base import ModelConfig
from mmrec.study.memory import resident
from mmrec.study.provenance import hardware, now, versions
from mmrec.training import ALLOCATOR, Run, RunConfig, TrainConfig, fit, train_epoch

PEERS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "peers.json").read_text(encoding="utf-8")
)["models"]
WIDTHS = {"image": 4096, "text": 384}
LATENT = 32
"""Factors of the real interactions that the planted features show."""


# --- how fast the machine is now


REFERENCE = {"spmm": 0.0023, "matmul": 0.0101, "adam20M": 0.0552, "python": 0.0294}
"""Median seconds of each workload beside the toolbox's own figures (2 threads of an AMD EPYC)."""

NODES, EDGES, WIDTH = 26_495, 237_102, 64
"""Amazon Baby: users and items, twice the training interactions, embedding width."""


class Calibration:
    """The workloads with their arrays, made once."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        at = torch.randint(NODES, (2, EDGES))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")
            entries = torch.sparse_coo_tensor(at, torch.ones(EDGES), (NODES, NODES)).coalesce()
            self.graph = entries.to_sparse_csr()
        self.x = torch.randn(NODES, WIDTH)
        self.features, self.weight = torch.randn(4096, 4096), torch.randn(4096, WIDTH)
        self.p, self.g, self.m, self.v = (torch.randn(20_000_000) for _ in range(4))
        self.v.abs_()

    def seconds(self, repeats: int = 7) -> dict[str, float]:
        """Median seconds of each workload with 2 threads, and `mix`."""
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        found = {
            "spmm": _median(lambda: self.graph @ self.x, repeats),
            "matmul": _median(lambda: self.features @ self.weight, repeats),
            "adam20M": _median(self._adam, repeats),
            "python": _median(_loop, repeats),
        }
        torch.set_num_threads(threads)
        ratios = [found[name] / seconds for name, seconds in REFERENCE.items()]
        return {**found, "mix": statistics.mean(ratios)}

    def _adam(self) -> None:
        """Adam of 20M numbers, operation by operation."""
        self.m.lerp_(self.g, 0.1)
        self.v.mul_(0.999).addcmul_(self.g, self.g, value=0.001)
        self.p.addcdiv_(self.m, self.v.sqrt().add_(1e-8), value=-1e-3)


def _loop() -> None:
    seen = {i % 977 for i in range(300_000)}
    sum(1 for i in range(600_000) if i in seen)


def _median(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


# --- data and models


def baby(data_root: Path | None, features: Path) -> Dataset:
    """Amazon Baby, or a planted dataset of its size, with features where it has none.

    Those are kept in the folder `features`, so that the processes that are measured only read.
    """
    if data_root is None:
        size = Planted(users=19_445, items=7_050, interactions=160_792, modalities=())
        data = planted(size, name="baby-size")
    else:
        data = load("baby", data_root=data_root)
    if data.features:
        return data
    here = np.ones(data.num_items, dtype=np.bool_)
    shown = {}
    for name, width in WIDTHS.items():
        path = features / f"{name}.npy"
        if not path.exists():
            np.save(path, _shown(data, width))
        shown[name] = Dense(here, np.load(path, allow_pickle=False))
    return replace(data, features=shown)


def _shown(data: Dataset, width: int) -> NDArray[np.float32]:
    """Features that show what the training interactions have in common, and as much noise."""
    rng = np.random.default_rng([7, width])
    seen_UI = binary(data.train, data.num_users, data.num_items)
    start = np.ones(min(seen_UI.shape))
    _, _, factors_LI = spla.svds(seen_UI, LATENT, v0=start, rng=np.random.default_rng(0))
    latent_IL = factors_LI.T / factors_LI.std(axis=1)
    values_IF = latent_IL @ rng.standard_normal((LATENT, width)) / LATENT**0.5
    values_IF += rng.standard_normal(values_IF.shape)
    return values_IF.astype(np.float32)


def config(name: str, *, frozen: bool) -> RunConfig:
    """The model at its defaults, in its release's training settings."""
    (model,) = (m for m in all_models() if m.__name__ == name)
    cfg = RunConfig(
        model=model(), train=TrainConfig(epochs=1000, patience=0, threads=2), objective="recall@20"
    )
    cfg = override(cfg, model.released_training)
    return override(cfg, {"model.train_features": False}) if frozen else cfg


# --- in the model's own process


def serve(name: str, data_root: Path | None, features: Path, *, frozen: bool) -> None:
    """Build the model, then time one epoch and one evaluation for every line on standard input."""
    start = time.perf_counter()
    cfg = config(name, frozen=frozen)
    data = baby(data_root, features)
    if not hasattr(cfg.model, "modalities"):
        data = replace(data, features={})
    loaded = time.perf_counter()
    run = Run(cfg, data, seed=0, protocol=PROTOCOLS["mmrec"])
    built = time.perf_counter()
    parameters = sum(p.numel() for p in run.model.parameters())
    _epoch(run)
    _say({"data": loaded - start, "build": built - loaded, "parameters": parameters})
    for _ in sys.stdin:
        train, evaluation = _epoch(run)
        (peak,) = resident("VmHWM")
        _say({"train": train, "evaluation": evaluation, "peak_mb": peak})


def _epoch(run: Run) -> tuple[float, float]:
    start = time.perf_counter()
    train_epoch(run)
    run.epoch += 1
    trained = time.perf_counter()
    run.valid.rank(run.model.eval())
    return trained - start, time.perf_counter() - trained


def _say(found: dict[str, float]) -> None:
    print(json.dumps(found), flush=True)


# --- in the process that compares


def timed(
    name: str, data_root: Path | None, features: Path, *, frozen: bool, runs: int
) -> dict[str, Any]:
    """Median seconds of a training epoch and an evaluation, and the machine's speed meanwhile."""
    command = [sys.executable, __file__, name, "--serve", str(features)]
    command += ["--frozen"] * frozen
    command += ["--data-root", str(data_root)] if data_root else []
    calibration = Calibration()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ALLOCATOR,
    ) as child:
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("the pipes to the model's process are not there")
        found: dict[str, Any] = json.loads(child.stdout.readline())
        rounds = []
        for _ in range(runs):
            before = calibration.seconds(3)["mix"]
            print("epoch", file=child.stdin, flush=True)
            figures = json.loads(child.stdout.readline())
            rounds.append(figures | {"mix": (before + calibration.seconds(3)["mix"]) / 2})
        child.stdin.close()
    found["peak_mb"] = rounds[-1]["peak_mb"]
    for figure in ("train", "evaluation", "mix"):
        values = [r[figure] for r in rounds]
        found[f"{figure}_runs"] = values
        found[figure] = statistics.median(values)
    return found


def compared(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """How many times as fast as the toolbox, each round at the machine's speed of that round."""
    peer = PEERS.get(name)
    if peer is None:
        return {}
    ratios = {}
    for figure in ("train", "evaluation"):
        each = [
            peer[figure] * mix / seconds
            for seconds, mix in zip(found[f"{figure}_runs"], found["mix_runs"], strict=True)
        ]
        ratios[figure] = {"times": statistics.median(each), "range": [min(each), max(each)]}
    return {**ratios, "peak": found["peak_mb"] / peer["peak_mb"]}


def line(name: str, found: dict[str, Any], ratios: dict[str, Any], *, frozen: bool) -> str:
    """One row of what is printed."""
    text = f"{name + (' frozen' if frozen else ''):16}"
    for figure in ("train", "evaluation"):
        low, high = min(found[f"{figure}_runs"]), max(found[f"{figure}_runs"])
        text += f" {figure} {found[figure]:6.2f} s [{low:.2f}-{high:.2f}]"
        if ratios:
            low, high = ratios[figure]["range"]
            text += f" {ratios[figure]['times']:5.1f}x [{low:.1f}-{high:.1f}]"
    text += f" peak {found['peak_mb']:.0f} MB"
    return text + (f" ({ratios['peak']:.2f} of the toolbox's)" if ratios else "")


def measure(models: list[type[ModelConfig]], arguments: argparse.Namespace, features: Path) -> None:
    for model in models:
        name = model.__name__
        record: dict[str, Any] = {"model": name, "train_seconds_frozen": None}
        for frozen in (False, True) if _trains_features(model) else (False,):
            found = timed(name, arguments.data_root, features, frozen=frozen, runs=arguments.runs)
            ratios = compared(name, found)
            print(line(name, found, ratios, frozen=frozen), flush=True)
            record["train_seconds_frozen" if frozen else "train_seconds"] = found["train"]
            record["frozen" if frozen else "as_released"] = {**found, "toolbox": ratios}
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            record |= {"date": now(), "hardware": hardware(), "versions": versions()}
            path = arguments.out / f"{name}.json"
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def curves(models: list[type[ModelConfig]], arguments: argparse.Namespace, features: Path) -> None:
    data = baby(arguments.data_root, features)
    for model in models:
        cfg = config(model.__name__, frozen=False)
        cfg = override(cfg, {"train.epochs": arguments.epochs})
        run = Run(cfg, data, seed=arguments.seed, protocol=PROTOCOLS["mmrec"])
        values = [f"{report.valid['recall@20']:.4f}" for report in fit(run)]
        print(f"{model.__name__:12} validation recall@20 {' '.join(values)}", flush=True)


def _trains_features(model: type[ModelConfig]) -> bool:
    return bool(getattr(model(), "train_features", False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="class names; all that are trained by default")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("MMREC_DATA"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for one JSON file a model")
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--epochs", type=int, default=3, help="of --curve")
    parser.add_argument("--seed", type=int, default=0, help="of --curve")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--frozen", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        name, data_root = arguments.models[0], arguments.data_root
        serve(name, data_root, arguments.serve, frozen=arguments.frozen)
        return
    known = {model.__name__: model for model in all_models() if not model.closed_form}
    unknown = [name for name in arguments.models if name not in known]
    if unknown:
        parser.error(f"no trained model {unknown[0]!r}; there are: {', '.join(known)}")
    chosen = [known[name] for name in arguments.models or known]
    with tempfile.TemporaryDirectory() as features:
        baby(arguments.data_root, Path(features))
        (curves if arguments.curve else measure)(chosen, arguments, Path(features))


if __name__ == "__main__":
    main()
