"""A study on a dataset under what a command line says: names, plan and folder. No Ray here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mmrec.config import get
from mmrec.data.conditions import apply
from mmrec.data.dataset import Category, Codes, Dataset, Dense, Feature, Tags
from mmrec.data.sources import load
from mmrec.evaluation import protocol
from mmrec.study.database import Refused, require_local_disk, url_of, without_password
from mmrec.study.ledger import Kind, Ledger, Row
from mmrec.study.provenance import code_digest, command_line, git_state, hardware, now, versions
from mmrec.study.ranges import Range
from mmrec.study.store import Folder
from mmrec.study.study import FULL, Asked, Cell, Planned, Study
from mmrec.study.trials import Setting, begin
from mmrec.tune.address import cluster_address


@dataclass(frozen=True)
class Options:
    """What a command line may say; see `mmrec.cli` for the words."""

    dataset: str
    data_root: Path | None = None
    split: str | None = None
    protocol: str | None = None
    k_core: int = 0
    scale: str = "auto"
    out: str = "runs"
    storage: str | None = None
    address: str | None = None
    seeds: int | None = None
    search: bool = False
    grid: str = "default"
    max_trials: int | None = None
    max_hours: float | None = None
    stall_minutes: float = 60.0
    epochs: int | None = None
    preset: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False
    smoke: bool = False
    cpus_per_trial: float | None = None
    gpus_per_trial: float = 0.0
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tune: int | None = None
    tune_each: bool = False


class Job:
    """A study on a dataset under one set of options: names, plan, folder; nothing is run yet."""

    def __init__(self, study: Study, options: Options) -> None:
        """Load the data and lay out the plan.

        Raises:
            KeyError, ValueError, FileNotFoundError, Refused: the options do not fit study or data.
        """
        _check(options)
        self.options = options
        self.data: Dataset = load(
            options.dataset,
            data_root=options.data_root,
            split=options.split,  # pyright: ignore[reportArgumentType] - load checks the words
            k_core=options.k_core,
            scale=options.scale,  # pyright: ignore[reportArgumentType]
        )
        self.study = as_asked(study, options, asked_of(options.dataset, self.data))
        if options.search and not self.ranges():
            raise ValueError(f"study {study.name!r} has no factor with a range to search")
        if options.search and self.study.arms:
            raise ValueError(
                f"study {study.name!r} compares {len(self.study.arms)} arms: no search"
            )
        self.protocol = protocol(options.protocol, self.data.split)
        self.device = "cuda" if options.gpus_per_trial > 0 else "cpu"
        alone = self.device == "cuda" and cluster_address(options.address) is None
        if alone and not torch.cuda.is_available():
            raise ValueError("--gpus-per-trial asks for a GPU, but torch sees none on this machine")
        self.setting = Setting(self.data.digest, self.data.split, self.protocol.name, self.device)
        self.kind: Kind = "search" if options.search else "grid"
        self.seeds = range(self.study.seeds)
        self.cpus = options.cpus_per_trial or float(self.study.base.train.threads)
        self.folder = self._folder()
        self.folder.require()
        require_local_disk(url_of(_ledger_address(self.folder, options.storage)))
        self._try_first()

    def _try_first(self) -> None:
        """Refuse by name, here and now, a model that cannot be built on this dataset and split."""
        first = self.grid_plan()[0].trial
        begin(first, self.data, self.protocol)
        for condition in self.study.conditions:
            apply(condition, self.data)

    def ranges(self) -> dict[str, Range]:
        """Dotted path -> where a search looks."""
        return {f.path: f.search for f in self.study.factors if f.search is not None}

    def _folder(self) -> Folder:
        usual = protocol(None, self.data.split).name
        name = f"{self.data.name}-{self.data.digest[:8]}"
        name += "" if self.protocol.name == usual else f"-{self.protocol.name}"
        name += "-smoke" if self.options.smoke else ""
        return Folder.at(self.options.out) / self.study.name / name

    def grid_plan(self) -> list[Planned]:
        """All planned trials of a grid."""
        cells = self.study.cells(self.options.grid)
        return self.study.plan(cells, self.seeds, self.setting)

    def tuning_plan(self) -> list[Planned]:
        """The tries of nuisance knobs, under the first seed."""
        return self.study.plan(self.study.tuning_cells(), self.seeds[:1], self.setting)

    def take_tuned(self, tuned: Mapping[str, Mapping[str, Any]]) -> None:
        """Plan from now on with what tuning chose."""
        self.study = replace(self.study, tuned=tuned)

    def planned_at(self, point: Mapping[str, Any]) -> Planned:
        """The trial of a suggested point: the first seed, until it is confirmed."""
        cell = self.study.cell(point, phase="search")
        return self.study.plan([cell], self.seeds[:1], self.setting)[0]

    def confirmation(self, rows: Iterable[Row]) -> list[Planned]:
        """The best finished points of a search, the references and the controls, all seeds."""
        done = [row for row in rows if row.state == "done" and row.value is not None]
        best = sorted(done, key=lambda row: (-(row.value or 0.0), row.number))
        cells: list[Cell] = [
            self.study.cell(row.params, phase="confirm") for row in best[: self.study.confirm]
        ]
        for label, point in self.study.references.items():
            cells.append(self.study.cell(point, label=label, phase="confirm"))
        cells += self.study.control_cells()
        return self.study.plan(cells, self.seeds, self.setting)

    def spans(self) -> dict[str, tuple[float, float]]:
        """Least and greatest planned value of every numeric factor, searched ranges included."""
        spans = {}
        for cell in self.study.tuning_cells():
            for path, value in cell.levels.items():
                if isinstance(value, int | float):
                    low, high = spans.get(path, (value, value))
                    spans[path] = (min(low, value), max(high, value))
        for factor in self.study.factors:
            values = factor.all_values()
            if all(isinstance(v, int | float) for v in values):
                spans[factor.path] = (min(values), max(values))
        return spans

    def manifest(self) -> dict[str, Any]:
        """`run.json`: all that a report says of the study but its numbers."""
        study, data = self.study, self.data
        features = {**data.features, **{f"user:{k}": v for k, v in data.user_features.items()}}
        return {
            "study": study.name,
            "question": study.question,
            "objective": study.base.objective,
            "kind": self.kind,
            "dataset": {
                "name": data.name,
                "digest": data.digest,
                "num_users": data.num_users,
                "num_items": data.num_items,
                "interactions": {p: len(data.part(p)) for p in ("train", "valid", "test")},
                "modalities": {name: _shape(feature) for name, feature in features.items()},
                "split": data.split,
                "notes": list(data.notes),
            },
            "protocol": {"name": self.protocol.name, "text": self.protocol.text},
            "seeds": list(self.seeds),
            "arms": [*study.arms, *study.controls],
            "groups": dict(study.groups),
            "base": _base_levels(study),
            "sweeps": [] if self.options.grid == FULL else [list(g) for g in study.sweeps],
            "choices": {name: list(words) for name, words in self.options.choices.items()},
            "dense_modalities": list(tables_among(data.features, Dense)),
            "features": list(tables_among(data.features)),
            "user_features": list(tables_among(data.user_features)),
            "codes": list(tables_among(data.features, Codes)),
            "tune": study.tuning.trials if study.tuning else 0,
            "tune_each": study.tuning.each if study.tuning else False,
            "tuned": {},
            "resources": {"cpus": self.cpus, "gpus": self.options.gpus_per_trial},
            "preset": self.options.preset,
            "changes": dict(self.options.changes),
            "epochs": self.options.epochs,
            "grid": self.options.grid,
            "load": {
                "dataset": self.options.dataset,
                "split": self.options.split,
                "k_core": self.options.k_core,
                "scale": self.options.scale,
            },
            "ledger": self.ledger_name,
            "storage": without_password(self.options.storage or IN_FOLDER),
            "command": command_line(),
            "created": now(),
            **git_state(),
            "versions": versions(),
            "code": code_digest(),
            "hardware": [hardware()],
            "smoke": self.options.smoke,
            "out": self.folder.address,
        }

    def open_ledger(self) -> Ledger:
        """The study's ledger, in the run folder unless `--storage` says where."""
        return open_ledger(self.folder, self.options.storage, self.ledger_name)

    @property
    def ledger_name(self) -> str:
        """The Optuna studies' prefix: they hold one dataset and one protocol."""
        smoke = "/smoke" if self.options.smoke else ""
        return f"{self.study.name}/{self.data.digest}/{self.protocol.name}{smoke}"


