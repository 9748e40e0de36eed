import json

import numpy as np
import pandas as pd
import pytest

from mmrec.data.dataset import Category, Codes, Dense, Neighbours, Tags
from mmrec.data.readers import read_folder

INTER = "userID\titemID\tx_label\n0\t0\t0\n0\t2\t1\n1\t1\t0\n1\t0\t2\n"


@pytest.fixture
def folder(tmp_path):
    """A dataset in MMRec's format: 2 users, 3 items."""
    path = tmp_path / "shop"
    path.mkdir()
    (path / "shop.inter").write_text(INTER)
    return path


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")


def test_interactions_as_the_file_has_them(folder):
    raw = read_folder(folder)
    assert (raw.name, raw.num_users, raw.num_items) == ("shop", 2, 3)
    assert raw.pairs.tolist() == [[0, 0], [0, 2], [1, 1], [1, 0]]
    assert raw.label is not None
    assert raw.label.tolist() == [0, 1, 0, 2]
    assert (raw.rating, raw.ordered, raw.default_split, raw.notes) == (None, False, "given", ())


def test_timestamps_put_each_users_rows_in_order_and_ties_keep_file_order(folder):
    rows = "0\t5\t4.0\t9\n0\t3\t2.5\t7\n1\t1\t1\t3\n0\t4\t3\t9\n0\t0\t5\t7\n"
    write(folder, "shop.inter", "userID\titemID\trating\ttimestamp\n" + rows)
    raw = read_folder(folder)
    assert raw.pairs.tolist() == [[0, 3], [0, 0], [0, 5], [0, 4], [1, 1]]
    assert raw.rating is not None
    assert raw.rating.tolist() == [2.5, 5, 4, 3, 1]
    assert raw.ordered
    assert raw.default_split == "random"


def test_every_file_beside_the_interactions_becomes_its_modality(folder):
    np.save(folder / "image_feat.npy", np.arange(6.0).reshape(3, 2))
    write(folder, "item_tags.csv", "itemID,tag,count\n2,new wave,3\n0,NA,1\n2,jazz,1\n")
    write(folder, "item_text.csv", 'itemID,title,genres\n0,"A, B",Drama|War\n1,C,\n2,D,War\n')
    write(folder, "user_features.csv", "userID,age,gender\n1,24,M\n0,9,\n")
    write(folder, "semantic_ids_text.json", '{"1": ["<a_5>"], "0": ["<a_1>"], "2": ["<a_0>"]}')
    arrays = {"indptr": [0, 1, 1, 2], "indices": [2, 0], "data": [0.5, 1.0], "shape": [3, 3]}
    np.savez(folder / "poster_knn10.npz", **arrays)
    write(folder, "u_id_mapping.csv", "userID,orig\n0,a\n1,b\n")
    raw = read_folder(folder)
    assert raw.notes == ("not used: u_id_mapping.csv",)
    assert sorted(raw.features) == ["genres", "image", "poster", "tags", "text_codes"]
    image, poster, codes = (raw.features[name] for name in ("image", "poster", "text_codes"))
    assert isinstance(image, Dense)
    assert image.values.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert isinstance(poster, Neighbours)
    assert (poster.ids.tolist(), poster.weights.tolist()) == ([2, 0], [0.5, 1.0])
    assert isinstance(codes, Codes)
    assert (codes.codes.tolist(), codes.sizes) == ([[1], [5], [0]], (6,))
    tags, genres = raw.features["tags"], raw.features["genres"]
    assert isinstance(tags, Tags)
    assert (tags.names, tags.ids.tolist()) == (("NA", "jazz", "new wave"), [0, 1, 2])
    assert isinstance(genres, Tags)
    assert (genres.names, genres.starts.tolist()) == (("Drama", "War"), [0, 2, 2, 3])
    age, gender = raw.user_features["age"], raw.user_features["gender"]
    assert isinstance(age, Category)
    assert (age.names, age.codes.tolist()) == (("24", "9"), [1, 0])
    assert gender.present.tolist() == [False, True]


