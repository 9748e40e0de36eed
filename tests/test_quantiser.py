import dataclasses
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from mmrec.data.sources import load
from mmrec.nn import quantiser
from mmrec.nn.quantiser import Quantiser, batches, fitted, forget, measured
from mmrec.nn.rqvae import RQVAE, nearest_word, residual_codes

F64 = torch.float64
KINDS = ("rqkmeans", "rqvae")
TINY = Quantiser(levels=2, size=4, hidden=(8,), latent=4, steps=20, lr=0.01)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path / "cache"))


def model_of(hidden: tuple[int, ...] = (), errors: quantiser.Errors = "sum") -> RQVAE:
    init = torch.Generator().manual_seed(3)
    made = RQVAE((5, *hidden, 3), (4, 6, 2), beta=0.3, errors=errors, init=init)
    made.word_WD.data.mul_(4)  # so that words of all levels matter
    return made.double()


def rows_of(count: int, width: int = 5) -> torch.Tensor:
    return torch.randn(count, width, dtype=F64, generator=torch.Generator().manual_seed(5))


def additive_clusters() -> tuple[np.ndarray, np.ndarray]:
    """(rows, (N, 2) which coarse and which fine shift each has): 4 x 4 kinds of 4 rows."""
    coarse = 3.0 * np.eye(4, 6)
    fine = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) @ np.eye(2, 6, k=4)
    kinds = np.array(np.unravel_index(np.arange(64) % 16, (4, 4))).T
    noise = 0.01 * np.random.default_rng(0).standard_normal((64, 6))
    return (coarse[kinds[:, 0]] + fine[kinds[:, 1]] + noise).astype(np.float32), kinds


def all_of(x: np.ndarray) -> np.ndarray:
    return np.ones(len(x), dtype=np.bool_)


# --- the residual scheme


