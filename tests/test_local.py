"""Objects as files: the contract, then what disks, other users and killed processes do to them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelkeep.errors import FormatTooNew, IntegrityError, NotFound, ObjectExists, StorageError, StoreNotFound
from modelkeep.storage import local, marker, open_store
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore
from modelkeep.storage.protocol import ObjectStore
from modelkeep.testing.object_store import ObjectStoreContract


class TestLocalStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return LocalStore(tmp_path / "store")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


# --- what lies on the disk


def test_opening_and_reading_make_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert list(store.list("")) == list(store.folders("")) == []
    with pytest.raises(NotFound):
        store.get("a")
    assert not store.refresh("a")
    assert not store.delete("a", unless_younger_than=store.now())
    assert list(tmp_path.iterdir()) == []


def test_an_object_is_a_file_of_its_key_and_nothing_else_is_left(store: LocalStore) -> None:
    store.create("a/b", [b"1"])
    with pytest.raises(ObjectExists):
        store.create("a/b", [b"2"])
    assert files(store.root) == {"a/b"}


def test_a_path_means_the_folder_it_meant_when_the_store_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("models")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.create("a", [b"1"])
    assert files(tmp_path) == {"models/a"}
    assert store.url == "models"
    assert open_store(f"file://{tmp_path}/models").get("a") == b"1"


def test_a_store_that_was_removed_below_an_open_one_is_made_again(store: LocalStore) -> None:
    store.create("a/b", [b"1"])
    shutil.rmtree(store.root)
    store.create("a/b", [b"2"])
    assert store.get("a/b") == b"2"


def test_whatever_the_group_may_write_it_may_refresh(store: LocalStore) -> None:
    before = os.umask(0o002)
    try:
        store.create("a/b", [b"1"])
    finally:
        os.umask(before)
    assert stat.S_IMODE((store.root / "a/b").stat().st_mode) == 0o664
    assert stat.S_IMODE((store.root / "a").stat().st_mode) == 0o775


def test_a_refresh_is_later_than_a_time_in_the_future(store: LocalStore) -> None:
    created = store.create("a", [b"1"])
    future = int(created * 1e9) + 10**15
    os.utime(store.root / "a", ns=(future, future))
    assert store.refresh("a")
    assert (store.root / "a").stat().st_mtime_ns == future + 1000


@pytest.mark.parametrize("kept", [10_000_000, 2_000_000_000])
def test_a_refresh_is_later_where_the_file_system_cuts_times(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    utime = os.utime
    monkeypatch.setattr(os, "utime", lambda fd, ns: utime(fd, ns=tuple(time // kept * kept for time in ns)))
    times = [store.create("a", [b"1"])]
    for _ in range(5):
        assert store.refresh("a")
        times += [info.modified for info in store.list("a")]
    assert sorted(set(times)) == times


def forbid_setting_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system does to whoever may write a file of another user's."""
    utime = os.utime

    def touch(fd: int, ns: tuple[int, int] | None = None) -> None:
        if ns is not None:
            raise PermissionError
        utime(fd)

    monkeypatch.setattr(os, "utime", touch)