def test_both_sides_take_vectors_tags_categories_and_numbers_from_files_beside(folder):
    np.save(folder / "profile_user_feat.npy", [[1.0, 2], [np.nan, np.nan]])
    write(folder, "user_tags.csv", "userID,tag\n1,fan\n1,early\n")
    write(folder, "user_numbers.csv", "userID,age,visits\n1,60,3\n0,20,1\n")
    write(folder, "item_features.csv", "itemID,maker\n2,acme\n0,bolt\n")
    write(folder, "item_numbers.csv", "itemID,year,price\n0,1990,\n1,2000,5\n2,2030,1.5\n")
    raw = read_folder(folder)
    assert raw.notes == ("profile: 1 of 2 rows are NaN, taken as missing",)
    kinds = {name: feature.kind for name, feature in raw.user_features.items()}
    assert kinds == {"profile": "dense", "tags": "tags", "age": "dense", "visits": "dense"}
    profile, age, tags = (raw.user_features[name] for name in ("profile", "age", "tags"))
    assert isinstance(profile, Dense)
    assert profile.values.tolist() == [[1, 2], [0, 0]]
    assert isinstance(age, Dense)
    assert age.values.tolist() == [[0], [1]]
    assert isinstance(tags, Tags)
    assert (tags.names, tags.present.tolist()) == (("early", "fan"), [False, True])
    assert {name: f.kind for name, f in raw.features.items()} == {
        "maker": "category",
        "year": "dense",
        "price": "dense",
    }
    year, price = raw.features["year"], raw.features["price"]
    assert isinstance(year, Dense)
    assert year.values.tolist() == [[0], [0.25], [1]]
    assert isinstance(price, Dense)
    assert (price.present.tolist(), price.values.tolist()) == ([False, True, True], [[0], [1], [0]])
    assert raw.features["maker"].present.tolist() == [True, False, True]


def test_a_category_of_many_numbers_is_noted_and_one_of_few_codes_is_not(tmp_path):
    ages = "".join(f"{user},{user + 0.5},{user % 21},u{user}\n" for user in range(31))
    write(tmp_path, "sequences.json", json.dumps({str(user): [user % 5] for user in range(31)}))
    write(tmp_path, "user_features.csv", "userID,age,occupation,name\n" + ages)
    assert read_folder(tmp_path).notes == (
        "age: 31 levels, all of them numbers, taken as a category;"
        " user_numbers.csv would make it a number",
    )


def test_sequences(tmp_path):
    write(tmp_path, "sequences.json", '{"1": [2, 0], "0": [1, 3, 2]}')
    raw = read_folder(tmp_path)
    assert raw.pairs.tolist() == [[0, 1], [0, 3], [0, 2], [1, 2], [1, 0]]
    assert (raw.num_users, raw.num_items, raw.ordered) == (2, 4, True)
    assert raw.default_split == "leave-one-out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"0": [1, 3], "1": [2', "sequences.json: cut short or unreadable: JSONDecodeError"),
        ('{"0": [1], "2": [0]}', "keys of 2 entries must be 0..1, but '1' is not there"),
        ('{"0": [1.5]}', "sequences.json: every user needs a list of whole numbers"),
        ("[1]", "must be a JSON object"),
        ('{"0": []}', "holds no interaction"),
        ('{"0": [0, 1, 0]}', r"1 interactions are duplicates .*first: user 0, item 0"),
    ],
)
def test_bad_sequences_are_refused(tmp_path, text, message):
    write(tmp_path, "sequences.json", text)
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("userID\titemID\n0\t1\n1\t\n", r"shop.inter: 1 rows have no 'itemID' \(first: data row 1"),
        ("userID\titemID\tx_label\n0\t1\t0\n0\t2", r"shop.inter: cut short .* 3 columns, got 2"),
        ("userID\titemID\n0\tb7\n", "column 'itemID' must hold whole numbers.* row 0 has 'b7'"),
        ("userID\titemID\n0\t1.5\n", "column 'itemID' must hold whole numbers.* has .*1.5"),
        ("userID\titemID\n0\t-1\n", r"'shop items': 1 ids are outside 0..* \(first: -1\)"),
        ("userID\titem\n0\t1\n", "lacks the column 'itemID'; it has userID, item"),
        ("userID\titemID\tx_label\n0\t1\t3\n", r"x_label must be 0, 1 or 2 .* found \[3\]"),
        ("userID\titemID\trating\n0\t1\tgood\n", r"'rating' must hold finite numbers, but 1 rows"),
        ("userID\titemID\n0\t1\n0\t2\n0\t1\n", r"1 interactions are duplicates.*user 0, item 1"),
        (
            "userID\titemID\n0\t1\t2\t3\n0\t1\n0\t1\t1\t1\t1\n",
            "shop.inter: cut short or unreadable",
        ),
        ("userID\titemID\n0\t0\n1\t9000000000\n", "largest item id is 9000000000, but only 2 dis"),
        ("userID\titemID\n", "shop.inter: holds no rows"),
        ("", "shop.inter: the file is empty"),
    ],
)
def test_bad_interactions_are_refused_by_name(folder, text, message):
    write(folder, "shop.inter", text)
    with pytest.raises(ValueError, match=message):
        read_folder(folder)


