"""Variables that lie on several devices are kept part by part, and put together for as many as there are."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError
from modelkeep.live.shards import PART, Whole, Wholes
from modelkeep.manifest import Manifest, Part, Tensor

pytestmark = pytest.mark.keras

# --- parts and wholes

Parts = dict[str, np.ndarray[Any, Any]]


def tensor(name: str, shape: tuple[int, ...], dtype: str = "int64") -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=shape, digest="", pieces=())


@st.composite
def cut(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], Whole, Parts]:
    """An array in which no number is twice, cut along a grid, even or not."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    values = np.arange(np.prod(shape)).reshape(shape)
    edges = [[0, *sorted(draw(st.sets(st.integers(1, n), max_size=3)) - {n}), n] for n in shape]
    boxes = itertools.product(*(list(itertools.pairwise(axis)) for axis in edges))
    starts, parts = {}, {}
    for number, box in enumerate(draw(st.permutations(list(boxes)))):
        starts[f"w#{number}"] = tuple(start for start, _ in box)
        parts[f"w#{number}"] = values[tuple(slice(*ends) for ends in box)]
    return values, Whole(shape, starts), parts


def wholes(whole: Whole, parts: Mapping[str, np.ndarray[Any, Any]]) -> Wholes:
    return Wholes({name: tensor(name, part.shape) for name, part in parts.items()}, {"w": whole})


def refused(whole: Whole, parts: Parts) -> bool:
    with pytest.raises(IntegrityError, match="the parts of w are not the whole of it"):
        wholes(whole, parts).array("w", parts.__getitem__)
    return True


@given(cut())
def test_whatever_is_cut_along_a_grid_is_put_together_again(made: tuple[Any, Whole, Parts]) -> None:
    values, whole, parts = made
    together = wholes(whole, parts)
    assert together.merged.keys() == {"w"}
    assert np.array_equal(together.array("w", parts.__getitem__), values)


@given(cut(), st.data())
def test_a_part_that_is_missing_or_twice_is_refused(made: tuple[Any, Whole, Parts], data: st.DataObject) -> None:
    _, whole, parts = made
    assume(len(parts) > 1)
    one, other = data.draw(st.permutations(sorted(parts)))[:2]
    assert refused(whole, {name: part for name, part in parts.items() if name != one})
    # As many numbers as the whole has, but some of them twice and others not at all.
    assume(parts[one].shape == parts[other].shape)
    assert refused(Whole(whole.shape, {**whole.parts, one: whole.parts[other]}), parts)


@given(cut(), st.data())
def test_a_part_that_lies_elsewhere_is_refused(made: tuple[Any, Whole, Parts], data: st.DataObject) -> None:
    _, whole, parts = made
    one = data.draw(st.sampled_from(sorted(parts)))
    axis = data.draw(st.integers(0, len(whole.shape) - 1))
    start = list(whole.parts[one])
    start[axis] += data.draw(st.integers(-7, 7).filter(bool))
    assert refused(Whole(whole.shape, {**whole.parts, one: tuple(start)}), parts)


@given(cut(), st.data())
def test_a_whole_of_another_size_is_refused(made: tuple[Any, Whole, Parts], data: st.DataObject) -> None:
    _, whole, parts = made
    shape = tuple(data.draw(st.lists(st.integers(0, 7), max_size=4)))
    assume(shape != whole.shape)
    assert refused(Whole(shape, whole.parts), parts)


def test_parts_of_different_dtypes_are_refused() -> None:
    whole = Whole((4,), {"w#0": (0,), "w#1": (2,)})
    stored = {"w#0": tensor("w#0", (2,)), "w#1": tensor("w#1", (2,), "uint64")}
    with pytest.raises(IntegrityError):
        Wholes(stored, {"w": whole}).merged  # noqa: B018


def test_what_was_not_asked_for_is_not_missed() -> None:
    record = {"w": Whole((4,), {"w#0": (0,), "w#1": (2,)})}
    assert Wholes({"b": tensor("b", (1,))}, record).merged.keys() == {"b"}