def test_a_refresh_of_another_user_s_file_is_later_though_the_kernel_s_clock_lags(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [store.create("a", [b"1"])]
    forbid_setting_a_time(monkeypatch)
    for _ in range(5):
        assert store.refresh("a")
        times += [info.modified for info in store.list("a")]
    assert sorted(set(times)) == times


def test_a_file_of_another_user_s_from_the_future_cannot_be_refreshed_and_that_is_said(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = int(store.create("a", [b"1"])) + 10**6
    os.utime(store.root / "a", (future, future))
    forbid_setting_a_time(monkeypatch)
    with pytest.raises(StorageError, match=r"lies in the future\n.*set the clocks"):
        store.refresh("a")


def test_maps_keep_no_files_open(store: LocalStore) -> None:
    store.create("a", [b"x" * 10_000])
    before = len(os.listdir("/proc/self/fd"))
    maps = [store.map("a") for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert all(view == b"x" * 10_000 for view in maps)


def test_an_object_larger_than_memory_can_be_mapped(store: LocalStore) -> None:
    store.create("a", [b"begin"])
    os.truncate(store.root / "a", 2**40)
    view = store.map("a")
    view[-1] = 7
    assert (bytes(view[:5]), view[-1], len(view)) == (b"begin", 7, 2**40)


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev
    # The system may write less than it was given at any time; tmpfs and disks hardly ever do.
    monkeypatch.setattr(os, "writev", lambda fd, views: writev(fd, [bytes(views[0])[:7]]))
    chunks = [bytes([number]) * (number % 23) for number in range(200)]
    LocalStore(tmp_path).create("a", chunks)
    assert (tmp_path / "a").read_bytes() == b"".join(chunks)


# --- strangers in the folder


@pytest.mark.parametrize("key", ["link", "folder/a", "pipe"])
def test_links_and_pipes_in_a_store_are_refused(store: LocalStore, tmp_path: Path, key: str) -> None:
    store.create("there", [b"1"])
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a").write_bytes(b"secret")
    (store.root / "link").symlink_to(tmp_path / "outside/a")
    (store.root / "folder").symlink_to(tmp_path / "outside")
    os.mkfifo(store.root / "pipe")
    for call in (store.get, store.map, store.refresh, lambda key: store.get_range(key, 0, 1)):
        with pytest.raises(IntegrityError, match=r"symbolic link|regular file"):
            call(key)
    with pytest.raises((IntegrityError, ObjectExists)):
        store.create(key, [b"overwritten"])
    assert (tmp_path / "outside/a").read_bytes() == b"secret"
    assert {info.key for info in store.list("")} == {"folder", "link", "pipe", "there"}


def test_a_link_in_place_of_tmp_is_refused(store: LocalStore, tmp_path: Path) -> None:
    store.root.mkdir()
    (store.root / "tmp").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="tmp is a symbolic link"):
        store.create("a", [b"1"])


def test_a_folder_of_strangers_never_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "My thesis (final).docx").write_bytes(b"precious")
    with pytest.raises(StoreNotFound, match=r"not touched.*My thesis"):
        marker.ensure(LocalStore(tmp_path))
    assert files(tmp_path) == {"My thesis (final).docx"}


# --- the marker


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_place_becomes_a_store_once(tmp_path: Path, kind: str) -> None:
    store = LocalStore(tmp_path / "store") if kind == "local" else MemoryStore()
    with pytest.raises(StoreNotFound, match="not a modelkeep store"):
        marker.read(store)
    made = marker.ensure(store)
    store.create("blobs/x", [b""])
    assert marker.read(store) == marker.ensure(store) == made
    assert (made.format, len(made.id)) == (marker.FORMAT, 32)


def test_a_store_of_a_later_format_is_left_alone() -> None:
    store = MemoryStore()
    store.create(marker.KEY, [b'{"format":999,"id":"x","more":true}'])
    with pytest.raises(FormatTooNew, match=r"format 999.*at most 1"):
        marker.ensure(store)


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"format":"1"}', b"\xff"])
def test_a_damaged_marker_is_named(damaged: bytes) -> None:
    store = MemoryStore()
    store.create(marker.KEY, [damaged])
    with pytest.raises(IntegrityError, match=r"modelkeep\.json"):
        marker.ensure(store)


def test_many_who_make_a_store_at_once_make_the_same_one(tmp_path: Path) -> None:
    def make(number: int) -> str:
        store = LocalStore(tmp_path / "store")
        made = marker.ensure(store)
        store.create(f"blobs/{number}", [b""])
        return made.id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8)))) == 1


# --- what killed processes leave


def abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on everything counts as left behind long ago."""
    monkeypatch.setattr(local, "_ABANDONED_AFTER", -1.0)


def test_a_strangers_files_in_tmp_are_not_swept(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (store.root / "tmp").mkdir(parents=True)
    (store.root / "tmp/precious").write_bytes(b"1")
    abandoned(monkeypatch)
    store.create("a", [b"1"])
    assert files(store.root) == {"a", "tmp/precious"}


class Halting(list[bytes]):
    """Chunks that are not all there yet."""

    def __init__(self) -> None:
        super().__init__([b"begin", b"end"])
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        yield self[0] * 2**20
        self.reached.set()
        self.go_on.wait()
        yield self[1]


def test_what_a_live_writer_writes_is_not_swept(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = Halting()
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(store.create, "slow", chunks)
        assert chunks.reached.wait(10)
        abandoned(monkeypatch)
        LocalStore(store.root).create("quick", [b"1"])
        chunks.go_on.set()
        writing.result()
    assert store.get("slow").endswith(b"beginend")


def test_what_a_dead_writer_left_is_swept_once_it_is_old(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create("a", [b"1"])
    (store.root / "tmp/write-dead").write_bytes(b"half")
    LocalStore(store.root).create("b", [b"1"])
    assert files(store.root) == {"a", "b", "tmp/write-dead"}  # its writer may not have come to lock it
    abandoned(monkeypatch)
    LocalStore(store.root).create("c", [b"1"])
    assert files(store.root) == {"a", "b", "c"}


def doom(store: LocalStore, key: str, name: str = "~1") -> None:
    """What a collector leaves that is killed between moving a file away and looking at its time."""
    (store.root / "tmp/doomed" / key).mkdir(parents=True, exist_ok=True)
    os.rename(store.root / key, store.root / "tmp/doomed" / key / name)


@pytest.mark.parametrize("method", ["get", "map", "get_range", "refresh"])
def test_what_a_killed_collector_moved_away_is_found_by_whoever_asks(store: LocalStore, method: str) -> None:
    store.create("blobs/9f/a", [b"wanted"])
    doom(store, "blobs/9f/a")
    arguments = (0, 6) if method == "get_range" else ()
    assert getattr(store, method)("blobs/9f/a", *arguments) == (True if method == "refresh" else b"wanted")
    assert files(store.root) == {"blobs/9f/a"}


def test_what_a_killed_collector_moved_away_is_put_back_by_the_next_writer(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("blobs/9f/a", [b"wanted"])
    doom(store, "blobs/9f/a")
    assert list(store.list("")) == []
    abandoned(monkeypatch)
    LocalStore(store.root).create("b", [b"1"])
    assert {info.key for info in store.list("")} == {"b", "blobs/9f/a"}
    assert files(store.root) == {"b", "blobs/9f/a"}


def test_a_copy_that_was_moved_away_makes_the_one_in_place_young(store: LocalStore) -> None:
    store.create("a", [b"wanted"])
    doom(store, "a")
    store.create("a", [b"wanted"])
    doom(store, "a", "~2")
    limit = store.now()
    assert store.get("a") == b"wanted"  # takes one of them back
    doom(store, "a", "~3")
    store.create("a", [b"wanted"])
    (store.root / "a").touch()
    os.utime(store.root / "a", (0, 0))
    LocalStore(store.root)._take_back("a")  # as a sweep does: the copy may have been refreshed
    assert not store.delete("a", unless_younger_than=limit)


def test_keys_below_a_doomed_key_are_not_taken_for_it(store: LocalStore) -> None:
    store.create("a/b", [b"inner"])
    doom(store, "a/b")
    with pytest.raises(NotFound):
        store.get("a")
    assert store.get("a/b") == b"inner"


WRITER = """
    import sys
    from modelkeep.storage.local import LocalStore
    store = LocalStore(sys.argv[1])
    print("ready", flush=True)
    for number in range(10**6):
        store.create(f"blobs/{number % 7}/{sys.argv[2]}-{number}", [b"begin", b"x" * 3_000_000, b"end"])