def dense_scheme(z: np.ndarray, books: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """(what a level is given, the codes, the words) of each level, from all distances."""
    levels = []
    for book in books:
        code = ((z[:, None] - book[None]) ** 2).sum(-1).argmin(1)
        levels.append((z, code, book[code]))
        z = z - book[code]
    return levels


def test_codes_are_the_nearest_words_of_what_is_left_over():
    rng = np.random.default_rng(0)
    z, books = (
        rng.normal(size=(40, 3)),
        [s * rng.normal(size=(k, 3)) for s, k in ((1, 5), (0.5, 7))],
    )
    found = residual_codes(torch.tensor(z), [torch.tensor(book) for book in books])
    expected = np.stack([code for _, code, _ in dense_scheme(z, books)], 1)
    np.testing.assert_array_equal(found, expected)


def test_of_equal_words_the_first_is_chosen():
    book = torch.tensor([[9.0], [1.0], [3.0], [1.0]])
    assert nearest_word(torch.tensor([[1.0], [2.0], [8.0]]), book).tolist() == [1, 1, 0]


@pytest.mark.parametrize("errors", ["sum", "mean"])
def test_loss_and_gradients_are_those_of_the_formula(errors):
    """With linear maps every gradient can be written down."""
    model, x = model_of(errors=errors), rows_of(9)
    named = {n: p.detach().numpy() for n, p in model.named_parameters()}
    enc, enc_b, dec, dec_b = (
        named[f"{side}.0.{kind}"] for side in ("encoder", "decoder") for kind in ("weight", "bias")
    )
    z = x.numpy() @ enc.T + enc_b
    levels = dense_scheme(z, np.split(named["word_WD"], [4, 10]))
    total = sum(word for _, _, word in levels)
    per_row, per_code = (9 * 5, 9 * 3) if errors == "mean" else (9, 9)
    lost = total @ dec.T + dec_b - x.numpy()
    apart = sum((r - word) ** 2 for r, _, word in levels).sum() / per_code

    terms = model.losses(x)
    np.testing.assert_array_equal(terms.code_BL, np.stack([code for _, code, _ in levels], 1))
    expected = (lost**2).sum() / per_row, apart, 0.3 * apart
    np.testing.assert_allclose([term.item() for term in terms[:3]], expected, rtol=1e-12)
    np.testing.assert_allclose(terms.total.item(), sum(expected), rtol=1e-12)

    back = 2 * lost / per_row
    words = np.zeros_like(named["word_WD"])
    for first, (r, code, word) in zip((0, 4, 10), levels, strict=True):
        np.add.at(words, first + code, 2 * (word - r) / per_code)
    commit = sum(2 * 0.3 * (r - word) / per_code for r, _, word in levels)
    nothing = {name: np.zeros_like(value) for name, value in named.items()}
    through = back @ dec  # as if the quantiser were the identity
    encoder = "encoder.0.weight", "encoder.0.bias"
    expected_of = {
        "reconstruction": dict(zip(encoder, (through.T @ x.numpy(), through.sum(0)), strict=True))
        | {"decoder.0.weight": back.T @ total, "decoder.0.bias": back.sum(0)},
        "codebook": {"word_WD": words},
        "commitment": dict(zip(encoder, (commit.T @ x.numpy(), commit.sum(0)), strict=True)),
    }
    for term, expected in expected_of.items():
        found = torch.autograd.grad(
            getattr(terms, term),
            list(model.parameters()),
            retain_graph=True,
            materialize_grads=True,
        )
        for name, gradient in zip(named, found, strict=True):
            want = (nothing | expected)[name]
            np.testing.assert_allclose(gradient, want, rtol=1e-10, atol=1e-12, err_msg=term + name)


def test_maps_have_a_relu_between_them_and_the_decoder_goes_backwards():
    model, x = model_of(hidden=(7, 4)), rows_of(6)
    maps = {n: p.detach().numpy() for n, p in model.named_parameters() if n != "word_WD"}
    assert [maps[f"decoder.{at}.weight"].shape for at in range(3)] == [(4, 3), (7, 4), (5, 7)]

    def through(side: str, h: np.ndarray) -> np.ndarray:
        for at in range(3):
            h = np.maximum(h, 0) if at else h
            h = h @ maps[f"{side}.{at}.weight"].T + maps[f"{side}.{at}.bias"]
        return h

    z = through("encoder", x.numpy())
    np.testing.assert_allclose(model.encode(x).detach(), z, rtol=1e-12)
    levels = dense_scheme(z, [book.numpy() for book in model.books()])
    codes = torch.tensor(np.stack([code for _, code, _ in levels], 1))
    decoded = through("decoder", sum(word for _, _, word in levels))
    np.testing.assert_allclose(model.decode(codes).detach(), decoded, rtol=1e-12)


def test_dead_words_are_set_to_what_their_level_is_given():
    model, x = model_of(), rows_of(9)
    before = [book.clone() for book in model.books()]
    dead = torch.zeros(12, dtype=torch.bool)
    dead[[1, 3, 5]] = True  # two of the first level, one of the second
    model.revive(x, dead, torch.Generator().manual_seed(0))
    after = model.books()
    alive = ~dead
    torch.testing.assert_close(torch.cat(after)[alive], torch.cat(before)[alive], rtol=0, atol=0)
    z = model.encode(x).detach()
    left = z - after[0][residual_codes(z, after[:1])[:, 0]]
    for word, given_rows in ((after[0][1], z), (after[0][3], z), (after[1][1], left)):
        assert (given_rows == word).all(1).any()
    assert not torch.equal(after[0][1], after[0][3])


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adagrad])
def test_an_optimiser_meets_revived_words_as_if_they_were_new(kind):
    table = torch.nn.Parameter(torch.zeros(3, 2))
    optimizer = kind([table], lr=0.5, weight_decay=0, eps=1e-12)
    table.grad = torch.ones_like(table)
    optimizer.step()
    forget(optimizer, table, torch.tensor([False, True, False]))
    for memory in optimizer.state[table].values():
        if memory.shape == table.shape:
            assert (memory == 0).all(1).tolist() == [False, True, False]


def test_words_start_where_k_means_puts_them_and_are_repeated_where_it_has_fewer():
    model = model_of()
    x = rows_of(3).repeat(5, 1)  # three distinct rows, books of 4, 6 and 2
    model.start_books(x, iterations=10, seeds=[0, 1, 2])
    z = model.encode(x).detach()
    first, second, third = model.books()
    assert torch.cdist(z[:3], first).min(1).values.max() < 1e-12
    torch.testing.assert_close(first[3], first[0], rtol=0, atol=0)
    assert max(second.abs().max(), third.abs().max()) < 1e-12  # nothing is left over


# --- what is fitted


@pytest.mark.parametrize("kind", KINDS)
def test_planted_codes_are_found_up_to_renaming(kind):
    x, kinds = additive_clusters()
    cfg = dataclasses.replace(TINY, kind=kind, scale="none", hidden=(), latent=16, steps=60)
    found = fitted(x, all_of(x), cfg, seed=0)
    assert found.sizes == (4, 4)
    for kind_N, code_N in zip(kinds.T, found.codes.T, strict=True):
        assert adjusted_rand_score(kind_N, code_N) == 1
    assert found.measures["usage"] == 1
    np.testing.assert_allclose(found.measures["perplexity"], 1, rtol=1e-12)
    assert found.measures["collisions"] == 1  # with the three other rows of its kind
    assert found.measures["reconstruction"] > (0.999 if kind == "rqkmeans" else 0.95)


