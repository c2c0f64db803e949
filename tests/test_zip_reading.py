from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostile_zips
from hostile_zips import CENTRAL, END, LOCAL, honest, overlapping, patched, streamed, twice
from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError, NotFound, UnsafeContent, UsageError
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.zip_reading import names_in, open_zip
from modelkeep.safety import archives  # noqa: F401 - enters its rules
from modelkeep.safety.rules import RULES

MEMBERS = {"config.json": b'{"class_name": "Sequential"}', "assets/words.txt": b"a\nb\n" * 1000, "empty": b""}


@pytest.fixture
def rules_of(tmp_path):
    """The rules that a zip of these bytes breaks, by the reading of its directory and headers alone."""

    def rules(data, limits=DEFAULT):
        path = tmp_path / "model.zip"
        path.write_bytes(data)
        with open_zip(path, limits) as archive:
            assert all(problem.rule in RULES for problem in archive.problems)
            return {problem.rule for problem in archive.problems}

    return rules


def read_all(path, limits=DEFAULT):
    with open_zip(path, limits) as archive:
        return {name: archive.read(name) for name in archive.entries}, archive.problems


# --- honest files


@pytest.mark.parametrize(
    "make", [honest, lambda m: honest(m, zipfile.ZIP_DEFLATED), streamed], ids=["stored", "deflated", "streamed"]
)
def test_what_zipfile_writes_is_read_whole_and_without_a_problem(make, tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(make(MEMBERS))
    assert read_all(path) == (MEMBERS, [])
    assert names_in(path) == MEMBERS.keys()


def test_a_member_written_for_64_bits_is_read(tmp_path):
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("large", "w", force_zip64=True) as member:
        member.write(b"data")
    assert read_all(path) == ({"large": b"data"}, [])


def test_a_directory_for_64_bits_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    path = tmp_path / "model.zip"
    path.write_bytes(honest(MEMBERS))
    assert b"PK\x06\x06" in path.read_bytes()
    assert read_all(path) == (MEMBERS, [])


@pytest.mark.skipif(not shutil.which("zip"), reason="NOT TESTED: no zip command here")
def test_what_info_zip_packs_is_read_without_a_problem(tmp_path):
    for name, data in MEMBERS.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    subprocess.run(["zip", "-qr", tmp_path / "model.zip", "."], cwd=tmp_path / "in", check=True)
    assert read_all(tmp_path / "model.zip") == (MEMBERS, [])


def test_a_stored_member_is_read_in_any_order_where_it_lies(tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(honest(MEMBERS))
    with open_zip(path) as archive:
        stream = archive.seekable("assets/words.txt")
        assert (stream.seek(-4, os.SEEK_END), stream.read(), stream.seek(2), stream.read(2)) == (
            3996,
            b"a\nb\n",
            2,
            b"b\n",
        )


def test_a_deflated_member_is_unpacked_to_be_read_in_any_order(tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(honest(MEMBERS, zipfile.ZIP_DEFLATED))
    with open_zip(path) as archive:
        stream = archive.seekable("assets/words.txt")
        stream.seek(3998)
        assert (stream.read(), archive.head("assets/words.txt", 3)) == (b"b\n", b"a\nb")


def test_honest_zeros_may_be_packed_a_thousandfold(rules_of):
    assert rules_of(honest({"zeros": bytes(2**21)}, zipfile.ZIP_DEFLATED)) == set()


# --- files that say two things

HONEST = honest(MEMBERS)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (patched(HONEST, LOCAL, 8, "<H", 8), "zip-mismatch"),
        (patched(HONEST, LOCAL, 14, "<L", 1), "zip-mismatch"),
        (patched(HONEST, LOCAL, 22, "<L", 5), "zip-mismatch"),
        (patched(HONEST, LOCAL, 6, "<H", 0x800), "zip-mismatch"),
        (HONEST.replace(b"config.json", b"konfig.json", 1), "zip-mismatch"),
        (hostile_zips.with_a_longer_name(MEMBERS), "zip-mismatch"),
        (patched(HONEST, CENTRAL, 24, "<L", 5), "zip-mismatch"),
        (patched(HONEST, END, 8, "<L", 0x00010001), "zip-mismatch"),
        (streamed(MEMBERS).replace(b"PK\x07\x08", b"PK\x07\x09", 1), "zip-mismatch"),
        (twice(MEMBERS, "config.json", b"{}"), "zip-duplicate-name"),
        (honest({"caf\u00e9": b"", "cafe\u0301": b""}), "zip-duplicate-name"),
        (honest({"a": b"", "a/b": b""}), "zip-duplicate-name"),
        (honest({"config.json": b"", "Config.json": b""}), "zip-similar-name"),
        (b"#!/bin/sh\n" + HONEST, "zip-prefix"),
        (HONEST + b"trailing", "zip-trailing"),
        (hostile_zips.with_two_ends(MEMBERS, {"config.json": b"{}"}), "zip-two-ends"),
        (patched(HONEST, END, 20, "<H", 7) + b"comment", "zip-comment"),
        (overlapping(3, 1000), "zip-overlap"),
        (honest({"../evil": b""}), "zip-path"),
        (honest({"/etc/passwd": b""}), "zip-path"),
        (honest({"assets//x": b""}), "zip-path"),
        (honest({"assets/./x": b""}), "zip-path"),
        (honest({"C:evil": b""}), "zip-path"),
        (honest({"a/b": b""}).replace(b"a/b", b"a\\b"), "zip-path"),
        (honest({"a/b": b""}).replace(b"a/b", b"a\0b"), "zip-path"),
        (honest({"x" * 256: b""}), "zip-path"),
        (honest({"link": b"/etc/passwd"}, external_attr=0o120777 << 16), "zip-special-file"),
        (honest({"tape": b""}, external_attr=0o020666 << 16), "zip-special-file"),
        (patched(patched(HONEST, LOCAL, 6, "<H", 1), CENTRAL, 8, "<H", 1), "zip-unreadable"),
        (honest({"x": b"x" * 100}, zipfile.ZIP_BZIP2), "zip-unreadable"),
        (honest({"caf\u00e9": b""}).replace(b"\x00\x08", b"\x00\x00"), "zip-name-encoding"),
    ],
)
def test_a_zip_that_can_be_taken_in_two_ways_is_told_by_its_rule(data, rule, rules_of):
    assert rule in rules_of(data)


def test_bytes_between_members_are_told(rules_of, tmp_path):
    first, rest = hostile_zips.honest({"a": b"1"}), honest({"a": b"1", "b": b"2"})
    hole = first.index(CENTRAL)
    data = rest[:hole] + b"hidden" + rest[hole:]
    data = patched(data, CENTRAL, 42, "<L", hole + 6, which=1)
    data = patched(data, END, 16, "<L", rest.index(CENTRAL) + 6)
    assert "zip-gap" in rules_of(data)


def test_a_member_of_a_name_that_has_one_more_name_is_told(rules_of):
    extra = b"\x75\x70\x0a\x00\x01\0\0\0\0other"
    assert "zip-name-encoding" in rules_of(honest({"a": b""}, extra=extra))


# --- files that cannot be read


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        HONEST[:-1],
        HONEST[: len(HONEST) // 2],
        HONEST.replace(CENTRAL, b"PKxx"),
        HONEST.replace(LOCAL, b"PKxx", 1),
    ],
)
def test_a_zip_that_is_cut_short_or_damaged_is_said_to_be(data, rules_of):
    with pytest.raises(IntegrityError, match=r"damaged|cut short|no zip"):
        rules_of(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_byte_in_a_member_is_found_by_its_checksum(method, tmp_path):
    data = bytearray(honest({"a": bytes(range(256)) * 20}, method))
    data[40] ^= 1
    (tmp_path / "model.zip").write_bytes(data)
    with pytest.raises(IntegrityError, match="a is damaged"):
        read_all(tmp_path / "model.zip")


def test_a_member_is_never_unpacked_beyond_what_the_directory_says(tmp_path):
    data = honest({"a": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    data = patched(patched(data, LOCAL, 22, "<L", 1000), CENTRAL, 24, "<L", 1000)
    (tmp_path / "model.zip").write_bytes(data)
    with pytest.raises(IntegrityError, match="not as long"):
        read_all(tmp_path / "model.zip")


def test_an_encrypted_member_is_not_read(tmp_path):
    (tmp_path / "model.zip").write_bytes(patched(patched(HONEST, LOCAL, 6, "<H", 1), CENTRAL, 8, "<H", 1))
    with pytest.raises(UnsafeContent, match="encrypted"):
        read_all(tmp_path / "model.zip")


@pytest.mark.parametrize(
    ("data", "limits", "named"),
    [
        (overlapping(200, 2**20), DEFAULT, "expansion_ratio"),
        (honest({"zeros": bytes(2**20)}, zipfile.ZIP_DEFLATED), Limits(expansion_floor=2**19), "expansion_ratio"),
        (honest({str(n): b"" for n in range(11)}), Limits(members=10), "members"),
        (honest({"a" * 1025: b""}), DEFAULT, "name"),
        (honest({"a/" * 65 + "a": b""}), DEFAULT, "depth"),
        (honest({"a": bytes(1000)}), Limits(file=999), "file"),
    ],
)
def test_a_zip_beyond_a_limit_is_refused_by_the_limits_name(data, limits, named, rules_of):
    with pytest.raises(LimitExceeded, match=named):
        rules_of(data, limits)


def test_what_is_no_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a file"), open_zip(tmp_path / "pipe"):
        pass
    with pytest.raises(NotFound), open_zip(tmp_path / "nothing"):
        pass


@settings(max_examples=300)
@given(
    base=st.sampled_from([HONEST, streamed(MEMBERS), honest(MEMBERS, zipfile.ZIP_DEFLATED)]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=4),
    cut=st.integers(0, 60),
)
def test_a_damaged_zip_is_read_as_it_was_or_found_out(tmp_path_factory, base, flips, cut):
    data = bytearray(base)
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.zip"
    path.write_bytes(data[: len(data) - cut])
    try:
        members, problems = read_all(path)
    except ModelkeepError:
        return
    # What no reader heeds may change: times, versions, attributes. The bytes and their names may not, unseen.
    assert problems or members == MEMBERS


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_our_own_words(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.zip"
    path.write_bytes(data)
    assert names_in(path) == frozenset()
    with pytest.raises(ModelkeepError), open_zip(path):
        pass


def test_what_our_reader_takes_pythons_takes_as_well(tmp_path):
    assert zipfile.ZipFile(io.BytesIO(HONEST)).testzip() is None
