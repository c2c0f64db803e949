"""What every :class:`~modelkeep.storage.protocol.ObjectStore` promises, as tests.

The author of a store runs them from a small file::

    import pytest
    from modelkeep.testing.object_store import ObjectStoreContract

    class TestMine(ObjectStoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

Each test gets a fresh, empty store. That what ``create`` wrote survives a power cut no test here can see; a store's own
tests have to.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import pytest

from modelkeep.errors import IntegrityError, NotFound, ObjectExists, UsageError
from modelkeep.manifest import ALIGNMENT
from modelkeep.storage.protocol import ObjectStore

_Answer = TypeVar("_Answer")
_THREADS = 8
_NOT_KEYS = (
    "",
    "/",
    "a/",
    "/a",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/.hidden",
    "a b",
    "ä",
    "a\\b",
    "a\0b",
    "a\n",
    "tmp/a",
    "x" * 1001,
)


class ObjectStoreContract:
    """Subclass it, and give a ``store`` fixture that returns an empty store."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """An empty store."""
        raise NotImplementedError("give a fixture named store")

    # --- create, get

    def test_an_object_is_the_concatenation_of_its_chunks(self, store: ObjectStore) -> None:
        """Of every kind of buffer, empty ones among them."""
        store.create("a/b", [b"one", bytearray(b"two"), b"", memoryview(b"-three-")[1:-1]])
        assert store.get("a/b") == b"onetwothree"

    @pytest.mark.parametrize("chunks", [[], [b""], [b"", b""]])
    def test_an_object_may_be_empty(self, store: ObjectStore, chunks: list[bytes]) -> None:
        """No bytes are an object too."""
        store.create("empty", chunks)
        assert store.get("empty") == b""
        assert store.get_range("empty", 0, 0) == b""
        assert len(store.map("empty")) == 0
        assert [info.size for info in store.list("")] == [0]

    def test_a_large_object_of_many_chunks_is_whole(self, store: ObjectStore) -> None:
        """Beyond what one system call or one request takes."""
        chunks = [bytes([number % 251]) * (1000 + number) for number in range(3000)] + [b"x" * (20 * 2**20)]
        store.create("large", chunks)
        assert store.get("large") == b"".join(chunks)

    def test_a_key_is_created_once(self, store: ObjectStore) -> None:
        """The second writer learns of it, and changes nothing."""
        store.create("a", [b"first"])
        with pytest.raises(ObjectExists):
            store.create("a", [b"second"])
        assert store.get("a") == b"first"

    def test_of_writers_that_race_exactly_one_wins(self, store: ObjectStore) -> None:
        """And what is there afterwards is what the winner wrote."""
        for turn in range(5):
            won = _together(lambda number, turn=turn: _wins(store, f"race/{turn}", number))  # type: ignore[misc]
            assert sum(won) == 1
            assert store.get(f"race/{turn}") == bytes([won.index(True)]) * 100_000

    def test_a_key_of_many_parts_is_a_key(self, store: ObjectStore) -> None:
        """Folders need no making."""
        store.create("a/b-c/D_e/0.1.json", [b"deep"])
        assert store.get("a/b-c/D_e/0.1.json") == b"deep"

    @pytest.mark.parametrize("missing", ["a", "a/b", "there/below", "folder"])
    def test_what_is_not_there_is_not_found(self, store: ObjectStore, missing: str) -> None:
        """By any method, below another object and above one as well."""
        store.create("there", [b"1"])
        store.create("folder/there", [b"1"])
        for read in (store.get, store.map, lambda key: store.get_range(key, 0, 0)):
            with pytest.raises(NotFound):
                read(missing)
        assert not store.refresh(missing)
        assert not store.delete(missing)
        assert not store.delete(missing, unless_younger_than=store.now())
        assert {info.key for info in store.list("")} == {"there", "folder/there"}

    @pytest.mark.parametrize("wrong", _NOT_KEYS)
    def test_what_is_no_key_is_refused_by_every_method(self, store: ObjectStore, wrong: str) -> None:
        """Before anything is touched."""
        calls: list[Callable[[], object]] = [
            lambda: store.get(wrong),
            lambda: store.get_range(wrong, 0, 0),
            lambda: store.map(wrong),
            lambda: store.create(wrong, [b""]),
            lambda: store.refresh(wrong),
            lambda: store.delete(wrong),
        ]
        for call in calls:
            with pytest.raises(UsageError):
                call()
        assert list(store.list("")) == []

    # --- ranges, maps

    def test_a_range_is_exact(self, store: ObjectStore) -> None:
        """From the start, from within, to the end, and of no bytes."""
        store.create("a", [b"0123456789"])
        assert store.get_range("a", 0, 10) == b"0123456789"
        assert store.get_range("a", 3, 4) == b"3456"
        assert store.get_range("a", 10, 0) == b""

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (5, 6), (11, 0), (2**70, 1), (-1, 2), (0, -1)])
    def test_a_range_that_is_not_there_is_an_integrity_error(self, store: ObjectStore, start: int, length: int) -> None:
        """Never fewer bytes than were asked for."""
        store.create("a", [b"0123456789"])
        with pytest.raises(IntegrityError):
            store.get_range("a", start, length)

    @pytest.mark.parametrize("size", [1, 63, 64, 65, 4096, 4097, 3 * 2**20 + 1])
    def test_a_map_is_the_object_and_begins_at_a_multiple_of_64(self, store: ObjectStore, size: int) -> None:
        """Whatever its size."""
        data = bytes(range(256)) * (size // 256 + 1)
        store.create("a", [data[:size]])
        view = store.map("a")
        assert view.format == "B"
        assert view.ndim == 1
        assert view == data[:size]
        assert ctypes.addressof(ctypes.c_char.from_buffer(view)) % ALIGNMENT == 0

    def test_writing_to_a_map_reaches_neither_the_store_nor_another_map(self, store: ObjectStore) -> None:
        """Maps are private."""
        store.create("a", [b"0123456789"])
        first, second = store.map("a"), store.map("a")
        first[:] = b"overwrites"
        assert store.get("a") == bytes(store.map("a")) == bytes(second) == b"0123456789"

    def test_a_map_stays_when_its_object_is_deleted(self, store: ObjectStore) -> None:
        """Whoever loaded a model keeps it."""
        data = bytes(range(256)) * 4096
        store.create("a", [data])
        view = store.map("a")
        assert store.delete("a")
        assert view == data

    # --- listing

    def test_a_listing_tells_keys_sizes_and_times(self, store: ObjectStore) -> None:
        """By the store's own clock."""
        before = store.now()
        store.create("a/b", [b"123"])
        (info,) = store.list("")
        assert (info.key, info.size) == ("a/b", 3)
        assert before <= info.modified <= store.now()

    @pytest.mark.parametrize(
        ("prefix", "found"),
        [
            ("", {"a", "b/one", "b/on/e", "b/two", "bc/one", "tmp-1"}),
            ("b", {"b/one", "b/on/e", "b/two", "bc/one"}),
            ("b/", {"b/one", "b/on/e", "b/two"}),
            ("b/on", {"b/one", "b/on/e"}),
            ("b/on/", {"b/on/e"}),
            ("b/one", {"b/one"}),
            ("b/one/", set()),
            ("tmp", {"tmp-1"}),
            ("c", set()),
            ("c/d", set()),
        ],
    )
    def test_a_prefix_is_a_beginning_of_keys_and_not_a_folder(
        self, store: ObjectStore, prefix: str, found: set[str]
    ) -> None:
        """A prefix that nothing has lists nothing."""
        for key in ("a", "b/one", "b/on/e", "b/two", "bc/one", "tmp-1"):
            store.create(key, [b""])
        listed = [info.key for info in store.list(prefix)]
        assert set(listed) == found
        assert len(listed) == len(found)

    @pytest.mark.parametrize(
        ("prefix", "found"), [("", {"b", "bc"}), ("b/", {"c", "d"}), ("b/d/", {"e"}), ("b/c/", set()), ("c/", set())]
    )
    def test_folders_are_the_next_parts_that_hold_objects(
        self, store: ObjectStore, prefix: str, found: set[str]
    ) -> None:
        """An object is no folder, and a folder whose last object was deleted is none any more."""
        for key in ("a", "b/c/x", "b/c/y", "b/d/e/x", "b/x", "bc/x", "gone/further/x"):
            store.create(key, [b""])
        store.delete("gone/further/x")
        listed = list(store.folders(prefix))
        assert set(listed) == found
        assert len(listed) == len(found)

    @pytest.mark.parametrize("wrong", ["/", "a//", "../", "tmp/", ".", "a b"])
    def test_what_no_key_begins_with_is_no_prefix(self, store: ObjectStore, wrong: str) -> None:
        """As with keys."""
        with pytest.raises(UsageError):
            list(store.list(wrong))
        with pytest.raises(UsageError):
            list(store.folders(wrong))

    def test_folders_are_asked_for_by_a_whole_prefix(self, store: ObjectStore) -> None:
        """Half a name has no next part."""
        with pytest.raises(UsageError):
            list(store.folders("a"))

    def test_a_half_read_listing_may_be_left(self, store: ObjectStore) -> None:
        """And the store be changed in the middle of one."""
        for number in range(10):
            store.create(f"a/{number}", [b""])
        for info in store.list("a/"):
            store.delete(info.key)
        next(store.list(""), None)
        assert list(store.list("")) == []

    # --- deleting, age

    def test_a_deleted_object_is_gone_and_its_key_free(self, store: ObjectStore) -> None:
        """For every method."""
        store.create("a", [b"old"])
        assert store.delete("a")
        assert not store.delete("a")
        with pytest.raises(NotFound):
            store.get("a")
        store.create("a", [b"new"])
        assert store.get("a") == b"new"

    def test_an_object_younger_than_the_limit_stays(self, store: ObjectStore) -> None:
        """An older one goes."""
        store.create("old", [b""])
        limit = store.now()
        store.create("young", [b""])
        assert store.delete("old", unless_younger_than=limit)
        assert not store.delete("young", unless_younger_than=limit)
        assert [info.key for info in store.list("")] == ["young"]

    def test_a_refresh_makes_an_object_young(self, store: ObjectStore) -> None:
        """As if it had just been created."""
        store.create("a", [b"1"])
        limit = store.now()
        assert store.refresh("a")
        assert not store.delete("a", unless_younger_than=limit)
        (info,) = store.list("a")
        assert limit <= info.modified <= store.now()
        assert store.delete("a", unless_younger_than=store.now())

    def test_a_refresh_that_said_yes_is_never_lost_to_a_delete(self, store: ObjectStore) -> None:
        """However the two race; and a reader finds the object for as long as it is there."""
        for turn in range(60):
            key = f"blobs/{turn}"
            store.create(key, [b"wanted"])
            limit = store.now()

            def act(number: int, key: str = key, limit: float = limit) -> bool:
                return store.refresh(key) if number % 2 else store.delete(key, unless_younger_than=limit)

            refreshed = any(_together(act)[1::2])
            assert [info.key for info in store.list(key)] == ([key] if refreshed else [])
            if refreshed:
                assert store.get(key) == b"wanted"

    def test_create_tells_the_very_time_that_a_listing_tells(self, store: ObjectStore) -> None:
        """Of many objects that are created at once, too."""
        times = _together(
            lambda number: {f"{number}/{turn}": store.create(f"{number}/{turn}", []) for turn in range(10)}
        )
        told = {key: time for each in times for key, time in each.items()}
        assert {info.key: info.modified for info in store.list("")} == told

    def test_a_refresh_makes_the_time_later_by_a_microsecond(self, store: ObjectStore) -> None:
        """However soon it comes."""
        times = [store.create("a", [])]
        for _ in range(50):
            assert store.refresh("a")
            times += [info.modified for info in store.list("a")]
        # Today's times as floats are a quarter of a microsecond apart.
        assert min(later - time for time, later in pairwise(times)) > 0.7e-6

    def test_what_nobody_refreshed_is_deleted_by_the_time_it_was_created_with(self, store: ObjectStore) -> None:
        """And what somebody did stays, though no clock has moved on."""
        just_above = {key: math.nextafter(store.create(key, []), math.inf) for key in ("a", "b")}
        assert store.refresh("b")
        assert store.delete("a", unless_younger_than=just_above["a"])
        assert not store.delete("b", unless_younger_than=just_above["b"])

    def test_whoever_created_an_object_never_takes_it_from_who_refreshed_it(self, store: ObjectStore) -> None:
        """However the two race."""
        for turn in range(60):
            key = f"blobs/{turn}"
            limit = math.nextafter(store.create(key, [b"wanted"]), math.inf)

            def act(number: int, key: str = key, limit: float = limit) -> bool:
                return store.refresh(key) if number % 2 else store.delete(key, unless_younger_than=limit)

            refreshed = any(_together(act)[1::2])
            assert [info.key for info in store.list(key)] == ([key] if refreshed else [])

    def test_a_reader_finds_an_object_while_deletes_leave_it(self, store: ObjectStore) -> None:
        """There is no moment at which an object that stays is missing."""
        store.create("a", [b"wanted"])
        limit = store.now()
        store.refresh("a")
        missed = _together(
            lambda number: (
                [store.delete("a", unless_younger_than=limit) for _ in range(100)]
                if number % 2
                else [store.get("a") != b"wanted" for _ in range(100)]
            )
        )
        assert not any(any(found) for found in missed)

    # --- many at once

    def test_many_threads_may_do_everything_at_once(self, store: ObjectStore) -> None:
        """Each sees what it wrote itself."""

        def act(number: int) -> bool:
            for turn in range(10):
                key = f"{number}/{turn}"
                data = key.encode() * 1000
                store.create(key, [data])
                assert store.get(key) == bytes(store.map(key)) == data
                assert store.refresh(key)
                assert {info.key for info in store.list(f"{number}/")} == {key}
                assert store.delete(key)
            return True

        assert all(_together(act))
        assert list(store.list("")) == []

    def test_a_store_has_a_name_for_people(self, store: ObjectStore) -> None:
        """Error messages need one."""
        assert store.url


def _wins(store: ObjectStore, key: str, number: int) -> bool:
    try:
        store.create(key, [bytes([number]) * 50_000, bytes([number]) * 50_000])
    except ObjectExists:
        return False
    return True


def _together(act: Callable[[int], _Answer]) -> list[_Answer]:
    """What ``act`` answers on each of several threads that start at the same moment."""
    barrier = threading.Barrier(_THREADS)

    def run(number: int) -> _Answer:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(run, range(_THREADS)))
