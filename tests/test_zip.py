from __future__ import annotations

import io
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError
from modelkeep.formats.zip import Member, directory, local_header, read_header
from modelkeep.manifest import ALIGNMENT

names = st.text("abcdef0123456789/._-", min_size=1, max_size=70)
contents = st.dictionaries(names, st.binary(max_size=300), min_size=1, max_size=5)
GIGABYTE = 2**30


def members_of(files):
    members = []
    for name, size, crc in files:
        members.append(Member(name, size, crc, members[-1].end if members else 0))
    return members


def packed(files):
    members = members_of((name, len(data), zlib.crc32(data)) for name, data in files.items())
    body = b"".join(local_header(member) + files[member.name] for member in members)
    return body + directory(members), members


@given(contents)
def test_any_zip_tool_reads_it_and_finds_nothing_beside_the_members(files):
    data, _ = packed(files)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == files
        assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_STORED}
        assert opened.comment == b""


@given(contents)
def test_data_begin_at_a_multiple_of_64_and_nothing_lies_between(files):
    data, members = packed(files)
    for member in members:
        assert member.data_offset % ALIGNMENT == 0
        assert data[member.data_offset : member.end] == files[member.name]
    assert [member.offset for member in members[1:]] == [member.end for member in members[:-1]]


@given(contents)
def test_a_header_is_read_back_to_its_member(files):
    data, members = packed(files)
    assert [read_header(data[member.offset :], member.offset) for member in members] == members


@given(names, st.binary(max_size=40), st.data())
def test_a_header_with_any_other_byte_is_refused_or_is_of_another_member(name, content, draw):
    data, [member] = packed({name: content})
    end = member.data_offset
    at, flip = draw.draw(st.integers(0, end - 1)), draw.draw(st.integers(1, 255))
    changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
    try:
        found = read_header(changed, 0)
    except IntegrityError:
        return
    assert found != member


@given(st.binary(max_size=100))
def test_bytes_that_are_no_header_are_refused(data):
    with pytest.raises(IntegrityError):
        read_header(data, 0)


def test_members_and_offsets_beyond_4_gib_are_written_as_zip64(tmp_path):
    files = {"small": 3, "huge": 5 * GIGABYTE, "exactly": 0xFFFFFFFF, "behind": 4}
    members = members_of((name, size, zlib.crc32(b"abcd"[:size]) if size < 5 else 7) for name, size in files.items())
    path = tmp_path / "sparse.zip"
    with path.open("wb") as file:
        for member in members:
            file.seek(member.offset)
            file.write(local_header(member))
            if member.size < 5:
                file.write(b"abcd"[: member.size])
        file.seek(members[-1].end)
        file.write(directory(members))
    with zipfile.ZipFile(path) as opened:
        assert {info.filename: (info.file_size, info.header_offset) for info in opened.infolist()} == {
            member.name: (member.size, member.offset) for member in members
        }
        assert opened.read("behind") == b"abcd"
        assert opened.read("small") == b"abc"
    assert [read_header(local_header(member), member.offset) for member in members] == members


def test_more_than_65535_members_are_counted_as_zip64(tmp_path):
    data, _ = packed({f"{number:x}": b"" for number in range(70_000)})
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert len(opened.namelist()) == 70_000
