"""Weights move into another network; every tensor and every variable is told of, once, and values are what was told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import modelkeep as mk
from modelkeep.errors import CannotLoad, IntegrityError, NotFaithful, UsageError
from modelkeep.files import form_of
from modelkeep.formats.forms import open_contents
from modelkeep.live import donor
from modelkeep.live.internals import walk
from modelkeep.live.network import network_of
from modelkeep.live.transfer import FATES, Terms, Transfer, from_file, transfer
from modelkeep.live.variables import inventory
from modelkeep.live.writing import h5, keras_archive, weights
from modelkeep.pipeline import Tokenizer

pytestmark = pytest.mark.keras

FOREIGN = Path(__file__).parent / "foreign"


def values(model: keras.Model) -> dict[str, Any]:
    """The values of all weights, by the names that a transfer has for them."""
    names = network_of(model).names
    weights = inventory(walk(model)).variables.values()
    return {names[id(v)]: np.array(keras.ops.convert_to_numpy(v)) for v in weights if id(v) in names}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def counts(done: Transfer) -> dict[str, int]:
    return {fate: len(getattr(done, fate)) for fate in FATES if getattr(done, fate)}


def targets(outcomes: Any) -> set[str | None]:
    return {outcome.target for outcome in outcomes}


def net(*units: int, names: str = "", inputs: int = 3, **options: Any) -> keras.Model:
    """Dense layers of so many units, called by the letters of ``names``."""
    made = [layers.Dense(count, name=name) for count, name in zip(units, names or "abcdefgh", strict=False)]
    return keras.Sequential([layers.Input((inputs,)), *made], **options)


def written(model: keras.Model, folder: Path, name: str = "model.weights.h5") -> Path:
    form = form_of(folder / name)
    module = {"keras": keras_archive, "h5": h5}.get(form, weights)
    module.write(model, folder / name, form=form)
    return folder / name


def convolutional(head: int, *, prefix: str = "", nested: bool = False, automatic: bool = False) -> keras.Model:
    """A backbone with branches, in the model or within it, and a head."""

    def called(name: str) -> str | None:
        return None if automatic else prefix + name

    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name=called("stem"))(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name=called("norm"))(x))
    left = layers.Conv2D(4, 1, name=called("left"))(x)
    right = layers.Conv2D(4, 1, name=called("right"))(x)
    x = layers.Concatenate()([left, layers.Conv2D(4, 1, name=called("right_2"))(right)])
    x = layers.GlobalAveragePooling2D()(x)
    if nested:
        backbone, inputs = keras.Model(inputs, x, name="backbone"), keras.Input((8, 8, 3))
        x = backbone(inputs)
    return keras.Model(inputs, layers.Dense(head, name=called(f"head{head}"))(x))


# --- every form


ENDINGS = ("model.keras", "model.weights.h5", "model.h5", "model.safetensors", "model.npz")


@pytest.mark.backends
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("automatic", [False, True])
def test_a_backbone_goes_under_a_new_head_out_of_every_form(ending: str, automatic: bool, tmp_path: Path) -> None:
    source = convolutional(7, automatic=automatic)
    model = convolutional(2, nested=True, automatic=automatic)
    # Of two heads that Keras named itself, nothing says that they are two.
    done = from_file(written(source, tmp_path, ending), model, Terms(on_mismatch="skip"))
    assert counts(done) == {"copied": 12, **({"mismatched": 2} if automatic else {"missing": 2, "unused": 2})}
    assert targets((*done.missing, *done.mismatched)) == {
        name for name in values(model) if name.startswith(("head", "dense"))
    }
    sources = [v for name, v in values(source).items() if not name.startswith(("head", "dense"))]
    assert all(np.array_equal(a, b) for a, b in zip(sources, values(model).values(), strict=False))


@pytest.mark.parametrize("ending", ["model.keras", "model.weights.h5", "model.h5"])
def test_the_same_graph_under_other_names_is_filled_by_its_structure(ending: str, tmp_path: Path) -> None:
    source, model = convolutional(3), convolutional(3, prefix="x_")
    done = from_file(written(source, tmp_path, ending), model, Terms())
    assert counts(done) == {"copied": 14}
    assert {outcome.rule for outcome in done.copied} == {"structure"}
    assert list(map(np.sum, values(source).values())) == list(map(np.sum, values(model).values()))


def test_what_has_neither_names_nor_an_order_in_common_is_refused(tmp_path: Path) -> None:
    path = written(net(2, 2, names="ab"), tmp_path, "model.safetensors")
    with pytest.raises(NotFaithful, match=r"order of the layers is not known.*rename tells which is which"):
        from_file(path, net(2, 2, names="xy"), Terms())
    done = from_file(path, net(2, 2, names="xy"), Terms(rename={"a": "x", "b": "y"}))
    assert counts(done) == {"copied": 4}


@pytest.mark.parametrize("name", ["nested.h5", "nested-weights.h5", "lstm.h5", "slashes-weights.h5", "transformer.h5"])
def test_files_of_keras_2_give_what_loading_them_gives(name: str) -> None:
    loaded = mk.load(FOREIGN / "keras2" / f"{name.removesuffix('.h5').removesuffix('-weights')}.h5").model
    model = keras.models.clone_model(loaded)
    done = from_file(FOREIGN / "keras2" / name, model, Terms())
    assert counts(done) == {"copied": len(values(loaded))}
    assert same(values(loaded), values(model))


@pytest.mark.parametrize("name", ["dense", "weights/ckpt"])
def test_saved_models_and_checkpoints_of_keras_2_are_known_by_name(name: str) -> None:
    loaded = mk.load(FOREIGN / "saved_models" / "dense").model
    model = keras.models.clone_model(loaded)
    assert counts(from_file(FOREIGN / "saved_models" / name, model, Terms())) == {"copied": 8}
    assert same(values(loaded), values(model))


def test_a_layer_within_a_model_of_keras_2_is_taken_out_of_it() -> None:
    model = keras.Sequential(
        [layers.Input((2,)), layers.BatchNormalization(name="batch_normalization_1")], name="chain"
    )
    with open_contents(FOREIGN / "keras2" / "nested-weights.h5") as contents:
        width = next(t.shape[0] for t in contents.tensors if "batch_normalization_1/gamma" in t.name)
    model = keras.Sequential([layers.Input((width,)), layers.BatchNormalization(name="batch_normalization_1")])
    done = from_file(FOREIGN / "keras2" / "nested-weights.h5", model, Terms(rename={"chain/(batch.*)": r"\1"}))
    assert counts(done)["copied"] == 4


def test_a_file_without_weights_gives_none() -> None:
    with pytest.raises(CannotLoad, match="without weights"):
        from_file(FOREIGN / "keras2" / "images.h5", net(2), Terms())


# --- the account


LAYERS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(1, 3)), min_size=1, max_size=4)
PATTERN = st.sampled_from(["a", "b/kernel", "[abc]", "inner", "bias", "dense.*", "inner/.*"])


def network(made: list[tuple[str | None, int]], *, nested: bool) -> keras.Model:
    chosen: set[str | None] = set()
    parts: list[Any] = []
    for name, units in made:
        parts.append(layers.Dense(units, name=None if name in chosen else name))
        chosen.add(name)
    if nested and len(parts) > 1:
        parts[:2] = [keras.Sequential(parts[:2], name="inner")]
    model = keras.Sequential(parts)
    model.build((None, 2))
    return model


@settings(max_examples=30)
@given(
    source=LAYERS,
    target=LAYERS,
    nested=st.tuples(st.booleans(), st.booleans()),
    ending=st.sampled_from(["weights.h5", "safetensors"]),
    rename=st.dictionaries(PATTERN, st.sampled_from(["b", "inner/a", "c", "kernel"]), max_size=2),
    include=st.lists(PATTERN, max_size=1),
    exclude=st.lists(PATTERN, max_size=1),
    on_mismatch=st.sampled_from(["refuse", "skip", "slice", "pad"]),
    match=st.sampled_from(["auto", "path", "name", "structure"]),
)
def test_every_tensor_and_every_variable_is_in_one_list_and_has_the_value_that_it_tells(
    source: Any, target: Any, nested: Any, ending: str, tmp_path_factory: pytest.TempPathFactory, **terms: Any
) -> None:
    giving, model = network(source, nested=nested[0]), network(target, nested=nested[1])
    path = tmp_path_factory.mktemp("source") / f"model.{ending}"
    weights.write(giving, path, form=form_of(path))
    before, given_ = values(model), values(giving)
    with open_contents(path) as contents:
        names = [tensor.name for tensor in contents.tensors]
        net = network_of(model)
        one = donor.of_contents(contents, net, name="source", source="source", digest="")
        try:
            told = transfer(one, net, Terms(**terms, dry_run=True))
        except UsageError:  # a pattern that names nothing
            assert same(before, values(model))
            return
        assert same(before, values(model))
        accounted = [outcome.tensor for outcome in told.outcomes if outcome.tensor]
        assert sorted(accounted) == sorted(names)
        assert sorted(o.target for o in told.outcomes if o.target) == sorted(before)
        try:
            done = transfer(one, net, Terms(**terms))
        except NotFaithful:
            assert not told.report.ok
            assert same(before, values(model))
            return
    assert done.outcomes == told.outcomes
    by_tensor = dict(zip([t.tensor.name for t in one.tensors], [t.name for t in one.tensors], strict=True))
    after, ordered = values(model), dict(zip(names, _in_order(names, giving, given_), strict=True))
    for outcome in done.outcomes:
        if outcome.fate == "copied":
            assert np.array_equal(after[outcome.target], ordered[outcome.tensor]), by_tensor
        elif outcome.fate == "partial":
            block = tuple(map(slice, map(min, outcome.source_shape, outcome.shape)))
            expected = before[outcome.target].copy()
            expected[block] = ordered[outcome.tensor][block]
            assert np.array_equal(after[outcome.target], expected)
        elif outcome.target:
            assert np.array_equal(after[outcome.target], before[outcome.target])


def _in_order(names: list[str], model: keras.Model, given_: dict[str, Any]) -> Iterator[Any]:
    """The values of the tensors of a file, found by path or by name."""
    for name in names:
        by_path = {k.removeprefix("weights/"): v for k, v in inventory(walk(model)).variables.items()}
        yield np.array(keras.ops.convert_to_numpy(by_path[name])) if name in by_path else given_[name]


# --- what does not fit


def test_another_shape_refuses_all_and_changes_nothing(tmp_path: Path) -> None:
    model = net(4, 3)
    before = values(model)
    with pytest.raises(NotFaithful, match=r"b/kernel: float32\[4, 3\] from b/0 float32\[4, 2\]") as refused:
        from_file(written(net(4, 2), tmp_path), model, Terms())
    assert same(before, values(model))
    assert {finding.check for finding in refused.value.report} == {"copied", "mismatched"}


def test_a_layer_that_does_not_fit_is_left_whole(tmp_path: Path) -> None:
    source, model = net(4, 2), net(4, 2, inputs=5)
    done = from_file(written(source, tmp_path), model, Terms(on_mismatch="skip"))
    assert targets(done.copied) == {"b/kernel", "b/bias"}
    assert targets(done.mismatched) == {"a/kernel", "a/bias"}
    assert {outcome.target: outcome.note for outcome in done.mismatched}["a/bias"] == (
        "left with its layer, of which kernel does not fit"
    )


def test_a_larger_source_is_sliced_and_a_smaller_one_padded(tmp_path: Path) -> None:
    large, small, middle = net(4, 5), net(4, 1), net(4, 2)
    done = from_file(written(large, tmp_path), middle, Terms(on_mismatch="slice"))
    assert [(o.target, o.parameters) for o in done.partial] == [("b/kernel", 8), ("b/bias", 2)]
    assert np.array_equal(values(middle)["b/kernel"], values(large)["b/kernel"][:, :2])
    kept = values(middle)["b/kernel"][:, 1:]
    from_file(written(small, tmp_path, "small.weights.h5"), middle, Terms(on_mismatch="pad"))
    assert np.array_equal(values(middle)["b/kernel"], np.concatenate([values(small)["b/kernel"], kept], 1))


def test_what_cannot_be_sliced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFaithful, match="the source cannot be sliced to that shape"):
        from_file(written(net(4, 2), tmp_path), net(4, 3), Terms(on_mismatch="slice"))


@pytest.mark.backends
def test_a_narrower_dtype_rounds_and_says_so_a_wider_one_holds_all(tmp_path: Path) -> None:
    source, half, double = net(2), net(2), net(2)
    half = keras.Sequential([layers.Input((3,)), layers.Dense(2, name="a", dtype="float16")])
    path = written(source, tmp_path)
    done = from_file(path, half, Terms())
    assert done.copied[0].note == "float16 rounds it"
    assert np.array_equal(values(half)["a/kernel"], values(source)["a/kernel"].astype("float16"))
    back = from_file(written(half, tmp_path, "half.weights.h5"), double, Terms())
    assert back.copied[0].note == "as float32 with equal values"


def test_values_that_the_dtype_cannot_hold_change_nothing(tmp_path: Path) -> None:
    source = net(2, 1)
    source.layers[1].kernel.assign([[1e20], [0.0]])
    model = keras.Sequential(
        [layers.Input((3,)), *(layers.Dense(n, name=c, dtype="float16") for c, n in (("a", 2), ("b", 1)))]
    )
    before = values(model)
    with pytest.raises(NotFaithful, match="has values that float16 cannot hold"):
        from_file(written(source, tmp_path), model, Terms())
    assert same(before, values(model))


def test_an_integer_is_no_float(tmp_path: Path) -> None:
    quantized, model = net(2, inputs=4), net(2, inputs=4)
    quantized.layers[0].quantize("int8")
    done = from_file(written(quantized, tmp_path), model, Terms(on_mismatch="skip", dry_run=True))
    assert "int8 is no float32" in {outcome.note for outcome in done.mismatched}


# --- names


def test_patterns_that_name_nothing_are_told(tmp_path: Path) -> None:
    path, model = written(net(2), tmp_path), net(2)
    for terms in ({"rename": {"x": "a"}}, {"include": ["x"]}, {"exclude": "x"}, {"include": ["kern"]}):
        option = next(iter(terms))
        with pytest.raises(UsageError, match=f"{option} names nothing"):
            from_file(path, model, Terms(**terms))
    with pytest.raises(UsageError, match="not a regular expression"):
        from_file(path, model, Terms(include="("))
    with pytest.raises(UsageError, match="on_mismatch is not one of those there are"):
        Terms(on_mismatch="ignore")  # type: ignore[arg-type]


def test_only_what_is_included_and_not_excluded_is_touched(tmp_path: Path) -> None:
    done = from_file(written(net(3, 3, 3), tmp_path), net(3, 3, 3), Terms(include="[ab]", exclude="b/bias"))
    assert targets(done.copied) == {"a/kernel", "a/bias", "b/kernel"}
    assert targets(done.excluded) == {"b/bias", "c/kernel", "c/bias"}


def test_rules_of_renaming_go_one_after_the_other(tmp_path: Path) -> None:
    rename = {"a": "old", "old": "x", r"b/(kernel|bias)": r"y/\1"}
    path = written(net(3, 3), tmp_path, "model.npz")
    done = from_file(path, net(3, 3, names="xy"), Terms(rename=rename))
    assert {(o.source, o.target) for o in done.copied} >= {("a/kernel", "x/kernel"), ("b/kernel", "y/kernel")}
    with pytest.raises(UsageError, match="refers to what"):
        from_file(written(net(3), tmp_path), net(3), Terms(rename={"a": r"\2"}))


# --- training


def test_exactly_the_layers_that_were_copied_whole_are_frozen(tmp_path: Path) -> None:
    model = convolutional(2, nested=True)
    model.get_layer("backbone").get_layer("norm").trainable = True
    path = written(convolutional(7), tmp_path)
    done = from_file(path, model, Terms(freeze=True, exclude="left/bias"))
    assert done.frozen == tuple(f"backbone/{name}" for name in ("stem", "norm", "right", "right_2"))
    assert {v.path.rpartition("/")[0] for v in model.trainable_weights} == {"left", "head2"}
    assert [f.subject for f in done.findings if f.check == "not-frozen"] == ["backbone/left"]
    assert from_file(path, model, Terms(freeze=True)).frozen
    assert not model.get_layer("backbone").trainable
    assert [v.path for v in model.trainable_weights] == ["head2/kernel", "head2/bias"]


@pytest.mark.backends
def test_a_compiled_model_is_to_be_compiled_again(tmp_path: Path) -> None:
    model = net(2, 1)
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 3)), np.ones((2, 1)))
    slots = [np.array(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    done = from_file(written(net(2, 4), tmp_path), model, Terms(freeze=True, on_mismatch="skip"))
    assert {"compile-again", "optimizer"} <= {finding.check for finding in done.findings}
    now = [np.array(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    assert all(np.array_equal(a, b) for a, b in zip(slots, now, strict=True))
    kernel = values(model)["a/kernel"]
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 3)), np.ones((2, 1)))
    assert np.array_equal(values(model)["a/kernel"], kernel)


def test_a_model_that_was_never_built_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="never built"):
        from_file(written(net(2), tmp_path), keras.Sequential([layers.Dense(2)]), Terms())
    with pytest.raises(UsageError, match="go into a Keras model"):
        from_file(written(net(2), tmp_path), "model.keras", Terms())  # type: ignore[arg-type]


# --- versions


@pytest.fixture(scope="module")
def keep(tmp_path_factory: pytest.TempPathFactory) -> mk.Keep:
    """A store with a model over words and its tokenizer."""
    keep = mk.open(tmp_path_factory.mktemp("store"))
    model = worded(5)
    model.compile("adam", "mse")
    model.train_on_batch(np.array([[1, 2]]), np.ones((1, 2)))
    keep.save(model, "words", assets={"tokenizer": tokenizer("red", "green", "blue", "teal")}, check=False)
    return keep


def worded(tokens: int, head: int = 2) -> keras.Model:
    inputs = keras.Input((2,), dtype="int32")
    x = layers.Embedding(tokens, 3, name="words")(inputs)
    x = layers.Dropout(0.5, seed=4)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(head, name=f"head{head}")(x))


def tokenizer(*words: str) -> Tokenizer:
    made = Tokenizer()
    made.fit_on_texts([" ".join(words[: len(words) - i]) for i in range(len(words))])
    return made


def test_rows_follow_their_tokens_where_the_tokenizer_changed(keep: mk.Keep) -> None:
    model, source = worded(6), keep.load("words").model
    new = tokenizer("teal", "red", "pink", "green", "grey")
    fresh = values(model)["words/embeddings"]
    done = keep.transfer("words", model, vocabulary=new)
    rows, old = values(model)["words/embeddings"], values(source)["words/embeddings"]
    was = keep.load("words").assets["tokenizer"].word_index
    for word, index in new.word_index.items():
        expected = old[was[word]] if word in was else fresh[index]
        assert np.array_equal(rows[index], expected), word
    assert done.partial[0].parameters == 4 * 3
    assert "2 new (pink, grey); 1 dropped (blue)" in done.partial[0].note
    assert targets(done.copied) == {"head2/kernel", "head2/bias"}


def test_a_vocabulary_needs_an_old_tokenizer_and_one_embedding(keep: mk.Keep, tmp_path: Path) -> None:
    path = written(keep.load("words").model, tmp_path)
    with pytest.raises(UsageError, match="no tokenizer of its own"):
        keep.transfer(path, worded(5), vocabulary=["a"])
    with pytest.raises(UsageError, match="which embedding"):
        keep.transfer(path, net(2), vocabulary=(["a"], ["b"]))
    with pytest.raises(UsageError, match="vocabulary names nothing"):
        keep.transfer(path, worded(5), vocabulary={"letters": (["a"], ["b"])})


def test_a_vocabulary_that_is_another_ones_is_refused(keep: mk.Keep) -> None:
    with pytest.raises(NotFaithful, match="the new vocabulary has 7 indices, 6 rows are there"):
        keep.transfer("words", worded(6), vocabulary=tokenizer(*"abcdef"))
    with pytest.raises(NotFaithful, match="the old vocabulary has 7 indices, 5 rows are there"):
        keep.transfer("words", worded(9), vocabulary=(tokenizer(*"abcdef"), ["a"]))


def test_a_version_gives_its_weights_and_keeps_its_states(keep: mk.Keep) -> None:
    model = worded(5, head=3)
    seed = next(v for v in model.variables if "seed" in v.path)
    before = np.array(keras.ops.convert_to_numpy(seed))
    done = keep.transfer("words", model)
    assert counts(done) == {"copied": 1, "missing": 2, "unused": 2}
    assert np.array_equal(values(model)["words/embeddings"], values(keep.load("words").model)["words/embeddings"])
    assert np.array_equal(np.array(keras.ops.convert_to_numpy(seed)), before)
    states = next(finding for finding in done.findings if finding.check == "states")
    assert any(name.startswith("state/") for name in states.details["names"])


def test_the_lineage_of_what_is_saved_names_the_source_and_what_it_gave(keep: mk.Keep) -> None:
    model = worded(5, head=3)
    keep.transfer("words", model, freeze=True, dry_run=True)
    keep.transfer("words", model, freeze=True)
    (told,) = keep.save(model, "topics", check=False).manifest.lineage.transfers
    assert told.digest == keep.resolve("words").digest
    assert told.source == f"words:1.0.0@{told.digest}"
    assert (told.copied.parameters, told.unused.tensors, told.options) == (15, 2, {"freeze": True})


def test_a_checkpoint_gives_what_the_training_came_to(tmp_path: Path) -> None:
    store, trained, model = mk.open(tmp_path), net(2, 1), net(2, 4)
    trained.compile("sgd", "mse")
    store.checkpoints("run", every_steps=1).fit(trained, np.ones((4, 3)), np.ones((4, 1)), batch_size=2, verbose=0)
    done = store.transfer("run@2", model, on_mismatch="skip")
    assert done.source == store.transfer("run@last", model, exclude="b", dry_run=True).source == "run@2"
    assert np.array_equal(values(model)["a/kernel"], values(trained)["a/kernel"])


def test_damage_in_the_source_is_found_before_anything_changes(keep: mk.Keep, tmp_path: Path) -> None:
    store = mk.open(tmp_path / "store")
    store.save(net(3, 400, inputs=1000), "large", check=False)
    version = store.resolve("large")
    blob = next(t for t in version.manifest.tensors if t.name.endswith("vars/0")).pieces[0].blob.partition(":")[2]
    file = next((tmp_path / "store").rglob(blob))
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    model = net(3, 400, inputs=1000)
    before = values(model)
    with pytest.raises(IntegrityError):
        store.transfer("large", model)
    assert same(before, values(model))


# --- the report


def test_a_report_is_a_table_json_and_a_page(keep: mk.Keep) -> None:
    done = keep.transfer("words", worded(5, head=3), dry_run=True)
    assert (
        str(done)
        .splitlines()[0]
        .startswith(
            "words:1.0.0 into the model 'functional': 1 would be copied (15 numbers), 2 missing (21 numbers), 2 unused"
        )
    )
    told = done.to_json()
    assert (told["ok"], told["dry_run"], told["copied"][0]["target"]) == (True, True, "words/embeddings")
    assert "words/embeddings" in done._repr_html_()


# --- networks of keras.applications


@pytest.mark.slow
def test_a_backbone_of_keras_applications_goes_under_a_new_head(tmp_path: Path) -> None:
    small = {"weights": None, "input_shape": (32, 32, 3), "alpha": 0.35}
    path = written(keras.applications.MobileNetV2(**small, classes=7), tmp_path)
    backbone = keras.applications.MobileNetV2(**small, include_top=False, pooling="avg")
    model = keras.Sequential([layers.Input((32, 32, 3)), backbone, layers.Dense(3, name="head")])
    done = from_file(path, model, Terms(freeze=True))
    assert counts(done) == {"copied": 260, "missing": 2, "unused": 2}
    assert [v.path.rpartition("/")[2] for v in model.trainable_weights] == ["kernel", "bias"]


@pytest.mark.slow
def test_a_network_of_keras_applications_is_known_by_its_structure(tmp_path: Path) -> None:
    source = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=7)
    model = keras.models.clone_model(
        source, clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "name": f"x_{layer.name}"})
    )
    done = from_file(written(source, tmp_path, "model.keras"), model, Terms())
    assert {outcome.rule for outcome in done.copied} == {"structure"}
    assert all(np.array_equal(a, b) for a, b in zip(values(source).values(), values(model).values(), strict=True))


@pytest.mark.slow
def test_a_stage_alone_is_taken_out_of_a_residual_network(tmp_path: Path) -> None:
    source = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), include_top=False)
    model = keras.Model(source.input, source.get_layer("conv2_block3_out").output)
    model = keras.models.clone_model(model)
    done = from_file(written(source, tmp_path), model, Terms(include=["conv2_block2_.*"]))
    assert {o.target.partition("_block")[0] for o in done.copied} == {"conv2"}  # type: ignore[union-attr]
    assert len(done.copied) == 18
    assert len(done.excluded) == len(model.weights) - 18


@pytest.mark.parametrize("ending", ["model.weights.h5", "model.npz"])
def test_weights_that_a_model_or_a_class_of_ones_own_holds_are_found(ending: str, tmp_path: Path) -> None:
    class Scaled(keras.Model):
        def build(self, shape: Any) -> None:
            self.factor = self.add_weight(shape=(2,), name="factor")
            self.within = Scaling()
            self.within.build(shape)

    class Scaling(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.by = self.add_weight(shape=(3,), name="by", initializer="uniform")

    source, model = Scaled(), Scaled()
    source.build((None, 3))
    model.build((None, 3))
    assert counts(from_file(written(source, tmp_path, ending), model, Terms())) == {"copied": 2}
    assert all(map(np.array_equal, values(source).values(), values(model).values()))
