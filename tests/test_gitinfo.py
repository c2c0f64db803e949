"""The commit and the dirty flag, from real repositories; and silence wherever there are none."""

import subprocess

import pytest

from modelkeep import gitinfo

_NOBODY = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]


def git(folder, *arguments):
    done = subprocess.run(["git", *_NOBODY, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("first")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_repository_tells_its_commit(repository):
    assert gitinfo.read(repository) == gitinfo.GitState(git(repository, "rev-parse", "HEAD"), dirty=False)


def test_a_folder_below_tells_the_same(repository):
    (repository / "models").mkdir()
    assert gitinfo.read(repository / "models") == gitinfo.read(repository)


@pytest.mark.parametrize("staged", [False, True])
def test_an_edit_makes_it_dirty(repository, staged):
    (repository / "train.py").write_text("second")
    if staged:
        git(repository, "add", ".")
    assert gitinfo.read(repository).dirty


def test_untracked_files_do_not_make_it_dirty(repository):
    (repository / "models.bin").write_text("data")
    assert not gitinfo.read(repository).dirty


def test_the_working_directory_is_asked_by_default(repository, monkeypatch):
    monkeypatch.chdir(repository)
    assert gitinfo.read() == gitinfo.read(repository)


def test_there_is_nothing_to_tell_outside_a_repository(tmp_path):
    assert gitinfo.read(tmp_path) is None


def test_there_is_nothing_to_tell_before_the_first_commit(tmp_path):
    git(tmp_path, "init", "-q")
    assert gitinfo.read(tmp_path) is None


def test_a_missing_git_is_no_error(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert gitinfo.read(repository) is None


def test_a_missing_folder_is_no_error(tmp_path):
    assert gitinfo.read(tmp_path / "gone") is None


def test_a_git_that_hangs_is_left_behind(repository, tmp_path, monkeypatch):
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=":")
    assert gitinfo.read(repository, timeout=0.2) is None


def test_no_program_that_the_repository_names_is_run(repository):
    mark = repository / "ran"
    git(repository, "config", "core.fsmonitor", f"touch {mark}; false")
    assert gitinfo.read(repository) is not None
    assert not mark.exists()
