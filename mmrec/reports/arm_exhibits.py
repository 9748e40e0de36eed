"""Exhibits of studies that put arms under conditions: each table with its finding in words."""

from collections.abc import Sequence

import pandas as pd

from mmrec.reports import (
    dots,
    knockouts,
    matrices,
    papers,
    split_papers,
    strata,
    tuning,
    verdicts,
)
from mmrec.reports.exhibit import Exhibit
from mmrec.stats import ALPHA, MIN_SEEDS
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.verdicts import by_topic, count_in_words
from mmrec.study.views import (
    ArmView,
    ConditionForest,
    ConditionMap,
    FillerSensitivity,
    Gates,
    Published,
    Strata,
    Verdicts,
)

MOST_NAMES = 8
"""Names that a sentence lists."""


def of_view(tables: StudyTables, view: ArmView) -> list[Exhibit]:
    """What a view shows: one exhibit, of verdicts up to three."""
    match view:
        case Verdicts():
            return [_verdicts(tables), *_counted(tables, view)]
        case ConditionForest():
            return [_forest(tables, view)]
        case ConditionMap():
            return [_map(tables, view)]
        case FillerSensitivity():
            return [_fillers(tables, view)]
        case Strata():
            return [_strata(tables, view)]
        case Gates():
            return [_gates(tables)]
        case Published():
            return _published(tables, view)


def _metric(tables: StudyTables) -> str:
    return text.metric(tables.run["objective"])


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    more = len(names) - MOST_NAMES
    return ", ".join([*names[:MOST_NAMES], *([f"{more} more"] if more > 0 else [])])


def _verdicts(tables: StudyTables) -> Exhibit:
    table = verdicts.verdicts(tables)
    title = "What became of each claim, arm by arm"
    if table.empty:
        said = "The study has no claim that names a topic and an arm."
        return Exhibit("verdicts", title, said, table, None)
    topics = {topic: found for topic, found in by_topic(tables.claims).items() if topic}
    parts = [f"{_sentence(topic)}: {count_in_words(found)}." for topic, found in topics.items()]
    said = f"{' '.join(parts)} Beside each sign: the effect as a share of what it is compared with."
    return Exhibit("verdicts", title, said, table, matrices.verdict_map(table))


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"


def _counted(tables: StudyTables, view: Verdicts) -> list[Exhibit]:
    """The counts by group if there are groups, and the variants if there are any."""
    made = []
    counts, survival = verdicts.counts(tables), verdicts.survival(tables, view)
    if (counts["group"] != "").any():
        said = "How many claims of each group and topic have which verdict; variants count too."
        made.append(Exhibit("verdict_counts", "Verdicts by group", said, counts, None))
    if len(survival):
        parts = []
        for variant, rows in survival.groupby("variant", sort=False):
            decided = rows[rows["survives"] != ""]
            yes = int((decided["survives"] == "yes").sum())
            parts.append(f"{variant}: {yes} of {text.count(len(decided), 'verdict')} survive")
        said = f"Of the verdicts that an arm and its variant both have. {'; '.join(parts)}."
        title = "Do verdicts survive in another reading of the model?"
        made.append(Exhibit("verdict_survival", title, said, survival, None))
    return made


def _forest(tables: StudyTables, view: ConditionForest) -> Exhibit:
    table, metric = knockouts.changes(tables, view), _metric(tables)
    key, title = "condition_forest", f"What each condition changes, against {view.against}"
    made = table[table["n"] > 0]
    if made.empty:
        said = f"No arm has a seed in common under a condition and under {view.against}."
        return Exhibit(key, title, said, table, None)
    tested = made[made["p_corrected"].notna()]
    sure = tested[tested["p_corrected"] < ALPHA]
    below, above = int((sure["effect"] < 0).sum()), int((sure["effect"] > 0).sum())
    worst = made.sort_values("effect", kind="stable").iloc[0]
    said = (
        f"Paired differences of test {metric}, seed by seed. Below 0, after Holm's correction for"
        f" all: {below} of {text.count(len(tested), 'comparison')}; above it: {above}; the rest are"
        " not separable from 0."
        f" The lowest is {worst['arm']} under {worst['condition']}:"
        f" {text.signed(worst['effect'])} ({text.percent(worst['relative'])})."
    )
    if len(tested):
        least, most = (
            f"{100 * tested['level'].astype(float).agg(end):.4g}" for end in ("min", "max")
        )
        said += f" Intervals are at the level that the correction leaves to each, {least} % to"
        said += f" {most} % (column level)."
    if len(tested) < len(made):
        said += " Hollow: one seed, no interval."
    least, most = dots.reach(made)
    if (made["low"] < least).any() or (made["high"] > most).any():
        said += " Bars that leave the picture are in the table."
    if made["n"].min() < MIN_SEEDS:
        said += f" A verdict would need {MIN_SEEDS} seeds."
    return Exhibit(key, title, said, table, dots.condition_forest(table, metric))


