"""One trial in a Ray worker: the only place that both trains and talks to Ray.

A worker is kept from trial to trial (`reuse_actors`), so that Python and torch start once. Nothing
happens before the first `step`: Ray may build a trainable and never ask it to work.
"""

import io
import math
import platform
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
import ray
import torch
from ray import tune

from mmrec.data.dataset import Dataset
from mmrec.evaluation import PROTOCOLS
from mmrec.study import clouds, seal
from mmrec.study.costs import MemoryMeter, costs_of
from mmrec.study.provenance import hardware
from mmrec.study.store import Folder
from mmrec.study.trials import Trial, begin
from mmrec.training import EpochReport, Run, fit
from mmrec.tune.faults import WrongNode, fault_of
from mmrec.tune.versions import this_node
from mmrec.tune.watchdog import Watchdog, stuck_file


@dataclass(frozen=True)
class Shared:
    """What all trials of a study share; it goes to the object store once."""

    data: Dataset
    folder: Folder
    protocol: str
    device: str
    checkpoint_epochs: int = 5
    checkpoint_seconds: float = 60.0
    report_seconds: float = 0.0
    """Several epochs may be told in one report, where no scheduler waits for each of them."""
    stall_seconds: float = 0.0
    """A worker that ends no epoch for so long ends itself; 0: never."""
    code: Mapping[str, str] = field(default_factory=dict)
    """What the driver runs on, which a node that joins later must have too; see `this_node`."""
    clouds: bool = False
    """Whether to keep samples of item embeddings; see `mmrec.study.clouds`."""


