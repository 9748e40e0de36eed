"""Everything that a report is drawn from, and nothing else: no ledger, no files, no framework."""

import math
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from mmrec.stats import Paired, Verdict
from mmrec.study import text
from mmrec.study.verdicts import OPENING, Stated, by_topic, count_in_words, numbers_in_words
from mmrec.study.views import View

PHASES = ("tune", "grid", "search", "confirm", "control")
STATES = ("done", "stopped", "failed", "interrupted", "running", "planned")

_RUN = (
    "study", "question", "objective", "kind", "dataset", "protocol", "seeds", "planned", "selected",
    "command", "created", "git_commit", "git_dirty", "versions", "hardware", "smoke", "out",
)  # fmt: skip
_NUMBERS = ("seed", "best_epoch", "epochs", "epoch_cap", "seconds", "threads", "cpus", "gpus")
_TRIALS = (
    "hash", "cell", "label", "phase", "attempt", "state", "condition", "model", "host", "device",
    "error", "config", "started", "ended",
)  # fmt: skip
_FOUND = ("valid", "test", "measure", "cost")
"""What columns of results begin with, before the first dot; the other dotted ones are factors."""


@dataclass(frozen=True)
class CloudTables:
    """What the samples of item embeddings that trials kept measure and look like.

    All three tables have `hash arm condition seed stage`; a stage is `features` (raw), `start`
    (the untrained model) or `trained`. The modality `all` is the embeddings that are scored.
    """

    MEASURES: ClassVar = (
        "hash", "arm", "condition", "seed", "stage", "modality", "measure", "value", "chance",
    )  # fmt: skip
    SPECTRA: ClassVar = (
        "hash", "arm", "condition", "seed", "stage", "modality", "component", "share",
    )  # fmt: skip
    POINTS: ClassVar = (
        "hash", "arm", "condition", "seed", "stage", "panel", "method", "modality", "item", "x",
        "y",
    )  # fmt: skip

    measures: pd.DataFrame
    """`chance` is what an overlap would be by chance, else NaN."""
    spectra: pd.DataFrame
    """Shares of variance of the first principal components, from 1."""
    points: pd.DataFrame
    """Pictures on a plane, one a stage and panel of an arm; raw features belong to no arm."""
    without: int = 0
    """Trials that are done and kept no clouds."""

    def __post_init__(self) -> None:
        _need(self.MEASURES, self.measures.columns, "measures of clouds")
        _need(self.SPECTRA, self.spectra.columns, "spectra of clouds")
        _need(self.POINTS, self.points.columns, "points of clouds")


@dataclass(frozen=True)
class StudyTables:
    """One study on one dataset, as plain tables. Checked when made; see `__post_init__`."""

    run: dict[str, Any]
    """The run folder's `run.json`: question, design, dataset manifest, versions, command line,
    and `selected`, the cell that was chosen on validation before any test score was read."""
    trials: pd.DataFrame
    """One row a planned or run trial, its latest attempt.

    Columns: those in `_TRIALS` and `_NUMBERS`; factors by dotted path (`model.alpha`);
    `valid.<metric>`; `test.<metric>` (NaN unless the state is done); `measure.<name>`;
    `cost.<name>`. `started` and `ended` are seconds since 1970 here, whatever kind of time or text
    they were given as.
    """
    epochs: pd.DataFrame
    """Learning curves: `hash`, `epoch`, `seconds`, `loss.<term>`, `valid.<objective>`."""
    claims: tuple[tuple[Stated, Verdict], ...] = ()
    """In the order of importance: the first one gives the report's answer."""
    views: tuple[View, ...] = ()
    """What to draw; those that the factors suggest when there are none."""
    published: pd.DataFrame | None = None
    """Numbers of others: `source`, `dataset`, `protocol`, `label`, `metric`, `value`."""
    clouds: CloudTables | None = None
    """What samples of item embeddings measure, in a study whose trials keep them."""
    hits: pd.DataFrame | None = None
    """Users found by each pair of arms under each seed, where a view asks for them: see
    `mmrec.study.overlap.shared_hits`."""

    def __post_init__(self) -> None:
        """Check what the report relies on, and give numeric columns a numeric type.

        Raises:
            KeyError: a key of `run` or a column of `trials` is missing. Only a study of which no
                trial is done may lack the columns of scores.
            ValueError: a hash occurs twice, a phase, state or kind is unknown, the selected cell
                has no trial, or a trial that is not done has a test score.
        """
        _need(_RUN, self.run, "run")
        _need([*_TRIALS, *_NUMBERS], self.trials.columns, "trials")
        trials = _typed(self.trials)
        scores = [self.column("valid"), self.column("test")]
        if not (trials["state"] == "done").any():
            trials = trials.assign(**{c: math.nan for c in scores if c not in trials})
        _need(scores, trials.columns, "trials")
        _need(["hash", "epoch", self.column("valid")], self.epochs.columns, "epochs")
        object.__setattr__(self, "trials", trials)
        self._check()

    def _check(self) -> None:
        _known(self.trials["phase"], PHASES, "phase")
        _known(self.trials["state"], STATES, "state")
        if self.run["kind"] not in ("grid", "search"):
            raise ValueError(f"a study is a grid or a search, not {self.run['kind']!r}")
        if self.run["selected"] not in (None, *self.trials["cell"]):
            raise ValueError(f"the selected cell {self.run['selected']!r} has no trial")
        twice = self.trials["hash"][self.trials["hash"].duplicated()]
        if len(twice):
            raise ValueError(
                f"trial {twice.iloc[0]!r} is there twice: give its latest attempt only"
            )
        tests = [c for c in self.trials if str(c).startswith("test.")]
        leaked = self.trials[tests].notna().any(axis=1) & (self.trials["state"] != "done")
        if leaked.any():
            row = self.trials[leaked].iloc[0]
            raise ValueError(f"trial {row['hash']} is {row['state']} and yet has a test score")

    def column(self, part: str) -> str:
        """The objective's column: `valid.ndcg@10` for part `valid`."""
        return f"{part}.{self.run['objective']}"

    def factors(self) -> dict[str, list[Any]]:
        """Distinct levels of each factor among all trials but controls and tries of tuning.

        Sorted; NaN left out.
        """
        rows = self.trials[~self.trials["phase"].isin(("control", "tune"))]
        levels: dict[str, list[Any]] = {}
        for name in map(str, self.trials.columns):
            if "." in name and name.split(".")[0] not in _FOUND:
                values = rows[name].dropna().unique().tolist()
                levels[name] = sorted(values, key=lambda v: (isinstance(v, str), v))
        return levels

    def measures(self) -> list[str]:
        """Names of the measures that the trials recorded."""
        return [
            str(name).removeprefix("measure.")
            for name in self.trials.columns
            if str(name).startswith("measure.") and self.trials[name].notna().any()
        ]

    @property
    def answer(self) -> str:
        """The answer to the study's question; see `answer`."""
        return answer(self)


