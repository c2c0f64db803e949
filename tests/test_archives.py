from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_zips import honest
from model_files import WEIGHTS, keras_members, unpacked, zipped
from modelkeep.errors import (
    AlreadyExists,
    IntegrityError,
    LimitExceeded,
    MissingExtra,
    ModelkeepError,
    UnsafeContent,
    UsageError,
)
from modelkeep.formats import archives
from modelkeep.formats.forms import open_contents
from modelkeep.formats.limits import DEFAULT, Limits

MODEL = honest(keras_members())


def tarred(members, path, mode="w", **options):
    """A tar; a member is its bytes, or a function that changes its header."""
    with tarfile.open(path, mode, **options) as archive:
        for name, value in members.items():
            entry = tarfile.TarInfo(name)
            if callable(value):
                value(entry)
                archive.addfile(entry)
            else:
                entry.size = len(value)
                archive.addfile(entry, io.BytesIO(value))
    return path


def zst(members, path):
    tarred(members, path.with_suffix(".tar"))
    path.write_bytes(zstandard.compress(path.with_suffix(".tar").read_bytes()))
    path.with_suffix(".tar").unlink()
    return path


MAKERS = {
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda members, path: tarred(members, path, "w:gz"),
    "tar.zst": zst,
    "folder": unpacked,
}


def rules_of(path, limits=DEFAULT):
    with open_contents(path, limits, thorough=True) as contents:
        return {problem.rule for problem in contents.problems}


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize("top", ["", "models/mine/"], ids=["top", "below"])
def test_the_one_model_in_an_archive_is_read_as_if_it_lay_there_alone(form, top, tmp_path):
    path = MAKERS[form]({f"{top}model.keras": MODEL, f"{top}README.md": b"# Read me"}, tmp_path / "archive")
    with open_contents(path, thorough=True) as contents:
        assert (contents.form, contents.problems) == ("keras", ())
        assert contents.details["archive"] == {"form": form, "member": f"{top}model.keras"}
        assert [member.name for member in contents.members] == [f"{top}README.md"]
        found = {tensor.name: tensor.read() for tensor in contents.tensors}
        inner = contents.path
    np.testing.assert_array_equal(found["layers/dense/vars/1"], WEIGHTS["layers/dense/vars/1"])
    assert inner.exists() == (form == "folder")


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_model_that_is_a_folder_is_found_in_an_archive(form, tmp_path):
    path = MAKERS[form]({f"model/{name}": data for name, data in keras_members().items()}, tmp_path / "archive")
    with open_contents(path) as contents:
        assert (contents.form, contents.details["archive"]["member"]) == ("keras", "model")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_is_read_with_long_names(format, tmp_path):
    name = "/".join(["a" * 60] * 2 + ["model.keras" if format == tarfile.USTAR_FORMAT else f"{'ü' * 60}.keras"])
    path = tarred({name: MODEL}, tmp_path / "a.tar", format=format)
    with open_contents(path) as contents:
        assert (contents.details["archive"]["member"], contents.problems) == (name, ())


@pytest.mark.skipif(not shutil.which("tar"), reason="NOT TESTED: no tar command here")
def test_what_the_tar_command_packs_is_read(tmp_path):
    folder = unpacked(keras_members(), tmp_path / "in" / "model")
    subprocess.run(["tar", "-czf", tmp_path / "a.tar.gz", "."], cwd=folder, check=True)
    subprocess.run(["tar", "-cf", tmp_path / "a.tar", "model"], cwd=folder.parent, check=True)
    assert rules_of(tmp_path / "a.tar.gz") == rules_of(tmp_path / "a.tar") == set()


def test_what_systems_leave_in_archives_is_no_model(tmp_path):
    members = {"model.keras": MODEL, "__MACOSX/._model.keras": MODEL, "._model.keras": MODEL, ".DS_Store": b""}
    assert rules_of(zipped(members, tmp_path / "a.zip")) == set()


def test_of_several_models_one_must_be_named(tmp_path):
    folder = unpacked({"a.keras": MODEL, "b.keras": MODEL}, tmp_path / "models")
    for path in (folder, zipped({"a.keras": MODEL, "b.keras": MODEL}, tmp_path / "a.zip")):
        with pytest.raises(UsageError, match=r"more than one model: found a\.keras, b\.keras"):
            rules_of(path)


def test_an_archive_of_other_things_holds_no_model(tmp_path):
    with pytest.raises(UsageError, match="no model file"):
        rules_of(zipped({"notes.txt": b"hello"}, tmp_path / "a.zip"))


def test_a_pickle_beside_a_model_is_listed_to_be_looked_through(tmp_path):
    folder = unpacked({"model.keras": MODEL, "tokenizer.pickle": b"\x80\x04}q\x00."}, tmp_path / "model")
    with open_contents(folder) as contents:
        assert [(pickle.name, pickle.read()) for pickle in contents.pickles] == [
            ("tokenizer.pickle", b"\x80\x04}q\x00.")
        ]


# --- hostile ones


