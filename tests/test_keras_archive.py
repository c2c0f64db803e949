from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_zips import honest, twice
from model_files import CONFIG, METADATA, WEIGHTS, keras_members, unpacked, weights_h5, zipped
from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError, UnsafeContent
from modelkeep.formats import keras_archive
from modelkeep.formats.forms import look
from modelkeep.formats.limits import DEFAULT, Limits


def opened(path, limits=DEFAULT, *, thorough=True):
    place = look(path)
    assert keras_archive.recognise(place)
    return keras_archive.read(place, limits, thorough)


def arrays(path, **options):
    with opened(path, **options) as contents:
        assert contents.problems == ()
        return {tensor.name: tensor.read() for tensor in (*contents.tensors, *contents.optimizer)}


def rules_of(path):
    with opened(path) as contents:
        return {problem.rule for problem in contents.problems}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_file_tells_its_config_writer_and_tensors(method, tmp_path):
    path = zipped(keras_members(), tmp_path / "model.keras", method)
    assert_equal(arrays(path), WEIGHTS)
    with opened(path) as contents:
        assert (contents.form, contents.config, contents.compile) == ("keras", CONFIG, CONFIG["compile_config"])
        assert contents.writer == {"keras": "3.15.1", "date": METADATA["date_saved"]}
        assert [tensor.name for tensor in contents.optimizer] == ["optimizer/vars/0"]
        assert (contents.size, contents.parameters) == (path.stat().st_size, 15)


def test_an_unpacked_folder_tells_the_same(tmp_path):
    assert_equal(arrays(unpacked(keras_members(), tmp_path / "model")), WEIGHTS)


def shards():
    members = keras_members()
    del members["model.weights.h5"]
    names = list(WEIGHTS)
    index = {f"/{name.rpartition('/')[0]}": [] for name in names}
    for number, name in enumerate(names):
        shard = f"model_{number:05}.weights.h5"
        members[shard] = weights_h5({name: WEIGHTS[name]})
        index[f"/{name.rpartition('/')[0]}"].append(shard)
    return members | {"model.weights.json": json.dumps({"metadata": {}, "weight_map": index}).encode()}


@pytest.mark.parametrize("make", [lambda m, p: zipped(m, p), lambda m, p: unpacked(m, p)], ids=["file", "folder"])
def test_weights_in_shards_are_read_together(make, tmp_path):
    assert_equal(arrays(make(shards(), tmp_path / "model.keras")), WEIGHTS)


def test_a_shard_that_is_missing_is_named(tmp_path):
    members = shards()
    del members["model_00001.weights.h5"]
    with (
        pytest.raises(IntegrityError, match=r"model_00001\.weights\.h5 are missing"),
        opened(zipped(members, tmp_path / "m.keras")),
    ):
        pass


def test_assets_can_be_read_by_name(tmp_path):
    path = zipped({**keras_members(), "assets/layers/text/vocabulary.txt": b"a\nb\n"}, tmp_path / "model.keras")
    with opened(path) as contents:
        assert [(member.name, member.read()) for member in contents.members] == [
            ("assets/layers/text/vocabulary.txt", b"a\nb\n")
        ]
        assert contents.problems == ()


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("assets/run.py", b"", "keras-archive-program"),
        ("assets/lib", b"\x7fELF\x02", "keras-archive-program"),
        ("tokenizer.pkl", b"", "keras-archive-program"),
        ("assets/more.dat", honest({"a": b""}), "keras-archive-nested"),
        ("notes.txt", b"", "keras-archive-member"),
        ("__MACOSX/._config.json", b"", "keras-archive-left-over"),
        ("assets/.DS_Store", b"", None),
        ("model.weights.npz", honest({}), "keras-archive-two-weights"),
    ],
)
@pytest.mark.parametrize("make", [zipped, unpacked], ids=["file", "folder"])
def test_a_member_that_keras_does_not_write_is_told_by_its_rule(make, name, data, rule, tmp_path):
    assert rules_of(make({**keras_members(), name: data}, tmp_path / "model.keras")) == ({rule} if rule else set())


def test_a_member_marked_as_a_program_is_told(tmp_path):
    (tmp_path / "model.keras").write_bytes(honest(keras_members(), external_attr=0o100755 << 16))
    assert rules_of(tmp_path / "model.keras") == {"keras-archive-executable"}


def test_a_second_config_is_told(tmp_path):
    (tmp_path / "model.keras").write_bytes(twice(keras_members(), "config.json", b"{}"))
    assert "zip-duplicate-name" in rules_of(tmp_path / "model.keras")


