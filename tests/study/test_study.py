"""What a study declares, and the trials that follow from it."""

import dataclasses
import itertools
from typing import Any

import pytest

from mmrec.config import get
from mmrec.data.conditions import Condition
from mmrec.models.bpr import BPR
from mmrec.models.sibrar import SiBraR
from mmrec.study.ranges import Range
from mmrec.study.study import Asked, Cell, Factor, Study
from mmrec.study.trials import Setting
from mmrec.training import RunConfig, TrainConfig

SETTING = Setting(data="00ff", split="random", protocol="full", device="cpu")
ALPHA, TAU, LR = "model.alpha", "model.tau", "train.lr"


def study(**changes: Any) -> Study:
    known: dict[str, Any] = {
        "name": "x",
        "question": "Does it?",
        "base": RunConfig(model=SiBraR()),
        "factors": (Factor(ALPHA, (0.0, 1e-3)), Factor(TAU, (0.1, 0.5))),
        "controls": {"MF": RunConfig(model=BPR(), train=TrainConfig(epochs=99))},
    }
    return Study(**{**known, **changes})


def hashes(study: Study, seeds: int = 2, grid: str = "default") -> list[str]:
    return [p.hash for p in study.plan(study.cells(grid), range(seeds), SETTING)]


def test_cells_are_every_combination_and_the_controls():
    cells = study().cells()
    points = [(c.levels[ALPHA], c.levels[TAU]) for c in cells if c.phase == "grid"]
    assert points == list(itertools.product((0.0, 1e-3), (0.1, 0.5)))
    assert [(c.label, c.phase, dict(c.levels)) for c in cells[4:]] == [
        ("MF", "control", {"arm": "MF"})
    ]
    for cell in cells[:4]:
        assert (get(cell.run, ALPHA), get(cell.run, TAU)) == tuple(cell.levels.values())
    assert cells[3].label == "alpha=0.001 tau=0.5"


def test_a_plan_goes_seed_by_seed_through_all_cells():
    plan = study().plan(study().cells(), range(3), SETTING)
    assert [p.trial.seed for p in plan] == [0] * 5 + [1] * 5 + [2] * 5
    assert [p.label for p in plan[:5]] == [p.label for p in plan[5:10]]
    assert len({p.hash for p in plan}) == 15
    assert len({p.cell for p in plan}) == 5
    assert all(SETTING.hash(p.trial) == p.hash for p in plan)


def test_a_level_or_a_seed_more_adds_only_its_own_trials():
    old = set(hashes(study()))
    wider = (Factor(ALPHA, (1e-4, 0.0, 1e-3)), Factor(TAU, (0.1, 0.5)))
    more_levels = set(hashes(study(factors=wider)))
    assert old < more_levels
    assert len(more_levels - old) == 1 * 2 * 2
    more_seeds = set(hashes(study(), seeds=3))
    assert old < more_seeds
    assert len(more_seeds - old) == 5
    reworded = study(question="Really?", name="y", views=(1,), smoke={LR: 0.5})
    assert set(hashes(reworded)) == old


def test_what_gives_the_same_numbers_is_one_cell():
    def same(point):
        return {**point, TAU: 0.1} if point[ALPHA] == 0 else point

    merged = study(same=same)
    cells = [c for c in merged.cells() if c.phase == "grid"]
    assert [(c.levels[ALPHA], c.levels[TAU]) for c in cells] == [(0, 0.1), (1e-3, 0.1), (1e-3, 0.5)]
    assert set(hashes(merged)) < set(hashes(study()))
    assert merged.cell({ALPHA: 0.0, TAU: 0.5}).run == merged.cell({ALPHA: 0.0, TAU: 0.1}).run


def test_levels_too_close_for_a_label_are_two_cells():
    close = study(factors=(Factor(ALPHA, (0.100001, 0.100002)),), controls={})
    assert [cell.levels[ALPHA] for cell in close.cells()] == [0.100001, 0.100002]


def test_a_level_told_twice_is_one_cell():
    assert len(study(factors=(Factor(ALPHA, (0.1, 0.1)),), controls={}).cells()) == 1


def test_a_dataset_may_have_a_base_of_its_own():
    wide = RunConfig(model=SiBraR(dim=4))
    both = study(bases={"big": wide})
    assert get(both.on(Asked("big", (), {})).cells()[0].run, "model.dim") == 4
    assert both.on(Asked("other", (), {})).cells() == study().cells()


KNOCKOUT = Condition(modalities=("text",), filler="shuffle")