def link(target, kind=tarfile.SYMTYPE):
    def change(entry):
        entry.type, entry.linkname = kind, target

    return change


def of_kind(kind):
    def change(entry):
        entry.type = kind

    return change


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ({"../evil": b"x"}, "tar-path"),
        ({"/tmp/evil": b"x"}, "tar-path"),
        ({"a/../../evil": b"x"}, "tar-path"),
        ({"link": link("/etc"), "link/evil": b"x"}, "tar-special-file"),
        ({"hard": link("/etc/passwd", tarfile.LNKTYPE)}, "tar-special-file"),
        ({"device": of_kind(tarfile.CHRTYPE)}, "tar-special-file"),
        ({"pipe": of_kind(tarfile.FIFOTYPE)}, "tar-special-file"),
        ({"sparse": of_kind(tarfile.GNUTYPE_SPARSE)}, "tar-sparse"),
        ({"odd": of_kind(b"Z")}, "tar-unknown"),
        ({"a": b"x", "a/b": b"y"}, "tar-duplicate-name"),
        ({"a/b": b"x", "a": b"y"}, "tar-duplicate-name"),
    ],
)
def test_a_tar_that_reaches_out_is_told_by_its_rule_and_reaches_nothing(members, rule, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = tarred({"model.keras": MODEL, **members}, tmp_path / "a.tar")
    with open_contents(path) as contents:
        assert {problem.rule for problem in contents.problems} == {rule}
        made = [entry for entry in (tmp_path / "temporary").rglob("*") if not entry.is_dir()]
        assert all(entry.is_file() and not entry.is_symlink() for entry in made)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tar", "temporary"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_file_that_is_there_twice_is_told_and_the_first_one_read(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for data in (MODEL, b"other"):
            entry = tarfile.TarInfo("model.keras")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    assert rules_of(tmp_path / "a.tar") == {"tar-duplicate-name"}


@pytest.mark.parametrize("headers", [{"path": "other"}, {"size": "10"}, {"GNU.sparse.map": "0,1"}])
def test_a_record_that_changes_every_member_is_told(headers, tmp_path):
    tarred({"model.keras": MODEL}, tmp_path / "a.tar", format=tarfile.PAX_FORMAT, pax_headers=headers)
    assert rules_of(tmp_path / "a.tar") == {"tar-override"}


def test_a_size_that_a_record_and_a_header_tell_differently_is_told(tmp_path):
    """CVE-2025-62518: a program that heeds the header finds other members than one that heeds the record."""
    inner = tarred({"evil.py": b"x" * 512}, tmp_path / "inner.tar").read_bytes()

    def smuggled(entry):
        entry.pax_headers = {"size": str(len(inner))}

    path = tarred({"notes": smuggled}, tmp_path / "a.tar", format=tarfile.PAX_FORMAT)
    data = path.read_bytes()
    path.write_bytes(data[: 3 * 512] + inner + data[3 * 512 :])
    with pytest.raises(UnsafeContent, match="tar-ambiguous"):
        rules_of(path)


def test_a_folder_with_bytes_is_told(tmp_path):
    path = tarred({"model.keras": MODEL}, tmp_path / "a.tar", format=tarfile.GNU_FORMAT)
    header = tarfile.TarInfo("folder")
    header.type, header.size = tarfile.DIRTYPE, 10
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(512) + path.read_bytes())
    assert rules_of(path) == {"tar-ambiguous"}


def test_a_prefix_that_gnu_does_not_know_is_told(tmp_path):
    tarred({"model.keras": MODEL}, tmp_path / "a.tar", format=tarfile.GNU_FORMAT)
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[345:348] = b"pre"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 256 + sum(data[156:512]))
    (tmp_path / "a.tar").write_bytes(data)
    assert rules_of(tmp_path / "a.tar") == {"tar-ambiguous"}


def test_what_stands_behind_the_end_of_a_tar_is_told(tmp_path):
    path = tarred({"model.keras": MODEL}, tmp_path / "a.tar")
    path.write_bytes(path.read_bytes() + b"more" * 128)
    assert rules_of(path) == {"tar-trailing"}


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.zst", "zip"])
@pytest.mark.parametrize("keep", [0.3, 0.45])
def test_an_archive_that_is_cut_short_is_said_to_be(form, keep, tmp_path):
    path = MAKERS[form]({"model.keras": os.urandom(9000)}, tmp_path / "a")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(IntegrityError, match=r"cut short|damaged"):
        rules_of(path)


def bomb(form, path):
    zeros = tarred({"zeros": bytes(2**27)}, path.with_name("zeros")).read_bytes()
    path.write_bytes(gzip.compress(zeros, 9) if form == "tar.gz" else zstandard.compress(zeros, 19))
    return path


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst"])
def test_an_archive_that_unpacks_to_suspiciously_much_is_stopped(form, tmp_path):
    path = bomb(form, tmp_path / "a")
    with pytest.raises(LimitExceeded, match="suspiciously much"):
        rules_of(path)


