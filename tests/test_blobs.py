"""Blobs and the tensors laid out in them: written once, found again, mapped apart, and named when damaged."""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import BlobMissing, IntegrityError, InvalidRef, LimitExceeded, StorageError
from modelkeep.manifest import ALIGNMENT, Piece, Tensor
from modelkeep.storage import writing
from modelkeep.storage.blobs import Blobs, TensorSource, Written, blob_key
from modelkeep.storage.hashing import digest_of, digest_of_stream
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore
from modelkeep.storage.protocol import Buffer
from modelkeep.testing.faults import Damage, Fault, FaultyStore

MB = 2**20


@pytest.fixture(params=["local", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return Blobs(LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore())


@pytest.fixture
def local(tmp_path: Path) -> Blobs:
    return Blobs(LocalStore(tmp_path / "store"))


def source(name: str, data: bytes, *, copies: bool = False) -> TensorSource:
    return TensorSource(name, "uint8", (len(data),), len(data), lambda: data, copies=copies)


def sources(data: Sequence[bytes]) -> list[TensorSource]:
    return [source(f"t/{number}", one) for number, one in enumerate(data)]


def random(size: int, seed: int = 0) -> bytes:
    return blake3.blake3(f"{seed}".encode()).digest(length=size)


def keys(blobs: Blobs) -> list[str]:
    return [info.key for info in blobs.store.list("")]


def known(written: Written) -> dict[str, tuple[Piece, ...]]:
    return {tensor.digest: tensor.pieces for tensor in written.tensors}


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


# --- runs of bytes


@pytest.mark.parametrize("size", [0, 1, 1000, 5 * MB + 1])
def test_what_is_put_is_got_by_its_digest(blobs: Blobs, size: int) -> None:
    data = random(size)
    digest = blobs.put(data)
    assert digest == "blake3:" + blake3.blake3(data).hexdigest() == digest_of_stream([data[:10], data[10:]])
    assert blobs.get(digest) == data
    assert blobs.check(digest) == size
    assert keys(blobs) == [f"blobs/{digest[7:9]}/{digest[7:]}"]


def test_what_is_there_is_not_written_again_but_made_young(blobs: Blobs) -> None:
    digest, added = blobs.add(b"data")
    limit = blobs.store.now()
    assert (added, blobs.add(b"data")) == (4, (digest, 0))
    assert not blobs.store.delete(blob_key(digest), unless_younger_than=limit)


def test_a_missing_blob_is_named(blobs: Blobs) -> None:
    digest = digest_of(b"never put")
    for call in (blobs.get, blobs.check, blobs.map_blob):
        with pytest.raises(BlobMissing, match=digest):
            call(digest)
    assert not blobs.exists(digest)
    assert blobs.refresh([digest, blobs.put(b"there")]) == [digest]


@pytest.mark.parametrize(
    "wrong", ["", "blake3:", "blake3:../../etc/passwd", "sha256:" + "0" * 64, "blake3:" + "A" * 64]
)
def test_what_is_no_digest_reaches_no_file(blobs: Blobs, wrong: str) -> None:
    for call in (blobs.get, blobs.check, blobs.exists, blobs.map_blob):
        with pytest.raises(InvalidRef):
            call(wrong)


def test_a_blob_beyond_the_limit_is_not_read(blobs: Blobs) -> None:
    digest = blobs.put(b"x" * 1000)
    assert len(blobs.get(digest, limit=1000)) == 1000
    with pytest.raises(LimitExceeded, match=r"1000 bytes.*at most 999"):
        blobs.get(digest, limit=999)


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_blob_is_named_and_never_handed_out(damage: Damage) -> None:
    inner = MemoryStore()
    digest = Blobs(inner).put(b"precious")
    blobs = Blobs(FaultyStore(inner, Fault("map", damage=damage, lasting=True)))
    for call in (blobs.get, blobs.check):
        with pytest.raises(IntegrityError, match=digest):
            call(digest)


# --- writing tensors


def test_large_tensors_are_blobs_and_small_ones_share_packs_at_multiples_of_64(blobs: Blobs) -> None:
    data = [random(MB, 1), random(100, 2), random(MB - 1, 3), random(64, 4), random(3 * MB, 5)]
    written = blobs.write(sources(data))
    first, small, larger, small_too, last = written.tensors
    assert [tensor.digest for tensor in written.tensors] == [digest_of(one) for one in data]
    assert first.pieces == (Piece(blob=first.digest, size=MB),)
    assert last.pieces == (Piece(blob=last.digest, size=3 * MB),)
    (pack,) = {piece.blob for tensor in (small, larger, small_too) for piece in tensor.pieces}
    offsets = [tensor.pieces[0].offset for tensor in (small, larger, small_too)]
    assert offsets == [0, 128, 128 + MB]
    assert blobs.check(pack) == offsets[-1] + 64
    assert written.new_bytes == sum(info.size for info in blobs.store.list("")) == 4 * MB + offsets[-1] + 64
    assert written.tensors[0] == Tensor(
        name="t/0", dtype="uint8", shape=(MB,), digest=first.digest, pieces=first.pieces
    )


def test_a_pack_is_closed_before_it_exceeds_its_size(blobs: Blobs) -> None:
    written = blobs.write(sources([random(MB - 7, seed) for seed in range(40)]))
    sizes = sorted(info.size for info in blobs.store.list(""))
    assert len(sizes) == 2
    assert sizes[-1] <= writing.PACK_SIZE
    assert bytes(blobs.map(written.tensors).views["t/39"]) == random(MB - 7, 39)


def test_equal_tensors_of_one_write_are_stored_once(blobs: Blobs) -> None:
    zeros = bytes(1000)
    written = blobs.write(sources([zeros, random(2 * MB), zeros, random(2 * MB), bytes(1000)]))
    assert written.tensors[0].pieces == written.tensors[2].pieces == written.tensors[4].pieces
    assert written.new_bytes == 2 * MB + 1000


def test_the_same_tensors_make_the_same_blobs(tmp_path: Path) -> None:
    data = [random(size, size) for size in (5, 2 * MB, 100, 9 * MB, 70_000, 3)] * 3 + [
        random(300_000, seed) for seed in range(200)
    ]
    stores = [Blobs(MemoryStore()), Blobs(LocalStore(tmp_path))]
    first, second = (blobs.write(sources(data)) for blobs in stores)
    assert first == second
    assert sorted(keys(stores[0])) == sorted(keys(stores[1]))


@pytest.mark.parametrize("size", [0, 1, 63])
def test_tensors_of_hardly_any_bytes_work(blobs: Blobs, size: int) -> None:
    written = blobs.write([source("a", bytes(size)), source("b", random(size, 1))])
    views = blobs.map(written.tensors).views
    assert (views["a"], views["b"]) == (bytes(size), random(size, 1))
    assert all(address(view) % ALIGNMENT == 0 for view in views.values() if size)
    assert written.tensors[0].nbytes == size


def test_a_write_tells_what_it_created_and_when(blobs: Blobs) -> None:
    before = blobs.write(sources([random(2 * MB, 1), random(500, 2)]))
    assert before.created == {f"blake3:{info.key[-64:]}": info.modified for info in blobs.store.list("blobs/")}
    after = blobs.write(sources([random(2 * MB, 1), random(500, 2), random(600, 3)]), known=known(before))
    assert after.created.keys() == {after.tensors[2].pieces[0].blob}
    assert blobs.put_new(random(600, 3)) == (after.tensors[2].digest, None)


def test_a_blob_is_deleted_by_its_creator_unless_anybody_came_to_rely_on_it(blobs: Blobs) -> None:
    for rely in (blobs.put, lambda data: blobs.refresh([digest_of(data)]), lambda data: blobs.put_new(data)):
        alone, (digest, created) = blobs.put_new(b"alone"), blobs.put_new(b"wanted")
        rely(b"wanted")
        assert blobs.delete_created(alone[0], alone[1] or 0)
        assert not blobs.delete_created(digest, created or 0)
        assert blobs.get(digest) == b"wanted"
        assert blobs.store.delete(blob_key(digest))


def test_writing_nothing_writes_nothing(blobs: Blobs) -> None:
    assert blobs.write([]) == Written((), 0)
    assert blobs.write([source("a", b"")]).new_bytes == 0
    assert keys(blobs) == []
    assert blobs.map([]).views == {}


def test_what_an_earlier_version_has_is_not_written_again(blobs: Blobs) -> None:
    data = [random(3 * MB, 1), random(500, 2), random(700, 3)]
    before = blobs.write(sources(data))
    limit = blobs.store.now()
    data[2] = random(700, 4)
    after = blobs.write(sources(data), known=known(before))
    assert after.new_bytes == 700
    assert after.tensors[:2] == before.tensors[:2]
    for tensor in after.tensors:
        assert not blobs.store.delete(blob_key(tensor.pieces[0].blob), unless_younger_than=limit)


def test_what_an_earlier_version_had_and_a_collector_took_is_written_anew(blobs: Blobs) -> None:
    data = [random(3 * MB, 1), random(500, 2), random(700, 3)]
    before = blobs.write(sources(data))
    for key in keys(blobs):
        blobs.store.delete(key)
    after = blobs.write(sources(data), known=known(before))
    assert after == before
    assert {name: bytes(view) for name, view in blobs.map(after.tensors).views.items()} == {
        f"t/{number}": one for number, one in enumerate(data)
    }


def test_sources_are_read_once_in_order_and_progress_ends_at_all_of_it(blobs: Blobs) -> None:
    read: list[int] = []
    told: list[tuple[str, int, int]] = []
    data = [random(size, size) for size in (100, 2 * MB, 5 * MB, 0, 300, 2 * MB)]

    def reading(number: int) -> Callable[[], bytes]:
        return lambda: read.append(number) or data[number]  # type: ignore[func-returns-value]

    total = sum(map(len, data))
    blobs.write(
        [TensorSource(f"{n}", "uint8", (len(d),), len(d), reading(n)) for n, d in enumerate(data)],
        progress=lambda *what: told.append(what),
    )
    assert sorted(read) == list(range(6))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert {(what, all_) for what, _, all_ in told} == {("saving", total)}
    assert told[-1][1] == total


class Counted:
    """Sources that give new memory, and how much of it was alive at once."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.alive = self.most = 0
        self._lock = threading.Lock()
        self.sources = [
            TensorSource(f"{number}", "uint8", (size,), size, partial(self.make, number, size), copies=True)
            for number, size in enumerate(sizes)
        ]

    def make(self, number: int, size: int) -> memoryview:
        memory = mmap.mmap(-1, size)
        memory[:8] = number.to_bytes(8, "little")
        self.count(size)
        weakref.finalize(memory, self.count, -size)
        return memoryview(memory)

    def count(self, size: int) -> None:
        with self._lock:
            self.alive += size
            self.most = max(self.most, self.alive)


class SlowStore(MemoryStore):
    """Slower than any hash, and forgetful."""

    def create(self, key: str, chunks: Sequence[Buffer]) -> None:
        time.sleep(0.01)
        super().create(key, [])


@pytest.mark.parametrize("sizes", [[10 * MB] * 20, [100_000] * 2000, [90 * MB, 100_000, 30 * MB, 2 * MB] * 4])
def test_of_copies_no_more_than_64_mib_beyond_the_largest_are_held(sizes: list[int]) -> None:
    counted = Counted(sizes)
    written = Blobs(SlowStore()).write(counted.sources)
    assert len({tensor.digest for tensor in written.tensors}) == len(sizes)
    assert counted.most <= max(sizes) + 64 * MB
    gc.collect()
    assert counted.alive == 0


def test_a_source_that_gives_other_bytes_than_it_said_is_named(blobs: Blobs) -> None:
    wrong = TensorSource("dense/kernel", "uint8", (5,), 5, lambda: b"1234")
    with pytest.raises(IntegrityError, match=r"dense/kernel changed.*4 bytes.*expected 5"):
        blobs.write([source("a", b"1"), wrong])


def test_what_a_source_raises_is_raised_and_threads_end(blobs: Blobs) -> None:
    before = threading.active_count()

    def fail() -> bytes:
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        blobs.write([source(f"{n}", random(2 * MB, n)) for n in range(9)] + [TensorSource("x", "uint8", (1,), 1, fail)])
    assert threading.active_count() == before


@given(
    sizes=st.lists(st.integers(0, 300), max_size=40),
    seeds=st.integers(1, 5),
    kept=st.sets(st.integers(0, 39)),
)
def test_whatever_is_written_is_mapped(sizes: list[int], seeds: int, kept: set[int]) -> None:
    data = [random(size, number % seeds) for number, size in enumerate(sizes)]
    blobs = Blobs(MemoryStore())
    with pytest.MonkeyPatch.context() as patch:  # everything a hundred thousand times smaller
        patch.setattr(writing, "PACK_BELOW", 100)
        patch.setattr(writing, "PACK_SIZE", 320)
        patch.setattr(writing, "_GROUP", 150)
        earlier = blobs.write([source(f"{number}", data[number]) for number in sorted(kept) if number < len(data)])
        written = blobs.write(sources(data), known=known(earlier))
    for tensor, one in zip(written.tensors, data, strict=True):
        assert tensor.digest == digest_of(one)
        assert all(piece.offset % ALIGNMENT == 0 for piece in tensor.pieces)
    mapped = blobs.map(written.tensors)
    assert [bytes(mapped.views[f"t/{number}"]) for number in range(len(data))] == data
    assert earlier.new_bytes + written.new_bytes == sum(info.size for info in blobs.store.list(""))


# --- storage that fails while tensors are written


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", range(1, 7))
def test_a_write_that_fails_at_any_create_is_named_and_the_next_succeeds(number: int, call: int) -> None:
    data = [random(2 * MB, seed) for seed in range(5)] + [random(1000)]
    inner = MemoryStore()
    with pytest.raises(StorageError, match=os.strerror(number)):
        Blobs(FaultyStore(inner, Fault("create", call=call, error=number))).write(sources(data))
    written = Blobs(inner).write(sources(data))
    assert bytes(Blobs(inner).map(written.tensors).views["t/5"]) == data[5]


def test_a_blob_that_another_writer_is_just_creating_is_taken_as_it_is(blobs: Blobs) -> None:
    data = [random(2 * MB, seed) for seed in range(4)] + [random(100)]
    with ThreadPoolExecutor(6) as pool:
        writes = list(pool.map(lambda _: blobs.write(sources(data)), range(6)))
    assert len({written.tensors for written in writes}) == 1
    assert sum(written.new_bytes for written in writes) == 8 * MB + 100 == sum(i.size for i in blobs.store.list(""))


def test_a_write_goes_on_where_a_killed_one_stopped(local: Blobs) -> None:
    script = """
        import sys
        from modelkeep.storage.blobs import Blobs, TensorSource
        from modelkeep.storage.local import LocalStore
        data = [bytes([number]) * 3_000_000 for number in range(40)]
        sources = [TensorSource(str(n), "uint8", (len(d),), len(d), lambda d=d: d) for n, d in enumerate(data)]
        print("ready", flush=True)
        Blobs(LocalStore(sys.argv[1])).write(sources)
    """
    assert isinstance(local.store, LocalStore)
    command = [sys.executable, "-c", textwrap.dedent(script), str(local.store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.03)
        writer.kill()
    data = [bytes([number]) * 3_000_000 for number in range(40)]
    there = {info.key for info in local.store.list("blobs/")}
    written = local.write(sources(data))
    assert written.new_bytes == sum(map(len, data)) - 3_000_000 * len(there)
    assert [bytes(local.map([tensor]).views[tensor.name]) for tensor in written.tensors] == data


# --- mapping


def test_views_begin_at_multiples_of_64_and_nothing_written_to_them_reaches_the_store(blobs: Blobs) -> None:
    data = [random(size, size) for size in (3, 100, 2 * MB, 64, MB - 1)]
    written = blobs.write(sources(data))
    views = blobs.map(written.tensors).views
    for view in views.values():
        assert address(view) % ALIGNMENT == 0
        assert not view.readonly
        view[:] = bytes(len(view))
    again = blobs.map(written.tensors).views
    assert [bytes(again[f"t/{number}"]) for number in range(5)] == data


def test_equal_tensors_share_bytes_in_the_store_and_none_in_memory(blobs: Blobs) -> None:
    for size in (100, 2 * MB):  # in a pack; a blob of its own
        written = blobs.write([source(name, bytes(size)) for name in ("bias", "momentum", "velocity")])
        views = blobs.map(written.tensors).views
        views["bias"][:] = b"1" * size  # what training in place does
        views["momentum"][0] = 2
        assert views["velocity"] == bytes(size)
        assert bytes(views["momentum"][:3]) == b"\2\0\0"


def test_a_forked_process_has_memory_of_its_own(blobs: Blobs) -> None:
    data = [random(2 * MB), bytes(100), bytes(100)]  # mapped; in a pack; a copy of that
    views = blobs.map(blobs.write(sources(data)).tensors).views
    child = os.fork()
    if child == 0:
        for view in views.values():
            view[:] = b"\1" * len(view)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [bytes(view) for _, view in sorted(views.items())] == data


def test_overlapping_tensors_share_no_memory_either(blobs: Blobs) -> None:
    data = random(4 * MB)
    blob = blobs.put(data)
    tensors = [
        at(f"{n}", data, blob, *place) for n, place in enumerate([(0, 4 * MB), (64, 100), (64, 2 * MB), (192, 8)])
    ]
    views = blobs.map(tensors).views
    for name in ("0", "1", "2"):
        views[name][:] = bytes(len(views[name]))
    assert views["3"] == data[192:200]


def at(name: str, data: bytes, blob: str, offset: int, size: int) -> Tensor:
    digest = digest_of(data[offset : offset + size])
    return Tensor(
        name=name, dtype="uint8", shape=(size,), digest=digest, pieces=(Piece(blob=blob, offset=offset, size=size),)
    )


def test_a_tensor_in_pieces_or_at_an_odd_place_is_copied_to_an_even_one(blobs: Blobs) -> None:
    data = random(3 * MB)
    first, second = blobs.put(data[: 2 * MB]), blobs.put(data[MB:])
    pieces = (Piece(blob=first, offset=5, size=MB), Piece(blob=second, offset=5, size=MB))
    joined = Tensor(
        name="joined", dtype="uint8", shape=(2 * MB,), digest=digest_of(data[5 : 2 * MB + 5]), pieces=pieces
    )
    views = blobs.map([joined, at("odd", data[: 2 * MB], first, 7, 100)]).views
    assert views["joined"] == data[5 : 2 * MB + 5]
    assert views["odd"] == data[7:107]
    assert all(address(view) % ALIGNMENT == 0 for view in views.values())


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (64, 64), (128, 1), (-64, 64), (0, -1), (2**62, 1)])
@pytest.mark.parametrize("verify", ["eager", "lazy", None])
def test_a_piece_beyond_its_blob_names_tensor_and_blob(blobs: Blobs, offset: int, size: int, verify: Any) -> None:
    blob = blobs.put(random(100))
    tensor = Tensor(
        name="dense/kernel", dtype="uint8", shape=(), digest=blob, pieces=(Piece(blob=blob, offset=offset, size=size),)
    )
    with pytest.raises(IntegrityError, match=f"dense/kernel reaches beyond blob {blob}"):
        blobs.map([tensor], verify=verify)


def test_a_tensor_whose_blob_is_missing_names_the_blob(blobs: Blobs) -> None:
    written = blobs.write([source("a", random(2 * MB))])
    blobs.store.delete(keys(blobs)[0])
    with pytest.raises(BlobMissing, match=written.tensors[0].digest):
        blobs.map(written.tensors)


def test_every_blob_is_mapped_once() -> None:
    store = FaultyStore(MemoryStore())
    blobs = Blobs(store)
    written = blobs.write(sources([random(1000, seed) for seed in range(50)] + [random(2 * MB)]))
    blobs.map(written.tensors)
    assert [method for method, _ in store.calls].count("map") == 2


def test_two_thousand_large_tensors_need_no_two_thousand_open_files(local: Blobs) -> None:
    assert isinstance(local.store, LocalStore)
    written = local.write(sources([random(1000, 1)]))
    before = len(os.listdir("/proc/self/fd"))
    mapped = [local.map(written.tensors) for _ in range(100)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(mapped) == 100


# --- damage


def flip(blobs: Blobs, blob: str, position: int) -> None:
    assert isinstance(blobs.store, LocalStore)
    path = blobs.store.root / blob_key(blob)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("position", [0, MB, 2 * MB - 1])
def test_a_flipped_bit_in_a_tensor_names_tensor_and_blob(local: Blobs, position: int) -> None:
    written = local.write([source("dense/kernel", random(2 * MB)), source("dense/bias", random(100))])
    (piece,) = written.tensors[0].pieces
    flip(local, piece.blob, position)
    with pytest.raises(IntegrityError, match=f"dense/kernel is damaged in {piece.blob}"):
        local.map(written.tensors)
    with pytest.raises(IntegrityError, match=piece.blob):
        local.check(piece.blob)
    assert bytes(local.map(written.tensors[1:]).views["dense/bias"]) == random(100)


def test_a_flipped_bit_in_a_pack_names_the_one_tensor_it_hit(local: Blobs) -> None:
    written = local.write([source(f"t/{number}", random(100, number)) for number in range(10)])
    (piece,) = written.tensors[7].pieces
    flip(local, piece.blob, piece.offset + 99)
    with pytest.raises(IntegrityError, match="tensor t/7 is damaged"):
        local.map(written.tensors)
    others = [tensor for tensor in written.tensors if tensor.name != "t/7"]
    assert len(local.map(others).views) == 9
    flip(local, piece.blob, piece.offset + 100)  # padding is nobody's bytes
    assert len(local.map(others).views) == 9


@pytest.mark.parametrize("left", [0, 1, MB, 2 * MB - 1])
def test_a_truncated_blob_names_tensor_and_blob(local: Blobs, left: int) -> None:
    written = local.write([source("dense/kernel", random(2 * MB))])
    blob = written.tensors[0].digest
    assert isinstance(local.store, LocalStore)
    os.truncate(local.store.root / blob_key(blob), left)
    for verify in ("eager", "lazy", None):
        with pytest.raises(IntegrityError, match=f"dense/kernel reaches beyond blob {blob}"):
            local.map(written.tensors, verify=verify)  # type: ignore[arg-type]


def test_verifying_later_tells_damage_when_asked_and_when_waited_for(local: Blobs) -> None:
    written = local.write([source("a", random(2 * MB)), source("b", random(100))])
    flip(local, written.tensors[0].digest, 5)
    mapped = local.map(written.tensors, verify="lazy")
    with pytest.raises(IntegrityError, match="tensor a is damaged"):
        mapped.wait()
    with pytest.raises(IntegrityError, match="tensor a is damaged"):
        mapped.raise_if_damaged()
    assert bytes(mapped.views["b"]) == random(100)


def test_training_before_the_verification_has_come_by_is_no_damage(blobs: Blobs) -> None:
    data = [random(2 * MB, number) for number in range(8)]
    mapped = blobs.map(blobs.write(sources(data)).tensors, verify="lazy")
    for view in mapped.views.values():
        view[:100] = bytes(100)
    mapped.wait()
    mapped.raise_if_damaged()


def test_without_verification_damage_goes_unseen(local: Blobs) -> None:
    written = local.write([source("a", random(2 * MB))])
    flip(local, written.tensors[0].digest, 5)
    mapped = local.map(written.tensors, verify=None)
    mapped.wait()
    mapped.raise_if_damaged()


def test_verifying_tells_its_progress(blobs: Blobs) -> None:
    told: list[tuple[str, int, int]] = []
    written = blobs.write(sources([random(9 * MB), random(9 * MB, 1), random(100)]))
    blobs.map(written.tensors, progress=lambda *what: told.append(what))
    assert told[-1] == ("verifying", 18 * MB + 100, 18 * MB + 100)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


class FarStore(MemoryStore):
    """Verifying later takes ten seconds over it."""

    def map(self, key: str) -> memoryview:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.05)
        return super().map(key)


def test_verifying_later_ends_when_nobody_waits_for_it() -> None:
    blobs = Blobs(FarStore())
    mapped = blobs.map(blobs.write(sources([random(MB, number) for number in range(200)])).tensors, verify="lazy")
    views = mapped.views
    began = time.monotonic()
    del mapped
    for thread in threading.enumerate():
        if thread.name == "modelkeep-verify":
            thread.join()
    assert time.monotonic() - began < 5
    assert len(views) == 200


def test_verifying_later_does_not_keep_a_program_from_ending() -> None:
    script = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from test_blobs import MB, Blobs, FarStore, random, sources
        blobs = Blobs(FarStore())
        mapped = blobs.map(blobs.write(sources([random(MB, number) for number in range(200)])).tensors, verify="lazy")
        print("ends")
    """
    began = time.monotonic()
    command = [sys.executable, "-c", textwrap.dedent(script), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("ends\n", "")
    assert time.monotonic() - began < 8