def test_conditions_multiply_cells_but_not_controls():
    both = study(conditions=(Condition(), KNOCKOUT))
    cells = both.cells()
    assert len(cells) == 2 * 4 + 1
    assert len(set(hashes(both))) == 2 * 9
    assert set(hashes(study())) < set(hashes(both))
    assert cells[1].label == "alpha=0 tau=0.1 text=shuffle"
    assert cells[-1].condition == Condition()


ARMS = {"small": RunConfig(model=SiBraR(dim=4)), "MF too": RunConfig(model=BPR(dim=4))}


def test_arms_multiply_with_factors_and_conditions():
    factors = (Factor("train.lr", (1e-3, 1e-2)),)
    armed = study(arms=ARMS, factors=factors, conditions=(Condition(), KNOCKOUT))
    cells = armed.cells()
    assert [c.label for c in cells] == [
        f"{arm} lr={lr} {condition}"
        for arm in ARMS
        for lr in ("0.001", "0.01")
        for condition in ("baseline", "text=shuffle")
    ] + ["MF"]
    for cell in cells[:-1]:
        assert cell.run.model == ARMS[cell.levels["arm"]].model
        assert get(cell.run, "train.lr") == cell.levels["train.lr"]


def test_a_factor_must_fit_every_arm():
    with pytest.raises(KeyError, match="BPR has no 'alpha'"):
        study(arms=ARMS)


def test_a_set_value_reaches_the_arms_that_have_it():
    armed = study(arms=ARMS, factors=())
    shorter = armed.set({"train.epochs": 3, "model.common_dim": 8})
    runs = [c.run for c in shorter.cells()]
    assert [r.train.epochs for r in runs] == [3, 3, 3]
    assert [getattr(r.model, "common_dim", None) for r in runs] == [8, None, None]
    with pytest.raises(KeyError, match="has no 'alhpa'"):
        armed.set({"model.alhpa": 1})
    only_mf = study(arms={"MF too": ARMS["MF too"]}, factors=(), base=RunConfig(model=SiBraR()))
    assert get(only_mf.set({"model.reg_weight": 0.5}).cells()[0].run, "model.reg_weight") == 0.5


def test_the_shape_is_laid_out_for_the_data_and_the_words():
    def shape(plain: Study, asked: Asked) -> Study:
        arms = {word: RunConfig(model=BPR(dim=len(word))) for word in asked.choices["models"]}
        knockouts = tuple(Condition(modalities=(m,), filler="zero") for m in asked.modalities)
        return dataclasses.replace(plain, arms=arms, conditions=(Condition(), *knockouts))

    asked = Asked("x", ("image", "text"), {"models": ("a", "bb")})
    shaped = study(factors=(), controls={}, shape=shape).on(asked)
    names = ("baseline", "image=zero", "text=zero")
    assert [c.label for c in shaped.cells()] == [f"{a} {n}" for a in ("a", "bb") for n in names]


def test_a_study_may_use_some_modalities_of_a_dataset():
    def shape(plain: Study, asked: Asked) -> Study:
        return dataclasses.replace(
            plain, arms={m: RunConfig(model=BPR()) for m in asked.modalities}
        )

    some = study(factors=(), controls={}, modalities={"big": ("text",)}, shape=shape)
    have = ("audio", "image", "text")
    arms = {name: list(some.on(Asked(name, have, {})).arms) for name in ("big", "other")}
    assert arms == {"big": ["text"], "other": [*have]}


def test_what_only_evaluates_comes_last_and_knows_what_was_trained():
    met = dataclasses.replace(KNOCKOUT, when="eval")
    both = study(factors=(), conditions=(Condition(), met, KNOCKOUT))
    plan = both.plan(both.cells(), range(2), SETTING)
    labels = [p.label for p in plan]
    assert labels == ["baseline", "text=shuffle", "MF", "text=shuffle@eval"] * 2
    for seed in range(2):
        baseline, knockout, _, evaluated = plan[4 * seed : 4 * seed + 4]
        assert evaluated.parent == baseline.hash != evaluated.hash
        assert baseline.parent == knockout.parent == ""


def test_a_named_grid_changes_the_factors_that_know_it():
    factors = (Factor(ALPHA, (0.0,), grids={"paper": (0.0, 1.0, 2.0)}), Factor(TAU, (0.1, 0.5)))
    wide = study(factors=factors)
    assert wide.grid_names == ("default", "paper")
    assert [len(wide.cells(grid)) for grid in wide.grid_names] == [1 * 2 + 1, 3 * 2 + 1]
    with pytest.raises(KeyError, match="no grid 'papr'; there are: default, paper"):
        wide.cells("papr")


