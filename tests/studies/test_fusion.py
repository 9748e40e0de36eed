"""What the studies of semantic IDs plan and claim, for the words on their command lines."""

from dataclasses import replace
from pathlib import Path

import pytest

from mmrec.cli import load_study
from mmrec.config import get
from mmrec.data.conditions import apply
from mmrec.data.sources import load
from mmrec.study.claims import Where
from mmrec.study.study import Asked, Study
from mmrec.study.trials import Setting
from mmrec.tune.job import asked_of

FOLDER = Path(__file__).parents[2] / "studies"
FUSION, IDS = (load_study(FOLDER / f"{name}.py") for name in ("fusion", "semantic_ids"))
SETTING = Setting(data="00ff", split="leave-one-out", protocol="full", device="cpu")
PLANTED, INSTRUMENTS = "planted-sequences", "instruments"


def shaped(study: Study = FUSION, dataset: str = PLANTED, **words: str) -> Study:
    chosen = {choice.name: choice.default for choice in study.choices}
    chosen |= {name: tuple(value.split(",")) for name, value in words.items()}
    dense = ("image", "text") if dataset.startswith("planted") else ()
    return study.on(Asked(dataset, dense, chosen, features=dense))


def arm_of(study: Study, label: str):
    return {**study.arms, **study.controls}[label].model


def named(where: Where) -> set[str]:
    arms = where.conditions["arm"]
    return {arms} if isinstance(arms, str) else set(arms)


def test_every_arm_is_what_its_name_says():
    study = shaped()
    assert len(study.arms) == 9
    assert set(study.controls) == {"Popularity"}
    for label, modality in (("TIGER text", "text"), ("TIGER image", "image")):
        assert arm_of(study, label).modalities == (modality,)
    both = {label: run for label, run in study.arms.items() if label.startswith("MGR")}
    assert {run.model.modalities for run in both.values()} == {("text", "image")}
    knobs = ("fusion", "alignment", "transition_tokens")
    found = {label: tuple(getattr(run.model, k) for k in knobs) for label, run in both.items()}
    assert found["MGR-EF"][:2] == ("early", "none")
    assert found["MGR-LF"] == ("late", "none", False)
    assert found["MGR-LF++"] == ("late", "infonce", True)
    assert found["MGR-LF++ B"] == ("late", "translation", True)
    assert found["MGR-LF++ -alignment"] == ("late", "none", True)
    assert found["MGR-LF++ -tokens"] == ("late", "infonce", False)


def test_arms_differ_in_nothing_else():
    study = shaped()
    trains = {run.train for label, run in study.arms.items() if label != "SASRec"}
    assert len(trains) == 1
    for path in ("model.dim", "model.history"):
        assert len({get(run, path) for run in study.arms.values()}) == 1
    assert get(study.arms["SASRec"], "model.loss") == "softmax"


def test_claims_need_their_arms():
    labels = "TIGER text,TIGER image,MGR-LF++"
    topics = {claim.topic for claim in shaped(variants=labels).claims}
    assert topics == {
        "better than one modality",
        "better by 20 %",
        "above popularity",
    }
    assert all("arXiv 2503.23333" in c.source or "not a claim" in c.source for c in shaped().claims)


def test_codes_leave_a_hole_where_early_fusion_would_be():
    study = shaped(dataset=INSTRUMENTS)
    assert "MGR-EF" not in study.arms
    assert arm_of(study, "MGR-LF").modalities == ("text_codes", "image_codes")
    early = [claim for claim in study.claims if claim.arm == "MGR-EF"]
    assert len(early) == 2  # planned as not tested, rather than silently left out
    planned = study.plan(study.cells(), range(1), SETTING)
    assert len(planned) == len(study.arms) + 1
    assert get(study.arms["MGR-LF"], "model.encoder_layers") == 2
    paper = shaped(dataset=INSTRUMENTS, size="paper")
    assert get(paper.arms["MGR-LF"], "model.encoder_layers") == 4


def test_a_knockout_is_for_what_uses_both_modalities():
    study = shaped(conditions="knockout", fillers="noise,shuffle")
    assert [c.name for c in study.conditions] == [
        "baseline", "image=noise", "text=noise", "image=shuffle", "text=shuffle",
    ]  # fmt: skip
    assert set(study.controls) == {"Popularity", "SASRec", "TIGER text", "TIGER image"}
    cells = study.cells()
    assert len(cells) == 6 * 5 + 4
    hurts = [claim for claim in study.claims if claim.topic.endswith("hurts")]
    assert len(hurts) == 6 * 4
    assert named(hurts[0].test.cell) == {hurts[0].arm}
    # Codes are knocked out by their own names.
    codes = shaped(dataset=INSTRUMENTS, conditions="knockout")
    assert codes.conditions[1].modalities == ("image_codes",)


def test_a_dataset_without_both_modalities_is_refused():
    for study in (FUSION, IDS):
        with pytest.raises(ValueError, match=r"dataset 'beauty' has: no dense item feature"):
            shaped(study, dataset="beauty")


def test_a_quantiser_is_turned_in_every_fusion():
    study = shaped(IDS, quantisers="rqvae,rqkmeans")
    assert list(study.arms) == ["MGR-LF++", "MGR-LF++ rqkmeans", "MGR-EF", "MGR-EF rqkmeans"]
    cells = study.cells()
    assert len(cells) == 4 * 5
    assert len(study.cells("full")) == 4 * 9
    sizes = {get(cell.run, "model.quantiser.size") for cell in study.cells("paper")}
    assert sizes == {16, 64, 128, 256, 512}  # 16 where the levels are turned
    kinds = {cell.levels["arm"]: get(cell.run, "model.quantiser.kind") for cell in cells}
    assert kinds["MGR-EF rqkmeans"] == "rqkmeans"
    assert get(study.arms["MGR-EF"], "model.fusion") == "early"


@pytest.mark.slow
def test_instruments_is_planned_as_it_lies_there(data_root):
    data = load(INSTRUMENTS, data_root=data_root)
    asked = asked_of(INSTRUMENTS, data)
    study = FUSION.on(replace(asked, choices={c.name: c.default for c in FUSION.choices}))
    assert arm_of(study, "MGR-LF").modalities == ("text_codes", "image_codes")
    for condition in shaped(dataset=INSTRUMENTS, conditions="knockout").conditions:
        assert apply(condition, data).condition == condition.name