def test_feature_rows_must_match_the_items(folder):
    np.save(folder / "image_feat.npy", np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"image_feat.npy: 4 rows, but .* make 3"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "user_features.csv",
            "userID,age,sex\n0,24,M\n1,31",
            "user_features.csv: cut short or unreadable: .* 3 columns, got 2",
        ),
        ("user_features.csv", "userID,age\n0,24\n0,31\n", "'age': row 0 is given more than once"),
        ("user_features.csv", "userID,age\n0,24\n2,31\n", r"'age': 1 ids are outside 0..1"),
        (
            "user_numbers.csv",
            "userID,age\n0,24\n1,old\n",
            r"user_numbers.csv: column 'age' must hold finite numbers, .* data row 1, 'old'",
        ),
        ("user_numbers.csv", "userID,age\n0,24\n1,inf\n", "must hold finite numbers, but 1 rows"),
        ("user_numbers.csv", "userID,age\n0,24\n1,24\n", "'age': all 2 numbers are 24: no var"),
        ("user_numbers.csv", "userID,age\n0,\n1,\n", "'age': not one row has a number"),
        ("user_numbers.csv", "user,age\n0,1\n", "user_numbers.csv: lacks the column 'userID'"),
        ("item_numbers.csv", "itemID,y\n0,1\n3,2\n", r"'y': 1 ids are outside 0..2 .*: 3\)"),
        ("user_tags.csv", "userID,tag\n2,a\n", r"'tags': 1 ids are outside 0..1 .*: 2\)"),
        ("item_tags.csv", "itemID,tag\n0,a\n1,\n", "item_tags.csv: 1 rows have an empty 'tag'"),
        ("item_tags.csv", "itemID,tag\n0,a\n3,a\n", r"'tags': 1 ids are outside 0..2 .*: 3\)"),
        ("item_text.csv", "title,genres\nA,War\n", "item_text.csv: lacks the column 'itemID'"),
        ("semantic_ids_a.json", '{"0": [1]}', "'a_codes': codes of 1 items, but there are 3"),
    ],
)
def test_bad_modality_files_are_refused(folder, name, text, message):
    write(folder, name, text)
    with pytest.raises(ValueError, match=message):
        read_folder(folder)


