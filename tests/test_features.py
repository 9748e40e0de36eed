import numpy as np
import pytest
import torch

from mmrec.data.dataset import Category, Codes, Dense, Tags
from mmrec.nn.features import FeatureTable, item_modalities, values_of

HERE = np.array([True, True, False])
TEXT = Dense(HERE, np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]], dtype=np.float32))
TAGS = Tags(HERE, np.array([0, 2, 3, 3]), np.array([0, 2, 1]), ("a", "b", "c"))
BRAND = Category(HERE, np.array([1, 0, 0]), ("x", "y"))
CODES = Codes(HERE, np.zeros((3, 1), dtype=np.int64), (4,))
ALL = {"text": TEXT, "tags": TAGS, "brand": BRAND, "codes": CODES}


def test_what_is_no_vector_becomes_one_column_a_label():
    assert values_of(TEXT) is TEXT.values
    np.testing.assert_array_equal(values_of(TAGS), [[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(values_of(BRAND), [[0, 1], [1, 0], [0, 0]])
    with pytest.raises(TypeError, match="'codes' is no table"):
        values_of(CODES)


def test_all_tables_by_alphabet_or_those_wanted_in_their_order():
    assert item_modalities(None, ALL, "X") == ("brand", "tags", "text")
    assert item_modalities(("text", "brand"), ALL, "X") == ("text", "brand")


@pytest.mark.parametrize(
    ("wanted", "least", "error", "message"),
    [
        (("video",), 1, KeyError, "no item modality 'video'; there are: brand, tags, text"),
        (("codes",), 1, TypeError, "X needs a table of numbers; 'codes' is of kind 'codes'"),
        (("text", "text"), 1, ValueError, "distinct"),
        ((), 1, ValueError, "X needs at least a modality of the items; the dataset gives: none"),
        (("text",), 2, ValueError, "X needs at least 2 modalities of the items"),
    ],
)
def test_what_cannot_be_taken_is_refused(wanted, least, error, message):
    with pytest.raises(error, match=message):
        item_modalities(wanted, ALL, "X", least=least)


@pytest.mark.parametrize("trained", [True, False])
def test_a_table_is_a_parameter_only_if_it_is_trained(trained):
    table = FeatureTable(TEXT.values, trained=trained)
    assert len(list(table.parameters())) == trained
    assert len(table.state_dict()) == trained
    assert table.width == 2
    assert table().tolist() == TEXT.values.tolist()
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert table.mapped(swap).tolist() == [[2, 1], [4, 3], [0, 0]]
    assert table.mapped(swap, torch.tensor([1, 0, 1])).tolist() == [[4, 3], [2, 1], [4, 3]]
    memory = table.table_IF.data_ptr() == TEXT.values.ctypes.data
    assert memory == (not trained)


def test_an_array_that_may_not_be_written_is_read_in_place():
    values = np.ones((2, 3), dtype=np.float32)
    values.flags.writeable = False
    assert FeatureTable(values, trained=False).table_IF.sum() == 6
    assert FeatureTable(values, trained=True).table_IF.sum() == 6
