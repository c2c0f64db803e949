"""Curves: all epochs, few steps, the same after any number of kills, and back from bytes to the bit."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.curves import MOST, Curves, Difference, numbers
from modelkeep.errors import FormatTooNew, IntegrityError

values = st.floats(allow_nan=True, allow_infinity=True)
logs = st.dictionaries(st.sampled_from(["loss", "accuracy", "val_loss"]), values)


def trained(steps: int, *, every: int = 1) -> Curves:
    """The curves of a training of so many steps, ten to an epoch."""
    curves = Curves()
    go_on(curves, 0, steps, every=every)
    return curves


def go_on(curves: Curves, begin: int, end: int, *, every: int = 1) -> None:
    for step in range(begin + every, end + 1, every):
        curves.add_step(step, (step - 1) // 10, {"loss": 1 / step})
        if step % 10 == 0:
            curves.add_epoch(step // 10, step, {"loss": 1 / step, "val_loss": 2 / step})


def test_a_short_training_keeps_every_step() -> None:
    curves = trained(MOST)
    assert [point.step for point in curves.steps] == list(range(1, MOST + 1))


@given(st.integers(0, 40_000))
def test_of_a_long_one_few_steps_stay_evenly_spaced_with_the_first_and_the_newest(count: int) -> None:
    curves = Curves()
    for step in range(1, count + 1):
        curves.add_step(step, 0, {})
    kept = [point.step for point in curves.kept]
    assert len(curves.steps) <= MOST + 1
    assert kept == list(range(1, count + 1, curves.stride))
    assert [point.step for point in curves.steps][-1:] == [count][: count and 1]


def test_every_epoch_is_kept() -> None:
    assert [point.epoch for point in trained(30_000).epochs] == list(range(1, 3_001))


@pytest.mark.parametrize("every", [1, 7])
def test_a_resumed_run_has_the_same_curves_as_one_never_killed(every: int) -> None:
    chance = random.Random(every)
    curves, step, end = Curves(), 0, 1_500 * 7
    while step < end:
        stop = min(end, step + every * chance.randint(1, 400))
        go_on(curves, step, stop, every=every)
        curves, step = Curves.from_json(curves.to_json()), stop
    assert curves.to_json() == trained(end, every=every).to_json()


@given(st.lists(logs, max_size=6), st.lists(logs, max_size=4))
def test_the_same_bytes_come_back_whatever_was_logged(
    steps: list[dict[str, float]], ends: list[dict[str, float]]
) -> None:
    curves = Curves()
    for number, each in enumerate(steps, 1):
        curves.add_step(number, 0, each)
    for number, each in enumerate(ends, 1):
        curves.add_epoch(number, number * 3, each)
    back = Curves.from_json(curves.to_json())
    assert back.to_json() == curves.to_json()
    assert list(back.differences(curves)) == []
    assert list(curves.differences(back)) == []


@given(st.integers(0, 9_000), st.integers(0, 9_000), st.integers(0, 9_000))
def test_what_came_since_a_checkpoint_goes_back_behind_what_was_before(first: int, second: int, third: int) -> None:
    checkpoint, since, now = sorted((first, second, third))
    whole = trained(now)
    tail = Curves.from_json(whole.since(since).to_json())
    assert tail.epochs == [point for point in whole.epochs if point.step > since]
    if since <= checkpoint:  # what is told twice is there once
        assert trained(checkpoint).extended(tail).to_json() == whole.to_json()
    assert trained(since).extended(tail).to_json() == whole.to_json()
    assert trained(now).extended(tail).to_json() == whole.to_json()


def test_a_copy_does_not_change_with_what_is_logged_later() -> None:
    curves = trained(25)
    before, copy = curves.to_json(), curves.copy()
    go_on(curves, 25, 50)
    assert copy.to_json() == before != curves.to_json()


def test_a_step_trained_again_with_other_numbers_is_told_of_first() -> None:
    earlier, now = trained(30), trained(17)
    for step in range(18, 31):
        now.add_step(step, step // 10, {"loss": 1 / step if step < 20 else math.nextafter(1 / step, 1)})
    first = next(now.differences(earlier))
    assert (first.step, first.name, first.before) == (20, "loss", 1 / 20)
    assert str(first) == "at step 20 loss was 0.05 before and is 0.05000000000000001 now"


def test_numbers_are_compared_to_the_bit() -> None:
    before, now = Curves(), Curves()
    before.add_step(1, 0, {"loss": math.nan, "zero": 0.0, "gone": 1.0})
    now.add_step(1, 0, {"loss": math.nan, "zero": -0.0})
    assert list(now.differences(before)) == [Difference(1, "zero", 0.0, -0.0), Difference(1, "gone", 1.0, None)]


def test_an_epoch_that_ends_otherwise_is_told_of() -> None:
    before, now = trained(10), Curves()
    now.add_epoch(1, 10, {"loss": 1 / 10, "val_loss": 0.5})
    assert [str(each) for each in now.differences(before)] == ["at step 10 val_loss was 0.2 before and is 0.5 now"]


def test_what_is_no_single_number_has_no_curve() -> None:
    class Scalar:
        shape = ()

        def __float__(self) -> float:
            return 0.25

    assert numbers({"loss": 1, "f1": [0.5, 0.7], "note": "x", "learning_rate": Scalar()}) == {
        "loss": 1.0,
        "learning_rate": 0.25,
    }


def test_a_step_is_found_if_it_is_kept() -> None:
    curves = trained(MOST * 2 - 1)
    assert (curves.at(3), curves.at(2)) == (curves.kept[1], None)
    assert curves.at(MOST * 2 - 1) is curves.newest
    assert curves.at(10**9) is None


def test_names_are_those_of_steps_and_epochs() -> None:
    assert trained(10).names() == ["loss", "val_loss"]


def test_a_later_format_is_told_apart_from_damage() -> None:
    data = trained(3).to_json()
    with pytest.raises(FormatTooNew, match="curves"):
        Curves.from_json(data.replace(b'"format":1', b'"format":2'))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"count":3', b'"count":7'),
        (b'"step":[1,2,3]', b'"step":[1,3,2]'),
        (b'"step":[1,2,3]', b'"step":[1,2]'),
        (b"1.0", b'"NaN"'),
        (b"}", b""),
        (b'"stride":1', b'"stride":0'),
        (b'"begin":0', b'"begin":true'),
    ],
)
def test_curves_that_do_not_fit_are_refused(old: bytes, new: bytes) -> None:
    data = trained(3).to_json()
    assert old in data
    with pytest.raises(IntegrityError, match="a run's curves"):
        Curves.from_json(data.replace(old, new, 1))