@pytest.mark.parametrize(
    ("limits", "named"), [(Limits(members=1), "members"), (Limits(file=5_000), "file"), (Limits(depth=2), "depth")]
)
@pytest.mark.parametrize("form", ["zip", "tar.gz", "folder"])
def test_an_archive_beyond_a_limit_is_refused_by_the_limits_name(form, limits, named, tmp_path):
    path = MAKERS[form]({"a/b/model.keras": MODEL, "a/b/notes": b""}, tmp_path / "a")
    with pytest.raises(LimitExceeded, match=named):
        rules_of(path, limits)


def test_archives_within_archives_are_opened_to_a_limit(tmp_path):
    once = zipped({"model.keras": MODEL}, tmp_path / "once.zip")
    twice = tarred({"once.zip": once.read_bytes()}, tmp_path / "twice.tar")
    thrice = zipped({"twice.tar": twice.read_bytes()}, tmp_path / "thrice.zip")
    with open_contents(twice) as contents:
        assert contents.details["archive"] == {
            "form": "tar",
            "member": "once.zip",
            "archive": {"form": "zip", "member": "model.keras"},
        }
    with pytest.raises(LimitExceeded, match="too many archives"):
        rules_of(thrice)


def test_a_link_in_a_folder_is_told_and_is_no_model(tmp_path):
    folder = unpacked({"model.keras": MODEL}, tmp_path / "model")
    (folder / "other.keras").symlink_to(folder / "model.keras")
    assert rules_of(folder) == {"folder-special-file"}


@settings(max_examples=100, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 7)), max_size=3), keep=st.integers(0, 6000))
def test_a_damaged_tar_is_read_or_refused_in_our_own_words(tmp_path_factory, flips, keep):
    path = tmp_path_factory.getbasetemp() / "flipped.tar"
    data = bytearray(tarred({"a/notes": b"x" * 600, "w.npy": b"\x93NUMPY", "ü" * 80: b""}, path).read_bytes())
    for place, bit in flips:
        data[place] ^= 1 << bit
    path.write_bytes(data[:keep])
    with contextlib.suppress(ModelkeepError):
        rules_of(path)


# --- written


@pytest.mark.parametrize("form", ["zip", "tar.gz", "tar.zst"])
def test_what_is_packed_is_read_again_and_the_same_files_give_the_same_bytes(form, tmp_path):
    for where in ("one", "two"):
        unpacked(keras_members(), tmp_path / where / "model")
    os.utime(tmp_path / "two" / "model" / "config.json", (0, 0))
    (tmp_path / "two" / "model" / "config.json").chmod(0o600)
    for where in ("one", "two"):
        archives.pack(tmp_path / where / "model", tmp_path / where / "packed", form)
    assert (tmp_path / "one" / "packed").read_bytes() == (tmp_path / "two" / "packed").read_bytes()
    with open_contents(tmp_path / "one" / "packed", thorough=True) as contents:
        assert (contents.form, contents.problems) == ("keras", ())
        assert contents.details["archive"] == {"form": form, "member": "model"}


@pytest.mark.parametrize("form", ["zip", "tar.gz", "tar.zst"])
def test_a_file_is_packed_under_its_own_name(form, tmp_path):
    (tmp_path / "model.keras").write_bytes(MODEL)
    archives.pack(tmp_path / "model.keras", tmp_path / "packed", form)
    with open_contents(tmp_path / "packed") as contents:
        assert contents.details["archive"]["member"] == "model.keras"


@pytest.mark.skipif(not shutil.which("tar"), reason="NOT TESTED: no tar command here")
def test_other_programs_unpack_what_is_packed(tmp_path):
    folder = unpacked(keras_members(), tmp_path / "model")
    archives.pack(folder, tmp_path / "a.tar.gz", "tar.gz")
    archives.pack(folder, tmp_path / "a.zip", "zip")
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "a.tar.gz", "-C", tmp_path / "out"], check=True)
    zipfile.ZipFile(tmp_path / "a.zip").extractall(tmp_path / "zip")
    for out in (tmp_path / "out", tmp_path / "zip"):
        assert {path.name: path.read_bytes() for path in (out / "model").iterdir()} == keras_members()


def test_nothing_is_packed_over_another_file_or_through_a_link(tmp_path):
    folder = unpacked({"a": b""}, tmp_path / "model")
    (tmp_path / "packed").write_text("old")
    with pytest.raises(AlreadyExists):
        archives.pack(folder, tmp_path / "packed", "zip")
    (folder / "b").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="link"):
        archives.pack(folder, tmp_path / "packed", "zip", overwrite=True)
    assert (tmp_path / "packed").read_text() == "old"


def test_without_zstandard_the_line_to_install_it_is_named(tmp_path, monkeypatch):
    path = zst({"model.keras": MODEL}, tmp_path / "a")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtra, match=r"modelkeep\[archives\]"):
        rules_of(path)
    with pytest.raises(MissingExtra):
        archives.pack(Path(path), tmp_path / "b", "tar.zst")
