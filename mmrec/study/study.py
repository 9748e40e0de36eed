"""A study: a question, the factors it turns, the claims it tests, and the trials that follow."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmrec.config import get, override
from mmrec.data.conditions import Condition
from mmrec.study.claims import Claim
from mmrec.study.trials import Setting, Trial, describe
from mmrec.training import RunConfig


@dataclass(frozen=True)
class Range:
    """Where a search may look for a numeric knob."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range needs low < high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(
                f"a logarithmic range cannot start at {self.low}; plan 0 as a level instead"
            )

    @property
    def ends(self) -> tuple[float, float]:
        """Low and high as a search hands them out: whole numbers only where it says `integer`."""
        kind = int if self.integer else float
        return kind(self.low), kind(self.high)


@dataclass(frozen=True)
class Factor:
    """A knob that the study turns on purpose."""

    path: str
    """Dotted path in the run config, such as `model.alpha`."""
    levels: tuple[Any, ...]
    """Values of the default grid."""
    grids: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Other named grids, such as `paper`."""
    search: Range | None = None
    """Where `--search` looks; None keeps the base's value."""

    def levels_of(self, grid: str) -> tuple[Any, ...]:
        """The levels in the grid called `grid`; the default's where this factor names none."""
        return self.grids.get(grid, self.levels)

    def all_values(self) -> tuple[Any, ...]:
        """The levels of every grid, and the ends of the searched range."""
        planned = itertools.chain(self.levels, *self.grids.values())
        return (*planned, *(self.search.ends if self.search else ()))


@dataclass(frozen=True)
class Cell:
    """A config and a condition, with the words and levels by which tables call it."""

    label: str
    run: RunConfig
    condition: Condition = field(default_factory=Condition)
    levels: Mapping[str, Any] = field(default_factory=dict)
    phase: str = "grid"


@dataclass(frozen=True)
class Planned:
    """One trial to be run: a cell under a seed, with its name."""

    hash: str
    cell: str
    label: str
    phase: str
    trial: Trial
    levels: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A question and all that is needed to answer it. Plain values: a script declares one.

    Raises:
        KeyError, ValueError: a factor's path, one of its levels, an end of its range or a
            reference does not fit the base config; so a bad grid fails when the script is read,
            not at trial 37 of 200.
    """

    name: str
    question: str
    base: RunConfig
    factors: tuple[Factor, ...] = ()
    claims: tuple[Claim, ...] = ()
    controls: Mapping[str, RunConfig] = field(default_factory=dict)
    """Cells beside the grid, by label: what the claims compare with."""
    references: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Label -> levels of planned cells that a search must meet too, such as alpha = 0."""
    seeds: int = 5
    conditions: tuple[Condition, ...] = (Condition(),)
    same: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    """Maps levels that give the same numbers to one spelling, so that they are run once."""
    views: tuple[Any, ...] = ()
    """What the report draws; see `mmrec.study.views`."""
    dataset: str = "planted"
    bases: Mapping[str, RunConfig] = field(default_factory=dict)
    """Dataset -> base config, where another size or learning rate fits it better than `base`."""
    smoke: Mapping[str, Any] = field(default_factory=dict)
    """Dotted path -> value for `--smoke`: a shrunken run of the same code."""
    search_trials: int = 40
    confirm: int = 3
    """How many of a search's best cells are run again under all seeds."""

    def __post_init__(self) -> None:
        if not self.question.endswith("?"):
            raise ValueError(f"study {self.name!r}: a question ends in '?': {self.question!r}")
        for base in (self.base, *self.bases.values()):
            for factor in self.factors:
                for value in factor.all_values():
                    override(base, {factor.path: value})
            for point in self.references.values():
                override(base, point)
        if self.smoke:
            replace(self, smoke={}).set(self.smoke)

    @property
    def grid_names(self) -> tuple[str, ...]:
        """`default` and every other grid that a factor names."""
        return ("default", *sorted({name for factor in self.factors for name in factor.grids}))

    def on(self, dataset: str) -> "Study":
        """The study with the base that it declares for a dataset."""
        return replace(self, base=self.bases.get(dataset, self.base))

    def set(self, changes: Mapping[str, Any]) -> "Study":
        """A copy with base values replaced; a factor takes a level or a list of levels.

        Controls take every change but those of model knobs that they do not have.
        """
        study = self
        for path, value in changes.items():
            if path in {factor.path for factor in self.factors}:
                study = study._with_levels(path, value)
            else:
                study = replace(
                    study,
                    base=override(study.base, {path: value}),
                    controls=_override_where_fits(study.controls, path, value),
                )
        return study

    def _with_levels(self, path: str, value: Any) -> "Study":
        levels = tuple(value) if isinstance(value, list) else (value,)
        if not levels:
            raise ValueError(f"factor {path!r} needs at least one level")
        factors = tuple(
            replace(f, levels=levels, grids={}) if f.path == path else f for f in self.factors
        )
        base = override(self.base, {path: levels[0]})
        return replace(self, factors=factors, base=base)

    def cells(self, grid: str = "default") -> list[Cell]:
        """Every combination of levels under every condition, and the controls; each once.

        Raises:
            KeyError: no factor names the grid.
        """
        if grid not in self.grid_names:
            raise KeyError(f"no grid {grid!r}; there are: {', '.join(self.grid_names)}")
        levels = [factor.levels_of(grid) for factor in self.factors]
        cells = {}
        for values in itertools.product(*levels):
            point = {f.path: v for f, v in zip(self.factors, values, strict=True)}
            for condition in self.conditions:
                cell = self.cell(point, condition)
                cells.setdefault((*cell.levels.values(), condition), cell)
        return [*cells.values(), *self.control_cells()]

    def cell(
        self,
        point: Mapping[str, Any],
        condition: Condition | None = None,
        *,
        label: str = "",
        phase: str = "grid",
    ) -> Cell:
        """The cell at `point` (dotted path -> level)."""
        condition = condition or self.conditions[0]
        point = dict(self.same(point) if self.same else point)
        run = override(self.base, point)
        levels = {path: get(run, path) for path in point}
        words = [f"{path.rpartition('.')[2]}={describe(v)}" for path, v in levels.items()]
        if len(self.conditions) > 1:
            words.append(condition.name)
        return Cell(label or " ".join(words) or "base", run, condition, levels, phase)

    def control_cells(self) -> list[Cell]:
        """The controls, under every condition."""
        return [
            Cell(label, run, condition, {}, "control")
            for label, run in self.controls.items()
            for condition in self.conditions
        ]

    def plan(self, cells: Sequence[Cell], seeds: Sequence[int], setting: Setting) -> list[Planned]:
        """The trials of `cells`, seed by seed, so that a run cut short has met every cell."""
        planned = {}
        for seed in seeds:
            for cell in cells:
                trial = Trial(cell.run, cell.condition, seed)
                name = setting.hash(trial)
                planned.setdefault(
                    name,
                    Planned(
                        name, setting.cell(trial), cell.label, cell.phase, trial, dict(cell.levels)
                    ),
                )
        return list(planned.values())


def _override_where_fits(
    runs: Mapping[str, RunConfig], path: str, value: Any
) -> dict[str, RunConfig]:
    """Change the controls too, each as far as it has such a field."""
    if not path.startswith("model."):
        return {label: override(run, {path: value}) for label, run in runs.items()}
    changed = {}
    for label, run in runs.items():
        try:
            changed[label] = override(run, {path: value})
        except KeyError:
            changed[label] = run
    return changed
