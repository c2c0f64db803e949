"""``.keras`` files of every Keras 3 come back whole, and what does not fit is told."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import zoo
from foreign import write_keras3
from modelkeep.errors import NotFaithful
from modelkeep.formats.forms import open_contents
from modelkeep.live.reading import Read, keras_archive
from modelkeep.report import Severity
from zoo import ZOO

RELEASES = sorted(Path(__file__).parent.joinpath("foreign", "keras3").iterdir())
if (
    keras.backend.backend() != "tensorflow"
):  # what they wrote is read alike under each; that they open is what may differ
    RELEASES = [folder for folder in RELEASES if folder.name in ("3.0.5-jax", "3.8.0-torch")]

pytestmark = [
    pytest.mark.keras,
    pytest.mark.backends,
    # Keras' own, where a model of the zoo is saved or a layer rebuilt.
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
]


def opened(path: Path, **terms: Any) -> Read:
    with open_contents(path) as contents:
        return keras_archive.read(contents, **terms)


def saved(model: keras.Model, folder: Path) -> Path:
    path = folder / "model.keras"
    model.save(path)
    return path


def arrays(variables: Any) -> list[Any]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def equal(some: Any, others: Any) -> bool:
    pairs = zip(arrays(some), arrays(others), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def of_release(folder: Path, name: str) -> tuple[Read, Any, list[tuple[str, Any]]]:
    """What is read, the answer that was written down, and the optimizer's variables as they were."""
    answers = np.load(folder / "answers.npz")
    slots = [(key.split("/", 3)[3], answers[key]) for key in answers if key.startswith(f"{name}/optimizer/")]
    return opened(folder / f"{name}.keras"), answers[f"{name}/outputs"], slots


def kind(slot: tuple[str, Any]) -> str:
    """Which slot of its weight one is, or of which number: names before it begin elsewhere in each release."""
    return re.sub(r"_\d+$", "", slot[0]).rpartition("_")[2]


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", list(write_keras3.MODELS))
def test_a_file_of_each_release_answers_as_it_did_there(folder: Path, name: str) -> None:
    read, outputs, slots = of_release(folder, name)
    assert np.allclose(keras.ops.convert_to_numpy(read.model(write_keras3.INPUTS[name])), outputs, atol=1e-6)
    now = [(variable.name, keras.ops.convert_to_numpy(variable)) for variable in read.model.optimizer.variables]
    for one, other in zip(sorted(now, key=kind), sorted(slots, key=kind), strict=True):
        assert kind(one) == kind(other)
        assert np.array_equal(one[1], other[1])


def test_an_unpacked_folder_opens_like_the_file(tmp_path: Path) -> None:
    model = ZOO["text"].build()
    with zipfile.ZipFile(saved(model, tmp_path)) as file:
        file.extractall(tmp_path / "folder")
    assert equal(opened(tmp_path / "folder").model.weights, model.weights)


def test_an_optimizer_before_its_first_step_goes_on_with_its_own_rate(tmp_path: Path) -> None:
    model = ZOO["sequential"].build()
    model.optimizer.learning_rate = 0.25
    with zipfile.ZipFile(saved(model, tmp_path)) as file:
        assert "model.weights.h5" in file.namelist()
    read = opened(tmp_path / "model.keras")
    assert float(read.model.optimizer.learning_rate) == 0.25
    assert not [finding for finding in read.findings if finding.severity is Severity.WARNING]


def test_without_compile_the_optimizer_is_left_and_that_is_said(tmp_path: Path) -> None:
    model = ZOO["sequential"].build()
    ZOO["sequential"].use(model)
    read = opened(saved(model, tmp_path), compile=False)
    assert not read.model.compiled
    assert [finding.subject for finding in read.findings if finding.check == "optimizer-left"] == ["optimizer"]


def three(names: tuple[str, ...] = ("first", "second", "third")) -> keras.Model:
    return keras.Sequential([layers.Input((3,)), *(layers.Dense(3, name=name) for name in names)])


