"""A study: a question, the factors it turns, the claims it tests, and the trials that follow."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmrec.config import get, override
from mmrec.data.conditions import Condition
from mmrec.study.claims import Claim
from mmrec.study.ranges import Range
from mmrec.study.trials import Setting, Trial, describe
from mmrec.study.tuning import Tuning
from mmrec.training import RunConfig

ARM = "arm"
"""The level by which a cell's arm goes; a knob's level goes by its dotted path."""
CONDITION = "condition"
"""Stands among the paths of a sweep for the study's conditions."""
FULL = "full"
"""The grid of everything with everything, in a study whose default grid goes by sweeps."""


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
    parent: str = ""
    """The trial whose trained state this one may start from, where it only evaluates."""

    @property
    def arm(self) -> str:
        """The arm that the cell belongs to; empty in a study without arms."""
        return str(self.levels.get(ARM, ""))


@dataclass(frozen=True)
class Choice:
    """What a study lets its command line choose: `--name a,b`."""

    name: str
    """Of the flag, without its dashes."""
    help: str
    default: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    """The words it takes; empty where only the data can say."""
    smoke: tuple[str, ...] = ()
    """What `--smoke` takes in place of the default; empty: the default."""


@dataclass(frozen=True)
class Asked:
    """What a study's shape may depend on, beside the study itself."""

    dataset: str
    modalities: tuple[str, ...]
    """The dataset's dense item modalities, by alphabet, or those that the study names for it."""
    choices: Mapping[str, tuple[str, ...]]
    """The words chosen, by the names of the study's choices."""
    features: tuple[str, ...] = ()
    """Every item modality that is a table (dense, tags, category), by alphabet."""
    user_features: tuple[str, ...] = ()
    """Every user modality that is a table, by alphabet."""
    split: str = "given"
    """How the dataset is split, see `mmrec.data.dataset.Dataset.split`."""
    codes: tuple[str, ...] = ()
    """Every item modality of kind codes (semantic IDs), by alphabet."""