@pytest.mark.parametrize("document", [b"{", b"[]", b'{"w":{}}', b'{"w":{"shape":["x"],"parts":{}}}'])
def test_a_damaged_record_says_so(document: bytes) -> None:
    part = Part(name=PART, digest="", size=len(document), media="application/json")
    manifest = Manifest(model="m", version="1.0.0", created="", writer="", parts=(part,))
    with pytest.raises(IntegrityError, match="is damaged"):
        Wholes.of(manifest, (), lambda _: document)


# --- eight devices


def act(store: Path, name: str) -> Any:
    """What ``meshes.py`` told in a process of its own, of which some end by ``kill -9``."""
    command = [sys.executable, str(Path(__file__).parent / "meshes.py"), str(store), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    store = tmp_path_factory.mktemp("devices") / "store"
    acts = {name: act(store, name) for name in ("undisturbed", "resumed", "elsewhere")}
    return acts | {"measured": acts["elsewhere"]["measured"]}


KERNEL, SLOTS = "both", ("both_kernel_momentum", "both_kernel_velocity")


@pytest.mark.slow
def test_a_training_in_parts_that_is_killed_goes_on_to_the_bit(told: dict[str, Any]) -> None:
    assert told["resumed"]["parallel"] == told["undisturbed"]["parallel"]


@pytest.mark.slow
def test_a_training_of_replicas_that_is_killed_goes_on_to_the_bit(told: dict[str, Any]) -> None:
    assert told["elsewhere"]["replicated"] == told["undisturbed"]["replicated"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "part"), [("2x4", [24, 6]), ("2x2", [24, 12]), ("4x2 rows", [24, 6]), ("1x3", [48, 8]), ("one", [48, 24])]
)
def test_parts_are_restored_to_as_many_devices_as_there_are(told: dict[str, Any], mesh: str, part: list[int]) -> None:
    digest, places = told["elsewhere"][mesh]
    assert digest == told["undisturbed"]["parallel"]["variables"]
    assert all(places[name] == part for name in (KERNEL, *SLOTS))


@pytest.mark.slow
def test_a_checkpoint_in_parts_is_loaded_onto_other_devices(told: dict[str, Any]) -> None:
    assert told["elsewhere"]["loaded"] == told["elsewhere"]["4x2 rows"]


@pytest.mark.slow
def test_a_version_made_of_a_checkpoint_in_parts_is_whole(told: dict[str, Any]) -> None:
    assert told["elsewhere"]["published"] == told["undisturbed"]["parallel"]["variables"]
    assert not any("#" in name for name in told["elsewhere"]["names"])


@pytest.mark.slow
def test_every_part_is_kept_once_and_replicas_are_kept_whole(told: dict[str, Any]) -> None:
    parts = told["measured"]["parts"]
    assert parts["weights/layers/dense_1/vars/0"] == [[24, 6]] * 8  # on two axes
    assert parts["optimizer/layers/dense_1/vars/0/velocity"] == [[24, 6]] * 8
    assert parts["weights/layers/dense/vars/0"] == [[16, 12]] * 4  # on one: twice on the devices
    assert parts["weights/layers/dense_2/vars/0"] == [[24, 8]]


@pytest.mark.slow
def test_no_device_ever_holds_the_whole_of_what_is_in_parts(told: dict[str, Any]) -> None:
    seen = told["measured"]
    assert [seen["saved"], seen["restored"], seen["loaded"]] == [[], [], []]
    assert seen["equal"]
    assert seen["one whole"] == ["(16, 48)"]  # what one would look like


@pytest.mark.slow
def test_bfloat16_in_parts_keeps_every_bit(told: dict[str, Any]) -> None:
    assert told["measured"]["half elsewhere"] == told["measured"]["half"]


@pytest.mark.slow
def test_weights_are_transferred_from_a_checkpoint_in_parts(told: dict[str, Any]) -> None:
    assert told["measured"]["transferred"]
    assert told["measured"]["equal kernels"]


@pytest.mark.slow
def test_an_average_of_checkpoints_in_parts_is_refused(told: dict[str, Any]) -> None:
    assert "averaged" not in told["measured"]
