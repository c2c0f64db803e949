"""The main job, end to end: real models into a real folder and back."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path

import keras
import numpy as np
import pytest

import modelkeep as mk
from modelkeep.errors import (
    AlreadyExists,
    CannotLoad,
    Conflict,
    GateRefused,
    IntegrityError,
    MissingCustomObjects,
    NotFaithful,
    NotFound,
    StoreNotFound,
    UsageError,
    VersionExists,
    VersionNotFound,
)

pytestmark = [pytest.mark.keras, pytest.mark.filterwarnings("ignore::UserWarning:keras")]

rng = np.random.default_rng(0)
X = rng.integers(0, 50, (24, 6)).astype("int32")
Y = rng.integers(0, 2, (24, 1)).astype("float32")


def classifier(units: int = 4) -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((6,), dtype="int32"),
        keras.layers.Embedding(50, 8),
        keras.layers.LSTM(units, name="memory"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1, activation="sigmoid", name="head"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    model = classifier()
    model.fit(X, Y, epochs=1, verbose=0)
    return model


@pytest.fixture
def keep(tmp_path: Path) -> mk.Keep:
    return mk.open(tmp_path / "models", actor="ada")


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_loaded_model_answers_as_the_saved_one_did(keep, trained):
    keep.save(trained, "sentiment", golden=X[:5])
    np.testing.assert_array_equal(keep.load("sentiment").predict(X), np.asarray(trained(X)))


def test_training_goes_on_to_the_bit_where_the_saved_model_stood(keep, tmp_path):
    model = classifier()
    model.fit(X, Y, epochs=2, verbose=0)
    keep.save(model, "sentiment")
    loaded = keep.load("sentiment").model
    histories = [m.fit(X, Y, epochs=2, shuffle=False, verbose=0).history for m in (model, loaded)]
    assert histories[0] == histories[1]


def test_training_a_loaded_model_never_changes_the_store(keep, trained, tmp_path):
    keep.save(trained, "sentiment")
    before = contents(tmp_path / "models")
    loaded = keep.load("sentiment").model
    loaded.fit(X, Y, epochs=1, verbose=0)
    assert contents(tmp_path / "models") == before
    assert not np.array_equal(loaded.get_weights()[0], trained.get_weights()[0])


def test_a_version_prints_its_name_its_digest_and_its_bytes(keep, trained):
    version = keep.save(trained, "sentiment")
    name, digest, size = str(version).split("  ")
    assert (name, digest) == ("sentiment:1.0.0", version.digest[:15])
    assert size.endswith("new)")


def test_numbers_are_bumped_given_or_refused_when_taken(keep, trained):
    numbers = [
        str(keep.save(trained, "m", check=False, **how).version)
        for how in ({}, {"bump": "patch"}, {"bump": "major"}, {})
    ]
    assert numbers == ["1.0.0", "1.0.1", "2.0.0", "2.1.0"]
    with pytest.raises(VersionExists):
        keep.save(trained, "m", version="1.0.1")


def test_a_pre_release_is_not_the_newest(keep, trained):
    keep.save(trained, "m", check=False)
    early = keep.save(trained, "m", bump="prerelease", check=False)
    assert early.version.prerelease
    assert str(keep.resolve("m").version) == "1.0.0"


def test_a_model_that_misses_a_gate_is_refused_with_its_numbers_and_leaves_no_version(keep, trained):
    with pytest.raises(GateRefused, match=r"accuracy is 0\.6"):
        keep.save(trained, "sentiment", metrics={"accuracy": 0.6}, gates=["accuracy >= 0.85"])
    refused = keep.history("sentiment")[-1].action
    assert (refused.gates[0].gate, refused.gates[0].values) == ("accuracy >= 0.85", {"accuracy": 0.6})
    assert keep.versions("sentiment") == []


def test_a_refused_model_costs_no_disk(keep, trained, tmp_path):
    with pytest.raises(GateRefused):
        keep.save(trained, "sentiment", gates=["params < 10", "size <= 1 kB"])
    assert not (tmp_path / "models" / "blobs").exists()


def test_gates_compare_with_production_the_parent_and_the_loaded_model(keep, trained):
    keep.save(trained, "m", metrics={"accuracy": 0.8}, gates=["accuracy >= @production.accuracy - 0.01"])
    keep.promote("m:1.0.0", "production")

    def answers_in_unit_range(loaded: mk.Loaded) -> bool:
        return bool((loaded.predict(X[:2]) <= 1).all())

    keep.save(
        trained,
        "m",
        metrics={"accuracy": 0.795},
        gates=["accuracy >= @production.accuracy - 0.01", answers_in_unit_range],
    )
    with pytest.raises(GateRefused):
        keep.promote("m:1.1.0", "production", gates=["accuracy > @production.accuracy"])
    with pytest.raises(GateRefused, match="returned False"):
        keep.save(trained, "m", gates=[lambda loaded: False])
    assert keep.resolve("m@production").ref == "m:1.0.0"


def test_promote_split_and_rollback_again_and_further_back(keep, trained):
    for _ in range(3):
        keep.save(trained, "m", check=False)
    keep.promote("m:1.0.0", "production")
    keep.promote("m:1.1.0", "production", reason="better")
    keep.split("m@production", {"1.1.0": 90, "1.2.0": 10})
    assert keep.resolve("m@production").weights == {"1.1.0": 90.0, "1.2.0": 10.0}
    assert keep.rollback("m@production").ref == "m:1.1.0"
    assert keep.rollback("m@production").ref == "m:1.0.0"
    with pytest.raises(Conflict, match="no earlier move"):
        keep.rollback("m@production")
    assert [(entry.actor, entry.reason) for entry in keep.history("m@production")][1] == ("ada", "better")


def test_an_alias_can_be_asked_as_of_a_time(keep, trained):
    keep.save(trained, "m", check=False)
    keep.promote("m:1.0.0", "production")
    then = keep.history("m")[-1].time
    keep.save(trained, "m", check=False)
    keep.promote("m", "production")
    assert keep.resolve("m@production").ref == "m:1.1.0"
    assert keep.resolve("m@production", at=then).ref == "m:1.0.0"


def test_search_reads_metrics_tags_and_metadata(keep, trained):
    keep.save(trained, "a", metrics={"accuracy": 0.9}, tags=["nightly"], metadata={"dataset": "reviews"}, check=False)
    keep.save(trained, "b", metrics={"accuracy": 0.7}, check=False)
    assert [v.ref for v in keep.search("accuracy > 0.8")] == ["a:1.0.0"]
    assert [v.ref for v in keep.search("'nightly' in tags and metadata.dataset == 'reviews'")] == ["a:1.0.0"]


def test_raw_text_goes_in_and_a_label_comes_out(keep):
    tokenizer = mk.Tokenizer(num_words=50)
    tokenizer.fit_on_texts(["a great film", "a dull film"])
    steps = [mk.steps.tokenize("words"), mk.steps.pad(6)]
    keep.save(
        classifier(),
        "m",
        assets={"words": tokenizer},
        pipeline=mk.Pipeline(steps, outputs=[mk.steps.labels(["negative", "positive"])]),
        golden=["a great film", "dull"],
    )
    loaded = keep.load("m")
    assert loaded.assets["words"].word_index == tokenizer.word_index
    assert loaded.predict(["a dull film"])[0]["label"] in {"negative", "positive"}
    assert keep.verify("m", live=True).ok


@pytest.mark.parametrize("facts", [{"metrics": {"loss": float("nan")}}, {"metadata": {"when": object()}}])
def test_what_has_no_json_form_is_refused_before_anything_is_written(keep, trained, facts, tmp_path):
    with pytest.raises(UsageError, match="JSON"):
        keep.save(trained, "m", **facts)
    assert not (tmp_path / "models" / "blobs").exists()


def test_more_metadata_than_the_ledger_takes_is_refused_before_anything_is_written(keep, trained, tmp_path):
    with pytest.raises(UsageError, match="keep it as an asset"):
        keep.save(trained, "m", metadata={"text": "x" * 10**6})
    assert not (tmp_path / "models" / "blobs").exists()


def test_weights_that_are_not_finite_are_refused_unless_allowed_by_name(keep):
    model = classifier()
    head = model.get_layer("head")
    head.kernel.assign(np.full(head.kernel.shape, np.nan))
    with pytest.raises(NotFaithful, match="head/kernel"):
        keep.save(model, "m")
    keep.save(model, "m", allow_non_finite=["head/kernel", "outputs"])


def test_a_weights_only_version_goes_into_a_model_that_is_there(keep, trained):
    keep.save(trained, "m", architecture=False)
    with pytest.raises(CannotLoad, match="weights-only"):
        keep.load("m")
    model = classifier()
    keep.load("m", into=model)
    np.testing.assert_array_equal(np.asarray(model(X)), np.asarray(trained(X)))
    with pytest.raises(NotFaithful):
        keep.load("m", into=classifier(units=5))


def test_lazy_verification_raises_once_damage_is_known(keep, trained, tmp_path):
    version = keep.save(trained, "m")
    packed = next(t for t in version.manifest.tensors if t.name.startswith("weights/"))
    blob = packed.pieces[0].blob.removeprefix("blake3:")
    path = tmp_path / "models" / "blobs" / blob[:2] / blob
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    loaded = keep.load("m", verify="lazy")
    with pytest.raises(IntegrityError, match="damaged"):
        loaded.wait()
    with pytest.raises(IntegrityError):
        loaded.predict(X)
    with pytest.raises(IntegrityError, match="damaged"):
        keep.load("m")
    assert not keep.verify("m").ok
    assert not keep.fsck().ok


def test_a_head_that_alone_changed_is_all_that_is_written(keep):
    model = classifier()
    keep.save(model, "m")
    model.get_layer("head").bias.assign([0.5])
    version = keep.save(model, "m", parent="m:1.0.0")
    names = {t.name: t.digest for t in keep.resolve("m:1.0.0").manifest.tensors if not t.name.startswith("golden/")}
    changed = [t.variable for t in version.manifest.tensors if names.get(t.name, t.digest) != t.digest]
    assert [name.rpartition("/")[2] for name in changed] == ["bias"]
    assert version.new_bytes < 30_000


def test_a_custom_layer_comes_back_with_its_class_and_its_absence_is_explained(keep):
    class Scale(keras.Layer):
        def __init__(self, by=1.0, **kwargs):
            super().__init__(**kwargs)
            self.by = by

        def call(self, x):
            return x * self.by

        def get_config(self):
            return {**super().get_config(), "by": self.by}

    model = keras.Sequential([keras.Input((3,)), Scale(3.0, name="triple")])
    keep.save(model, "m")
    with pytest.raises(MissingCustomObjects, match="triple"):
        keep.load("m")
    assert keep.load("m", custom_objects=[Scale]).predict(np.ones((1, 3), "float32")).tolist() == [[3.0] * 3]


def test_a_bundle_carries_a_version_to_another_store_unchanged(keep, trained, tmp_path):
    version = keep.save(trained, "m", golden=X[:2])
    path = keep.export("m", to=tmp_path / "m.zip").path
    other = mk.open(tmp_path / "other")
    assert other.add(path).digest == version.digest
    assert path.read_bytes() == other.export("m", to=tmp_path / "again.zip").path.read_bytes()
    with pytest.raises(VersionExists):
        other.add(path)
    with pytest.raises(AlreadyExists):
        keep.export("m", to=path)


def test_a_bundle_takes_no_arrays_beside_it(keep, trained, tmp_path):
    keep.save(trained, "m")
    path = keep.export("m", to=tmp_path / "m.zip").path
    with pytest.raises(UsageError, match="so it takes no golden"):
        mk.open(tmp_path / "other").add(path, golden=X)


def test_a_keras_file_becomes_a_version(keep, trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    keep.add(tmp_path / "model.keras", "m", metrics={"accuracy": 0.9})
    np.testing.assert_array_equal(keep.load("m").predict(X), np.asarray(trained(X)))


def test_deleting_frees_bytes_only_with_gc_and_never_the_number(keep, trained, tmp_path):
    keep.save(trained, "m")
    keep.delete("m:1.0.0")
    assert keep.gc().removed == 0  # too young
    assert keep.gc(grace=timedelta(0)).removed > 0
    with pytest.raises(VersionNotFound):
        keep.load("m:1.0.0")
    with pytest.raises(VersionExists):
        keep.save(trained, "m", version="1.0.0")


def test_reading_from_a_folder_that_is_no_store_makes_none(tmp_path):
    with pytest.raises(StoreNotFound):
        mk.open(tmp_path / "nowhere").models()
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_of_something_else_is_never_touched(tmp_path, trained):
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(StoreNotFound, match="neither a modelkeep store nor empty"):
        mk.open(tmp_path).save(trained, "m")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_store_is_named_by_the_argument_the_variable_or_by_default(tmp_path, monkeypatch):
    assert mk.open().store.url == "models"
    monkeypatch.setenv("MODELKEEP_STORE", str(tmp_path))
    assert mk.open().store.url == str(tmp_path)


def test_lineage_names_the_parent_with_its_digest(keep, trained):
    first = keep.save(trained, "m", check=False)
    second = keep.save(trained, "m", parent="m", data_digest="sha256:abc", check=False)
    assert second.manifest.lineage.parent == f"m:1.0.0@{first.digest}"
    assert second.manifest.lineage.data_digest == "sha256:abc"


def test_the_manifest_is_plain_json_without_a_pickle(keep, trained):
    version = keep.save(trained, "m", tags=["b", "a"])
    data = json.loads(keep.store.get(f"blobs/{version.digest[7:9]}/{version.digest[7:]}"))
    assert (data["model"], data["tags"]) == ("m", ["a", "b"])


def test_numbers_from_training_are_kept_as_plain_ones(keep, trained):
    history = trained.fit(X, Y, epochs=2, verbose=0).history
    keep.save(trained, "m", metrics={**history, "accuracy": np.float32(0.5)}, metadata={"folds": np.int64(5)})
    version = keep.resolve("m")
    assert (version.metrics["accuracy"], version.metadata) == (0.5, {"folds": 5})
    assert version.metrics["loss"] == history["loss"]


@pytest.mark.parametrize("facts", [{"metrics": [0.5]}, {"metadata": None}, {"tags": "nightly"}, {"data_digest": 5}])
def test_facts_of_another_shape_are_refused_and_leave_nothing(keep, trained, facts):
    with pytest.raises(UsageError):
        keep.save(trained, "m", **facts)
    with pytest.raises(NotFound):
        keep.resolve("m")


def test_a_damaged_version_does_not_keep_the_next_from_being_saved(keep, trained, tmp_path):
    digest = keep.save(trained, "m").digest.removeprefix("blake3:")
    (tmp_path / "models" / "blobs" / digest[:2] / digest).write_bytes(b"damaged")
    assert str(keep.save(trained, "m").version) == "1.1.0"


def test_a_history_is_of_a_model_or_an_alias(keep, trained):
    keep.save(trained, "m")
    keep.promote("m", to="production")
    assert [len(keep.history(name)) for name in ("m", "m@production")] == [2, 1]
    with pytest.raises(UsageError, match="a model or an alias"):
        keep.history("m:1.0.0")


def test_a_split_in_no_store_makes_none(keep):
    with pytest.raises(StoreNotFound):
        keep.split("m@production", {"1.0.0": 100})


def test_assets_have_names(keep, trained):
    with pytest.raises(UsageError, match="write assets="):
        keep.save(trained, "sentiment", assets=["words.txt"])


def test_tags_are_a_list_and_not_letters(keep, trained):
    keep.save(trained, "m")
    with pytest.raises(UsageError, match=r"write \['nightly'\]"):
        keep.annotate("m", tags="nightly")