def failures(error: pytest.ExceptionInfo[NotFaithful], check: str) -> list[str]:
    return [finding.subject for finding in error.value.report if finding.check == check]  # type: ignore[attr-defined]


def test_a_model_that_lacks_the_last_layer_is_told_what_is_left_over(tmp_path: Path) -> None:
    path, smaller = saved(three(), tmp_path), three(("first", "second"))
    before = arrays(smaller.weights)
    with pytest.raises(NotFaithful) as error:
        opened(path, into=smaller)
    assert failures(error, "weights-unused") == ["layers/dense_2/vars/0", "layers/dense_2/vars/1"]
    assert equal(before, smaller.weights)
    opened(path, into=smaller, skip=["layers/dense_2"])
    assert not equal(before, smaller.weights)


def test_a_layer_that_the_file_lacks_is_missing(tmp_path: Path) -> None:
    path, larger = saved(three(("first", "second")), tmp_path), three()
    with pytest.raises(NotFaithful) as error:
        opened(path, into=larger)
    assert [name.rpartition("/")[2] for name in failures(error, "weights-missing")] == ["kernel", "bias"]


def test_layers_of_one_shape_that_changed_places_are_not_taken_for_each_other(tmp_path: Path) -> None:
    path = saved(three(), tmp_path)
    with pytest.raises(NotFaithful, match="the file has the layer 'first' where this model has 'second'"):
        opened(path, into=three(("second", "first", "third")))


def test_a_renamed_layer_is_filled_and_told(tmp_path: Path) -> None:
    model, other = three(), three(("first", "middle", "third"))
    read = opened(saved(model, tmp_path), into=other)
    assert equal(model.weights, other.weights)
    assert [f.subject for f in read.findings if f.check == "weights-renamed"] == ["layers/dense_1"]


@pytest.mark.parametrize("other_class", [keras.optimizers.RMSprop, keras.optimizers.Adam])
def test_the_state_of_another_optimizer_is_not_taken(other_class: Any, tmp_path: Path) -> None:
    model, other = three(), three()
    for one, optimizer in ((model, keras.optimizers.SGD(0.1, momentum=0.9)), (other, other_class())):
        one.compile(optimizer, "mse", run_eagerly=keras.backend.backend() != "jax")
        one.train_on_batch(np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    before = arrays(other.optimizer.variables)
    read = opened(saved(model, tmp_path), into=other)
    assert equal(before, other.optimizer.variables)
    assert [finding.subject for finding in read.findings if finding.check == "optimizer-fresh"] == ["optimizer"]


def test_a_layer_that_loads_itself_is_missed_where_the_file_lacks_it(tmp_path: Path) -> None:
    other = keras.Sequential([layers.Input((3,)), layers.Dense(3), zoo.Noted(2)])
    path = saved(keras.Sequential([layers.Input((3,)), layers.Dense(3)]), tmp_path)
    with pytest.raises(NotFaithful) as error:
        opened(path, into=other)
    assert {name.rpartition("/")[2] for name in failures(error, "weights-missing")} == {"kernel", "step"}


def test_a_layer_that_does_not_hold_what_it_was_given_is_caught(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((3,)), zoo.Noted(2)])
    path, other = saved(model, tmp_path), keras.Sequential([layers.Input((3,)), zoo.Noted(2)])
    noted = other.layers[0]
    noted.load_own_variables = lambda store: noted.kernel.assign(store["the kernel"] * 2)
    before = arrays(other.weights)
    with pytest.raises(NotFaithful, match="does not hold what the file has"):
        opened(path, into=other)
    assert equal(before, other.weights)


def test_a_file_of_keras_2_opens_without_its_optimizer_and_says_so() -> None:
    path = Path(__file__).parent / "foreign" / "keras2-archive.keras"
    read = opened(path)
    answer = keras.ops.convert_to_numpy(read.model(np.ones((2, 4, 3), "float32")))
    assert np.allclose(answer, np.load(path.with_suffix(".npy")), atol=1e-6)
    assert [finding.subject for finding in read.findings if finding.check == "optimizer-fresh"] == ["optimizer"]
