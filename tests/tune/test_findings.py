"""What the pre-flight says of what nodes answered."""

from typing import Any

import pytest

from mmrec.tune.findings import ANSWER_SECONDS, Expected, Node, findings, table, warnings

EXPECTED = Expected(
    {"python": "3.11", "ray": "2.60.0", "torch": "2.13.0", "mmrec": "0.1.0", "code": "aaaa"},
    "d1",
    "/shared/run",
    gpus=0.0,
)
ON_GPUS = Expected(EXPECTED.versions, "d1", "/shared/run", gpus=0.5)
NODE = Node("n1", "h1 10.0.0.1", gpus=2.0)


def facts(**changed: Any) -> dict[str, Any]:
    """Of a node on which nothing is wrong, but for what is changed; an Exception is an error."""
    errors = {name: str(v.args[0]) for name, v in changed.items() if isinstance(v, Exception)}
    values = {name: v for name, v in changed.items() if name not in errors}
    usual = {**EXPECTED.versions, "storage": True, "returned": True, "dataset": "d1", "gpus": 2}
    told = {**usual, "free": 2**40, "skew": 0.01, "ended": 0.0, **values}
    return {name: v for name, v in told.items() if name not in errors} | {"errors": errors}


def test_a_node_that_agrees():
    assert findings(EXPECTED, NODE, facts()) == findings(ON_GPUS, NODE, facts()) == []


@pytest.mark.parametrize("name", EXPECTED.versions)
def test_a_version_that_differs_is_said_with_the_expected_one(name):
    (text,) = findings(EXPECTED, NODE, facts(**{name: "0.0"}))
    assert text == f"{name} 0.0, expected {EXPECTED.versions[name]}"


def test_a_node_without_the_package_says_so_once():
    gone = ImportError("ModuleNotFoundError: No module named 'mmrec'")
    found = findings(EXPECTED, NODE, facts(code=gone, storage=gone, dataset=gone))
    assert found == ["code: ModuleNotFoundError: No module named 'mmrec', expected aaaa"]


def test_storage_is_looked_at_from_both_sides():
    (unseen,) = findings(EXPECTED, NODE, facts(storage=False, returned=False))
    (unheard,) = findings(EXPECTED, NODE, facts(returned=False))
    (unwritable,) = findings(EXPECTED, NODE, facts(storage=OSError("PermissionError: 13")))
    assert unseen == "storage /shared/run is not shared: what the driver wrote is not there"
    assert unheard.startswith("storage /shared/run is not shared: the driver does not see")
    assert unwritable == "storage /shared/run: PermissionError: 13"


def test_a_dataset_that_came_out_otherwise():
    (text,) = findings(EXPECTED, NODE, facts(dataset="d2"))
    assert text == "what it was given of the dataset is d2, expected d1"


def test_gpus_are_counted_only_if_trials_want_them_and_the_node_has_some():
    blind = facts(gpus=1)
    assert findings(EXPECTED, NODE, blind) == []
    assert findings(ON_GPUS, NODE, blind) == ["torch sees 1 GPU(s), Ray promises 2"]
    assert findings(ON_GPUS, Node("head", "h0", gpus=0.0), facts(gpus=0)) == []
    (text,) = findings(ON_GPUS, NODE, facts(gpus=RuntimeError("RuntimeError: no driver")))
    assert text == "GPUs: RuntimeError: no driver"


@pytest.mark.parametrize(
    ("skew", "said"),
    [(4.9, []), (-4.9, []), (61.2, ["61 s ahead of"]), (-5.6, ["6 s behind"])],
)
def test_clocks_may_differ_by_five_seconds(skew, said):
    found = findings(EXPECTED, NODE, facts(skew=skew))
    assert [
        text.removeprefix("its clock is ").removesuffix(" the driver's") for text in found
    ] == said


def test_no_answer_and_a_lost_task_are_findings():
    assert findings(EXPECTED, NODE, None) == [f"no answer in {ANSWER_SECONDS:.0f} s"]
    assert findings(EXPECTED, NODE, {"lost": "Boom"}) == ["the check failed: Boom"]


def test_little_space_is_a_warning():
    assert findings(EXPECTED, NODE, facts(free=2**20)) == []
    assert warnings(facts(free=2**30 - 2**20)) == ["1023 MiB are free where the run folder is"]
    assert warnings(facts(free=2**30)) == warnings(facts(free=None)) == warnings({}) == []


def test_the_table_has_a_line_for_every_node():
    nodes = [Node("a", "head 10.0.0.1", 0.0), Node("b", "h2 10.0.0.22", 1.0)]
    text = table(nodes, {"a": [], "b": ["ray 1, expected 2", "no x"]}, {"a": ["low"], "b": []})
    assert text.splitlines() == [
        "pre-flight: 1 of 2 node(s) cannot take part; no trial was started",
        "  head 10.0.0.1  ok; low",
        "  h2 10.0.0.22   ray 1, expected 2; no x",
    ]