class TrialTrainable(tune.Trainable):
    """Runs the trial that its config names, one report a step."""

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        assert shared is not None
        self.shared = shared
        self._ask(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._write_curve()
        self._ask(new_config)
        return True

    def _ask(self, config: dict[str, Any]) -> None:
        self.name: str = config["hash"]
        self.attempt: int = config["attempt"]
        self.text: str = config["trial"]
        self.trial: Trial | None = None
        self.parent: str = config["parent"]
        self.given_seconds = 0.0
        self.given = False
        """Whether it loaded what its parent trained."""
        self._let_go()
        self.watchdog = Watchdog(
            self.shared.stall_seconds, self.shared.folder, self._path(stuck_file(self.attempt))
        )
        self.saved_epoch = 0
        self.saved_at = time.monotonic()

    def step(self) -> dict[str, Any]:
        """Train to the next report.

        An error (a NaN, a modality that is not there, memory, a full disk) is a result: the worker
        lives on, and the driver decides whose fault it is; see `mmrec.tune.mishaps`.
        """
        try:
            self.watchdog.feed()
            return self._advance()
        except Exception as error:  # noqa: BLE001 - reported as the trial's failure, see above
            return self._failed(error)
        finally:
            self.watchdog.rest()

    def _failed(self, error: Exception) -> dict[str, Any]:
        text = "".join(traceback.format_exception_only(error)).strip()
        fault = fault_of(error)
        if fault == "storage":
            text = f"{error} (on {platform.node()})"
        if fault == "trial":
            self._write_curve()
        self._let_go()  # others on this node need its memory
        self.watchdog.close()
        return {"done": True, "finished": False, "error": text, "fault": fault, **self._where()}

    def _let_go(self) -> None:
        self.run: Run | None = None
        self.reports: Iterator[EpochReport] = iter(())
        if self.shared.device == "cuda":
            torch.cuda.empty_cache()

    def _advance(self) -> dict[str, Any]:
        run = self.run or self._begin()
        start, curve = time.monotonic(), []
        while not run.finished:
            report = next(self.reports)
            self.watchdog.feed()
            curve.append((report.epoch, report.valid[run.cfg.objective]))
            self._checkpoint_if_due(run)
            if time.monotonic() - start >= self.shared.report_seconds:
                break
        # Before the end is scored: that is the same work for every model, and no part of training.
        peak = self.memory.peak_mib() if self.memory else math.nan
        costs = costs_of(run, peak, given=self.given)
        last = run.reports[-1]
        valid = self._valid(run)
        result = {
            "epoch": last.epoch,
            "objective": last.valid[run.cfg.objective],
            "curve": curve,
            "best_epoch": run.best_epoch,
            "best": valid[run.cfg.objective],
            # Pairs, since Tune spreads nested dicts over names of its own.
            "valid": list(valid.items()),
            "cost": list(costs.items()),
            "seconds": sum(report.seconds for report in run.reports) - self.given_seconds,
            "finished": run.finished,
            **self._where(),
        }
        if run.finished:
            result |= {"done": True, "measures": list(self._end(run).items())}
        return result

    def _begin(self) -> Run:
        shared = self.shared
        self._require_fit_node()
        given = None if self._has_state(self.name) else self._final_state_of(self.parent)
        # What only evaluates has no training to be measured.
        self.memory = MemoryMeter(shared.device) if given is None else None
        # Not in setup: what a worker of another version cannot read is an error with its reason.
        trial = self.trial = Trial.from_json(self.text)
        run = begin(trial, shared.data, PROTOCOLS[shared.protocol], shared.device)
        state = self._state_of(self.name) if given is None else given
        if given is not None:
            self.given = True
            self.given_seconds = sum(report["seconds"] for report in given["reports"])
        if state is not None:
            run.load(state)
        self.run, self.reports = run, fit(run)
        self.saved_epoch, self.saved_at = run.epoch, time.monotonic()
        return run

    def _require_fit_node(self) -> None:
        """Raise WrongNode on one that joined after the pre-flight and would not have passed it."""
        here, driver = this_node(), self.shared.code
        wrong = [f"{k} {here.get(k)}, not {v}" for k, v in driver.items() if here.get(k) != v]
        if not wrong and not self.shared.folder.seen(self._path("attempt")):
            wrong = [f"not {self.shared.folder.address}: it does not see what the driver wrote"]
        if wrong:
            raise WrongNode(f"{platform.node()} has {', '.join(wrong)}")

    def _has_state(self, name: str) -> bool:
        return bool(name) and self.shared.folder.exists(f"trials/{name}/state.pt")

    def _state_of(self, name: str) -> dict[str, Any] | None:
        if not self._has_state(name):
            return None
        content = io.BytesIO(self.shared.folder.read(f"trials/{name}/state.pt"))
        return torch.load(content, map_location=self.shared.device, weights_only=True)

    def _final_state_of(self, name: str) -> dict[str, Any] | None:
        """Of a trial that has ended: a state with an optimiser is one to be trained on."""
        state = self._state_of(name)
        return None if state is None or "optimizer" in state else state

    def _valid(self, run: Run) -> dict[str, float]:
        """Validation metrics at the best epoch, of what the trial is scored on."""
        if run.finished and run.evaluate_on is not None:
            return run.score_valid().metrics
        return next(report.valid for report in run.reports if report.epoch == run.best_epoch)

    def _where(self) -> dict[str, Any]:
        return {
            "host": platform.node(),
            "hardware": hardware(),
            "device": self.shared.device,
            "threads": self.trial.run.train.threads if self.trial else torch.get_num_threads(),
            "torch": torch.__version__,
            "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else "",
        }

    def _checkpoint_if_due(self, run: Run) -> None:
        waited = time.monotonic() - self.saved_at
        epochs = run.epoch - self.saved_epoch
        due = epochs >= self.shared.checkpoint_epochs or waited >= self.shared.checkpoint_seconds
        if due and not run.finished:
            self._save(run)

    def _save(self, run: Run) -> None:
        self._write("state.pt", _bytes_of(run.state()))
        self._write_curve()
        self.saved_epoch, self.saved_at = run.epoch, time.monotonic()

    def _end(self, run: Run) -> dict[str, float]:
        """Score test once, from the best validation state; keep that state in place of the rest.

        A trial that loaded its state leaves it to the one that trained it.
        """
        ranking = run.score_test()
        if self._is_current():
            seal.write(self.shared.folder, self.name, ranking, run.cfg.objective)
        measures = run.measures()
        if self.shared.clouds and self._is_current():
            clouds.write(self.shared.folder, self.name, clouds.clouds_of(run))
        self._write_curve()
        if not self.given:
            self._write("state.pt", _bytes_of(run.final_state()))
        self._let_go()
        self.watchdog.close()
        return measures

    def _write_curve(self) -> None:
        if self.run is None or not self.run.reports:
            return
        rows = [_flat(report) for report in self.run.reports]
        buffer = io.BytesIO()
        pd.DataFrame(rows).to_parquet(buffer, index=False)
        self._write("epochs.parquet", buffer.getvalue())

    def _write(self, file: str, content: bytes) -> None:
        if self._is_current():
            self.shared.folder.write(self._path(file), content)

    def _is_current(self) -> bool:
        """Whether no later attempt has been handed out: an orphan of a dead driver lives on."""
        owner = self.shared.folder.read(self._path("attempt")).decode()
        return owner == str(self.attempt)

    def _path(self, file: str) -> str:
        return f"trials/{self.name}/{file}"

    def cleanup(self) -> None:
        """An orderly stop keeps what was trained since the last checkpoint."""
        if self.run is not None and self.run.reports and not self.run.finished:
            self._save(self.run)
        self.watchdog.close()


def _flat(report: EpochReport) -> dict[str, Any]:
    value = asdict(report)
    losses = {f"loss.{name}": x for name, x in value["losses"].items()}
    valid = {f"valid.{name}": x for name, x in value["valid"].items()}
    measures = {f"measure.{name}": x for name, x in value["measures"].items()}
    return {"epoch": value["epoch"], "seconds": value["seconds"], **losses, **valid, **measures}


def _bytes_of(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