def _need(names: Iterable[str], have: Container[object], where: str) -> None:
    missing = [name for name in names if name not in have]
    if missing:
        raise KeyError(f"{where}: missing {', '.join(missing)}")


def _known(values: pd.Series, allowed: tuple[str, ...], what: str) -> None:
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise ValueError(f"{what} {unknown[0]!r} is none of {', '.join(allowed)}")


def _typed(trials: pd.DataFrame) -> pd.DataFrame:
    """A copy whose numbers are floats (seeds: integers) and whose times seconds since 1970."""
    scores = [c for c in trials if str(c).split(".")[0] in _FOUND]
    typed = {str(c): trials[c].astype(float) for c in [*_NUMBERS, *scores]}
    typed["seed"] = trials["seed"].astype(int)
    for name in map(str, trials.columns):
        if "." in name and name not in typed and trials[name].dtype == object:
            typed[name] = trials[name].map(_level)
    for name in ("started", "ended"):
        typed[name] = _instants(trials[name])
    # A column that is assigned is a block of its own, and pandas warns of more than 100; copied,
    # all of one type are one block.
    return trials.assign(**typed).reset_index(drop=True).copy()


def _level(value: Any) -> Any:
    """A factor's level as a number or text: a tuple of widths becomes its text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _instants(column: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float)
    given = column.astype(object).where(column.notna() & (column != ""), None)
    times = pd.to_datetime(given, utc=True, format="ISO8601")
    return (times - pd.Timestamp(0, tz="UTC")).dt.total_seconds()


# --- the answer in one sentence

MOST_TOPICS = 3
"""Topics that the answer counts."""


def answer(tables: StudyTables) -> str:
    """One sentence: what became of the first claim, and the cell that validation chose.

    Where the first claim shares its topic with others, the verdicts on the first topics are counted
    in its place.
    """
    name = tables.run["dataset"]["name"]
    parts = []
    shared = {topic: found for topic, found in by_topic(tables.claims).items() if topic}
    if tables.run["smoke"]:
        parts.append(f"A smoke run on {name}, no verdicts meant")
    elif tables.claims and len(shared.get(tables.claims[0][0].topic, [])) > 1:
        counts = [f"{t}: {count_in_words(found, variants=False)}" for t, found in shared.items()]
        parts += [f"{counts[0]} on {name}", *counts[1:MOST_TOPICS]]
    elif tables.claims:
        claim, verdict = tables.claims[0]
        opening = OPENING[verdict.verdict].format(name)
        parts.append(f"{opening}: {claim.text.rstrip('.')}{numbers_in_words(verdict)}")
    where = "" if parts else f" on {name}"
    selected = tables.trials["cell"] == tables.run["selected"]
    chosen = tables.trials[selected & (tables.trials["phase"] != "tune")]
    if chosen.empty:
        parts.append(f"no trial{where} is done yet")
    else:
        score = _score(chosen[tables.column("test")], text.metric(tables.run["objective"]))
        parts.append(f"best by validation{where} is {chosen['label'].iloc[0]}, {score}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _score(values: pd.Series, metric: str) -> str:
    scored = values.dropna().to_numpy(float)
    if not len(scored):
        return f"whose test {metric} is not known"
    low, high = Paired.of(scored, 0 * scored).interval()
    between = "" if math.isnan(low) else f"95 % interval {text.interval(low, high)}, "
    seeds = text.count(len(scored), "seed")
    return f"test {metric} {text.score(float(scored.mean()))} ({between}{seeds})"