def _map(tables: StudyTables, view: ConditionMap) -> Exhibit:
    table, metric = knockouts.changes(tables, view), _metric(tables)
    key, title = "condition_map", f"Change of {metric} against {view.against}, in per cent"
    known, holes = table[table["relative"].notna()], table[table["relative"].isna()]
    if known.empty:
        return Exhibit(key, title, "No arm has scores to be compared.", table, None)
    means = known.groupby("condition", sort=False)["relative"].agg(["mean", "size"])
    parts = [
        f"{name} {text.percent(mean)} ({text.count(int(size), 'arm')})"
        for name, mean, size in means.itertuples()
    ]
    said = f"Averaged over arms: {'; '.join(parts)}. Bold: not 0 after Holm's correction."
    if known["relative"].abs().max() > matrices.WIDEST:
        said += f" Colours end at {100 * matrices.WIDEST:.0f} % either way."
    if len(holes):
        reasons = "; ".join(dict.fromkeys(holes["reason"]))
        said += f" Hatched: {len(holes)} of {text.count(len(table), 'square')} ({reasons})."
    return Exhibit(key, title, said, table, matrices.condition_map(table, metric))


def _fillers(tables: StudyTables, view: FillerSensitivity) -> Exhibit:
    table, metric = knockouts.fillers(tables, view), _metric(tables)
    key, title = "fillers", "Does the result depend on what replaces the modality?"
    if table.empty:
        said = "No modality was replaced by two different fillers."
        return Exhibit(key, title, said, table, None)
    ranges = table.drop_duplicates(["arm", "knocked", "when"]).dropna(subset="range")
    said = ""
    if len(ranges):
        widest = ranges.sort_values("range", kind="stable").iloc[-1]
        place = ["arm", "knocked", "when"]
        same = table[(table[place] == widest[place]).all(axis=1)].sort_values("relative")
        low, high = same.iloc[0], same.iloc[-1]
        late = ", replaced at evaluation only" if widest["when"] == "eval" else ""
        said = (
            f"Widest for {widest['arm']} without {widest['knocked']}{late}: from"
            f" {text.percent(low['relative'])} under {low['filler']} to"
            f" {text.percent(high['relative'])} under {high['filler']}. The median of"
            f" {text.count(len(ranges), 'range')} is {100 * ranges['range'].median():.1f}"
            " percentage points. "
        )
    if (table["when"] == "eval").any():
        said += "Hollow: replaced at evaluation only, in a model trained with it. "
    said += f"Changes of test {metric} against {view.against}; the table has their 95 % intervals."
    return Exhibit(key, title, said, table, dots.fillers(table, metric))


def _strata(tables: StudyTables, view: Strata) -> Exhibit:
    table, metric = knockouts.strata(tables, view), _metric(tables)
    key, title = "strata", "Who is hit: items by popularity, users by length of history"
    if (table["kind"] == "interests").any():
        title += ", users by diversity of interests"
    known = table[table["relative"].notna()]
    if known.empty:
        said = "No trial has scores by stratum that could be compared."
        return Exhibit(key, title, said, table, None)
    parts = []
    own = known[known["against"] == view.against]
    if len(own):
        size = own.groupby("condition", sort=False)["relative"].mean()
        hardest = str(size.idxmin())
        means = _by_third(own[own["condition"] == hardest])
        parts.append(f"The condition that costs most is {hardest}; averaged over arms: {means}.")
    held = known[known["against"] == view.control]
    if len(held):
        rare = held[held["stratum"] == "rare"]
        better = int((rare["low"] > 0).sum())
        worse = int((rare["high"] < 0).sum())
        parts.append(
            f"Against {view.control}, under {view.against}: {_by_third(held)}; on rare items"
            f" {better} of {text.count(len(rare), 'arm')} are above it and {worse} below, by 95 %"
            " intervals."
        )
    shown = len(set(known["arm"]))
    if shown > strata.MOST_PANELS:
        parts.append(f"{strata.MOST_PANELS} of {shown} arms are drawn, variants left out first.")
    if (known["relative"] > strata.HIGHEST).any():
        parts.append(f"Panels end at +{100 * strata.HIGHEST:.0f} %; the table has what is beyond.")
    parts.append("Bars: 95 % intervals over seeds, not corrected.")
    return Exhibit(key, title, " ".join(parts), table, strata.strata(table, metric))


