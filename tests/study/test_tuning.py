"""The tries of nuisance knobs: how many, where, and which one is taken."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from mmrec.config import get
from mmrec.data.conditions import Condition
from mmrec.models.bpr import BPR
from mmrec.models.mgcn import MGCN
from mmrec.models.vbpr import VBPR
from mmrec.study.collect import tuned
from mmrec.study.ledger import Row
from mmrec.study.ranges import Range
from mmrec.study.study import Planned, Study
from mmrec.study.trials import Setting
from mmrec.study.tuning import LEARNING_RATE, WEIGHT_DECAY, Tuning
from mmrec.training import RunConfig

SETTING = Setting(data="00ff", split="random", protocol="full", device="cpu")
LR, REG, DECAY = "train.lr", "model.reg_weight", "train.weight_decay"
STUDY = Study(
    name="x",
    question="Does it?",
    base=RunConfig(model=VBPR()),
    arms={"VBPR": RunConfig(model=VBPR()), "MGCN": RunConfig(model=MGCN())},
    controls={"MF": RunConfig(model=BPR())},
    conditions=(Condition(), Condition(modalities=("text",), filler="noise")),
    tuning=Tuning(trials=4),
)


def test_a_range_is_walked_on_its_own_scale():
    assert Range(1e-4, 1e-2, log=True).at(0.5) == 1e-3
    assert Range(1.0, 3.0).at(0.25) == 1.5
    assert [Range(2, 4, integer=True).at(share) for share in (0.0, 0.3, 1.0)] == [2, 3, 4]


def test_the_regulariser_is_searched_where_the_authors_searched_it():
    ranges = Tuning().ranges(RunConfig(model=VBPR()))
    assert ranges == {LR: LEARNING_RATE, REG: Range(1e-5, 2.0, log=True)}
    assert Tuning().ranges(RunConfig(model=MGCN())) == {LR: LEARNING_RATE, DECAY: WEIGHT_DECAY}
    fixed = Tuning(fixed=frozenset({LR})).ranges(RunConfig(model=VBPR()))
    assert list(fixed) == [REG]


@pytest.mark.parametrize("trials", [2, 5, 20, 33])
def test_the_tries_are_the_own_settings_and_distinct_points_inside_the_ranges(trials):
    run = RunConfig(model=VBPR())
    points = Tuning(trials=trials).points(run)
    assert len(points) == trials
    assert points[0] == {LR: get(run, LR), REG: get(run, REG)}
    assert len({tuple(point.values()) for point in points}) == trials
    for path, r in Tuning().ranges(run).items():
        values = np.array([point[path] for point in points[1:]])
        assert values.min() >= r.low
        assert values.max() <= r.high


def test_a_longer_tuning_begins_with_the_shorter_and_every_arm_walks_the_same_shares():
    run = RunConfig(model=VBPR())
    assert Tuning(trials=40).points(run)[:9] == Tuning(trials=9).points(run)
    rates = [point[LR] for point in Tuning(trials=9).points(RunConfig(model=MGCN()))]
    assert rates == [point[LR] for point in Tuning(trials=9).points(run)]


def test_the_tries_fill_each_range_evenly():
    points = Tuning(trials=65).points(RunConfig(model=VBPR()))[1:]
    for path, r in Tuning().ranges(RunConfig(model=VBPR())).items():
        place = np.log([point[path] / r.low for point in points]) / np.log(r.high / r.low)
        # The distance of 64 points of a Sobol sequence is near 1/64; a random draw's near 1/10.
        assert kstest(place, "uniform").statistic < 0.03


def test_without_trials_nothing_is_tried():
    for trials in (0, 1):
        assert Tuning(trials=trials).points(RunConfig(model=VBPR())) == []
    with pytest.raises(ValueError, match="at least 0, got -1"):
        Tuning(trials=-1)


def tries(study: Study) -> list[Planned]:
    return study.plan(study.tuning_cells(), [0], SETTING)


def rows(plan: list[Planned], value: dict[str, float | None]) -> dict[str, Row]:
    """Ended rows: label -> its value, None for a failure; labels that are not named have none."""
    return {p.hash: _row(p, value[p.label]) for p in plan if p.label in value}


def _row(planned: Planned, value: float | None) -> Row:
    state = "failed" if value is None else "done"
    known: dict[str, Any] = {"kind": "grid", "number": 0, "attempt": 1, "params": {}}
    known |= {"values_by_epoch": {}, "attributes": {}, "started": "", "ended": ""}
    return Row(hash=planned.hash, state=state, value=value, **known)


def test_every_arm_and_control_is_tried_alike_under_the_first_condition():
    plan = tries(STUDY)
    labels = [f"{arm} tune {n}" for n in range(4) for arm in ("VBPR", "MGCN", "MF")]
    assert [p.label for p in plan] == labels
    assert {p.trial.condition for p in plan} == {Condition()}
    assert {p.phase for p in plan} == {"tune"}
    for planned in plan:
        for path, value in planned.levels.items():
            assert path == "arm" or get(planned.trial.run, path) == value


def test_the_best_try_by_validation_is_taken_and_a_failed_one_passed_over():
    plan = tries(STUDY)
    value: dict[str, float | None] = {p.label: 0.1 for p in plan}
    value |= {"VBPR tune 2": 0.3, "VBPR tune 3": None, "MF tune 1": 0.2, "MF tune 2": 0.2}
    found = tuned(STUDY, plan, rows(plan, value))
    levels = {p.label: {k: v for k, v in p.levels.items() if k != "arm"} for p in plan}
    assert found.complete
    assert found.settings == {
        "VBPR": levels["VBPR tune 2"],
        "MGCN": levels["MGCN tune 0"],
        "MF": levels["MF tune 1"],
    }
    chosen = [(t["arm"], t["nth"]) for t in found.tries if t["chosen"]]
    assert chosen == [("VBPR", 2), ("MGCN", 0), ("MF", 1)]


def test_tuning_is_not_complete_while_a_try_is_missing():
    plan = tries(STUDY)
    value: dict[str, float | None] = {p.label: 0.1 for p in plan if p.label != "MGCN tune 3"}
    assert not tuned(STUDY, plan, rows(plan, value)).complete


def test_an_arm_whose_tries_all_failed_keeps_its_own_settings():
    plan = tries(STUDY)
    found = tuned(STUDY, plan, rows(plan, dict.fromkeys((p.label for p in plan), None)))
    assert found.complete
    assert found.settings["VBPR"] == {LR: 1e-3, REG: 0.1}


def test_what_was_tuned_is_in_every_cell_of_its_arm_and_only_there():
    study = replace(STUDY, tuned={"VBPR": {LR: 0.007}, "MF": {LR: 0.002}})
    rates = {cell.label: get(cell.run, LR) for cell in study.cells()}
    assert rates == {
        "VBPR baseline": 0.007,
        "VBPR text=noise": 0.007,
        "MGCN baseline": 1e-3,
        "MGCN text=noise": 1e-3,
        "MF": 0.002,
    }


def test_a_chosen_try_is_the_same_trial_as_the_cell_that_it_makes():
    plan = tries(STUDY)
    chosen = next(p for p in plan if p.label == "VBPR tune 2")
    knobs = {k: v for k, v in chosen.levels.items() if k != "arm"}
    study = replace(STUDY, tuned={"VBPR": knobs})
    grid = {p.label: p.hash for p in study.plan(study.cells(), [0], SETTING)}
    assert grid["VBPR baseline"] == chosen.hash


def test_tuned_each_every_condition_has_tries_of_its_own():
    study = replace(STUDY, tuning=Tuning(trials=2, each=True))
    plan = tries(study)
    keys = {study.tuning_key(p.arm, p.trial.condition) for p in plan}
    arms = {f"{arm} | {name}" for arm in ("VBPR", "MGCN") for name in ("baseline", "text=noise")}
    assert keys == arms | {"MF"}
    assert len(plan) == 2 * len(keys)
    study = replace(study, tuned={"VBPR | text=noise": {LR: 0.007}})
    rates = {c.label: get(c.run, LR) for c in study.cells() if c.label.startswith("VBPR")}
    assert rates == {"VBPR baseline": 1e-3, "VBPR text=noise": 0.007}


def test_what_is_set_by_hand_is_not_tuned():
    study = STUDY.set({LR: 0.005})
    assert {get(p.trial.run, LR) for p in tries(study)} == {0.005}
    assert all(LR not in p.levels for p in tries(study))
