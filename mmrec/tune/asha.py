"""ASHA over epochs that remembers what earlier drivers saw; and no scheduling at all.

Ray's scheduler is used as it is, but for three things: trials are known by their hash, so that a
trial continued by a new driver counts once, the rungs are filled from the ledger first, and the
next trial is looked for among those that are alive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket


class InOrder(FIFOScheduler):
    """Trials as they were handed out. Ray looks through all that ever were, at every step."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        alive = sorted(tune_controller.get_live_trials(), key=lambda trial: trial.trial_id)
        waiting = [trial for trial in alive if trial.status == Trial.PENDING]
        paused = [trial for trial in alive if trial.status == Trial.PAUSED]
        return next(iter(waiting + paused), None)


@dataclass(frozen=True)
class _Known:
    """What Ray's bracket asks of a trial."""

    trial_id: str


class LedgerAsha(InOrder, AsyncHyperBandScheduler):
    """One bracket, grace of 10 % of the epochs, reduction factor 3 (Li et al., MLSys 2020)."""

    def __init__(self, epochs: int, past: Mapping[str, Mapping[int, float]]) -> None:
        """Fill the rungs.

        Args:
            epochs: cap of a trial; never stopped before a tenth of it (at least 5 epochs).
            past: hash -> epoch -> objective, in the order in which the trials were met.
        """
        grace = min(epochs, max(5, -(-epochs // 10)))
        super().__init__(
            time_attr="epoch",
            metric="objective",
            mode="max",
            max_t=epochs + 1,  # the cap is the trial's own business
            grace_period=grace,
            reduction_factor=3,
        )
        self.bracket = _Bracket(grace, epochs + 1, 3, 0)
        for name, values in past.items():
            for epoch, value in sorted(values.items()):
                self.bracket.on_result(_Known(name), epoch, value)  # pyright: ignore[reportArgumentType]

    @property
    def milestones(self) -> set[int]:
        """Epochs at which trials are compared: the ledger must hold their values."""
        return {int(milestone) for milestone, _ in self.bracket._rungs}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "objective" not in result:  # a failed trial ends by itself
            return TrialScheduler.CONTINUE
        known = _Known(trial.config["hash"])
        return self.bracket.on_result(known, result["epoch"], result["objective"])  # pyright: ignore[reportArgumentType]

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if "objective" in result:
            known = _Known(trial.config["hash"])
            self.bracket.on_result(known, result["epoch"], result["objective"])  # pyright: ignore[reportArgumentType]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Nothing to prepare: there is one bracket."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing to clear: there is one bracket."""