def _by_third(rows: pd.DataFrame) -> str:
    """`rare items +3.1 %, mid items ...`, averaged over arms."""
    noun = {"items": " items", "users": " histories", "interests": " interests"}
    named = rows["stratum"] + rows["kind"].map(noun)
    means = rows.groupby(named, sort=False)["relative"].mean()
    return ", ".join(f"{name} {text.percent(mean)}" for name, mean in means.items())


def _gates(tables: StudyTables) -> Exhibit:
    table = knockouts.gates(tables)
    key, title = "gates", "Trained gates of the modalities"
    if table.empty:
        return Exhibit(key, title, "No trial recorded a gate.", table, None)
    parts = []
    for replaced, words in ((True, "a replaced"), (False, "an untouched")):
        rows = table[table["replaced"] == replaced]
        if len(rows):
            low, high = rows[rows["mean"] < 0.5], rows[rows["mean"] >= 0.5]
            whole = text.count(len(rows), "gate")
            parts.append(
                f"Of {whole} of {words} modality, {len(low)} fell below 0.5{_which(low)} and"
                f" {len(high)} did not{_which(high)}."
            )
    parts.append("Hollow: replaced in training. Bars: 95 % intervals over seeds.")
    return Exhibit(key, title, " ".join(parts), table, dots.gates(table))


def _which(rows: pd.DataFrame) -> str:
    """The arms and modalities of gates, in brackets."""
    names = dict.fromkeys((rows["arm"] + " " + rows["modality"]).tolist())
    return f" ({_listed(list(names))})" if names else ""


def _published(tables: StudyTables, view: Published) -> list[Exhibit]:
    match papers.source(view):
        case papers.BySplit() as source:
            return split_papers.exhibits(tables, view, source)
        case papers.ByCondition() as source:
            return [_by_condition(tables, view, source)]
        case source:
            raise TypeError(f"no exhibit for a published table of kind {type(source).__name__}")


def _by_condition(tables: StudyTables, view: Published, source: papers.ByCondition) -> Exhibit:
    key, title = f"published_{view.name}", f"Published numbers beside ours: {source.cite}"
    obstacles = papers.obstacles(tables, source)
    table = papers.beside(tables, source)
    if obstacles:
        said = f"No published column stands here: {'; '.join(obstacles)}."
        return Exhibit(key, title, said, table, None)
    shown = table[table["metric"] == tables.run["objective"]]
    if shown.empty:
        said = "No published column stands here: no model and condition are in both."
        return Exhibit(key, title, said, table, None)
    condition = shown["condition"].iloc[0]
    base = shown[shown["condition"] == condition]
    said = (
        f"{text.count(len(base), 'model')} under {condition}: our {_metric(tables)} is"
        f" {base['ratio'].min():.2f} to {base['ratio'].max():.2f} times theirs, median"
        f" {base['ratio'].median():.2f}"
    )
    if len(base) > 2:
        rank = base["published"].rank().corr(base["ours"].rank())
        said += f"; rank correlation {text.score(rank, 2)}"
    said += "."
    said += f" No verdict: {source.note}."
    return Exhibit(key, title, said, table, dots.published(shown, _metric(tables)))


def tuned(tables: StudyTables) -> Exhibit:
    """What the tries of nuisance knobs came to."""
    table, tries = tuning.tuning(tables), tuning.tries(tables)
    done, failed = int(table["done"].sum()), int(table["failed"].sum())
    kept = int(table["kept"].sum())
    said = (
        f"{text.count(len(tries), 'trial')} on validation only: {done} done,"
        f" {failed} failed, {len(tries) - done - failed} missing. {kept} of {len(table)} keep their"
        " own settings"
    )
    gains = table.loc[~table["kept"].astype(bool) & table["gain"].notna()]
    if len(gains):
        most = gains.sort_values("gain", kind="stable").iloc[-1]
        said += f"; the others gain {text.signed(gains['gain'].median())} in the median, at most"
        said += f" {text.signed(most['gain'])} ({most['of']}: {most['knobs']})"
    figure = dots.tuning(table, tries, _metric(tables)) if done else None
    return Exhibit("tuning", "Tuning of nuisance knobs", f"{said}.", table, figure)
