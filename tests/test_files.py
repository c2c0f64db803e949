"""Any model file, without a store and into one: opened after a scan, converted, written, and taken in."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import modelkeep as mk
from modelkeep.errors import AlreadyExists, CannotLoad, MissingCustomObjects, NotFaithful, UnsafeContent, UsageError
from modelkeep.keep import Keep

pytestmark = pytest.mark.keras

X = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")


def network(units: int = 3) -> keras.Model:
    model = keras.Sequential([layers.Input((4,), name="row"), layers.Dense(units, name="head")], name="net")
    model.compile("adam", "mse")
    model.fit(X, np.zeros((5, units)), verbose=0)
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


@pytest.fixture
def file(model: keras.Model, tmp_path: Path) -> Path:
    path = tmp_path / "net.keras"
    model.save(path)
    return path


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    return mk.open(tmp_path / "store")


@pytest.fixture(scope="module")
def onnx(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    mk.save(model, path, golden=X)
    return path


@keras.saving.register_keras_serializable("files")
class Doubled(layers.Layer):
    def call(self, inputs):  # type: ignore[no-untyped-def]
        return inputs * 2


# --- opened


def test_a_file_gives_its_model_and_an_account_of_every_tensor(file: Path, model: keras.Model) -> None:
    opened = mk.load(file)
    np.testing.assert_array_equal(opened.predict(X), model.predict(X, verbose=0))
    assert opened.model.compiled
    assert opened.report.ok
    assert len([finding for finding in opened.findings if finding.check == "weights-matched"]) == 8


def test_the_form_is_told_by_content_and_a_misleading_name_is_refused(file: Path) -> None:
    with pytest.raises(UnsafeContent, match="wrong-ending"):
        mk.load(file.rename(file.with_suffix(".h5")))
    assert mk.load(file.with_suffix(".h5"), allow=["wrong-ending"]).form == "keras"


def test_weights_go_into_a_model_or_into_a_new_one_of_an_architecture(
    file: Path, model: keras.Model, tmp_path: Path
) -> None:
    weights = tmp_path / "net.safetensors"
    mk.save(model, weights, golden=X)
    other = network()
    mk.load(weights, into=other)
    anew = mk.load(weights, architecture=file)
    for filled in (other, anew.model):
        np.testing.assert_array_equal(filled.predict(X, verbose=0), model.predict(X, verbose=0))
    with pytest.raises(UsageError, match="weights alone"):
        mk.load(weights)
    with pytest.raises(UsageError, match="give one of them"):
        mk.load(weights, into=other, architecture=file)


def test_weights_that_do_not_fit_are_listed_and_change_nothing(file: Path, model: keras.Model) -> None:
    other = network(units=2)
    before = other.get_weights()
    with pytest.raises(NotFaithful, match=r"head(.|\n)*\(4, 2\)|\[4, 2\]"):
        mk.load(file, into=other)
    np.testing.assert_equal(other.get_weights(), before)


def test_one_name_may_be_given_without_a_list(file: Path) -> None:
    with pytest.raises(UsageError, match="found 'anything'"):
        mk.load(file, allow="anything")
    mk.load(file, into=network(2), skip="head")


def test_what_is_no_model_is_the_callers_mistake(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="into a Keras model"):
        mk.load(file, into="net")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not a Keras model: found str"):
        mk.save("net", tmp_path / "other.keras")  # type: ignore[arg-type]


def test_names_are_for_checkpoints_alone(file: Path) -> None:
    with pytest.raises(UsageError, match="TensorFlow checkpoint"):
        mk.load(file, names={"a": "b"})


def test_what_holds_no_keras_model_answers_all_the_same(onnx: Path, model: keras.Model) -> None:
    opened = mk.load(onnx)
    np.testing.assert_allclose(opened.predict(X)["head"], model.predict(X, verbose=0), atol=1e-6)
    np.testing.assert_allclose(opened.predict({"row": X})["head"], model.predict(X, verbose=0), atol=1e-6)
    with pytest.raises(CannotLoad, match=r"no Keras model(.|\n)*\.predict"):
        _ = opened.model


def test_a_saved_model_whose_classes_are_missing_serves_and_says_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    model = keras.Sequential([layers.Input((4,), name="row"), Doubled(name="twice")])
    mk.save(model, path, format="saved_model", golden=X)
    keras.saving.get_custom_objects().pop("files>Doubled")
    try:
        opened = mk.load(path)
    finally:
        keras.saving.get_custom_objects()["files>Doubled"] = Doubled
    np.testing.assert_allclose(opened.predict(X)["twice"], X * 2)
    with pytest.raises(CannotLoad, match=r"Doubled(.|\n)*custom_objects"):
        _ = opened.model
    assert mk.load(path, custom_objects=[Doubled]).model.layers[-1].name == "twice"


def with_config(file: Path, change: str, into: str) -> Path:
    """A copy of a .keras file with a text of its config replaced."""
    path = file.with_name("changed.keras")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(change.encode(), into.encode()) if name == "config.json" else data)
    return path


def test_a_file_that_could_do_harm_is_not_opened_unless_the_rule_is_allowed_by_name(file: Path) -> None:
    hostile = with_config(file, '"class_name": "Dense"', '"class_name": "TFSMLayer"')
    with pytest.raises(UnsafeContent, match="TFSMLayer"):
        mk.load(hostile)
    with pytest.raises(UsageError, match="no such rule"):
        mk.load(file, allow=["anything"])


def test_what_is_missing_is_told_with_the_line_that_would_open_it(file: Path) -> None:
    custom = with_config(
        file, '"module": "keras.layers", "class_name": "Dense"', '"module": "mine", "class_name": "Mine"'
    )
    with pytest.raises(MissingCustomObjects, match=r"Mine(.|\n)*custom_objects=\{'Mine': Mine\}"):
        mk.load(custom)


# --- written and converted


def test_a_file_that_is_there_is_not_written_over_unless_told(file: Path, model: keras.Model) -> None:
    before = file.read_bytes()
    with pytest.raises(AlreadyExists):
        mk.save(model, file, golden=X)
    assert file.read_bytes() == before
    assert mk.save(model, file, golden=X, overwrite=True).ok


def test_a_name_that_tells_no_form_needs_one(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="format='saved_model'"):
        mk.save(model, tmp_path / "model")


def test_converting_tells_of_the_way_in_and_the_way_out(file: Path, tmp_path: Path) -> None:
    report = mk.convert(file, tmp_path / "net.h5", golden=X)
    assert {"export-replay", "weights-matched"} <= {finding.check for finding in report}
    np.testing.assert_array_equal(mk.load(tmp_path / "net.h5").predict(X), mk.load(file).predict(X))


# --- into a store


def test_a_version_tells_which_file_it_came_from(keep: Keep, file: Path) -> None:
    lineage = keep.add(file, "net", golden=X).manifest.lineage
    assert lineage.source is not None
    assert lineage.source.startswith(
        f"net.keras: a .keras file of Keras 3, written by keras {keras.version()} (blake3:"
    )


def test_rules_that_were_allowed_are_told_by_the_version_and_by_the_ledger(keep: Keep, file: Path) -> None:
    odd = file.rename(file.with_suffix(".h5"))
    version = keep.add(odd, "net", allow=["wrong-ending"], golden=X)
    assert version.manifest.lineage.allowed == ("wrong-ending",)
    assert keep.history("net")[0].action.allowed == ("wrong-ending",)  # type: ignore[union-attr]
    with pytest.raises(UnsafeContent):
        keep.add(odd, "net", golden=X)


def test_weights_become_a_version_with_the_architecture_of_another(keep: Keep, file: Path, tmp_path: Path) -> None:
    keep.add(file, "net", golden=X)
    other = network()
    mk.save(other, tmp_path / "w.npz", golden=X)
    keep.add(tmp_path / "w.npz", "net", architecture="net:1.0.0", golden=X)
    np.testing.assert_array_equal(keep.load("net:1.1.0").predict(X), other.predict(X, verbose=0))


def test_a_form_that_only_serves_becomes_a_version_that_answers(
    keep: Keep, onnx: Path, model: keras.Model, tmp_path: Path
) -> None:
    version = keep.add(onnx, "net", golden={"row": X}, metrics={"accuracy": 0.9}, gates=["accuracy > 0.8"])
    assert version.kind == "servable"
    loaded = keep.load("net")
    np.testing.assert_allclose(loaded.predict(X)["head"], model.predict(X, verbose=0), atol=1e-6)
    with pytest.raises(CannotLoad, match="holds no Keras model"):
        _ = loaded.model
    assert keep.verify("net", live=True).ok
    exported = keep.export("net", "onnx", to=tmp_path / "again.onnx")
    assert exported.path.read_bytes() == onnx.read_bytes()
    with pytest.raises(UsageError, match="can only be written as it is"):
        keep.export("net", "h5", to=tmp_path / "net.h5")


def test_a_version_is_exported_and_replayed_on_its_own_examples(keep: Keep, model: keras.Model, tmp_path: Path) -> None:
    keep.save(model, "net", golden=X)
    exported = keep.export("net", "saved_model", to=tmp_path / "serving" / "1")
    assert "at 1 rows" in str(exported.report) or "equal" in str(exported.report)
    np.testing.assert_allclose(mk.load(exported.path).predict(X), model.predict(X, verbose=0), atol=1e-6)


def test_a_bundle_takes_nothing_beside_it(keep: Keep, model: keras.Model, tmp_path: Path) -> None:
    keep.save(model, "net", golden=X)
    bundle = keep.export("net", to=tmp_path / "net.zip").path
    with pytest.raises(UsageError, match="takes no architecture"):
        mk.open(tmp_path / "other").add(bundle, architecture="net:1.0.0")


def test_a_pickled_tokenizer_is_read_without_unpickling_it(keep: Keep, model: keras.Model, tmp_path: Path) -> None:
    import pickle

    from keras.src.legacy.preprocessing.text import Tokenizer

    tokenizer = Tokenizer(num_words=10)
    tokenizer.fit_on_texts(["a fox", "a dog"])
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(tokenizer))
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(Path.cwd))
    keep.save(model, "net", assets={"tokenizer": tmp_path / "tokenizer.pkl"}, golden=X)
    assert keep.load("net").assets["tokenizer"].texts_to_sequences(["a dog"]) == tokenizer.texts_to_sequences(["a dog"])
    with pytest.raises((UnsafeContent, UsageError)):
        keep.save(model, "net", assets={"tokenizer": tmp_path / "other.pkl"}, golden=X)
