"""Which checkpoints of a run stay."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.checkpoint import Checkpoint
from modelkeep.errors import UsageError
from modelkeep.retention import Retention, best_of, is_best_so_far, metric_of, split


def made(number: int, step: int | None = None, **said: Any) -> Checkpoint:
    step = number if step is None else step
    given = {"epoch": 0, "step_in_epoch": step, "reason": "interval", "manifest": "", "size": 0, "new_bytes": 0, **said}
    return Checkpoint(run="r", number=number, step=step, **given)


losses = st.floats(allow_nan=True, allow_infinity=True)
runs = st.lists(st.tuples(st.integers(0, 12), losses), max_size=12).map(
    lambda told: [made(number, step, metrics={"loss": loss}) for number, (step, loss) in enumerate(told, 1)]
)
retentions = st.builds(
    Retention,
    st.none() | st.integers(1, 5),
    st.sampled_from([None, "loss", "max:loss", "val_loss"]),
    st.none() | st.integers(1, 5),
)


@given(runs, retentions)
def test_every_checkpoint_stays_or_goes_and_the_newest_always_stays(run: list[Checkpoint], kept: Retention) -> None:
    stay, go = split(run, kept)
    assert sorted([*stay, *go], key=lambda checkpoint: checkpoint.number) == run
    assert stay[-1:] == run[-1:]
    assert len({checkpoint.step for checkpoint in stay}) == len(stay)


@given(runs, retentions)
def test_what_was_pruned_before_changes_nothing(run: list[Checkpoint], kept: Retention) -> None:
    stay, _ = split(run, kept)
    assert split(stay, kept) == (stay, [])


@given(runs, st.integers(1, 5))
def test_so_many_of_the_newest_steps_stay(run: list[Checkpoint], last: int) -> None:
    stay, _ = split(run, Retention(last=last))
    assert len(stay) == min(last, len({checkpoint.step for checkpoint in run}))


@given(runs, st.sampled_from(["loss", "max:loss"]))
def test_no_checkpoint_that_goes_is_better_than_the_best_that_stays(run: list[Checkpoint], best: str) -> None:
    stay, go = split(run, Retention(last=1, best=best))
    found = best_of(stay, best)
    higher = best.startswith("max")
    newest_of = {checkpoint.step: checkpoint for checkpoint in run}
    for gone in (checkpoint.metrics["loss"] for checkpoint in go if newest_of[checkpoint.step] is checkpoint):
        assert math.isnan(gone) or (
            found is not None and (found.metrics["loss"] >= gone) is (higher or found.metrics["loss"] == gone)
        )


@given(runs, st.integers(1, 5))
def test_of_every_so_many_steps_the_newest_stays(run: list[Checkpoint], every: int) -> None:
    stay, _ = split(run, Retention(last=1, every=every))
    assert {c.step for c in stay} >= {c.step for c in run if c.step % every == 0}


def test_epochs_are_counted_where_checkpoints_are_made_at_their_ends() -> None:
    run = [made(number, number * 7, epoch=number, reason="epoch") for number in range(1, 10)]
    stay, _ = split(run, Retention(last=1, every=4))
    assert [checkpoint.epoch for checkpoint in stay] == [4, 8, 9]


def test_a_step_that_was_trained_again_stays_as_it_was_trained_last() -> None:
    run = [made(1, 10), made(2, 20, metrics={"loss": 0.1}), made(3, 20, metrics={"loss": 0.5})]
    stay, go = split(run, Retention(last=2, best="loss"))
    assert ([c.number for c in stay], [c.number for c in go]) == ([1, 3], [2])


def test_nan_is_never_the_best_and_of_equals_the_earliest_is() -> None:
    run = [made(number, metrics={"loss": loss}) for number, loss in enumerate([math.nan, 0.5, 0.25, 0.25, 0.5], 1)]
    assert [best.number for best in (best_of(run, "loss"), best_of(run, "max:loss")) if best] == [3, 2]
    assert best_of(run[:1], "loss") is best_of(run, "accuracy") is None


@pytest.mark.parametrize(
    ("best", "higher"),
    [
        ("val_loss", False),
        ("loss", False),
        ("val_accuracy", True),
        ("acc", True),
        ("sparse_categorical_accuracy", True),
        ("auc_1", True),
        ("mean_io_u", True),
        ("val_f1_score", True),
        ("r2_score", True),
        ("cosine_similarity", True),
        ("mean_absolute_error", False),
        ("root_mean_squared_error", False),
        ("false_positives", False),
        ("accuracy_head_loss", False),
        ("max:score", True),
        ("min:val_accuracy", False),
    ],
)
def test_the_name_of_a_metric_tells_which_way_is_better(best: str, higher: bool) -> None:
    assert metric_of(best) == (best.rpartition(":")[2], higher)


def test_a_name_that_does_not_tell_is_asked_about() -> None:
    with pytest.raises(UsageError, match=r"'score' does not tell.*\n.*write max:score or min:score"):
        Retention(best="score")


@pytest.mark.parametrize("wrong", [{"last": 0}, {"every": 0}, {"last": 1.5}, {"every": True}])
def test_numbers_of_checkpoints_are_whole_and_from_one(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="a whole number"):
        Retention(**wrong)


@pytest.mark.parametrize("wrong", ["", "most:loss", "max:", 3])
def test_what_names_no_metric_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError):
        Retention(best=wrong)


@given(runs.filter(len))
def test_what_was_logged_last_is_the_best_so_far_where_its_checkpoint_would_be_the_best(run: list[Checkpoint]) -> None:
    assert is_best_so_far([one.metrics for one in run], "loss") == (best_of(run, "loss") is run[-1])
    assert not is_best_so_far([*(one.metrics for one in run), {}], "loss")