IN_FOLDER = "sqlite in the run folder"
"""What `run.json` says of a ledger without `--storage`."""


def open_ledger(folder: Folder, storage: str | None, name: str, *, make: bool = True) -> Ledger:
    """The ledger at `storage`, or in the run folder; made where there is none, or refused.

    Raises:
        Refused: the run folder is not on a local disk, where SQLite cannot be.
    """
    address = _ledger_address(folder, storage)
    if folder.is_local:
        folder.path.mkdir(parents=True, exist_ok=True)
    return Ledger(address, name, make=make)


def _ledger_address(folder: Folder, storage: str | None) -> str:
    if storage is None and not folder.is_local:
        raise Refused(
            f"a ledger in SQLite needs a local disk, and --out is {folder.address}: give"
            " --storage with a database URL, such as postgresql://user@host/mmrec"
        )
    return storage or f"sqlite:///{folder.path / 'ledger.db'}"


def _check(options: Options) -> None:
    """Numbers that no run could honour; what is wrong with the others is found on the way."""
    for name in ("max_trials", "max_hours", "stall_minutes", "gpus_per_trial", "k_core"):
        value = getattr(options, name)
        if value is not None and not value >= 0:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 0, got {value:g}")
    if options.cpus_per_trial is not None and not options.cpus_per_trial > 0:
        raise ValueError(f"--cpus-per-trial must be more than 0, got {options.cpus_per_trial:g}")


