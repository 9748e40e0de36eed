import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec.nn.semantic_ids import BEGIN, FIRST, PADDING, semantic_ids

TEXT = (
    "text",
    np.array([[0, 2], [1, 0], [0, 2], [1, 0], [0, 2]]),
    (2, 3),
    np.ones(5, dtype=np.bool_),
)
# Item 3 lacks it; what its row holds does not count.
IMAGE = (
    "image",
    np.array([[3], [0], [3], [2], [3]]),
    (4,),
    np.array([True, True, True, False, True]),
)


def test_two_modalities_a_missing_row_and_a_collision():
    found = semantic_ids([TEXT, IMAGE], transition_tokens=True)
    # text, text, transition, image (4 is "missing"), which of those alike
    expected = [[0, 2, 0, 3, 0], [1, 0, 0, 0, 0], [0, 2, 0, 3, 1], [1, 0, 0, 4, 0], [0, 2, 0, 3, 2]]
    assert found.code_IT.tolist() == expected
    assert found.sizes == (2, 3, 1, 5, 3)
    assert found.spans == {"text": slice(0, 2), "image": slice(3, 4)}
    assert found.collisions == 3 / 5
    # 0 padding, 1 begin, 2-3, 4-6, 7, 8-12, 13-15
    assert (PADDING, BEGIN, FIRST) == (0, 1, 2)
    assert found.first_T.tolist() == [2, 4, 7, 8, 13]
    assert found.token_IT[2].tolist() == [2, 6, 7, 11, 14]
    assert found.vocabulary == 16


def test_without_transition_and_the_other_order():
    found = semantic_ids([IMAGE, TEXT], transition_tokens=False)
    assert found.code_IT[:, :3].tolist() == [[3, 0, 2], [0, 1, 0], [3, 0, 2], [4, 1, 0], [3, 0, 2]]
    assert found.sizes == (5, 2, 3, 3)
    assert found.spans == {"image": slice(0, 1), "text": slice(1, 3)}


def test_ids_that_differ_need_no_position_more():
    name, codes, sizes, present = TEXT
    found = semantic_ids([(name, codes[:2], sizes, present[:2])], transition_tokens=True)
    assert found.code_IT.tolist() == codes[:2].tolist()
    assert found.sizes == (2, 3)
    assert found.collisions == 0
    assert found.vocabulary == 2 + 2 + 3


def test_items_that_lack_everything_are_told_apart():
    nothing = np.zeros(2, dtype=np.bool_)
    found = semantic_ids([("text", np.zeros((2, 1), int), (1,), nothing)], transition_tokens=True)
    assert found.code_IT.tolist() == [[1, 0], [1, 1]]
    assert found.sizes == (2, 2)


@st.composite
def catalogues(draw):
    items = draw(st.integers(1, 12))
    parts = []
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        sizes = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        present = rng.random(items) < draw(st.sampled_from([0.5, 1.0]))
        parts.append((name, rng.integers(0, sizes, (items, len(sizes))), sizes, present))
    return parts


@settings(max_examples=40, deadline=None)
@given(catalogues(), st.booleans())
def test_laws(parts, transition_tokens):
    found = semantic_ids(parts, transition_tokens=transition_tokens)
    items, positions = found.code_IT.shape
    assert len(set(map(tuple, found.token_IT.tolist()))) == items
    assert len(found.sizes) == len(found.first_T) == positions
    ranges = [
        range(first, first + size) for first, size in zip(found.first_T, found.sizes, strict=True)
    ]
    assert [token for r in ranges for token in r] == list(range(FIRST, found.vocabulary))
    for t, r in enumerate(ranges):
        assert [r.index(token) for token in found.token_IT[:, t]] == found.code_IT[:, t].tolist()
    for name, codes, sizes, present in parts:
        own = found.code_IT[:, found.spans[name]]
        np.testing.assert_array_equal(own[present], codes[present])
        assert (own[~present] == sizes).all()
    # Pair by pair: who shares all codes, and who comes first.
    whole = [
        tuple(c for s in found.spans.values() for c in row[s]) for row in found.code_IT.tolist()
    ]
    assert found.collisions == sum(whole.count(one) > 1 for one in whole) / items
    if found.collisions:
        nth = [whole[:item].count(one) for item, one in enumerate(whole)]
        assert found.code_IT[:, -1].tolist() == nth
        assert found.sizes[-1] == max(nth) + 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "one or more distinct modalities"),
        ([TEXT, TEXT], r"distinct modalities, got \['text', 'text'\]"),
        ([("text", TEXT[1], (2, 2), TEXT[3])], r"'text', level 1: codes are in \[0, 2\)"),
        ([("text", TEXT[1] - 1, (2, 3), TEXT[3])], r"'text', level 0: .* some in \[-1, 0\]"),
        ([("text", TEXT[1], (2,), TEXT[3])], r"codes \(5, 2\) of 5 items at 1 levels"),
        ([TEXT, ("b", TEXT[1][:4], (2, 3), TEXT[3][:4])], "'b' has codes of 4 items, 'text' of 5"),
    ],
)
def test_what_does_not_fit_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        semantic_ids(parts, transition_tokens=True)
