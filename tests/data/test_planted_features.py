import dataclasses
from statistics import NormalDist

import numpy as np
import pytest

from mmrec.data.dataset import Dense, Tags
from mmrec.data.planted import Planted, planted, planted_raw
from mmrec.data.planted_features import Modality
from tests.data.probes import cosine, explained, share_explained, table, values

SMALL = Planted(users=60, items=120, interactions=1200)


def signal(data, name):
    """Mean cosine of two items of one user, less that of two items at random."""
    cosine_II = cosine(values(data, name))
    liked_UI = np.zeros((data.num_users, data.num_items))
    liked_UI[data.train[:, 0], data.train[:, 1]] = 1
    together_II = liked_UI.T @ liked_UI
    np.fill_diagonal(together_II, 0)
    apart = ~np.eye(data.num_items, dtype=bool)
    return np.average(cosine_II, weights=together_II) - cosine_II[apart].mean()


def test_items_of_one_user_are_alike_as_far_as_a_modality_informs():
    levels = [0.0, 0.3, 0.6, 1.0]
    modalities = tuple(Modality(name=f"m{n}", informativeness=v) for n, v in enumerate(levels))
    data = planted(Planted(modalities=modalities))
    found = [signal(data, f"m{n}") for n in range(4)]
    assert found == sorted(found)
    assert abs(found[0]) < 0.01
    assert found[3] > 0.04


def test_an_encoder_shows_the_share_of_the_same_latent_that_it_keeps():
    """As wide as what they keep and without white noise, columns are the factors, turned."""
    informed, third = 0.7, {"width": 8, "kept": 1 / 3}
    text, image = (
        Modality(name=name, width=24, informativeness=informed, noise=0)
        for name in ("text", "image")
    )
    modalities = (
        text,
        image,
        *(
            dataclasses.replace(m, name=f"{m.name}_b", encodes=m.name, **third)
            for m in (text, image)
        ),
        dataclasses.replace(text, name="text_c", encodes="text"),
        dataclasses.replace(text, name="taste", informativeness=1.0),
    )
    spec = Planted(users=20, items=3000, interactions=400, modalities=modalities, factors=24)
    raw = planted_raw(spec)
    expected = {
        # Taste is a share of the variance of each latent factor.
        ("taste", "text"): informed,
        ("taste", "text_b"): informed / 3,
        # Encoders of one modality differ in what they keep, and in nothing else.
        ("text", "text_c"): 1,
        ("text_b", "text"): 1,
        ("text", "text_b"): 1 / 3,
        # Two modalities have taste in common.
        ("text", "image"): informed**2,
        ("text_b", "image_b"): informed**2,
        ("text_b", "image"): informed**2,
    }
    found = {pair: explained(raw, *pair) for pair in expected}
    assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("side", ["items", "users"])
def test_what_is_not_dense_shows_taste_as_far_as_it_informs(side):
    """Shares of variance that a linear regression on taste explains, by closed form.

    Of a number, its informativeness v. Of whether a normal column is beyond a quantile q that a
    share s exceeds, v density(q)^2 / s (1 - s), the squared correlation of a normal variable and
    such a mark: for the higher of two columns, where q is 0, that is v 2 / pi.
    """
    modalities = [Modality(name="taste", width=6, informativeness=1.0, noise=0.0)]
    for v in (0.0, 0.5):
        modalities += [
            Modality(name=f"number {v}", kind="number", width=1, informativeness=v, noise=0),
            Modality(name=f"category {v}", kind="category", width=2, informativeness=v, noise=0),
            Modality(name=f"tags {v}", kind="tags", width=16, informativeness=v, noise=0),
        ]
    known = tuple(modalities)
    spec = Planted(users=20, items=20, interactions=100, factors=6, modalities=())
    if side == "items":
        found = planted_raw(dataclasses.replace(spec, items=4000, modalities=known)).features
    else:
        raw = planted_raw(dataclasses.replace(spec, users=4000, user_modalities=known))
        found = raw.user_features
    quantile = NormalDist().inv_cdf(1 - 0.35)
    of_tag = NormalDist().pdf(quantile) ** 2 / (0.35 * 0.65)
    for v in (0.0, 0.5):
        for kind, expected in (("number", v), ("category", v * 2 / np.pi), ("tags", v * of_tag)):
            first_N1 = table(found[f"{kind} {v}"])[:, :1]
            shown = share_explained(first_N1, table(found["taste"]))
            assert shown == pytest.approx(expected, abs=0.03)


