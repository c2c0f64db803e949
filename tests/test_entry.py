"""One thing that happened to a model, and its bytes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from modelkeep.entry import FORMAT, MAX_ENTRY, Annotate, Entry, decode, encode, moment
from modelkeep.errors import FormatTooNew, LedgerDamaged, UsageError
from modelkeep.storage.envelope import seal

ENTRY = Entry(
    format=FORMAT,
    model="team/sentiment",
    seq=7,
    previous="blake3:" + "ab" * 32,
    time="2024-05-01T12:30:45.000001Z",
    actor="ada@lab",
    reason="a quieter Sunday — ✓",
    action=Annotate(version="1.0.0", add=("nightly",), note="good"),
)
DATA = encode(ENTRY)


def test_an_entry_reads_back_with_its_digest() -> None:
    entry, digest = decode(DATA, "team/sentiment", 7)
    assert entry == ENTRY
    assert DATA.startswith(b'{"digest":"' + digest.encode())


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(position: int, flip: int) -> None:
    changed = bytearray(DATA)
    changed[position] ^= flip
    with pytest.raises(LedgerDamaged, match="entry 7 of the ledger of 'team/sentiment'"):
        decode(bytes(changed), "team/sentiment", 7)


@given(st.integers(0, len(DATA) - 1))
def test_any_missing_end_is_noticed(length: int) -> None:
    with pytest.raises(LedgerDamaged):
        decode(DATA[:length], "team/sentiment", 7)


@given(st.binary(min_size=1, max_size=3), st.booleans())
def test_bytes_put_around_an_entry_are_noticed(more: bytes, before: bool) -> None:
    with pytest.raises(LedgerDamaged):
        decode(more + DATA if before else DATA + more, "team/sentiment", 7)


@given(st.binary(max_size=80))
def test_a_digest_around_anything_else_does_not_make_it_an_entry(body: bytes) -> None:
    with pytest.raises(LedgerDamaged):
        decode(seal(body)[0], "team/sentiment", 7)


@pytest.mark.parametrize(("model", "seq"), [("team/other", 7), ("team/sentiment", 8)])
def test_an_entry_of_another_place_is_told(model: str, seq: int) -> None:
    with pytest.raises(LedgerDamaged, match="is another entry: found entry 7 of 'team/sentiment'"):
        decode(DATA, model, seq)


@pytest.mark.parametrize("more", [b"", b',"invented":1'])
def test_a_later_format_is_told_apart_from_damage(more: bytes) -> None:
    body = DATA[len(b'{"digest":""","entry":') + 70 : -1].replace(b'"format":1', b'"format":2' + more)
    with pytest.raises(FormatTooNew, match="found format 2, expected at most 1"):
        decode(seal(body)[0], "team/sentiment", 7)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2024, 5, 1, 12, 30), "2024-05-01T12:30:00.000000Z"),
        (datetime(2024, 5, 1, 12, 30, 0, 7, tzinfo=UTC), "2024-05-01T12:30:00.000007Z"),
        (datetime(2024, 5, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2024-04-30T23:00:00.000000Z"),
        (date(2024, 5, 1), "2024-05-01T23:59:59.999999Z"),
        ("2024-05-01", "2024-05-01T23:59:59.999999Z"),
        ("20240501", "2024-05-01T23:59:59.999999Z"),
        ("2024-05-01T12:30:00+02:00", "2024-05-01T10:30:00.000000Z"),
    ],
)
def test_a_moment_is_utc_and_a_date_is_its_end(at: str | date, expected: str) -> None:
    assert moment(at) == expected


@pytest.mark.parametrize(
    "at", ["", "yesterday", "2024-13-01", "2024-05-01T25:00", "0001-01-01T00:00+05:00", 1714521600, None]
)
def test_what_is_no_time_is_refused(at: str) -> None:
    with pytest.raises(UsageError, match="not a point in time"):
        moment(at)


def test_what_could_not_be_read_again_is_not_written() -> None:
    with pytest.raises(UsageError, match=r"Expected `str`, got `int` - at `\$.action.add\[0]`"):
        encode(replace(ENTRY, action=Annotate(version="1.0.0", add=(1,))))  # type: ignore[arg-type]


def test_an_entry_has_room_for_what_describes_a_version_and_not_for_its_data() -> None:
    with pytest.raises(UsageError, match=r"found 1\.0 MB, expected at most 1\.0 MB\n  → keep it as an asset"):
        encode(replace(ENTRY, action=Annotate(version="1.0.0", note="x" * MAX_ENTRY)))


@given(st.datetimes(), st.datetimes())
def test_moments_sort_as_times_do(a: datetime, b: datetime) -> None:
    assert (moment(a) < moment(b)) == (a < b)