DIM = "model.dim"
TURNED = (Factor(ALPHA, (0.0, 1e-3, 1e-2)), Factor(TAU, (0.1, 0.5)), Factor(DIM, (4, 8)))
SWEPT = RunConfig(model=SiBraR(alpha=1e-3, tau=0.5, dim=8))


def swept(**changes: Any) -> Study:
    known = {"base": SWEPT, "factors": TURNED, "controls": {}, "sweeps": ((ALPHA, TAU), (DIM,))}
    return study(**{**known, **changes})


def points(cells: list[Cell]) -> list[tuple[Any, ...]]:
    return [(*cell.levels.values(), cell.condition.name) for cell in cells]


def test_a_sweep_turns_its_own_factors_and_leaves_the_others_at_the_base():
    cells = swept().cells()
    grid = [(a, t, 8) for a in (0.0, 1e-3, 1e-2) for t in (0.1, 0.5)]
    # The second sweep's (0.001, 0.5, 8) is the base, which the first has met.
    assert points(cells) == [(*p, "baseline") for p in [*grid, (1e-3, 0.5, 4)]]
    for cell in cells:
        assert tuple(get(cell.run, path) for path in cell.levels) == tuple(cell.levels.values())
    assert cells[-1].label == "alpha=0.001 tau=0.5 dim=4"


def test_the_full_grid_is_everything_with_everything():
    both = swept(conditions=(Condition(), KNOCKOUT))
    assert both.grid_names == ("default", "full")
    assert study().grid_names == ("default",)
    unswept = dataclasses.replace(both, sweeps=())
    assert both.cells("full") == unswept.cells()
    assert set(hashes(both)) < set(hashes(both, grid="full"))


def test_a_sweep_meets_other_conditions_only_where_it_says_so():
    both = swept(sweeps=((ALPHA,), (DIM, "condition")), conditions=(Condition(), KNOCKOUT))
    assert points(both.cells()) == [
        (0.0, 0.5, 8, "baseline"),
        (1e-3, 0.5, 8, "baseline"),
        (1e-2, 0.5, 8, "baseline"),
        (1e-3, 0.5, 4, "baseline"),
        (1e-3, 0.5, 4, "text=shuffle"),
        (1e-3, 0.5, 8, "text=shuffle"),
    ]


def test_sweeps_run_in_every_arm_from_where_the_arm_is():
    arms = {dim: RunConfig(model=SiBraR(dim=int(dim), alpha=0.5)) for dim in ("4", "16")}
    cells = swept(arms=arms, sweeps=((ALPHA,),)).cells()
    tau = SiBraR().tau
    assert points(cells) == [
        (arm, alpha, tau, int(arm), "baseline") for arm in arms for alpha in (0.0, 1e-3, 1e-2)
    ]


def test_sweeps_know_named_grids_and_what_gives_the_same_numbers():
    factors = (Factor(ALPHA, (0.0,), grids={"paper": (0.0, 1.0)}), *TURNED[1:])

    def same(point):
        return {**point, TAU: 0.1} if point[ALPHA] == 0 else point

    wide = swept(factors=factors, same=same, sweeps=((ALPHA, TAU),))
    assert wide.grid_names == ("default", "full", "paper")
    assert points(wide.cells()) == [(0.0, 0.1, 8, "baseline")]
    assert points(wide.cells("paper")) == [
        (0.0, 0.1, 8, "baseline"),
        (1.0, 0.1, 8, "baseline"),
        (1.0, 0.5, 8, "baseline"),
    ]


def test_new_levels_of_a_sweep_keep_the_bases_value_if_it_is_among_them():
    kept, moved = (swept().set({DIM: levels}) for levels in ([4, 8, 16], [2, 4]))
    assert (get(kept.base, DIM), get(moved.base, DIM)) == (8, 2)
    assert {cell.levels[DIM] for cell in kept.cells()} == {4, 8, 16}
    assert [cell.levels[DIM] for cell in moved.cells()] == [2] * 6 + [4]
    armed = swept(arms={"a": SWEPT, "b": RunConfig(model=SiBraR(dim=4))}).set({DIM: [2, 4]})
    assert [get(run, DIM) for run in armed.arms.values()] == [2, 4]