def test_a_pickle_inside_npy_is_refused_and_not_run(folder, tmp_path):
    mark = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (type(mark).touch, (mark,))

    np.save(folder / "image_feat.npy", np.array([Bomb()] * 3, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"image_feat.npy: refused: it holds pickled Python objec"):
        read_folder(folder)
    assert not mark.exists()


def test_cut_and_foreign_arrays_are_refused(folder):
    path = folder / "image_feat.npy"
    np.save(path, np.zeros((3, 2)))
    whole = path.read_bytes()
    for length in (len(whole) - 3, 100, 8):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"image_feat.npy: cut short or unreadable"):
            read_folder(folder)
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"image_feat.npy: not an .npy file"):
        read_folder(folder)
    path.unlink()
    np.savez(folder / "poster_knn10.npz", indptr=np.zeros(4))
    with pytest.raises(ValueError, match=r"knn10.npz: lacks the arrays data, indices, shape"):
        read_folder(folder)
    (folder / "poster_knn10.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"poster_knn10.npz: cut short or unreadable"):
        read_folder(folder)


def test_two_files_for_one_modality_are_refused(folder):
    np.save(folder / "tags_feat.npy", np.zeros((3, 2)))
    write(folder, "item_tags.csv", "itemID,tag\n0,a\n")
    with pytest.raises(ValueError, match=r"tags_feat.npy: a second file for the modality 'tags'"):
        read_folder(folder)
    (folder / "tags_feat.npy").unlink()
    write(folder, "user_features.csv", "userID,age\n0,young\n")
    write(folder, "user_numbers.csv", "userID,age\n0,1\n1,2\n")
    with pytest.raises(ValueError, match=r"user_numbers.csv: a second file for the modality 'age'"):
        read_folder(folder)


def test_rows_of_a_users_table_must_match_the_users(folder):
    np.save(folder / "profile_user_feat.npy", np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"profile_user_feat.npy: 3 rows, but .* make 2"):
        read_folder(folder)


def test_a_folder_of_no_known_kind_is_refused_with_what_was_looked_for(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"looked for manifest.json, NAME.inter or .* shop"):
        read_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        read_folder(tmp_path / "nowhere")
    write(folder, "other.inter", INTER)
    with pytest.raises(ValueError, match=r"more than one dataset .* other.inter, shop.inter"):
        read_folder(folder)


@pytest.fixture
def plain(tmp_path):
    """A folder with a manifest: 2 users, 4 items, of which item 3 never occurs."""
    frame = pd.DataFrame(
        {"user": [0, 0, 1], "item": [0, 2, 1], "split": ["train", "valid", "test"], "shop": 1}
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    np.save(tmp_path / "text.npy", np.eye(4))
    pd.DataFrame({"id": [0, 3], "tag": ["new", "old"]}).to_parquet(tmp_path / "tags.parquet")
    write(tmp_path, "gender.csv", "id,level\n0,f\n1,m\n")
    manifest = {
        "interactions": "rows.parquet",
        "name": "mine",
        "num_items": 4,
        "features": {
            "text": {"file": "text.npy", "kind": "dense"},
            "labels": {"file": "tags.parquet", "kind": "tags"},
        },
        "user_features": {"gender": {"file": "gender.csv", "kind": "category"}},
    }
    write(tmp_path, "manifest.json", json.dumps(manifest))
    return tmp_path, manifest


def test_a_manifest_names_everything_itself(plain):
    folder, _ = plain
    raw = read_folder(folder)
    assert (raw.name, raw.num_users, raw.num_items) == ("mine", 2, 4)
    assert raw.pairs.tolist() == [[0, 0], [0, 2], [1, 1]]
    assert raw.label is not None
    assert raw.label.tolist() == [0, 1, 2]
    assert raw.notes == ("not used: shop",)
    assert {name: feature.kind for name, feature in raw.features.items()} == {
        "text": "dense",
        "labels": "tags",
    }
    assert raw.features["labels"].present.tolist() == [True, False, False, True]
    assert raw.user_features["gender"].arrays()["codes"].tolist() == [0, 1]


def test_a_manifest_takes_every_kind_on_both_sides(plain):
    folder, manifest = plain
    files = {
        "dense": "wide.npy",
        "number": "value.csv",
        "tags": "tags.csv",
        "category": "level.csv",
        "codes": "codes.json",
        "graph": "graph.npz",
    }
    for side, count in (("item", 4), ("user", 2)):
        last = count - 1
        np.save(folder / f"{side}_wide.npy", np.arange(2.0 * count).reshape(count, 2))
        write(folder, f"{side}_value.csv", f"id,value\n{last},-1\n0,7\n")
        write(folder, f"{side}_tags.csv", f"id,tag\n{last},a\n{last},b\n")
        write(folder, f"{side}_level.csv", f"id,level\n{last},b\n0,a\n")
        write(folder, f"{side}_codes.json", json.dumps({str(n): [n] for n in range(count)}))
        arrays = {"indptr": [0, 1] + [1] * last, "indices": [last], "data": [0.5]}
        np.savez(folder / f"{side}_graph.npz", shape=[count, count], **arrays)
    features, user_features = (
        {kind: {"file": f"{side}_{file}", "kind": kind} for kind, file in files.items()}
        for side in ("item", "user")
    )
    changed = manifest | {"features": features, "user_features": user_features}
    write(folder, "manifest.json", json.dumps(changed))
    raw = read_folder(folder)
    for found, count in ((raw.features, 4), (raw.user_features, 2)):
        assert {name: len(feature) for name, feature in found.items()} == dict.fromkeys(
            files, count
        )
        assert {name: f.kind for name, f in found.items()} == {k: k for k in files} | {
            "number": "dense"
        }
        number, tags, level = (found[kind].arrays() for kind in ("number", "tags", "category"))
        assert number["values"][[0, -1]].tolist() == [[1], [0]]
        assert number["present"].sum() == 2
        assert tags["starts"].tolist() == [0] * count + [2]
        assert level["codes"][[0, -1]].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,value\n0,24\n1,old\n", r"age.csv: column 'value' must hold finite .*row 1, 'old'"),
        ("id,value\n0,24\n1,24\n", "'age': all 2 numbers are 24: no variation"),
        ("id,value\n0,24\n5,30\n", r"'age': 1 ids are outside 0..1 \(first: 5\)"),
        ("id,level\n0,24\n", "age.csv: lacks the column 'value'; it has id, level"),
    ],
)
def test_a_manifests_bad_numbers_are_refused(plain, text, message):
    folder, manifest = plain
    write(folder, "age.csv", text)
    age = {"age": {"file": "age.csv", "kind": "number"}}
    write(folder, "manifest.json", json.dumps(manifest | {"user_features": age}))
    with pytest.raises(ValueError, match=message):
        read_folder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_features": {}}, "manifest.json: item_features: Unexpected keyword"),
        ({"interactions": 3}, "manifest.json: interactions: Input should be a valid string"),
        ({"features": {"x": {"file": "text.npy", "kind": "image"}}}, r"features.x.kind: Input"),
        ({"num_items": 2}, "text.npy: 4 rows, but .* make 2"),
        ({"num_items": 2, "features": {}}, r"'mine items': 1 ids are outside 0..1 \(first: 2\)"),
    ],
)
def test_a_wrong_manifest_is_refused_by_key(plain, change, message):
    folder, manifest = plain
    write(folder, "manifest.json", json.dumps(manifest | change))
    with pytest.raises(ValueError, match=message):
        read_folder(folder)


def test_files_that_a_manifest_names_must_be_there_and_whole(plain):
    folder, manifest = plain
    whole = (folder / "rows.parquet").read_bytes()
    (folder / "rows.parquet").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"rows.parquet: cut short or unreadable"):
        read_folder(folder)
    (folder / "rows.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"rows.parquet: no such file; in .*: gender.csv"):
        read_folder(folder)
    write(folder, "rows.csv", "user,item,split\n0,1,trian\n")
    write(folder, "manifest.json", json.dumps(manifest | {"interactions": "rows.csv"}))
    with pytest.raises(ValueError, match=r"split must be train, valid or test, found \['trian'\]"):
        read_folder(folder)
