"""Tries of nuisance knobs: shown as such, and in no cell and no figure about the study."""

import pytest

from mmrec.reports import cost, curves, sensitivity, tuning
from mmrec.reports.tables import cells, completeness
from tests.reports.compared import study


def tries(arm, values, condition="baseline"):
    best = max(range(len(values)), key=lambda n: -1 if values[n] is None else values[n])
    return [
        {"arm": arm, "condition": condition, "nth": n, "train.lr": 10.0**-n, "model.k": n}
        | {"state": "failed" if v is None else "done", "valid": v, "chosen": n == best}
        for n, v in enumerate(values)
    ]


@pytest.fixture(scope="module")
def tuned():
    scores = {(arm, c): [0.1, 0.2] for arm in ("A", "B") for c in ("baseline", "text=noise")}
    ran = [*tries("A", [0.1, None, 0.3]), *tries("B", [0.2, 0.1])]
    return study(scores, tuned=ran)


def test_tuning_shows_what_was_chosen_and_what_it_gained(tuned):
    rows = tuning.tuning(tuned).set_index("of")
    assert rows.loc["A", ["done", "failed", "missing"]].tolist() == [2, 1, 0]
    assert rows.loc["A", "knobs"] == "lr = 0.01, k = 2"
    assert rows.loc["A", ["default", "best", "gain"]].tolist() == pytest.approx([0.1, 0.3, 0.2])
    assert rows["kept"].tolist() == [False, True]


def test_a_condition_that_is_tuned_by_itself_has_its_own_row():
    ran = [*tries("A", [0.1, 0.3]), *tries("A", [0.2, 0.1], "text=noise"), *tries("B", [0.1, 0.2])]
    made = study({("A", "baseline"): [0.1], ("B", "baseline"): [0.1]}, tuned=ran)
    assert tuning.tuning(made)["of"].tolist() == ["A | baseline", "A | text=noise", "B"]


def test_tries_count_as_trials_and_in_no_cell_and_no_figure(tuned):
    ran = set(tuned.trials.loc[tuned.trials["phase"] == "tune", "hash"])
    assert len(ran) == 3
    assert completeness(tuned)["planned"] == 8 + 3
    assert cost.by_state(tuned).set_index(["phase", "state"])["trials"].loc[("tune", "failed")] == 1
    assert not any("tune" in label for label in cells(tuned)["label"])
    assert not ran & set(curves.choose(tuned)[0])
    assert not ran & set(sensitivity.studied(tuned)["hash"])
    assert not [words for words in cost.flags(tuned) if "tune" in words]  # all end at their cap