def test_smoke_shrinks_sweeps_too():
    smoke = {ALPHA: [0.0, 1e-3], TAU: [0.1], "train.epochs": 3}
    shrunken = swept(smoke=smoke).set(smoke)
    assert points(shrunken.cells()) == [
        (0.0, 0.1, 8, "baseline"),
        (1e-3, 0.1, 8, "baseline"),
        (1e-3, 0.1, 4, "baseline"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "It does."}, r"study 'x': a question ends in '\?': 'It does.'"),
        ({"factors": (Factor("model.alhpa", (0.0,)),)}, "did you mean 'alpha'"),
        ({"factors": (Factor(ALPHA, (0.0, -1.0)),)}, "greater than or equal to 0"),
        ({"factors": (Factor(ALPHA, (0.0,), grids={"paper": ("x",)}),)}, "valid number"),
        ({"factors": (Factor(ALPHA, (0.0,), search=Range(-1, 1)),)}, "greater than or equal to 0"),
        ({"factors": (Factor("model.dim", (4,), search=Range(1.5, 8)),)}, "valid integer"),
        ({"bases": {"big": RunConfig(model=BPR())}}, "BPR has no 'alpha'"),
        ({"smoke": {"train.epoch": 3}}, "did you mean 'epochs'"),
        ({"smoke": {ALPHA: [-1.0]}}, "greater than or equal to 0"),
        ({"smoke": {ALPHA: []}}, "at least one level"),
        ({"references": {"none": {"model.alhpa": 0.0}}}, "did you mean 'alpha'"),
        ({"references": {"none": {ALPHA: -1.0}}}, "greater than or equal to 0"),
        ({"sweeps": ((ALPHA,), (TAU, LR))}, r"names 'train.lr', which is no factor; there are"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_study_is_declared(change, message):
    with pytest.raises((KeyError, ValueError), match=message):
        study(**change)


def test_a_range_is_refused_where_it_holds_nothing():
    with pytest.raises(ValueError, match="low < high, got 2 and 1"):
        Range(2, 1)
    with pytest.raises(ValueError, match="cannot start at 0; plan 0 as a level"):
        Range(0, 1, log=True)
    assert study(factors=(Factor("model.dim", (4,), search=Range(2, 8, integer=True)),)).cells()


def test_a_factor_takes_a_level_or_several():
    one, two = study().set({ALPHA: 0.5}), study().set({ALPHA: [0.5, 0.25]})
    assert [f.levels for f in one.factors] == [(0.5,), (0.1, 0.5)]
    assert [f.levels for f in two.factors] == [(0.5, 0.25), (0.1, 0.5)]
    assert get(one.base, ALPHA) == 0.5
    assert len(two.cells()) == 5
    assert one.set({ALPHA: [0.0, 1e-3]}).cells() == study().cells()


def test_levels_from_outside_replace_named_grids_too():
    wide = study(factors=(Factor(ALPHA, (0.0,), grids={"paper": (1.0, 2.0)}),))
    assert wide.set({ALPHA: [0.5]}).grid_names == ("default",)


def test_a_training_knob_is_for_the_controls_too():
    changed = study().set({LR: 0.5, "train.epochs": 7})
    for run in (changed.base, changed.controls["MF"]):
        assert (run.train.lr, run.train.epochs) == (0.5, 7)


def test_a_model_knob_is_for_the_controls_that_have_it():
    before = study()
    assert before.set({"model.dim": 8}).controls["MF"].model == BPR(dim=8)
    untouched = before.set({"model.common_dim": 8})
    assert untouched.controls == before.controls
    assert get(untouched.base, "model.common_dim") == 8


def test_a_factor_of_training_leaves_the_controls_alone():
    by_lr = study(factors=(Factor(LR, (0.1, 0.2)),))
    assert by_lr.set({LR: [0.3, 0.4]}).controls == by_lr.controls


def test_set_checks_the_new_value():
    with pytest.raises(KeyError, match="did you mean 'dim'"):
        study().set({"model.dmi": 8})
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        study().set({"model.dim": 0})
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        study().set({ALPHA: [0.1, -1.0]})


def test_smoke_shrinks_the_same_study():
    smoke = {ALPHA: [1e-3], TAU: [0.1], "train.epochs": 3}
    shrunken = study(smoke=smoke).set(smoke)
    assert len(shrunken.cells()) == 2
    assert {cell.run.train.epochs for cell in shrunken.cells()} == {3}


def test_a_study_is_never_changed_in_place():
    before = study()
    copy = dataclasses.replace(before)
    before.set({ALPHA: [9.0], LR: 0.5, "model.dim": 8})
    assert before == copy
