"""Whatever goes with a network is packed without pickle and comes back as it was, or is refused."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkeep import assets, errors
from modelkeep.assets import File, Packed, estimators, files, keras_tokenizer, values
from modelkeep.manifest import Asset, Tensor
from modelkeep.pipeline import Tokenizer


def restore(packed: Packed, **options: Any) -> Any:
    """Unpack from what was packed, through bytes, as a store would."""

    def read_tensor(name: str) -> tuple[Tensor, memoryview]:
        array = packed.tensors[name]
        tensor = Tensor(name=name, dtype=array.dtype.name, shape=array.shape, digest="", pieces=())
        return tensor, memoryview(bytearray(array.tobytes()))

    return assets.unpack(packed.asset, packed.parts.__getitem__, read_tensor, **options)


def round_trip(value: Any, **options: Any) -> Any:
    return restore(assets.pack("it", value), **options)


def stored(kind: str, data: bytes, **info: Any) -> Packed:
    return Packed(Asset(name="it", kind=kind, parts=("part",), info=info), {"part": data})


@pytest.fixture
def scaler():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    return preprocessing.StandardScaler().fit([[0.0], [10.0]])


# --- there and back


@given(
    st.recursive(
        st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_json_values_come_back_as_they_were(value):
    assert round_trip(value) == value


@given(st.text())
def test_text_comes_back_as_it_was(text):
    assert round_trip(text) == text


@given(
    hnp.arrays(
        st.sampled_from(["bool", "<i2", ">i4", "u8", ">f8", "f2", "c16"]), hnp.array_shapes(min_dims=0, min_side=0)
    )
)
def test_arrays_come_back_with_dtype_shape_and_every_bit(array):
    back = round_trip(array)
    assert (back.dtype.name, back.shape) == (array.dtype.name, array.shape)
    assert back.tobytes() == array.astype(back.dtype).tobytes()
    assert back.flags.writeable


def test_arrays_of_any_layout_are_kept_in_c_order():
    array = np.arange(12).reshape(3, 4).T[::2]
    assert np.array_equal(round_trip(array), array)


def test_vocabularies_and_label_names_say_how_many_they_are():
    packed = assets.pack("vocabulary", ["", "[?]", "red"])
    assert packed.asset.info == {"items": 3}
    assert restore(packed) == ["", "[?]", "red"]


def test_our_tokenizer_comes_back():
    tokenizer = Tokenizer(num_words=9)
    tokenizer.fit_on_texts(["a b \ud800"])
    packed = assets.pack("it", tokenizer)
    assert packed.asset.info == {"words": 3, "num_words": 9}
    assert restore(packed).to_json() == tokenizer.to_json()


@pytest.mark.keras
def test_keras_tokenizers_come_back_as_ours_from_either_of_their_homes():
    import tensorflow as tf
    from keras.src.legacy.preprocessing.text import Tokenizer as Legacy

    for original in (Legacy(oov_token="?"), tf.keras.preprocessing.text.Tokenizer(num_words=3)):
        original.fit_on_texts(["this film is great", "this is not"])
        back = round_trip(original)
        assert type(back) is Tokenizer
        assert back.texts_to_sequences(["is this good"]) == original.texts_to_sequences(["is this good"])


def test_a_look_alike_from_keras_preprocessing_is_recognised_by_its_module():
    look_alike = type("Tokenizer", (Tokenizer,), {"__module__": "keras_preprocessing.text"})()
    look_alike.fit_on_texts(["a b"])
    assert round_trip(look_alike).word_index == {"a": 1, "b": 2}


def test_hugging_face_tokenizers_come_back():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    packed = assets.pack("it", tokenizer)
    assert packed.asset.info == {"words": 2}
    assert restore(packed).to_str() == tokenizer.to_str()


def test_a_hugging_face_tokenizer_with_parts_in_python_is_refused():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.PreTokenizer.custom(object())
    with pytest.raises(errors.UsageError, match="'it': this tokenizer has no JSON form"):
        assets.pack("it", tokenizer)


def test_scikit_learn_scalers_and_encoders_come_back(scaler):
    from sklearn.preprocessing import LabelEncoder, OneHotEncoder

    assert round_trip(scaler).transform([[5.0]]).tolist() == scaler.transform([[5.0]]).tolist()
    assert round_trip(OneHotEncoder().fit([["a"], ["b"]])).categories_[0].tolist() == ["a", "b"]
    assert round_trip(LabelEncoder().fit(["b", "a"])).classes_.tolist() == ["a", "b"]
    assert assets.pack("it", scaler).asset.info == {"class": "sklearn.preprocessing._data.StandardScaler"}


def test_a_file_comes_back_with_its_name_and_is_written_where_told(tmp_path):
    (tmp_path / "rules.bin").write_bytes(b"\0\1")
    back = round_trip(tmp_path / "rules.bin")
    assert back == File("rules.bin", b"\0\1") == round_trip(back)
    (tmp_path / "out").mkdir()
    assert back.save_to(tmp_path / "out").read_bytes() == b"\0\1"


def test_no_two_assets_share_a_part():
    named = {"a": "text", "a.txt": File("x", b""), "a.json": [1], "text": {"a": 1}}
    parts = [part for name, value in named.items() for part in assets.pack(name, value).parts]
    assert len(set(parts)) == len(named)


# --- what cannot be kept


@pytest.mark.parametrize("value", [None, object(), len, b"bytes", {1, 2}, datetime.date(2024, 5, 1), np.ma.array([1])])
def test_a_value_of_no_known_kind_is_refused_with_those_that_are(value):
    with pytest.raises(errors.UsageError, match=r"the asset 'it' is of no kind .* expected a Keras Tokenizer, .*Path"):
        assets.pack("it", value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({0: "negative"}, r"the asset 'it': not a JSON value: the key 0 at \$"),
        ({"mean": np.float32(1)}, r"not a JSON value: numpy.float32 at \$.mean"),
        ([float("nan")], r"nan at \$\[0\]"),
        ("\ud800", "not valid Unicode"),
        (["\ud800"], "not a JSON value"),
        (np.array(["a"]), "an array of <U1 cannot be kept"),
        (np.array([None]), "an array of object cannot be kept"),
        (np.array([(1, 2)], "i4,i4"), "cannot be kept"),
        (Path("."), "is a folder"),
        (Path("/dev/null"), "is not a regular file"),
    ],
)
def test_a_value_that_would_come_back_changed_is_refused(value, message):
    with pytest.raises(errors.UsageError, match=message):
        assets.pack("it", value)


def test_an_estimator_that_holds_what_skops_has_no_form_for_is_refused():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    with pytest.raises(errors.UsageError, match="'it': skops cannot keep this FunctionTransformer"):
        assets.pack("it", preprocessing.FunctionTransformer(lambda x: x))


def test_too_large_a_value_is_refused(monkeypatch):
    monkeypatch.setattr(keras_tokenizer, "MAX_JSON", 9)
    monkeypatch.setattr(values, "MAX_VALUE", 9)
    for value in (Tokenizer(), "x" * 10, ["x" * 10]):
        with pytest.raises(errors.LimitExceeded):
            assets.pack("it", value)


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "a b", "a" * 70, "ä"])
def test_a_name_that_is_no_asset_name_is_refused(name):
    with pytest.raises(errors.UsageError, match="not an asset's name"):
        assets.pack(name, "text")


def test_a_missing_file_is_not_found_and_a_large_one_refused(tmp_path, monkeypatch):
    with pytest.raises(errors.NotFound):
        assets.pack("it", tmp_path / "nowhere")
    monkeypatch.setattr(files, "MAX_FILE", 3)
    (tmp_path / "four").write_bytes(b"four")
    with pytest.raises(errors.LimitExceeded):
        assets.pack("it", tmp_path / "four")


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "a\\b", "c:a", "a\0", "a\n", "x" * 256, "\ud800"])
def test_a_file_name_that_could_leave_its_folder_is_refused_both_ways(name):
    with pytest.raises(errors.UsageError, match="not a plain file name"):
        File(name, b"")
    with pytest.raises(errors.UnsafeContent):
        restore(stored("file", b"", name=name))


def test_a_file_is_never_written_over_another_or_through_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(errors.AlreadyExists):
        File("link", b"new").save_to(tmp_path)
    assert not (tmp_path / "target").exists()
    with pytest.raises(errors.StorageError):
        File("file", b"new").save_to(tmp_path / "nowhere")


# --- pickles


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [{"word": 1}, np.arange(999)])
def test_a_pickle_is_refused_by_its_content(tmp_path, protocol, value):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(errors.UnsafeContent, match="load it in Python where you trust it"):
        assets.from_file("tokenizer", path)
    with pytest.raises(errors.UnsafeContent):
        assets.pack("tokenizer", path)


@pytest.mark.parametrize("value", [None, {"word": 1}, np.arange(9999)])
def test_a_compressed_pickle_is_refused(value):
    with pytest.raises(errors.UnsafeContent):
        assets.pack("it", File("scaler.gz", gzip.compress(pickle.dumps(value))))


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_a_joblib_file_is_refused(tmp_path, compress, scaler):
    joblib = pytest.importorskip("joblib")
    joblib.dump({"scaler": scaler, "array": np.arange(999)}, tmp_path / "scaler.bin", compress=compress)
    with pytest.raises(errors.UnsafeContent):
        assets.from_file("scaler", tmp_path / "scaler.bin")


@pytest.mark.parametrize(
    "data", [b"", b".", b"N.", b"(.", b"\x80", b"\x80\x02", b"\x80\x04 no pickle", b"I am a text."]
)
def test_what_only_looks_a_little_like_a_pickle_is_a_file(data):
    files.refuse_pickle(data, "it")


@given(st.binary(max_size=60))
def test_looking_for_pickles_never_fails(data):
    for layer in (data, b"\x80\x04" + data, b"x\x9c" + data, b"\x1f\x8b\x08" + data, b"BZh9" + data, data + b"."):
        with contextlib.suppress(errors.UnsafeContent):
            files.refuse_pickle(layer, "it")


# --- files by their content


def test_a_file_becomes_what_it_holds(tmp_path, scaler):
    tokenizer = Tokenizer()
    tokenizer.fit_on_texts(["a b"])
    (tmp_path / "tok.json").write_text(tokenizer.to_json())
    (tmp_path / "words.json").write_text('["a", "b"]')
    (tmp_path / "labels.txt").write_text("no\nyes\n")
    (tmp_path / "notes.md").write_text("# Notes")
    (tmp_path / "scaler.skops").write_bytes(assets.pack("s", scaler).parts["assets/s/sklearn.skops"])
    np.save(tmp_path / "mean.npy", np.float32([1, 2]))
    assert assets.from_file("it", tmp_path / "tok.json").word_index == {"a": 1, "b": 2}
    assert assets.from_file("it", tmp_path / "words.json") == ["a", "b"]
    assert assets.from_file("it", tmp_path / "labels.txt") == "no\nyes\n"
    assert assets.from_file("it", str(tmp_path / "notes.md")) == File("notes.md", b"# Notes")
    assert assets.from_file("it", tmp_path / "scaler.skops").mean_ == [5]
    assert assets.from_file("it", tmp_path / "mean.npy").tolist() == [1, 2]


def test_a_hugging_face_tokenizer_file_becomes_one(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}))
    tokenizer.save(str(tmp_path / "tok.json"))
    assert assets.from_file("it", tmp_path / "tok.json").to_str() == tokenizer.to_str()
    broken = json.loads(tokenizer.to_str()) | {"model": {"type": "Nothing"}}
    (tmp_path / "tok.json").write_text(json.dumps(broken))
    with pytest.raises(errors.UsageError, match=r"no tokenizers\.Tokenizer"):
        assets.from_file("it", tmp_path / "tok.json")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b"{"),
        ("a.json", b'{"class_name": "Tokenizer", "config": {}}'),
        ("a.txt", b"\xff"),
        ("a.npy", b"\x93NUMPY"),
        ("a.npy", b"text"),
        ("a.skops", b"PK"),
    ],
)
def test_a_file_that_is_not_what_its_ending_says_is_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(errors.UsageError, match=rf"the asset 'it', .*{name}"):
        assets.from_file("it", tmp_path / name)


def test_an_array_file_of_python_objects_is_refused_because_they_are_pickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(errors.UnsafeContent, match="which are pickled"):
        assets.from_file("it", tmp_path / "a.npy")


def test_an_array_file_that_claims_terabytes_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 3)))
    data = (tmp_path / "a.npy").read_bytes().replace(b"(3, 3)", b"(9, 9)").replace(b"(9, 9), }   ", b"(99999999999,)}")
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(errors.UsageError, match="no NumPy array"):
        assets.from_file("it", tmp_path / "a.npy")


# --- what a store may hold that no pack made


def test_types_that_scikit_learn_does_not_bring_are_named_and_refused_unless_trusted():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    packed = assets.pack("it", preprocessing.FunctionTransformer(json.loads))
    with pytest.raises(errors.UnsafeContent, match=r"found json.loads\n.*trust=\['json.loads'\]"):
        restore(packed)
    with pytest.raises(errors.UnsafeContent):
        restore(packed, trust=["js", "json.load"])
    assert restore(packed, trust=["json.loads"]).func is json.loads
    assert restore(packed, trust=["json"]).func is json.loads


def test_a_type_that_is_not_trusted_is_not_even_imported(tmp_path, monkeypatch):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    (tmp_path / "elsewhere.py").write_text("def clean(x): return x")
    monkeypatch.syspath_prepend(str(tmp_path))
    import elsewhere

    packed = assets.pack("it", preprocessing.FunctionTransformer(elsewhere.clean))
    del sys.modules["elsewhere"]
    with pytest.raises(errors.UnsafeContent, match=r"elsewhere\.clean"):
        restore(packed)
    assert "elsewhere" not in sys.modules


def test_a_zip_that_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    pytest.importorskip("skops")
    monkeypatch.setattr(estimators, "MAX_UNPACKED", 1000)
    with zipfile.ZipFile(tmp_path / "a.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * 1001)
    with pytest.raises(errors.LimitExceeded):
        assets.from_file("it", tmp_path / "a.skops")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("keras-tokenizer", b"{}"),
        ("hf-tokenizer", b"{}"),
        ("json", b"{"),
        ("json", b'{"a": 1, "a": 2}'),
        ("text", b"\xff"),
        ("sklearn", b"PK"),
    ],
)
def test_stored_bytes_that_are_not_of_their_kind_are_an_integrity_error(kind, data):
    with pytest.raises(errors.IntegrityError, match=f"the asset 'it' is not a whole {kind}"):
        restore(stored(kind, data))


def test_a_record_with_too_few_parts_or_tensors_is_an_integrity_error():
    for kind in ("json", "array"):
        with pytest.raises(errors.IntegrityError, match="instead of one"):
            restore(Packed(Asset(name="it", kind=kind)))


@pytest.mark.parametrize(
    ("dtype", "shape"), [("object", (1,)), ("float32", (3,)), ("float32", (2**62,)), ("<f4,<f4", (1,))]
)
def test_an_array_whose_record_does_not_fit_its_bytes_is_an_integrity_error(dtype, shape):
    tensor = Tensor(name="t", dtype=dtype, shape=shape, digest="", pieces=())
    with pytest.raises(errors.IntegrityError, match="is not a whole array"):
        assets.unpack(Asset(name="it", kind="array", tensors=("t",)), bytes, lambda _: (tensor, memoryview(bytes(8))))


def test_a_kind_from_a_later_modelkeep_says_what_to_install():
    with pytest.raises(errors.FormatTooNew, match="pip install --upgrade modelkeep"):
        restore(stored("hologram", b""))


@pytest.mark.parametrize(("missing", "kind"), [("skops.io", "sklearn"), ("tokenizers", "hf-tokenizer")])
def test_a_missing_extra_names_the_line_to_install_it(monkeypatch, missing, kind):
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    with pytest.raises(errors.MissingExtra, match=r"pip install 'modelkeep\[(sklearn|tokenizers)\]'"):
        restore(stored(kind, b"{}"))