def test_revival_keeps_books_in_use():
    """Words start around the origin and vectors lie far off: one word would have all rows."""
    x = 20 + np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    far = dataclasses.replace(TINY, size=8, scale="none", hidden=(), init_rows=0, steps=60)
    for every in (0, 60):  # at the very end nothing is revived
        never = fitted(x, all_of(x), dataclasses.replace(far, revive_every=every), 0)
        assert never.measures["usage"] == 1 / 8
    often = fitted(x, all_of(x), dataclasses.replace(far, revive_every=5), 0)
    assert often.measures["usage"] > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_missing_rows_threads_and_global_generators_have_no_part_in_it(kind, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    x, present = rng.normal(size=(30, 6)).astype(np.float32), rng.random(30) < 0.7
    cfg = dataclasses.replace(TINY, kind=kind, batch_size=8)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - unused by us
    first = fitted(x, present, cfg, seed=4)
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path / "other"))
    x[~present] = np.nan
    torch.set_num_threads(2)
    try:
        again = fitted(x, present, cfg, seed=4)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    np.testing.assert_array_equal(again.codes, first.codes)
    assert again[1:] == first[1:]
    assert not first.codes[~present].any()
    assert first.codes[present].any()


def test_the_same_is_fitted_once(monkeypatch):
    built = []
    fit = quantiser._fit
    monkeypatch.setattr(quantiser, "_fit", lambda *args: built.append(1) or fit(*args))
    x, _ = additive_clusters()
    cfg = dataclasses.replace(TINY, kind="rqkmeans")
    first = fitted(x, all_of(x), cfg, 0)
    again = fitted(x.copy(), all_of(x), cfg, 0)
    assert len(built) == 1
    np.testing.assert_array_equal(again.codes, first.codes)
    assert again[1:] == first[1:]
    fitted(x, all_of(x), cfg, 1)
    fitted(x + 1, all_of(x), cfg, 0)
    fitted(x, np.arange(len(x)) > 0, cfg, 0)
    fitted(x, all_of(x), dataclasses.replace(cfg, size=3), 0)
    assert len(built) == 5


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=12),
    st.integers(2, 6),
    st.integers(0, 9),
)
def test_laws_of_k_means_of_residuals(rows, size, seed):
    """Few distinct rows, so that books are cut short and levels have nothing left over."""
    x = np.array(rows, dtype=np.float32)
    kept, before = [], None
    for levels in (1, 2, 3):
        cfg = Quantiser(kind="rqkmeans", levels=levels, size=size, scale="none")
        found = fitted(x, all_of(x), cfg, seed)
        assert_lawful(found, x, size)
        if before is not None:  # the same levels and one more
            np.testing.assert_array_equal(found.codes[:, :-1], before)
        before = found.codes
        kept.append(found.measures["reconstruction"])
    assert kept == sorted(kept)


@settings(max_examples=4, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=12))
def test_laws_of_the_autoencoder(rows):
    x = np.array(rows, dtype=np.float32)
    found = fitted(x, all_of(x), dataclasses.replace(TINY, steps=3, revive_every=1), 0)
    assert_lawful(found, x, TINY.size)
    assert found.sizes == (min(4, len(set(rows))),) * 2


def assert_lawful(found: quantiser.Fitted, x: np.ndarray, size: int) -> None:
    distinct = len(np.unique(x, axis=0))
    assert len(found.sizes) == found.codes.shape[1]
    assert max(found.sizes) <= min(size, distinct)
    assert found.codes.min() >= 0
    assert (found.codes < found.sizes).all()
    measures = found.measures
    assert measures["reconstruction"] <= 1
    assert 0 < measures["perplexity"] <= measures["usage"] + 1e-12
    assert measures["usage"] <= 1
    assert 0 <= measures["collisions"] <= 1
    # Rows that are alike cannot be told apart.
    _, count = np.unique(x, axis=0, return_counts=True)
    assert measures["collisions"] >= count[count > 1].sum() / len(x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["standardise", "none"])
def test_vectors_that_are_all_alike_have_one_code(kind, scale):
    x = np.full((5, 3), 0.1, dtype=np.float32)
    found = fitted(x, all_of(x), dataclasses.replace(TINY, kind=kind, scale=scale), 0)
    assert not found.codes.any()
    assert found.sizes == (1, 1)
    want = {"reconstruction": 1.0, "usage": 1.0, "perplexity": 1.0, "collisions": 1.0}
    assert found.measures == want


