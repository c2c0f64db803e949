"""One checkpoint's entry: its bytes, and what becomes of damage."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.checkpoint import Checkpoint, decode, encode
from modelkeep.errors import FormatTooNew, IntegrityError, UsageError
from modelkeep.storage.envelope import seal, unseal

numbers = st.integers(0, 2**53)
checkpoints = st.builds(
    Checkpoint,
    run=st.sampled_from(["r", "team/r"]),
    number=numbers,
    step=numbers,
    epoch=numbers,
    step_in_epoch=numbers,
    created=st.just("2026-01-01T00:00:00.000000Z"),
    reason=st.sampled_from(["interval", "epoch", "time", "signal", "end", "asked"]),
    metrics=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False)),
    manifest=st.just("blake3:" + "0" * 64),
    size=numbers,
    new_bytes=numbers,
    created_blobs=st.dictionaries(st.just("blake3:" + "1" * 64), st.floats(0, 2**33)),
    follows=st.none() | numbers,
    finished=st.booleans(),
    best=st.none() | st.just("val_loss"),
)
ONE = Checkpoint(run="r", step=1200, epoch=1, step_in_epoch=200, reason="interval", manifest="", size=0, new_bytes=0)


@given(checkpoints)
def test_a_checkpoint_comes_back_as_it_was(checkpoint: Checkpoint) -> None:
    assert decode(encode(checkpoint)) == checkpoint
    assert encode(decode(encode(checkpoint))) == encode(checkpoint)


def test_a_loss_that_is_no_number_any_more_is_kept() -> None:
    metrics = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1}
    back = decode(encode(msgspec.structs.replace(ONE, metrics=metrics))).metrics
    assert math.isnan(back.pop("a"))
    assert back == {"b": math.inf, "c": -math.inf, "d": 0.1}


@given(st.data())
def test_damage_to_any_byte_is_seen(data: st.DataObject) -> None:
    whole = encode(data.draw(checkpoints))
    spoilt = bytearray(whole)
    place = data.draw(st.integers(0, len(whole) - 1))
    spoilt[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(spoilt), whole[:place]):
        with pytest.raises(IntegrityError):
            decode(damaged)


def test_a_later_format_is_told_from_damage() -> None:
    body = unseal(encode(ONE))[0].replace(b'"format":1', b'"format":2,"more":[]')
    with pytest.raises(FormatTooNew, match="this checkpoint"):
        decode(seal(body)[0])


@pytest.mark.parametrize(
    "change",
    [(b'"step":1200', b'"step":"x"'), (b'"size":0', b'"size":0,"more":1'), (b'"metrics":{}', b'"metrics":{"a":"b"}')],
)
def test_what_does_not_fit_the_format_is_damage(change: tuple[bytes, bytes]) -> None:
    body = unseal(encode(ONE))[0]
    assert change[0] in body
    with pytest.raises(IntegrityError, match="cannot be read"):
        decode(seal(body.replace(*change))[0])


def test_values_of_another_type_are_refused_when_they_are_written() -> None:
    with pytest.raises(UsageError, match="not what a checkpoint can hold"):
        encode(msgspec.structs.replace(ONE, step="1200"))


def test_a_checkpoint_is_named_by_its_run_and_step() -> None:
    assert ONE.ref == "r@1200"


def test_the_bytes_of_format_1_stay_readable() -> None:
    """A document of the first release, never changed."""
    body = (
        b'{"best":"val_loss","created":"2026-01-01T00:00:00.000000Z","created_blobs":{"blake3:'
        + b"1" * 64
        + b'":1767225600.25},"epoch":1,"finished":true,"follows":6,"format":1,"manifest":"blake3:'
        + b"0" * 64
        + b'","metrics":{"loss":0.5,"val_loss":"nan"},"new_bytes":3,"number":7,"reason":"end","run":"team/r","size":5,'
        b'"step":1200,"step_in_epoch":200}'
    )
    found = decode(seal(body)[0])
    assert (found.ref, found.number, found.follows, found.finished) == ("team/r@1200", 7, 6, True)
    assert math.isnan(found.metrics["val_loss"])
    assert unseal(encode(found))[0] == body