def test_a_link_in_a_folder_is_told_and_not_followed(tmp_path):
    folder = unpacked(keras_members(), tmp_path / "model")
    (folder / "assets").mkdir()
    (folder / "assets" / "passwd").symlink_to("/etc/passwd")
    assert rules_of(folder) == {"folder-special-file"}
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/passwd")
    with pytest.raises(UnsafeContent, match="is a link"), opened(folder):
        pass


@pytest.mark.parametrize(
    ("members", "error", "said"),
    [
        ({"config__json": b"[]"}, IntegrityError, "no JSON object"),
        ({"config__json": b"{"}, IntegrityError, "not valid JSON"),
        ({"metadata__json": b"\xff"}, IntegrityError, "not valid JSON"),
        ({"config__json": b'{"a":' * 200 + b"1" + b"}" * 200}, LimitExceeded, "json_depth"),
        ({"config__json": b'{"a": "' + b"a" * 2**25 + b'"}'}, LimitExceeded, "config"),
        ({"metadata__json": b'{"a": "' + b"a" * 2**16 + b'"}'}, LimitExceeded, "metadata"),
        ({"model__weights__h5": b"no HDF5"}, IntegrityError, "model.weights.h5"),
    ],
)
def test_members_that_cannot_be_what_they_must_are_refused(members, error, said, tmp_path):
    path = zipped(keras_members(**members), tmp_path / "model.keras", zipfile.ZIP_DEFLATED)
    with pytest.raises(error, match=said), opened(path):
        pass


def test_a_config_that_packs_a_thousandfold_is_not_unpacked(tmp_path):
    path = zipped(keras_members(config__json=b" " * 2**27), tmp_path / "model.keras", zipfile.ZIP_DEFLATED)
    with pytest.raises(LimitExceeded, match="expansion_ratio"), opened(path):
        pass


def test_a_file_without_weights_is_damaged(tmp_path):
    members = keras_members()
    del members["model.weights.h5"]
    with pytest.raises(IntegrityError, match="no weights"), opened(zipped(members, tmp_path / "model.keras")):
        pass


def test_weights_of_pickled_arrays_are_listed_and_never_loaded(tmp_path):
    """What Keras wrote for ``weights_format="npz"``: a dictionary as an array of objects for each layer."""
    members = keras_members()
    del members["model.weights.h5"]
    np.savez(tmp_path / "weights.npz", **{"layers/dense": np.array({"0": np.ones(3)}, dtype=object)})
    members["model.weights.npz"] = (tmp_path / "weights.npz").read_bytes()
    with opened(zipped(members, tmp_path / "model.keras")) as contents:
        assert [problem.rule for problem in contents.problems] == ["npy-objects"]
        assert (contents.tensors, contents.pickles[0].read()[:1]) == ((), b"\x80")


def test_infinities_that_honest_configs_hold_are_read(tmp_path):
    members = keras_members(config__json=json.dumps({**CONFIG, "config": {"max_value": float("inf")}}).encode())
    assert rules_of(zipped(members, tmp_path / "model.keras")) == {"json-not-finite"}


HONEST = honest(keras_members())


@settings(max_examples=150, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.integers(0, 7)), max_size=3),
    keep=st.integers(0, len(HONEST)) | st.just(len(HONEST)),
    thorough=st.booleans(),
)
def test_a_damaged_file_never_raises_another_error_than_ours(tmp_path_factory, flips, keep, thorough):
    data = bytearray(HONEST)
    for place, bit in flips:
        data[place] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.keras"
    path.write_bytes(data[:keep])
    place = look(path)
    if not keras_archive.recognise(place):
        return
    try:
        with keras_archive.read(place, Limits(), thorough) as contents:
            found = {tensor.name: tensor.read() for tensor in (*contents.tensors, *contents.optimizer)}
            seen = bool(contents.problems)
    except ModelkeepError:
        return
    if thorough and not seen:
        assert_equal(found, WEIGHTS)


# --- real ones


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parent.glob("foreign/keras3/*/*.keras")), ids=lambda path: path.parent.name
)
def test_files_of_every_release_are_read_without_a_problem(path):
    with opened(path) as contents:
        assert contents.problems == ()
        assert contents.writer["keras"] == path.parent.name.partition("-")[0]
        assert all(tensor.read().shape == tensor.shape for tensor in (*contents.tensors, *contents.optimizer))


@pytest.mark.keras
def test_what_keras_saves_is_read_whole_in_file_and_folder(tmp_path):
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        archive.extractall(tmp_path / "folder")
    expected = [keras.ops.convert_to_numpy(value) for value in (*model.weights, *model.optimizer.variables)]
    for path in (tmp_path / "model.keras", tmp_path / "folder"):
        for found, value in zip(arrays(path).values(), expected, strict=True):
            np.testing.assert_array_equal(found, value, strict=True)
