import functools
import re
import time

import numpy as np
import pytest

from mmrec.data.dataset import Category, Dense
from mmrec.data.sources import SOURCES, available, load

REAL = {
    # users, items, train, valid, test: the numbers published with the folders
    "baby": (19_445, 7_050, 118_551, 20_559, 21_682),
    "clothing": (39_387, 23_033, 197_338, 40_150, 41_189),
    "lfm2k": (1_858, 1_425, 44_327, 4_799, 7_219),
    "ml-1m": (6_040, 3_260, 698_617, 102_601, 197_321),
    "ml-100k": (943, 1_682, None, None, None),
    "instruments": (17_112, 6_250, 136_226 - 2 * 17_112, 17_112, 17_112),
    "beauty": (22_363, 12_101, 198_502 - 2 * 22_363, 22_363, 22_363),
}
DIGESTS = {  # a changed digest renames every trial on the dataset: change one on purpose only
    "baby": "d59596cf3afec273",
    "clothing": "7a3b16b003fc548b",
    "lfm2k": "76b504fc5ef57be8",
    "ml-1m": "3eea8b22450805d3",
    "ml-100k": "24c065d4ec7d6be7",
    "instruments": "37372c7f52fb271e",
    "beauty": "3f726c7b96c8f802",
}


@functools.cache
def loaded(name, data_root):
    return load(name, data_root=data_root)


@pytest.mark.parametrize("name", SOURCES)
def test_a_real_folder_reads_whole_frozen_and_fast(name, data_root):
    start = time.perf_counter()
    data = loaded(name, data_root)
    assert time.perf_counter() - start < 10  # seconds; 0.05 to 0.4 on two cores at leisure
    users, items, *parts = REAL[name]
    found = [len(data.train), len(data.valid), len(data.test)]
    assert (data.name, data.num_users, data.num_items) == (name, users, items)
    assert found == parts or (parts == [None] * 3 and sum(found) == 100_000)
    assert data.digest == DIGESTS[name]
    arrays = [data.train, data.valid, data.test]
    for feature in (*data.features.values(), *data.user_features.values()):
        arrays += [value for value in vars(feature).values() if isinstance(value, np.ndarray)]
    assert not any(array.flags.writeable for array in arrays)
    assert all(array.flags.c_contiguous for array in arrays)


def test_oddities_of_the_real_folders_are_said(data_root):
    lastfm, movies = (loaded(name, data_root) for name in ("lfm2k", "ml-100k"))
    assert "vggish: columns standardised (root mean square was 130.6)" in lastfm.notes
    vggish, tags = lastfm.features["vggish"], lastfm.features["tags"]
    assert isinstance(vggish, Dense)
    np.testing.assert_allclose(vggish.values.std(0), 1, rtol=1e-4)
    assert (tags.present.sum(), tags.kind) == (1_421, "tags")
    assert "summary: 198 of 1682 rows are NaN, taken as missing" in movies.notes
    assert movies.features["summary"].present.sum() == 1_682 - 198
    age = movies.user_features["age"]
    assert isinstance(age, Category)
    assert len(age.names) == 61
    codes = loaded("instruments", data_root)
    assert codes.notes == ("text_codes: 6250 items share 5988 distinct codes",)


def test_sequences_end_in_valid_and_test(data_root):
    data = loaded("beauty", data_root)
    assert data.train[:3].tolist() == [[0, 0], [0, 1], [0, 2]]  # user 0 has 0, 1, 2, 3, 4
    assert (data.valid[0].tolist(), data.test[0].tolist()) == ([0, 3], [0, 4])


@pytest.mark.parametrize("how", ["random", "leave-one-out", "cold-item", "cold-user"])
def test_every_split_of_real_ratings(how, data_root):
    data = load("ml-100k", data_root=data_root, split=how, min_rating=4, k_core=5)
    counts = np.bincount(data.train[:, 0]), np.bincount(data.train[:, 1])
    assert data.split == how
    assert any(note.startswith("min_rating 4: 55375 of 100000") for note in data.notes)
    assert len(data.features["summary"]) == data.num_items < 1_682
    assert min(counts[1][counts[1] > 0]) >= 1


def test_a_folder_by_path(tmp_path):
    rows = "".join(f"0\t{n}\t{label}\n" for n, label in enumerate((0, 1, 2)))
    (tmp_path / "mine.inter").write_text("userID\titemID\tx_label\n" + rows)
    data = load(str(tmp_path))
    assert (data.name, data.train.tolist(), data.split) == ("mine", [[0, 0]], "given")


def test_planted_takes_the_same_arguments():
    data = load("planted", split="cold-item", scale="standard", k_core=5)
    text = data.features["text"]
    assert isinstance(text, Dense)
    np.testing.assert_allclose(text.values.std(0), 1, rtol=1e-5)
    assert (data.name, data.split) == ("planted", "cold-item")
    with pytest.raises(ValueError, match="'planted' has neither timestamps nor sequences"):
        load("planted", split="leave-one-out")


def test_what_is_not_there_is_refused_with_what_was_looked_for(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no dataset 'bayb'; did you mean 'baby'"):
        load("bayb")
    with pytest.raises(ValueError, match=r"no dataset 'xyzzy'; known are baby, "):
        load("xyzzy")
    with pytest.raises(FileNotFoundError, match=r"no such folder as .*/no/where"):
        load("no/where")
    monkeypatch.delenv("MMREC_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"'baby' .* the environment variable MMREC_DATA"):
        load("baby")
    (tmp_path / "beauty").mkdir()
    message = f"looked for the folder {re.escape(str(tmp_path / 'baby'))}; .* there is beauty"
    with pytest.raises(FileNotFoundError, match=message):
        load("baby", data_root=tmp_path)
    monkeypatch.setenv("MMREC_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=message):
        load("baby")


def test_available_lists_what_is_there(tmp_path, monkeypatch):
    monkeypatch.delenv("MMREC_DATA", raising=False)
    built_in = ["planted", "planted-noise", "planted-text", "planted-encoders"]
    built_in += ["planted-diverse", "planted-five", "planted-1m"]
    built_in += ["planted-sequences", "planted-sequences-text"]
    assert list(available()) == built_in
    assert "pure noise" in available()["planted-noise"]
    assert available()["planted-five"].endswith(
        "; text, image, audio, genres (tags);"
        " of users gender (category), occupation (category), age (number)"
    )
    sizes = "synthetic, 400 users, 400 items, 5200 interactions in order of time"
    assert [available()[name] for name in ("planted-sequences", "planted-sequences-text")] == [
        f"{sizes}; text, image; what comes next follows from text and image",
        f"{sizes}; text, image; what comes next follows from text",
    ]
    (tmp_path / "lfm2k").mkdir()
    (tmp_path / "unknown").mkdir()
    assert list(available(tmp_path)) == [*built_in, "lfm2k"]