"""


def test_a_writer_killed_at_any_moment_leaves_whole_objects_or_none(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = 5 + 3_000_000 + 3
    for turn in range(20):
        with python(WRITER, str(store.root), str(turn)) as writer:
            time.sleep(turn * 0.0037)
            writer.kill()
        for info in store.list(""):
            assert info.size == whole
            assert store.get_range(info.key, whole - 3, 3) == b"end"
    abandoned(monkeypatch)
    LocalStore(store.root).create("next", [b"1"])
    assert not [path for path in files(store.root) if path.startswith("tmp/")]


RACER = """
    import sys
    from modelkeep.storage.local import LocalStore
    store, role, limit = LocalStore(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    print("ready", flush=True)
    sys.stdin.readline()
    kept = []
    for number in range(400):
        key = f"blobs/{number % 3}/{number}"
        if role == "collect":
            store.delete(key, unless_younger_than=limit)
        elif store.refresh(key):
            kept.append(key)
    print(*kept, flush=True)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_refresh_said_is_there_no_collector_takes_even_when_killed(store: LocalStore, killed: bool) -> None:
    refreshed = 0
    for _ in range(3):
        for number in range(400):
            plant(store, f"blobs/{number % 3}/{number}")
        limit = str(store.now())
        with (
            python(RACER, str(store.root), "collect", limit) as first,
            python(RACER, str(store.root), "collect", limit) as second,
            python(RACER, str(store.root), "refresh", limit) as third,
        ):
            for racer in (first, second, third):
                say(racer, "go")
            if killed:
                time.sleep(0.005)
                first.kill()
            kept = heard(third).split()
            for collector in (first, second)[killed:]:
                heard(collector)
        for key in kept:
            assert store.get(key) == b"wanted"
        refreshed += len(kept)
        shutil.rmtree(store.root)
    assert 0 < refreshed < 3 * 400 or killed


def plant(store: LocalStore, key: str) -> None:
    """An old object, without waiting for the disk."""
    path = store.root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"wanted")
    os.utime(path, (0, 0))


def test_of_processes_that_race_exactly_one_creates(store: LocalStore) -> None:
    script = """
        import sys
        from modelkeep.errors import ObjectExists
        from modelkeep.storage.local import LocalStore
        store = LocalStore(sys.argv[1])
        won = 0
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(50):
            try:
                store.create(f"models/m/ledger/{number:012}.json", [sys.argv[2].encode()])
                won += 1
            except ObjectExists:
                pass
        print(won, flush=True)
    """
    with (
        python(script, str(store.root), "1") as one,
        python(script, str(store.root), "2") as two,
        python(script, str(store.root), "3") as three,
    ):
        racers = (one, two, three)
        for racer in racers:
            say(racer, "go")
        won = [int(heard(racer)) for racer in racers]
    assert sum(won) == 50
    written = [store.get(info.key) for info in store.list("models/")]
    assert [written.count(name) for name in (b"1", b"2", b"3")] == won


# --- disks that fail


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(*arguments: str) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("NOT TESTED: mounting a file system needs root")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: mount is not permitted here ({done.stderr.strip()})")


def test_a_full_disk_is_named_and_leaves_the_store_as_it_was(small_disk: Path) -> None:
    store = LocalStore(small_disk / "store")
    store.create("a", [b"x" * 3_000_000])
    with pytest.raises(StorageError, match=r"(?s)cannot write b in .*No space left.*free some space"):
        store.create("b", [b"x" * 1_000_000] * 9)
    assert files(store.root) == {"a"}
    store.create("c", [b"x" * 3_000_000])
    assert store.get("a") == store.get("c") == b"x" * 3_000_000


def test_a_read_only_disk_can_be_read_and_says_so_when_written(small_disk: Path) -> None:
    store = LocalStore(small_disk / "store")
    store.create("a/b", [b"1"])
    mount("-o", "remount,ro", str(small_disk))
    assert store.get("a/b") == bytes(store.map("a/b")) == b"1"
    assert [info.key for info in store.list("")] == ["a/b"]
    calls = (
        lambda: store.create("a/c", [b"1"]),
        lambda: store.refresh("a/b"),
        lambda: store.delete("a/b"),
        lambda: store.delete("a/b", unless_younger_than=store.now()),
    )
    for call in calls:
        with pytest.raises(StorageError, match=r"(?s)a/[bc] in .*Read-only file system.*use a store on one that can"):
            call()


