"""What Tune is told of resources and ends, and what its loop must do otherwise in Ray 2.60.

* Tune gives a trial that waits for its new worker the next worker that falls free, and ends the new
  one before it is up. Where trials are shorter than the start of a worker (seconds), no worker that
  died is ever replaced, and all later trials run one at a time (measured).
* Of a worker that Ray's memory monitor killed, or whose node died, Tune gets an error that it does
  not know, and ends the whole run (measured). Here it is the death of that worker.
* Tune tells a searcher that a trial failed, but not why.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ray.air.execution._internal import RayActorManager
from ray.exceptions import (
    ActorDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.tune import PlacementGroupFactory, Stopper
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial

from mmrec.tune.local import amounts
from mmrec.tune.mishaps import Death, Mishaps


class _ActorManager(RayActorManager):
    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        if isinstance(exception, RayError) and not known:
            died = ActorDiedError()
            died.__cause__ = exception
            exception = died
        super()._actor_task_failed(tracked_actor_task, exception)


@contextmanager
def mended(died: Callable[[str, Death], None]) -> Iterator[None]:
    """Tuners that are run in this block go on after what is said above.

    Args:
        died: told of a trial's id and what its worker died of, before the searcher hears of it.
    """

    class Controller(tune_controller.TuneController):
        def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
            own = self._trial_to_actor.get(trial)
            starting = own in self._actor_manager._live_actors_to_ray_actors_resources
            if starting and trial not in self._resetting_trials:
                return False
            return super()._maybe_reuse_cached_actor(trial)

        def _process_trial_failure(self, trial: Trial, exception: Any) -> None:
            died(trial.trial_id, death_by(exception))
            super()._process_trial_failure(trial, exception)

    with (
        patch.object(tune_controller, "RayActorManager", _ActorManager),
        patch("ray.tune.tune.TuneController", Controller),
    ):
        yield


def death_by(error: BaseException) -> Death:
    """What a worker died of, in a line, from what Ray says in many."""
    if isinstance(error.__cause__, RayError):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    told = [line for line in lines if line.startswith("The actor is dead because")]
    raised = isinstance(error, RayTaskError) or "creation task" in lines[0]
    line = told[0] if told else lines[-1] if raised else lines[0]
    line = line.partition(" Some common causes include")[0]  # a guess at all that there is
    return Death(line[:300], starved=isinstance(error, OutOfMemoryError))


class Halted(Stopper):
    """Ends all trials once none can go on."""

    def __init__(self, mishaps: Mishaps) -> None:
        self.mishaps = mishaps

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.mishaps.halted is not None


def bundle(cpus: float, gpus: float, avoid: Collection[str]) -> PlacementGroupFactory:
    """What a trial takes, on any node but those to avoid (by Ray's ids)."""
    wanted = amounts(cpus, gpus)
    if not avoid:
        return PlacementGroupFactory([wanted])
    elsewhere = {"ray.io/node-id": f"!in({','.join(avoid)})"}
    return PlacementGroupFactory([wanted], bundle_label_selector=[elsewhere])
