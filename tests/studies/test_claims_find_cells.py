"""Every claim of every study finds the trials that it is about among those that are planned."""

from pathlib import Path

import numpy as np
import pytest

from mmrec import gap
from mmrec.cli import load_study
from mmrec.study.claims import ClaimData
from mmrec.study.collect import trial_table
from mmrec.study.costs import COSTS
from mmrec.study.study import Asked, Study
from mmrec.study.trials import Setting

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "studies"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if "\nSTUDY = " in path.read_text())
MODALITIES = {
    "planted-encoders": ("image", "image_b", "text", "text_b"),
    "lfm2k": ("tagtext", "text", "vggish", "whisper"),
    "planted-five": ("audio", "image", "text"),
}
"""Dense ones."""
FEATURES = {"planted-five": (("audio", "genres", "image", "text"), ("age", "gender", "occupation"))}
"""All of the items, and of the users, where they are more."""
SETTING = Setting(data="00ff", split="random", protocol="full", device="cpu")
SEEDS = 5
MEASURES = (
    "item_cosine", "item_rank", "modality_gap", "user_cosine", "semantic_cosine", "dirichlet",
    *gap.MEASURES,
    *(f"{kind}_{name}" for kind in ("ami", "only") for name in ("text", "image")),
)  # fmt: skip
STRATA = ("short-histories", "long-histories", "narrow-interests", "wide-interests")


def laid_out(script: Path, dataset: str = "") -> Study:
    study = load_study(script)
    dataset = dataset or study.dataset
    chosen = {choice.name: choice.default for choice in study.choices}
    dense = MODALITIES.get(dataset, ("image", "text"))
    items, users = FEATURES.get(dataset, (dense, ()))
    return study.on(Asked(dataset, dense, chosen, items, users, study.split or "given"))


def finished(study: Study, grid: str = "default") -> ClaimData:
    """All planned trials, with scores, measures, costs and found users drawn at random."""
    planned = study.plan(study.cells(grid), range(SEEDS), SETTING)
    trials = trial_table(study, planned, {}, (1.0, 0.0))
    rng = np.random.default_rng(0)
    objective = study.base.objective
    columns = [f"valid.{objective}", f"test.{objective}", *(f"cost.{name}" for name in COSTS)]
    columns += ["test.precision@10"]
    columns += [f"test.{objective}:{stratum}" for stratum in STRATA]
    columns += [f"measure.{name}" for name in MEASURES]
    values = 0.1 + 0.01 * rng.random((len(trials), len(columns)))
    drawn = dict(zip(columns, values.T, strict=True))
    found_HU = rng.random((len(trials), 20)) < 0.5
    found = dict(zip(trials["hash"], found_HU.astype(float), strict=True))
    return ClaimData(trials.assign(state="done", **drawn), objective, found.get)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_on_the_studys_own_data(script):
    study = laid_out(script)
    data = finished(study)
    found = {claim.text: claim.test.evaluate(data) for claim in study.claims}
    assert found
    assert {text: v.detail for text, v in found.items() if v.verdict == "not tested"} == {}


@pytest.mark.parametrize("name", ["recursion_depth", "neighbour_k", "reduction_ratio"])
def test_on_real_data_and_on_the_full_product(name):
    study = laid_out(FOLDER / f"{name}.py", "lfm2k")
    for grid in ("default", *(["full"] if study.sweeps else [])):
        data = finished(study, grid)
        for claim in study.claims:
            verdict = claim.test.evaluate(data)
            assert verdict.verdict != "not tested", (claim.text, verdict.detail)