def test_tmp_on_another_disk_is_named(small_disk: Path, store: LocalStore) -> None:
    (store.root / "tmp").mkdir(parents=True)
    mount("--bind", str(small_disk), str(store.root / "tmp"))
    try:
        with pytest.raises(StorageError, match="same file system"):
            store.create("a", [b"1"])
    finally:
        subprocess.run(["umount", "--lazy", str(store.root / "tmp")], check=True)
    assert list(store.list("")) == []


CREATE = """
    import sys
    from modelkeep.errors import ModelkeepError
    from modelkeep.storage.local import LocalStore
    store = LocalStore(sys.argv[1])
    try:
        store.create("blobs/a", [b"x" * 40_000, b"y" * 40_000])
    except ModelkeepError as error:
        print(type(error).__name__, str(error).replace(chr(10), " "))
    else:
        print("created")
"""


def injected(store: LocalStore, **faults: str) -> str:
    """What a create says while the kernel answers some of its calls with a fault."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("NOT TESTED: there is no strace to make system calls fail")
    rules = [rule for call, fault in faults.items() for rule in ("-e", f"inject={call}:{fault}")]
    # The interpreter itself: a shim in front of it would eat the count of calls.
    program = [os.path.realpath(sys.executable), "-c", textwrap.dedent(CREATE), str(store.root)]
    command = [strace, "-f", "-qq", "-o", os.devnull, "-e", f"trace={','.join(faults)}", *rules, *program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "ptrace" in done.stderr.lower():
        pytest.skip(f"NOT TESTED: strace is not permitted here ({done.stderr.strip()})")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def used(store: LocalStore) -> LocalStore:
    """A store whose folders are there."""
    store.create("blobs/there", [b"1"])
    return store


@pytest.mark.parametrize(
    ("call", "fault", "says"),
    [
        ("writev", "error=EIO", "Input/output error.*look at the system's log"),
        ("writev", "error=ENOSPC", "No space left on device.*free some space"),
        ("linkat", "error=EIO", "Input/output error"),
        ("linkat", "error=EDQUOT", "quota"),
    ],
)
def test_a_call_that_fails_is_named_and_leaves_nothing(used: LocalStore, call: str, fault: str, says: str) -> None:
    said = injected(used, **{call: fault})
    assert re.match(f"StorageError cannot write blobs/a in .*{says}", said)
    assert files(used.root) == {"blobs/there"}
    used.create("blobs/a", [b"1"])


def test_an_fsync_that_fails_is_never_taken_for_one_that_passed(used: LocalStore) -> None:
    outcomes = []
    for number in range(1, 9):
        said = injected(used, fsync=f"error=EIO:when={number}")
        outcomes.append((said.split()[0], used.delete("blobs/a")))
        if said == "created":
            break
        assert "Input/output error" in said
        assert ("did not confirm" in said) == outcomes[-1][1]
    # The folder above and the file: nothing is there. The file's folder: it is there, and that is what is said.
    assert outcomes == [*[("StorageError", False)] * 2, ("StorageError", True), ("created", True)]


def test_a_file_system_without_links_is_written_by_renaming(used: LocalStore) -> None:
    assert injected(used, linkat="error=EPERM") == "created"
    assert files(used.root) == {"blobs/there", "blobs/a"}
    assert injected(used, linkat="error=EPERM").startswith("ObjectExists")
    used.delete("blobs/a")
    said = injected(used, linkat="error=EPERM", renameat2="error=EINVAL")
    assert said.startswith("StorageError the file system can give a file a name neither by link nor by renameat2")
    assert files(used.root) == {"blobs/there"}


# --- other processes


@contextmanager
def python(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said it is ready; killed at the end."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert heard(process) == "ready"
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
