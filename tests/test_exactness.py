"""Some of ``trainings.py``, killed and gone on with: equal to the bit to ones never killed.

``make exactness`` kills all of them, under each backend, and writes the tables of ``docs/guide/exact-resume.md``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

import exactness
import trainings

pytestmark = [pytest.mark.keras, pytest.mark.slow, pytest.mark.backends]

SOME = (
    "all_at_once",
    "callback_within_an_epoch",
    "custom_train_step",
    "metrics",
    "mixed_float16",
    "shuffle",
    "steps_per_execution",
    "tf_data_repeated",
    "train_on_batch",
)


@pytest.fixture(scope="module")
def zygote() -> Iterator[exactness.Zygote]:
    with exactness.Zygote(keras.backend.backend()) as zygote:
        yield zygote


@pytest.mark.parametrize("training", [name for name in SOME if name in trainings.here()])
def test_a_training_that_was_killed_ends_like_one_that_was_not(zygote, tmp_path, training):
    told = exactness.reference(zygote, training, tmp_path / "never")
    outcome = exactness.killed(zygote, training, tmp_path / "killed", told, random.Random(training))
    assert outcome.difference is None


def test_a_training_that_is_done_is_not_done_again(zygote, tmp_path):
    told = exactness.reference(zygote, "early_stopping", tmp_path / "run")
    again = exactness.Life("early_stopping", str(tmp_path / "run"), number=1)
    assert zygote.live(again) == 0, again.errors.read_text()
    assert again.lines() == told[-1:]


@pytest.mark.parametrize("training", ["stateful_recurrent", "callback_within_an_epoch"])
def test_checkpoints_change_nothing_in_a_training(zygote, tmp_path, training):
    plain = exactness.reference(zygote, training, tmp_path / "plain", by="keras")
    kept = exactness.reference(zygote, training, tmp_path / "kept")
    for told in (plain, kept):
        told[-1][-1].pop("next")  # torch's own loader draws a seed, whether it shuffles or not
    assert exactness.compare(plain, kept, 0) is None


def test_a_difference_is_found():
    told = [["train_batch_end", 0, step, {"loss": float(step).hex()}] for step in range(4)]
    assert exactness.compare(told, told[2:], reached=3) is None
    assert "it goes on at" in str(exactness.compare(told, told[2:], reached=1))
    assert "comes where" in str(exactness.compare(told, [told[0], told[2]], reached=0))
    assert "never was" in str(exactness.compare(told[:2], told[2:], reached=0))
    other = ["train_batch_end", 0, 1, {"loss": float("1.0000000000000002").hex()}]
    assert "/loss is 0x1.0000000000001p+0" in str(exactness.compare(told, [told[0], other], reached=0))


def test_the_page_has_a_row_for_each_training():
    page = Path(exactness.PAGE).read_text(encoding="utf-8")
    missing = [one.title for one in trainings.TRAININGS.values() if f"| {one.title} |" not in page]
    assert missing == [], "python tests/exactness.py"
