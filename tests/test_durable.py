from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from modelkeep.errors import AlreadyExists, BlobMissing, StorageError, UsageError
from modelkeep.formats import durable
from modelkeep.formats.durable import new_file, new_folder


def write(path, data=b"new", then=lambda: None, **options):
    with new_file(path, **options) as file:
        os.write(file, data)
        then()


def test_a_file_is_there_when_the_block_has_ended_and_nothing_beside_it(tmp_path):
    path = tmp_path / "model.zip"
    with new_file(path) as file:
        os.write(file, b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["model.zip"]


def test_what_is_there_is_replaced_only_when_asked_to(tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(b"old")
    with pytest.raises(AlreadyExists, match="overwrite"):
        write(path)
    assert path.read_bytes() == b"old"
    write(path, overwrite=True)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["model.zip"]


def test_of_two_writers_at_once_one_is_told_that_it_was_late(tmp_path):
    path = tmp_path / "model.zip"
    with pytest.raises(AlreadyExists):
        write(path, b"late", then=lambda: write(path, b"first"))
    assert path.read_bytes() == b"first"


@pytest.mark.parametrize("error", [BlobMissing("gone"), ValueError("bug"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path, error):
    def fail():
        raise error

    path = tmp_path / "model.zip"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        write(path, b"half", then=fail, overwrite=True)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.zip"]


def test_a_file_system_without_links_will_do(tmp_path, monkeypatch):
    def no_links(*args, **kwargs):
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "model.zip"
    write(path)
    assert path.read_bytes() == b"new"
    with pytest.raises(AlreadyExists):
        write(path)
    assert os.listdir(tmp_path) == ["model.zip"]


@pytest.mark.parametrize(
    ("failing", "number"), [("fsync", errno.EIO), ("fsync", errno.ENOSPC), ("link", errno.EIO), ("open", errno.EACCES)]
)
def test_a_fault_of_the_disk_is_a_storage_error_and_leaves_no_file(tmp_path, monkeypatch, failing, number):
    def fails(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "model.zip"
    with monkeypatch.context() as patched:
        patched.setattr(os, failing, fails)
        with pytest.raises(StorageError, match=os.strerror(number)):
            write(path)
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_and_a_folder_in_its_place_are_named(tmp_path):
    with pytest.raises(StorageError, match="make the folder first"):
        write(tmp_path / "none" / "model.zip")
    with pytest.raises(StorageError, match="cannot write"):
        write(tmp_path, overwrite=True)


def test_a_folder_is_no_file_s_name():
    with pytest.raises(UsageError, match="name a file"):
        write(Path("."))


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    write(tmp_path / ("ü" * 127))
    assert os.listdir(tmp_path) == ["ü" * 127]


def make(path, text="new", then=lambda: None, **options):
    with new_folder(path, **options) as folder:
        (folder / "variables").mkdir()
        (folder / "variables" / "data").write_text(text)
        then()


def test_a_folder_is_there_when_the_block_has_ended_and_nothing_beside_it(tmp_path):
    make(tmp_path / "model", then=lambda: (tmp_path / "model").exists() and pytest.fail("too early"))
    assert (tmp_path / "model" / "variables" / "data").read_text() == "new"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("in_steps", [False, True], ids=["at once", "in steps"])
def test_a_folder_that_is_there_is_replaced_whole_and_only_where_that_loses_nothing_else(
    tmp_path, monkeypatch, in_steps
):
    def no_such_call(*names):
        raise OSError(errno.ENOSYS, "no such call")

    if in_steps:
        monkeypatch.setattr(durable, "rename_noreplace", no_such_call)
        monkeypatch.setattr(durable, "rename_exchange", no_such_call)
    path = tmp_path / "model"
    make(path, "old")
    with pytest.raises(AlreadyExists, match="overwrite"):
        make(path)
    with pytest.raises(UsageError, match="other things"):
        make(path, overwrite=True)
    make(path, overwrite=True, replaceable=lambda found: (found / "variables").is_dir())
    assert (path / "variables" / "data").read_text() == "new"
    assert os.listdir(tmp_path) == ["model"]


def test_folders_above_that_are_missing_are_made(tmp_path):
    make(tmp_path / "saved_model" / "mine" / "model")
    assert (tmp_path / "saved_model" / "mine" / "model" / "variables" / "data").read_text() == "new"


def test_a_folder_never_takes_a_files_place(tmp_path):
    (tmp_path / "model").write_text("old")
    with pytest.raises(UsageError, match="is a file"):
        make(tmp_path / "model", overwrite=True, replaceable=lambda _: True)


@pytest.mark.parametrize("error", [BlobMissing("gone"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_no_folder(tmp_path, error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        make(tmp_path / "model", then=fail)
    assert os.listdir(tmp_path) == []


def test_of_two_writers_of_a_folder_one_is_told_that_it_was_late(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(AlreadyExists):
        make(path, "late", then=lambda: make(path, "first"))
    assert (path / "variables" / "data").read_text() == "first"