@pytest.mark.parametrize(
    ("scale", "factor", "same"),
    [
        ("standardise", 2.0 ** np.arange(6), True),
        ("unit", 2.0 ** (np.arange(64)[:, None] % 7), True),
        ("both", 2.0 ** np.arange(6), True),
        ("none", 2.0 ** np.arange(6), False),
        ("unit", 2.0 ** np.arange(6), False),
        ("standardise", 2.0 ** (np.arange(64)[:, None] % 7), False),
    ],
)
def test_what_is_scaled_away_has_no_part_in_codes(scale, factor, same):
    """Powers of two, so that the same is the same to the last bit."""
    x = np.random.default_rng(2).normal(size=(64, 6)).astype(np.float32)
    cfg = dataclasses.replace(TINY, kind="rqkmeans", scale=scale)
    found, other = (fitted(v, all_of(x), cfg, 0) for v in (x, (x * factor).astype(np.float32)))
    assert np.array_equal(found.codes, other.codes) == same
    assert (found.measures == other.measures) == same


def test_rows_are_scaled_after_columns():
    x, _ = additive_clusters()
    cfg = dataclasses.replace(TINY, kind="rqkmeans")
    found = fitted(x, all_of(x), dataclasses.replace(cfg, scale="both"), 0)
    by_column = StandardScaler().fit_transform(x).astype(np.float32)
    expected = fitted(by_column, all_of(x), dataclasses.replace(cfg, scale="unit"), 0)
    np.testing.assert_array_equal(found.codes, expected.codes)
    for name, value in expected.measures.items():
        np.testing.assert_allclose(found.measures[name], value, rtol=1e-5)


def test_measures_by_hand():
    x = np.array([[0.0, 0], [0, 2], [4, 0], [4, 2]])  # about (2, 1): 4 * (4 + 1)
    decoded = np.array([[0.0, 1], [0, 1], [4, 0], [4, 2]])  # lost: 1 + 1
    codes = np.array([[0, 0], [0, 0], [1, 0], [1, 2]])
    found = measured(x, decoded, codes, (2, 4))
    assert found["reconstruction"] == 0.9
    assert found["usage"] == (1 + 0.5) / 2
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    np.testing.assert_allclose(found["perplexity"], (1 + np.exp(entropy) / 4) / 2, rtol=1e-15)
    assert found["collisions"] == 0.5


def test_batches_pass_over_all_rows_and_are_of_one_size():
    x = torch.arange(10.0)[:, None]
    rng = torch.Generator().manual_seed(0)
    drawn = [batch.flatten() for batch in islice(batches(x, 4, rng), 5)]
    assert {len(batch) for batch in drawn} == {4}
    for ten in torch.cat(drawn).split(10):
        assert sorted(ten.tolist()) == list(range(10))
    (whole,) = islice(batches(x, 10, rng), 1)
    assert torch.equal(whole, x)


# --- what is refused


def test_a_loss_that_is_not_finite_names_its_step():
    x, _ = additive_clusters()
    with pytest.raises(
        FloatingPointError, match=r"step [23] of the quantiser: its loss is (nan|inf)"
    ):
        fitted(x, all_of(x), dataclasses.replace(TINY, lr=1e25), 0)


def test_vectors_that_cannot_be_quantised_are_refused():
    x, _ = additive_clusters()
    with pytest.raises(ValueError, match=r"present \(N,\), got \(64, 6\) and \(3,\)"):
        fitted(x, np.ones(3, dtype=np.bool_), TINY, 0)
    with pytest.raises(ValueError, match="none of 64 rows"):
        fitted(x, ~all_of(x), TINY, 0)
    x[[3, 5], 1] = np.inf
    with pytest.raises(ValueError, match="2 of 64 vectors"):
        fitted(x, all_of(x), TINY, 0)


# --- at size


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "adamw"])
def test_training_keeps_more_of_planted_vectors_than_its_start(optimizer):
    feature = load("planted").features["image"]
    lr = 0.1 if optimizer == "adagrad" else 0.01
    cfg = Quantiser(size=16, hidden=(64,), latent=16, optimizer=optimizer, lr=lr)
    kept = {
        steps: fitted(
            feature.values, feature.present, dataclasses.replace(cfg, steps=steps), 0
        ).measures
        for steps in (1, 300)
    }
    assert kept[1]["reconstruction"] < 0.1
    assert kept[300]["reconstruction"] > 0.5
    assert kept[300]["usage"] > 0.95
