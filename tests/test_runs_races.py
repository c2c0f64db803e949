"""A run deletes what it alone needs while others come to rely on the very same bytes: they never lose one."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from modelkeep.gc import gc
from modelkeep.manifest import Piece
from modelkeep.registry import Registry
from modelkeep.retention import Retention
from modelkeep.runs import Runs
from modelkeep.storage.blobs import Blobs
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore
from modelkeep.storage.protocol import ObjectStore
from small_runs import add, source


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()


def put(blobs: Blobs, data: bytes) -> None:
    blobs.put(data)


def write(blobs: Blobs, data: bytes) -> None:
    blobs.write([source("weights/0", data)])


def write_what_is_known(blobs: Blobs, data: bytes) -> None:
    digest = digest_of(data)
    blobs.write([source("weights/0", data)], known={digest: (Piece(blob=digest, size=len(data)),)})


@pytest.mark.parametrize("save", [put, write, write_what_is_known])
def test_a_save_of_the_same_weights_at_the_same_moment_keeps_them(
    store: ObjectStore, save: Callable[[Blobs, bytes], None]
) -> None:
    blobs = Blobs(store)
    runs = Runs(store, blobs)
    for turn in range(100 if isinstance(store, MemoryStore) else 20):
        weights = b"weights %d" % turn
        add(store, "r", 2 * turn, weights, runs=runs)
        add(store, "r", 2 * turn + 1, b"newest %d" % turn, runs=runs)
        at_once(partial(runs.prune, "r", Retention(last=1)), partial(save, blobs, weights))
        assert blobs.get(digest_of(weights)) == weights
        assert len(runs.checkpoints("r")) == 1


def at_once(*acts: Callable[[], object]) -> None:
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> None:
        barrier.wait()
        act()

    with ThreadPoolExecutor(len(acts)) as pool:
        list(pool.map(run, acts))


TRAINER = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from modelkeep.retention import Retention
    from modelkeep.runs import Runs
    from modelkeep.storage.blobs import Blobs
    from modelkeep.storage.local import LocalStore
    from small_runs import add
    store = LocalStore(sys.argv[1])
    runs = Runs(store, Blobs(store))
    print("ready", flush=True)
    sys.stdin.readline()
    removed = 0
    for step in range(60):
        add(store, "r", step, b"weights %d" % step, runs=runs)
        removed += runs.prune("r", Retention(last=1)).removed_blobs
    print(removed, flush=True)
"""

SAVER = """
    import sys
    from modelkeep.runs import Runs
    from modelkeep.storage.blobs import Blobs
    from modelkeep.storage.local import LocalStore
    store = LocalStore(sys.argv[1])
    blobs = Blobs(store)
    runs = Runs(store, blobs)
    print("ready", flush=True)
    sys.stdin.readline()
    step, saved = -1, set()
    while step < 58:
        step = max(runs.numbers("r"), default=0) - 2
        if step >= 0 and step not in saved:
            blobs.put(b"weights %d" % step)
            saved.add(step)
    print(*sorted(saved), flush=True)
"""


def test_a_save_in_another_process_keeps_the_weights_that_a_run_lets_go(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    add(store, "other", 1)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(store.root), str(Path(__file__).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for script in (TRAINER, SAVER)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    removed, saved = (process.communicate(timeout=120)[0].split() for process in processes)
    blobs = Blobs(store)
    for step in saved:
        assert blobs.get(digest_of(b"weights %s" % step.encode())) == b"weights %s" % step.encode()
    assert saved
    assert int(removed[0]) >= 59  # the manifests


def test_a_collector_and_a_run_that_go_on_at_once_leave_the_run_whole(store: ObjectStore) -> None:
    blobs = Blobs(store)
    runs = Runs(store, blobs)
    add(store, "r", 0, b"frozen", b"0", runs=runs)
    done = threading.Event()

    def collect() -> int:
        swept = 0
        while not done.is_set():
            swept += gc(Registry(store), grace=timedelta(hours=1)).kept
        return swept

    with ThreadPoolExecutor(1) as pool:
        collecting = pool.submit(collect)
        try:
            for step in range(1, 60 if isinstance(store, MemoryStore) else 20):
                known = {tensor.digest: tensor.pieces for tensor in runs.manifest(runs.find("r")).tensors}
                add(store, "r", step, b"frozen", b"%d" % step, runs=runs, known=known)
                runs.prune("r", Retention(last=2))
        finally:
            done.set()
        assert collecting.result() > 0
    for checkpoint in runs.checkpoints("r"):
        for digest in runs.digests(checkpoint):
            blobs.check(digest)
