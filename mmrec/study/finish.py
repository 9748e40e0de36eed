"""After the last trial: select on validation, unseal test, decide claims, lay out tables."""

import json
from typing import Any

import pandas as pd

from mmrec.study import collect
from mmrec.study.claims import ClaimData, decide
from mmrec.study.cloud_tables import cloud_tables
from mmrec.study.ledger import Ledger
from mmrec.study.overlap import shared_hits
from mmrec.study.store import Folder
from mmrec.study.study import Planned, Study
from mmrec.study.tables import StudyTables
from mmrec.study.views import Clouds, SharedHits


def tables_of(
    study: Study, ledger: Ledger, folder: Folder, manifest: dict[str, Any], *, keep: bool = True
) -> StudyTables:
    """Everything a report is drawn from.

    Args:
        study: as the command line changed it.
        ledger: of the run folder.
        folder: the run folder.
        manifest: `run.json`; what is learnt here is added.
        keep: write it back. One who may only read makes the same choice, by validation alone.
    """
    planned = _planned(ledger, folder, manifest["kind"])
    resources = manifest["resources"]
    sealed = collect.trial_table(
        study, planned, collect.rows_of(ledger), (resources["cpus"], resources["gpus"])
    )
    objective = study.base.objective
    judged = _judged(sealed, manifest["kind"])
    manifest = {
        **manifest,
        "planned": len(planned),
        **_tuning(study, ledger, folder),
        "selected": collect.select(judged, objective),
        "hardware": sorted({*sealed["hardware"].dropna(), *manifest["hardware"]}),
    }
    if keep:
        # The choice is on disk before the first test score is opened.
        folder.write("run.json", json.dumps(manifest, indent=1).encode())
    trials = collect.with_test(sealed, folder)
    data = collect.claim_data(_judged(trials, manifest["kind"]), folder, objective)
    return StudyTables(
        run=manifest,
        trials=trials,
        epochs=collect.epoch_table(trials, folder, objective),
        claims=tuple(decide(study.claims, data)),
        views=study.views,
        clouds=cloud_tables(trials, folder, _planes(study)) if study.clouds else None,
        hits=_hits(study, data),
    )


def _hits(study: Study, data: ClaimData) -> pd.DataFrame | None:
    """Of the arms that views ask for, under the first condition; None if no view does."""
    wanted = [view.arms for view in study.views if isinstance(view, SharedHits)]
    if not wanted:
        return None
    every = (*study.arms, *study.controls)
    chosen = every if () in wanted else set().union(*wanted)
    arms = [arm for arm in every if arm in chosen]
    return shared_hits(arms, study.conditions[0].name, data)


def _planes(study: Study) -> tuple[str, ...]:
    """How the views want items laid on a plane."""
    methods = (v.method for v in study.views if isinstance(v, Clouds) and v.show == "pictures")
    return tuple(dict.fromkeys(methods))


def _planned(ledger: Ledger, folder: Folder, kind: str) -> list[Planned]:
    if kind == "search":
        before = collect.planned_from_rows(ledger.rows("search"))
    else:
        before = _plan(folder, "tune")
    # A suggestion or a try that was chosen is a trial of the main plan as well, and stands there.
    main = _plan(folder, kind)
    named = {p.hash for p in main}
    return [*(p for p in before if p.hash not in named), *main]


def _plan(folder: Folder, name: str) -> list[Planned]:
    """A plan of the run folder; empty where there is none."""
    file = f"plan-{name}.json"
    return collect.plan_from_json(folder.read(file)) if folder.exists(file) else []


def _judged(trials: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The trials that claims may rest on: of a search only what was run again under all seeds."""
    return trials[trials["phase"] != ("search" if kind == "search" else "tune")]


def _tuning(study: Study, ledger: Ledger, folder: Folder) -> dict[str, Any]:
    """What `run.json` says of tuning: the settings chosen, and every try."""
    tries = _plan(folder, "tune")
    if not tries:
        return {}
    tuned = collect.tuned(study, tries, collect.rows_of(ledger))
    return {"tuned": tuned.settings, "tries": tuned.tries}