def asked_of(dataset: str, data: Dataset) -> Asked:
    """What a study's shape may depend on, before any choice."""
    return Asked(
        dataset,
        tables_among(data.features, Dense),
        {},
        tables_among(data.features),
        tables_among(data.user_features),
        data.split,
        tables_among(data.features, Codes),
    )


def tables_among(features: Mapping[str, Feature], *kinds: type[Feature]) -> tuple[str, ...]:
    """Names of the features of some kinds, by alphabet; by default of all that are tables."""
    able = kinds or (Dense, Tags, Category)
    return tuple(sorted(name for name, feature in features.items() if isinstance(feature, able)))


SMOKE_TUNING = 2
"""Tries an arm in a smoke run."""


def as_asked(study: Study, options: Options, asked: Asked) -> Study:
    """The study as the options change it: shape, levels and values, epochs, seeds, smoke.

    Of two that set one path, the later counts: a preset, smoke, the command line's own changes.
    """
    changes = dict(study.preset(options.preset)) if options.preset is not None else {}
    if options.smoke:
        changes |= study.smoke
    changes |= options.changes
    if options.epochs is not None:
        changes["train.epochs"] = options.epochs
    chosen = {choice.name: choice.default for choice in study.choices} | dict(options.choices)
    if options.smoke:
        usual = {c.name: c.smoke for c in study.choices if c.smoke and chosen[c.name] == c.default}
        chosen |= usual
    study = study.on(replace(asked, choices=chosen))
    if study.tuning is not None:
        usual = min(SMOKE_TUNING, study.tuning.trials) if options.smoke else study.tuning.trials
        trials = usual if options.tune is None else options.tune
        study = replace(study, tuning=replace(study.tuning, trials=trials, each=options.tune_each))
    study = study.set(changes)
    seeds = options.seeds if options.seeds is not None else (2 if options.smoke else study.seeds)
    if seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {seeds}")
    return replace(study, seeds=seeds)


def _base_levels(study: Study) -> dict[str, Any]:
    """Dotted path of each factor -> its level in the base: in the first arm, if there are any."""
    base = next(iter(study.arms.values()), study.base)
    levels = {factor.path: get(base, factor.path) for factor in study.factors}
    plain = bool | int | float | str | None
    return {path: v if isinstance(v, plain) else str(v) for path, v in levels.items()}


def _shape(feature: Any) -> str:
    missing = int((~feature.present).sum())
    sizes = {
        "dense": lambda: f"{feature.values.shape[1]} columns",
        "tags": lambda: f"{len(feature.names)} tags",
        "category": lambda: f"{len(feature.names)} levels",
        "codes": lambda: f"{feature.codes.shape[1]} levels",
        "graph": lambda: f"{len(feature.ids)} edges",
    }
    text = f"{feature.kind}, {sizes[feature.kind]()}"
    return f"{text}, {missing} missing" if missing else text