def test_tags_differ_in_frequency_and_nobody_is_without():
    genres = Modality(name="genres", kind="tags", width=16)
    found = planted_raw(dataclasses.replace(SMALL, items=1000, modalities=(genres,)))
    feature = found.features["genres"]
    assert isinstance(feature, Tags)
    assert feature.present.all()
    assert feature.names[:2] == ("genres-00", "genres-01")
    share_F = np.bincount(feature.ids, minlength=16) / 1000
    expected_F = 0.35 / np.sqrt(np.arange(1, 17))
    # The few who would have no tag have the nearest one on top.
    assert (share_F >= expected_F - 1e-3).all()
    assert (share_F - expected_F).sum() < 0.15


def test_the_modalities_of_users_change_nothing_else():
    """Not even one of the same name as one of the items."""
    both = dataclasses.replace(
        SMALL,
        user_modalities=(
            Modality(name="text", width=32),
            Modality(name="job", kind="category", width=4, missing=0.25),
            Modality(name="age", kind="number", width=1, missing=0.1),
        ),
    )
    data, alone = planted(both), planted(SMALL)
    assert dataclasses.replace(data, user_features={}).digest == alone.digest
    for name, missing in (("text", 0), ("job", 15), ("age", 6)):
        assert (~data.user_features[name].present).sum() == missing
    age = data.user_features["age"]
    assert isinstance(age, Dense)
    assert (age.values[age.present].min(), age.values[age.present].max()) == (0, 1)
    twins = share_explained(table(data.user_features["text"]), values(data, "text")[:60])
    assert twins == pytest.approx(32 / 59, abs=0.1)  # as that of 32 random columns


def test_a_modality_does_not_depend_on_the_others():
    alone = planted(dataclasses.replace(SMALL, modalities=(Modality(name="image", width=48),)))
    np.testing.assert_array_equal(values(alone, "image"), values(planted(SMALL), "image"))


def test_noise_correlates_as_much_as_asked():
    def correlation(asked):
        # As wide as the factors and free of taste and white noise, cosines show the noise alone.
        blind = Modality(name="a", width=200, informativeness=0, noise=0)
        modalities = (blind, dataclasses.replace(blind, name="b"))
        spec = Planted(
            users=30,
            items=120,
            interactions=600,
            modalities=modalities,
            factors=8,
            noise_correlation=asked,
        )
        pair = np.triu_indices(120, 1)
        a, b = (cosine(values(planted(spec), name))[pair] for name in "ab")
        return np.corrcoef(a, b)[0, 1]

    assert abs(correlation(0.0)) < 0.03
    # Products of two rows share both factors: noise correlated by c gives cosines by c^2.
    assert correlation(0.5) == pytest.approx(0.25, abs=0.06)
    assert correlation(1.0) > 0.95


def test_missing_rows_are_as_many_as_asked_and_zero():
    modality = Modality(name="text", missing=0.25)
    feature = planted(dataclasses.replace(SMALL, modalities=(modality,))).features["text"]
    assert isinstance(feature, Dense)
    assert (~feature.present).sum() == 30
    assert not feature.values[~feature.present].any()
    assert feature.values[feature.present].any(axis=1).all()


@pytest.mark.parametrize(
    "modality",
    [
        Modality(name="a", kind="number", width=2),
        Modality(name="a", kind="category", width=1),
        Modality(name="a", kind="tags", width=1),
    ],
)
def test_a_width_that_does_not_fit_the_kind_is_refused(modality):
    message = f"'a' of kind '{modality.kind}' has width {modality.width}: a number has 1 column"
    with pytest.raises(ValueError, match=message):
        planted(dataclasses.replace(SMALL, user_modalities=(modality,)))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"encodes": "b"}, "'b' encodes 'b', which has no latent rows of its own; there are: a"),
        ({"encodes": "c"}, "'b' encodes 'c', which has no latent rows of its own; there are: a"),
        (
            {"encodes": "a", "informativeness": 0.1},
            "'b' has an informativeness of 0.1, but that of 'a', whose latent rows it shows, is",
        ),
    ],
)
def test_an_encoder_of_what_has_no_such_latent_is_refused(encoder, message):
    modalities = (Modality(name="a"), Modality(name="b", **encoder))
    with pytest.raises(ValueError, match=message):
        planted(dataclasses.replace(SMALL, modalities=modalities))
