from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError
from modelkeep.formats import protobuf
from modelkeep.formats.protobuf import Message, fields, signed, varints
from wire import message, varint


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.integers(0, 2**64 - 1) | st.binary(max_size=300))))
def test_every_field_is_given_in_its_order(written: list[tuple[int, int | bytes]]) -> None:
    found = [(n, bytes(v) if isinstance(v, memoryview) else v) for n, v in fields(memoryview(message(*written)))]
    assert found == written


@given(st.integers(-(2**63), 2**63 - 1))
def test_negative_numbers_come_back(value: int) -> None:
    assert Message(message((3, value))).integer(3) == value


def test_numbers_are_read_packed_or_one_by_one() -> None:
    packed = b"".join(varint(value) for value in (1, 300, -1))
    assert Message(message((1, 7), (1, packed))).integers(1) == [7, 1, 300, -1]
    assert [signed(value) for value in varints(memoryview(packed))] == [1, 300, -1]


def test_floats_are_read_packed_or_one_by_one() -> None:
    one = message((4, 0.5))
    assert list(Message(one + message((4, one[1:] * 2))).fixed(4, "f")) == [0.5] * 3


def test_what_is_not_there_has_its_default() -> None:
    empty = Message(b"")
    assert (empty.unsigned(1), empty.text(1), empty.integers(1), empty.map(1)) == (0, "", [], {})
    assert empty.message(1).numbers == frozenset()


def test_the_last_of_several_values_counts() -> None:
    twice = Message(message((1, "a"), (1, "b")))
    assert (twice.text(1), twice.texts(1)) == ("b", ["a", "b"])


def test_a_map_is_read_by_its_keys() -> None:
    entry = message((1, "key"), (2, message((1, 5))))
    assert Message(message((9, entry))).map(9)["key"].unsigned(1) == 5


@pytest.mark.parametrize(
    "data",
    [b"\x0a\x05abc", b"\x08", b"\x08" + b"\xff" * 11, b"\x0b", b"\x0c", b"\x0e", b"\x00\x00", b"\x0d\x01", b"\x80"],
    ids=["short", "no value", "long varint", "group", "group end", "wire 6", "number 0", "short fixed", "short tag"],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="protobuf"):
        Message(data)


def test_a_field_of_another_kind_is_refused() -> None:
    with pytest.raises(IntegrityError, match="expected a number"):
        Message(message((1, b"abc"))).unsigned(1)
    with pytest.raises(IntegrityError, match="expected bytes"):
        Message(message((1, 5))).text(1)
    with pytest.raises(IntegrityError, match="UTF-8"):
        Message(message((1, b"\xff"))).text(1)


def test_a_message_of_too_many_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "MAX_FIELDS", 3)
    assert Message(message(*[(1, 1)] * 3)).integers(1) == [1, 1, 1]
    with pytest.raises(LimitExceeded):
        Message(message(*[(1, 1)] * 4))
    assert Message(message(*[(1, 1)] * 4, (2, 5)), numbers={2}).numbers == {2}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        message = Message(data)
        for number in message.numbers:
            list(message.messages(number))
    except ModelkeepError:
        pass