@dataclass(frozen=True)
class Study:
    """A question and all that is needed to answer it. Plain values: a script declares one.

    Raises:
        KeyError, ValueError: a factor's path, one of its levels, an end of its range, a reference
            or a preset does not fit the base config, or a sweep names what is no factor; so a bad
            grid fails when the script is read, not at trial 37 of 200.
    """

    name: str
    question: str
    base: RunConfig
    factors: tuple[Factor, ...] = ()
    sweeps: tuple[tuple[str, ...], ...] = ()
    """Groups of factors' paths, each group turned by itself: all combinations of its levels, with
    every other factor where the base (or the arm) has it, and under the first condition unless the
    word `condition` is in the group. Empty: everything with everything."""
    claims: tuple[Claim, ...] = ()
    arms: Mapping[str, RunConfig] = field(default_factory=dict)
    """What stands beside each other in place of one base, by label, such as models; every factor
    and every condition is turned in each of them."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Arm -> the group in which the report shows it."""
    tuning: Tuning | None = None
    """How the nuisance knobs of arms and controls are chosen, before any other trial."""
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What tuning chose: `tuning_key` -> dotted path -> value. Empty until then."""
    controls: Mapping[str, RunConfig] = field(default_factory=dict)
    """Cells beside the grid, by label, under the first condition: what the claims compare with."""
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
    modalities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Dataset -> what its `Asked.modalities` are in this study, where it has more than these."""
    split: str | None = None
    """What is held out unless the command line says; None: as the dataset's own format has it."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name -> dotted path -> value, for `--preset`: settings that belong together, such as a
    paper's; each is set as `set` does."""
    smoke: Mapping[str, Any] = field(default_factory=dict)
    """Dotted path -> value for `--smoke`: a shrunken run of the same code."""
    search_trials: int = 40
    confirm: int = 3
    """How many of a search's best cells are run again under all seeds."""
    choices: tuple[Choice, ...] = ()
    """Flags of this study's own."""
    shape: Callable[["Study", Asked], "Study"] | None = None
    """Lays out arms, conditions, claims and views as the flags and the dataset's modalities ask;
    its ValueError says what does not fit."""
    clouds: bool = False
    """Whether trials keep samples of item embeddings before and after training."""

    def __post_init__(self) -> None:
        if not self.question.endswith("?"):
            raise ValueError(f"study {self.name!r}: a question ends in '?': {self.question!r}")
        for base in (self.base, *self.bases.values(), *self.arms.values()):
            for factor in self.factors:
                for value in factor.all_values():
                    override(base, {factor.path: value})
            for point in self.references.values():
                override(base, point)
        known = (*(factor.path for factor in self.factors), CONDITION)
        for group in self.sweeps:
            for path in group:
                if path not in known:
                    raise ValueError(
                        f"study {self.name!r}: sweep {group} names {path!r}, which is no factor;"
                        f" there are: {', '.join(known)}"
                    )
        for changes in filter(None, (self.smoke, *self.presets.values())):
            replace(self, smoke={}, presets={}).set(changes)

    @property
    def grid_names(self) -> tuple[str, ...]:
        """`default`, every other grid that a factor names, and `full` beside sweeps."""
        named = {name for factor in self.factors for name in factor.grids}
        return ("default", *sorted(named | {FULL} if self.sweeps else named))

    def on(self, asked: Asked) -> "Study":
        """The study with what it declares for a dataset, in the shape asked for."""
        study = replace(self, base=self.bases.get(asked.dataset, self.base))
        narrowed = self.modalities.get(asked.dataset, asked.modalities)
        return self.shape(study, replace(asked, modalities=narrowed)) if self.shape else study

    def preset(self, name: str) -> Mapping[str, Any]:
        """Dotted path -> value of a preset; KeyError lists those that there are."""
        if name not in self.presets:
            have = ", ".join(self.presets) or "none"
            raise KeyError(f"study {self.name!r} has no preset {name!r}; there are: {have}")
        return self.presets[name]

    def set(self, changes: Mapping[str, Any]) -> "Study":
        """A copy with base values replaced; a factor takes a level or a list of levels.

        The base then has the first level, but with sweeps (whose cells show it) it keeps its value
        if that is one of the new levels.

        Arms and controls take every change but those of model knobs that they do not have. What is
        set is no longer tuned.
        """
        study = self
        for path, value in changes.items():
            if path in {factor.path for factor in self.factors}:
                study = study._with_levels(path, value)
            else:
                study = study._with_value(path, value)
        return study

    def _with_value(self, path: str, value: Any) -> "Study":
        """Set in base, arms and controls, of which one at least must have the knob."""
        arms, controls = (
            _override_where_fits(runs, path, value) for runs in (self.arms, self.controls)
        )
        # The base of a study with arms only says how to train: it need not have a model's knob.
        beside = any(_has(run, path) for run in (*self.arms.values(), *self.controls.values()))
        keep = beside and not _has(self.base, path)
        tuning = self.tuning and replace(self.tuning, fixed=self.tuning.fixed | {path})
        return replace(
            self,
            base=self.base if keep else override(self.base, {path: value}),
            arms=arms,
            controls=controls,
            tuning=tuning,
        )

    def _with_levels(self, path: str, value: Any) -> "Study":
        levels = tuple(value) if isinstance(value, list) else (value,)
        if not levels:
            raise ValueError(f"factor {path!r} needs at least one level")
        factors = tuple(
            replace(f, levels=levels, grids={}) if f.path == path else f for f in self.factors
        )
        if not self.sweeps:
            return replace(self, factors=factors, base=override(self.base, {path: levels[0]}))
        base, *runs = (
            run if get(run, path) in levels else override(run, {path: levels[0]})
            for run in (self.base, *self.arms.values())
        )
        arms = dict(zip(self.arms, runs, strict=True))
        return replace(self, factors=factors, base=base, arms=arms)

    def cells(self, grid: str = "default") -> list[Cell]:
        """Every combination of levels under every condition, and the controls; each once.

        With sweeps, the combinations within each of them; only in the grid `full` all there are.

        Raises:
            KeyError: no factor names the grid.
        """
        if grid not in self.grid_names:
            raise KeyError(f"no grid {grid!r}; there are: {', '.join(self.grid_names)}")
        cells = {}
        for arm in self.arms or ("",):
            for point, condition in self._points(arm, grid):
                cell = self.cell(point, condition, arm=arm)
                cells.setdefault((*cell.levels.values(), condition), cell)
        return [*cells.values(), *self.control_cells()]

    def _points(self, arm: str, grid: str) -> Iterator[tuple[dict[str, Any], Condition]]:
        """What a grid turns in an arm, sweep by sweep; a point met by several comes each time."""
        paths = [factor.path for factor in self.factors]
        swept = self.sweeps and grid != FULL
        base = self.arms[arm] if arm else self.base
        for group in self.sweeps if swept else ((*paths, CONDITION),):
            levels = [
                factor.levels_of(grid) if factor.path in group else (get(base, factor.path),)
                for factor in self.factors
            ]
            conditions = self.conditions if CONDITION in group else self.conditions[:1]
            for *values, condition in itertools.product(*levels, conditions):
                yield dict(zip(paths, values, strict=True)), condition

    def cell(
        self,
        point: Mapping[str, Any],
        condition: Condition | None = None,
        *,
        arm: str = "",
        label: str = "",
        phase: str = "grid",
    ) -> Cell:
        """The cell at `point` (dotted path -> level), of an arm if the study has arms."""
        condition = condition or self.conditions[0]
        point = dict(self.same(point) if self.same else point)
        base = self.arms[arm] if arm else self.base
        run = override(base, {**self._tuned(arm, condition), **point})
        levels = {path: get(run, path) for path in point}
        words = [arm] if arm else []
        words += [f"{path.rpartition('.')[2]}={describe(v)}" for path, v in levels.items()]
        if len(self.conditions) > 1:
            words.append(condition.name)
        if arm:
            levels = {ARM: arm, **levels}
        return Cell(label or " ".join(words) or "base", run, condition, levels, phase)

    def control_cells(self) -> list[Cell]:
        """The controls, under the first condition: what no modality enters meets no other."""
        condition = self.conditions[0]
        return [
            Cell(label, override(run, self._tuned(label, condition)), condition, {ARM: label},
                 "control")
            for label, run in self.controls.items()
        ]  # fmt: skip

    def tuning_key(self, arm: str, condition: Condition) -> str:
        """What settings are chosen for: an arm, or an arm under a condition if each is tuned."""
        each = self.tuning is not None and self.tuning.each and arm not in self.controls
        return f"{arm} | {condition.name}" if each else arm

    def _tuned(self, arm: str, condition: Condition) -> Mapping[str, Any]:
        return self.tuned.get(self.tuning_key(arm, condition), {})

    def tuning_cells(self) -> list[Cell]:
        """The tries of every arm and control, the first of each, then the second of each, ..."""
        if self.tuning is None:
            return []
        tried = []
        for arm, run in {**(self.arms or {"": self.base}), **self.controls}.items():
            each = self.tuning.each and arm not in self.controls
            for condition in self.conditions if each else self.conditions[:1]:
                for nth, point in enumerate(self.tuning.points(run)):
                    label = f"{self.tuning_key(arm, condition)} tune {nth}".strip()
                    levels = {ARM: arm, **point} if arm else point
                    tried.append(
                        (nth, Cell(label, override(run, point), condition, levels, "tune"))
                    )
        return [cell for _, cell in sorted(tried, key=lambda pair: pair[0])]

    def plan(self, cells: Sequence[Cell], seeds: Sequence[int], setting: Setting) -> list[Planned]:
        """The trials of `cells`, seed by seed, so that a run cut short has met every cell."""
        planned = {}
        for seed in seeds:
            # Those that only evaluate come last, when what they evaluate may have been trained.
            for cell in sorted(cells, key=lambda cell: cell.condition.when == "eval"):
                trial = Trial(cell.run, cell.condition, seed)
                name = setting.hash(trial)
                parent = ""
                if cell.condition.when == "eval":
                    parent = setting.hash(replace(trial, condition=Condition()))
                planned.setdefault(
                    name,
                    Planned(
                        name,
                        setting.cell(trial),
                        cell.label,
                        cell.phase,
                        trial,
                        dict(cell.levels),
                        parent,
                    ),
                )
        return list(planned.values())


def _has(run: RunConfig, path: str) -> bool:
    """Whether a config has a field at a dotted path."""
    try:
        get(run, path)
    except KeyError:
        return False
    return True


def _override_where_fits(
    runs: Mapping[str, RunConfig], path: str, value: Any
) -> dict[str, RunConfig]:
    """Change the controls too, each as far as it has such a field."""
    if not path.startswith("model."):
        return {label: override(run, {path: value}) for label, run in runs.items()}
    return {
        label: override(run, {path: value}) if _has(run, path) else run
        for label, run in runs.items()
    }
