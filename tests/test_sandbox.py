"""A process that looks at a hostile file can read it, compute within limits, answer, and nothing else."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelkeep.errors import LimitExceeded, MissingExtra, NotFound, UnsafeContent, UsageError
from modelkeep.formats.limits import GIB, MIB, Limits
from modelkeep.safety import confinement, sandbox

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what confines a process is Linux'")
SHORT = Limits(seconds=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.xml"
    path.write_text("hello")
    return path


def look(function: str, file: Path, limits: Limits | None = None, **arguments: Any) -> Any:
    return sandbox.call(f"looking:{function}", file, arguments, limits or Limits())


def in_group(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == leader:
                found.append(process)
    return found


@pytest.fixture
def confined(file: Path) -> None:
    missing = look("measures", file)
    if missing:
        pytest.skip(f"this system lacks {', '.join(missing)}")


def test_a_function_of_ours_answers_with_a_json_value(file: Path) -> None:
    assert look("read", file, Limits(seconds=7), a=[1, {"b": None}]) == ["hello", {"a": [1, {"b": None}]}, 7]


def test_what_is_printed_does_not_reach_the_answer(file: Path) -> None:
    assert look("chatter", file) == "said"


def test_a_path_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        look("read", tmp_path / "none.h5")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        look("read", Path("/dev/null"))


def test_an_error_of_ours_comes_back_as_it_was(file: Path) -> None:
    with pytest.raises(LimitExceeded) as caught:
        look("refuse", file)
    assert (caught.value.what, caught.value.found, caught.value.hint) == ("too deep", "3", "less")


def test_any_other_error_means_that_the_file_is_unsafe(file: Path) -> None:
    with pytest.raises(UnsafeContent, match=r"model\.xml cannot be read: found KeyError: 'layers'"):
        look("stumble", file)


def test_a_package_that_is_not_installed_is_no_fault_of_the_file(file: Path) -> None:
    with pytest.raises(MissingExtra, match=r"needs absent_reader\n.*modelkeep\[files\]"):
        look("lack", file)


@pytest.mark.parametrize(("function", "found"), [("crash", "SIGSEGV"), ("leave", "exit code 3")])
def test_a_process_that_dies_tells_how(function: str, found: str, file: Path) -> None:
    with pytest.raises(UnsafeContent, match=f"killed the process that looked: found {found}"):
        look(function, file)


def test_computing_ends_with_the_cpu_time(file: Path) -> None:
    with pytest.raises(LimitExceeded, match="takes too long"):
        look("spin", file, SHORT)


def test_waiting_ends_by_the_clock(file: Path) -> None:
    began = time.monotonic()
    with pytest.raises(LimitExceeded, match="takes too long"):
        look("sleep", file, SHORT)
    assert time.monotonic() - began < 30


def test_a_larger_file_has_more_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_BYTES_A_SECOND", 2)  # five bytes, so two seconds
    began = time.monotonic()
    with pytest.raises(LimitExceeded):
        look("spin", file, Limits(seconds=0))
    assert time.monotonic() - began > 1.5


@linux
def test_memory_has_a_limit(file: Path) -> None:
    assert look("use_memory", file, Limits(memory=256 * MIB), size=64 * MIB) == 64 * MIB
    with pytest.raises(LimitExceeded, match="takes too much memory"):
        look("use_memory", file, Limits(memory=256 * MIB), size=GIB)


def test_an_answer_has_a_limit(file: Path) -> None:
    with pytest.raises(LimitExceeded, match="more than can be told"):
        look("answer_much", file, Limits(memory=2 * GIB))


@linux
@pytest.mark.usefixtures("confined")
def test_no_other_file_can_be_read(file: Path) -> None:
    with pytest.raises(UnsafeContent, match="Permission denied: '/etc/passwd'"):
        look("read_system", file)


@linux
@pytest.mark.usefixtures("confined")
def test_files_that_belong_to_it_can_be_read(file: Path) -> None:
    file.with_name("model.bin").write_text("weights")
    file.with_name("secret.txt").write_text("secret")
    file.with_name("model.lnk").symlink_to("secret.txt")
    assert look("read_beside", file, name="model.bin") == "weights"
    for name in ("secret.txt", "model.lnk"):
        with pytest.raises(UnsafeContent, match="Permission denied"):
            look("read_beside", file, name=name)


@linux
@pytest.mark.usefixtures("confined")
def test_nothing_can_be_written(file: Path, tmp_path: Path) -> None:
    for function, arguments in (("write", {"where": str(tmp_path / "new")}), ("append", {})):
        with pytest.raises(UnsafeContent, match="Permission denied"):
            look(function, file, **arguments)
    assert file.read_text() == "hello"
    assert [path.name for path in tmp_path.iterdir()] == ["model.xml"]


def test_what_is_unpacked_is_gone_afterwards(file: Path) -> None:
    assert not os.path.exists(look("write_scratch", file, size=MIB))


@linux
def test_what_is_unpacked_has_a_limit(file: Path) -> None:
    with pytest.raises(UnsafeContent, match="File too large"):
        look("write_scratch", file, Limits(expansion_floor=8 * MIB), size=9 * MIB)


@linux
@pytest.mark.usefixtures("confined")
def test_no_network_can_be_reached(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UnsafeContent, match="Permission denied"):
        look("connect", file, port=server.getsockname()[1])


@linux
@pytest.mark.usefixtures("confined")
def test_no_program_can_be_started(file: Path) -> None:
    with pytest.raises(UnsafeContent, match="Permission denied"):
        look("start_program", file)


@linux
def test_a_process_that_is_left_behind_is_ended(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    end = sandbox._end
    monkeypatch.setattr(sandbox, "_end", lambda process: (started.append(process), end(process)))
    with pytest.raises(LimitExceeded):
        look("leave_child", file, SHORT)
    _, alive = psutil.wait_procs(in_group(started[0].pid), timeout=5)
    assert alive == []


def test_a_process_that_nobody_confined_says_so() -> None:
    assert confinement.absent() == ("confinement",)


@linux
def test_a_system_without_a_measure_lacks_it_and_goes_on(file: Path) -> None:
    script = (
        "import sys; sys.platform = 'plan9'\n"
        "from pathlib import Path; from modelkeep.safety import confinement\n"
        "confinement.confine([], Path('/'), seconds=9, memory=2**30, file_size=0); print(confinement.absent())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('no new privileges', 'network namespace', 'Landlock')"


def test_whatever_happens_in_the_process_is_told_as_an_answer_or_an_error(file: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def reply(function: str, **arguments: Any) -> Any:
        return sandbox._reply(f"looking:{function}", file, arguments, SHORT)

    assert reply("read")["value"][0] == "hello"
    assert reply("refuse")["error"] == "LimitExceeded"
    assert reply("lack")["error"] == "MissingExtra"
    assert reply("stumble")["error"] == "UnsafeContent"
    assert sandbox._readable(file, SHORT)[0] == file
    assert sandbox._readable(file.parent, SHORT) == [file.parent]
