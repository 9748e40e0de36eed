import dataclasses
import math
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Interval
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mmrec.config import canonical, changed, config, differences, digest, get, override


@config
class Inner:
    width: Annotated[int, Ge(1)] = 8
    share: Annotated[float, Interval(ge=0, le=1)] = 0.5
    kind: Literal["a", "b"] = "a"
    layers: tuple[int, ...] = (4, 4)


@config
class Other:
    width: int = 8


@config
class Outer:
    inner: Inner | Other = Inner()
    rate: float = 0.1
    flag: bool = False
    name: str | None = None


def test_override_reaches_nested_values_and_leaves_the_original():
    before = Outer()
    after = override(before, {"inner.width": 3, "rate": 0.2})
    assert after == Outer(inner=Inner(width=3), rate=0.2)
    assert before == Outer()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("inner.widht", r"'inner.widht': Inner has no 'widht'; did you mean 'width'\?"),
        ("iner.width", r"'iner.width': Outer has no 'iner'; did you mean 'inner'\?"),
        ("inner.zzz", "Inner has no 'zzz'; it has width, share, kind, layers"),
        ("rate.x", "'rate.x': 'rate' is a plain value and has no 'x'"),
    ],
)
def test_override_of_a_path_that_is_not_there_names_the_nearest(path, message):
    with pytest.raises(KeyError, match=message):
        override(Outer(), {path: 1})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("inner.width", 0),
        ("inner.width", "8"),
        ("inner.width", 8.0),
        ("inner.width", True),
        ("inner.width", np.int64(8)),
        ("inner.share", 1.5),
        ("inner.share", math.nan),
        ("inner.kind", "c"),
        ("inner.layers", 4),
        ("flag", 1),
        ("rate", "0.1"),
        ("rate", None),
    ],
)
def test_override_checks_the_new_value(path, value):
    with pytest.raises(ValidationError):
        override(Outer(), {path: value})


def test_a_config_is_frozen_and_takes_no_unknown_field():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outer().rate = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="speed"):
        Outer(speed=1)  # type: ignore[call-arg]


def test_a_json_list_becomes_the_tuple_that_the_field_holds():
    assert get(override(Outer(), {"inner.layers": [2, 1]}), "inner.layers") == (2, 1)


def test_get_says_what_is_missing():
    assert get(Outer(), "inner.share") == 0.5
    with pytest.raises(KeyError, match="Inner has no 'zzz'"):
        get(Outer(), "inner.zzz")
    with pytest.raises(KeyError, match="float has no 'x'"):
        get(Outer(), "rate.x")


short = st.text("abc", max_size=3)  # all of Unicode takes seconds to lay out
values = st.fixed_dictionaries(
    {},
    optional={
        "inner.width": st.integers(1, 99),
        "inner.share": st.floats(0, 1),
        "inner.kind": st.sampled_from("ab"),
        "inner.layers": st.lists(st.integers(), max_size=3).map(tuple),
        "rate": st.floats(allow_nan=False, allow_infinity=False),
        "flag": st.booleans(),
        "name": st.none() | short,
    },
)


@settings(deadline=None)
@given(values)
def test_differences_lead_from_the_base_to_the_config(changes: dict[str, Any]):
    cfg = override(Outer(), changes)
    found = dict(differences(cfg, Outer()))
    assert override(Outer(), found) == cfg
    assert found == {k: v for k, v in changes.items() if v != get(Outer(), k)}


def test_a_config_of_another_class_is_one_difference():
    other = Outer(inner=Other())
    assert dict(differences(other, Outer())) == {"inner": Other()}


@settings(deadline=None)
@given(values, values)
def test_configs_have_one_digest_where_they_are_equal_and_two_where_not(one, two):
    first, second = override(Outer(), one), override(Outer(), two)
    assert (digest(changed(first)) == digest(changed(second))) == (first == second)


def test_a_default_that_a_later_version_adds_renames_nothing():
    def version(**more: Any) -> type:
        names = {"lr": float, **{k: type(v) for k, v in more.items()}}
        return config(type("Model", (), {"__annotations__": names, "lr": 0.1, **more}))

    old, new = version(), version(depth=2)
    for given_ in ({}, {"lr": 0.3}):
        assert digest(changed(old(**given_))) == digest(changed(new(**given_)))
    assert digest(changed(new(depth=3))) != digest(changed(new()))


def test_the_class_is_part_of_the_name():
    assert digest(changed(Outer(inner=Inner()))) != digest(changed(Outer(inner=Other())))


def test_a_number_has_one_spelling():
    assert digest([0.0, {"a": -0.0}]) == digest((-0.0, {"a": 0.0}))
    assert digest(changed(Outer(rate=-0.0))) == digest(changed(Outer(rate=0.0)))
    assert digest(changed(Outer(rate=2))) == digest(changed(Outer(rate=2.0)))
    assert digest(np.float64(0.3)) == digest(0.3)
    assert digest(0.1 + 0.2) != digest(0.3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_what_is_not_finite_names_nothing(bad):
    with pytest.raises(ValueError, match="must be finite"):
        digest({"a": [1.0, (bad,)]})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | short
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short, inner),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(short, json_values))
def test_the_order_of_keys_does_not_matter(value):
    backwards = dict(reversed(value.items()))
    assert digest(backwards) == digest(value)
    assert canonical(canonical(value)) == canonical(value)


def test_a_digest_is_that_of_sorted_json():
    # echo -n '{"a": 0.0, "b": [1, "x"]}' | sha256sum
    assert digest({"b": (1, "x"), "a": -0.0}) == "f551827b838b81d5"
