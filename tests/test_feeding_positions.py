"""Positions of feeds, one kind after the other, as Keras asks for batches but without a model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import NotFaithful, UsageError
from modelkeep.live.training import feeding, state
from modelkeep.live.training.feeding import drawing

pytestmark = [
    pytest.mark.keras,
    # grain and torchdata warn of their own insides.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

X = np.arange(46, dtype="float32").reshape(23, 2)
Y = np.arange(23, dtype="float32").reshape(23, 1)


class Batches(keras.utils.PyDataset):
    """Four batches, with random numbers from everywhere and a state in plain attributes."""

    def __init__(self, **workers: Any) -> None:
        super().__init__(**workers)
        self.generators = [np.random.default_rng(1)]
        self.generator, self.python, self.legacy = np.random.default_rng(2), random.Random(3), np.random.RandomState(4)
        self.rows, self.made, self.hooks, self.names = np.arange(20), 0, [], {"of": "rows"}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.made += 1
        noise = self.generator.normal() + self.python.random() + self.legacy.normal() + np.random.normal()
        rows = self.rows[index * 5 : index * 5 + 5]
        return X[rows] + np.float32(noise), Y[rows]

    def on_epoch_begin(self) -> None:
        self.hooks.append("begin")

    def on_epoch_end(self) -> None:
        self.hooks.append("end")
        self.legacy.shuffle(self.rows)
        self.names = {"of": f"rows after {len(self.hooks)}"}


def torch_loader(**options: Any) -> Any:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(data, batch_size=6, shuffle=True, **options)


def stateful_loader() -> Any:
    torch, torchdata = pytest.importorskip("torch"), pytest.importorskip("torchdata.stateful_dataloader")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torchdata.StatefulDataLoader(data, batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(3))


def grain_dataset() -> Any:
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(list(zip(X, Y, strict=True))).seed(3).shuffle().batch(6).to_iter_dataset()


def grain_loader() -> Any:
    grain = pytest.importorskip("grain")
    sampler = grain.samplers.IndexSampler(23, grain.sharding.NoSharding(), shuffle=True, num_epochs=None, seed=3)
    source = list(zip(X, Y, strict=True))
    return grain.DataLoader(data_source=source, sampler=sampler, operations=[grain.transforms.Batch(6)])


def tf_dataset() -> Any:
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(23, seed=3).batch(6)


Kind = Callable[[], feeding.Feed]
KINDS: dict[str, Kind] = {
    "arrays": lambda: feeding.feed(X, Y, batch_size=6, seed=5),
    "arrays in order": lambda: feeding.feed(X, Y, batch_size=6, shuffle=False, seed=5),
    "structures": lambda: feeding.feed({"a": X, "b": [Y, X]}, Y, sample_weight=Y[:, 0], batch_size=6, seed=5),
    "class weights": lambda: feeding.feed(X, Y, class_weight={1: 2.0}, batch_size=6, seed=5),
    "PyDataset": lambda: feeding.feed(Batches(), seed=5),
    "DataLoader": lambda: feeding.feed(torch_loader(), seed=5),
    "StatefulDataLoader": lambda: feeding.feed(stateful_loader(), seed=5),
    "grain's datasets": lambda: feeding.feed(grain_dataset(), seed=5),
    "grain's loader": lambda: feeding.feed(grain_loader(), seed=5),
}


def seed() -> None:
    keras.utils.set_random_seed(1)
    if (torch := pytest.importorskip("torch")) is not None:
        torch.manual_seed(1)


def begin(feed: feeding.Feed) -> feeding.Feed:
    feed.on_epoch_end()  # as fit does before the first epoch
    return feed


def batches(feed: feeding.Feed) -> Iterator[list[Any]]:
    """Batches of one epoch after the other."""
    while True:
        feed.on_epoch_begin()
        for batch in feed.get_numpy_iterator():
            yield [np.array(leaf).tolist() for leaf in keras.tree.flatten(batch)]
        feed.on_epoch_end()


def take(feed: feeding.Feed, count: int) -> list[Any]:
    iterator = batches(feed)
    return [next(iterator) for _ in range(count)]


def kept(feed: feeding.Feed) -> Any:
    packed = state.pack(feed.position())
    return state.unpack(packed.document, packed.arrays)


@pytest.mark.parametrize("kind", KINDS)
@given(done=st.integers(1, 9))
def test_a_feed_goes_on_from_wherever_it_stood(kind: str, done: int) -> None:
    make = KINDS[kind]
    seed()
    whole = take(begin(make()), 12)
    seed()
    feed = begin(make())
    first = take(feed, done)
    position, states = kept(feed), drawing.capture()
    seed()
    again = make()
    findings = again.go_to(position)
    drawing.restore(states)
    assert first + take(begin(again), 12 - done) == whole
    assert findings == ()


@pytest.mark.parametrize("kind", KINDS)
def test_looking_at_a_batch_before_training_leaves_no_trace(kind: str) -> None:
    seed()
    whole = take(begin(KINDS[kind]()), 6)
    seed()
    feed = KINDS[kind]()
    feed.on_epoch_begin()
    next(iter(feed.get_numpy_iterator()))
    assert take(begin(feed), 6) == whole


def test_orders_follow_from_seed_and_pass_and_are_all_different() -> None:
    feed = feeding.feed(X, Y, batch_size=23, seed=5)
    orders = [batch[1] for batch in take(begin(feed), 3)]
    assert orders == [batch[1] for batch in take(begin(feeding.feed(X, Y, batch_size=23, seed=5)), 3)]
    assert orders[0] != orders[1] != orders[2]
    assert take(begin(feeding.feed(X, Y, batch_size=23, seed=6)), 1)[0][1] != orders[0]


def test_arrays_of_another_size_cannot_go_on_within_a_pass() -> None:
    feed = begin(feeding.feed(X, Y, batch_size=6, seed=5))
    take(feed, 2)
    with pytest.raises(NotFaithful, match=r"samples 20.*samples 23"):
        feeding.feed(X[:20], Y[:20], batch_size=6, seed=5).go_to(kept(feed))


def test_arrays_of_another_size_go_on_with_a_new_pass_and_it_is_said() -> None:
    feed = begin(feeding.feed(X, Y, batch_size=6, seed=5))
    take(feed, 4)
    other = feeding.feed(X[:20], Y[:20], batch_size=5, seed=5)
    assert [finding.check for finding in other.go_to(kept(feed))] == ["data-changed"]
    assert len({number for batch in take(begin(other), 4) for (number,) in batch[1]}) == 20


def test_values_that_changed_are_found_in_the_last_batch() -> None:
    feed = begin(feeding.feed(X, Y, batch_size=6, seed=5))
    take(feed, 2)
    assert [finding.check for finding in feeding.feed(X + 1, Y, batch_size=6, seed=5).go_to(kept(feed))] == [
        "data-changed"
    ]


def test_a_dataset_that_is_not_deterministic_is_found() -> None:
    class Careless(Batches):
        def __getitem__(self, index: int) -> Any:
            return X[:5] + np.float32(np.random.default_rng().normal()), Y[:5]

    feed = begin(feeding.feed(Careless(), seed=5))
    take(feed, 2)
    assert [finding.check for finding in feeding.feed(Careless(), seed=5).go_to(kept(feed))] == ["data-changed"]


def test_hooks_are_called_once_for_each_epoch_and_what_they_changed_comes_back() -> None:
    feed = begin(feeding.feed(data := Batches(), seed=5))
    take(feed, 6)
    assert data.hooks == ["begin", "end", "begin"]
    again = feeding.feed(other := Batches(), seed=5)
    again.go_to(kept(feed))
    assert (other.hooks, other.names, other.made) == (data.hooks, data.names, data.made)
    assert other.rows.tolist() == data.rows.tolist()


def test_other_data_than_the_run_began_with_is_refused() -> None:
    feed = begin(feeding.feed(X, Y, batch_size=6, seed=5))
    with pytest.raises(NotFaithful, match=r"PyDataset.*arrays"):
        feeding.feed(Batches(), seed=5).go_to(kept(feed))


def test_a_dataset_of_another_length_cannot_go_on_within_a_pass() -> None:
    class Longer(Batches):
        def __len__(self) -> int:
            return 5

    feed = begin(feeding.feed(Batches(), seed=5))
    take(feed, 2)
    with pytest.raises(NotFaithful, match=r"5 batches.*4 batches"):
        feeding.feed(Longer(), seed=5).go_to(kept(feed))


def test_workers_keep_the_order_and_it_is_said_what_they_do_not() -> None:
    class Plain(Batches):
        def __getitem__(self, index: int) -> Any:
            return X[index : index + 1], Y[index : index + 1]

    seed()
    feed = begin(feeding.feed(Plain(workers=2), seed=5))
    whole = take(feed, 8)
    assert [finding.check for finding in feed.findings] == ["data-not-exact"]
    seed()
    feed = begin(feeding.feed(Plain(workers=2), seed=5))
    take(feed, 2)
    position = kept(feed)
    feed.on_epoch_end()
    again = feeding.feed(Plain(workers=2), seed=5)
    again.go_to(position)
    assert take(begin(again), 2) == whole[2:4]


def numbers() -> Iterator[Any]:
    for number in range(100):
        yield np.full((2, 1), number), np.zeros((2, 1))


def test_a_generator_begins_anew_and_it_is_said_before_and_after() -> None:
    feed = begin(feeding.feed(numbers(), seed=5, steps_per_epoch=4))
    whole = take(feed, 6)
    assert [finding.check for finding in feed.findings] == ["data-not-restored"]
    again = feeding.feed(numbers(), seed=5, steps_per_epoch=4)
    assert [finding.check for finding in again.go_to(kept(feed))] == ["data-not-restored"]
    assert take(begin(again), 2) == whole[:2]


def test_a_generator_is_fast_forwarded_if_asked() -> None:
    feed = begin(feeding.feed(numbers(), seed=5, steps_per_epoch=4, fast_forward=True))
    whole = take(feed, 8)
    feed = begin(feeding.feed(numbers(), seed=5, steps_per_epoch=4, fast_forward=True))
    take(feed, 5)
    again = feeding.feed(numbers(), seed=5, steps_per_epoch=4, fast_forward=True)
    assert [finding.check for finding in again.go_to(kept(feed))] == ["data-fast-forward"]
    assert take(begin(again), 3) == whole[5:]


def test_a_generator_that_ends_gives_no_more() -> None:
    feed = begin(feeding.feed(iter([(X, Y)]), seed=5))
    feed.on_epoch_begin()
    assert len(list(feed.get_numpy_iterator())) == 1
    feed.on_epoch_end()
    feed.on_epoch_begin()
    assert list(feed.get_numpy_iterator()) == []


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(UsageError, match="type int"):
        feeding.feed(3, seed=5)
    with pytest.raises(UsageError, match="y is given beside"):
        feeding.feed(Batches(), Y, seed=5)
    with pytest.raises(UsageError, match="class_weight is given beside"):
        feeding.feed(numbers(), class_weight={0: 1.0}, seed=5)


def test_a_torch_loader_with_workers_keeps_its_order() -> None:
    seed()
    whole = take(begin(feeding.feed(torch_loader(), seed=5)), 8)
    seed()
    feed = begin(feeding.feed(torch_loader(num_workers=1), seed=5))
    assert [finding.check for finding in feed.findings] == ["data-not-exact"]
    assert take(feed, 2) == whole[:2]
    again = feeding.feed(torch_loader(num_workers=1), seed=5)
    again.go_to(kept(feed))
    assert take(begin(again), 2) == whole[2:4]


def test_large_arrays_of_a_dataset_are_taken_as_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelkeep.live.training.feeding.attributes.LARGEST", 100)
    feed = begin(feeding.feed(Batches(), seed=5))
    take(feed, 6)
    assert "rows" not in kept(feed)["owner"]["attributes"]
    assert kept(feed)["owner"]["attributes"]["made"] == 6
