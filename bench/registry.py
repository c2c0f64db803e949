"""What names cost: resolving with few and with very many versions, and listing many models.

    python bench/registry.py

Prints medians, in one run, side by side. Building the large models writes the files that publishing would
write, but without its fsyncs; reading them is what is measured.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from modelkeep.entry import FORMAT, Entry, Move, Publish, encode, entry_key
from modelkeep.ledger import State, fold
from modelkeep.registry import Registry
from modelkeep.snapshots import EVERY, Snapshots
from modelkeep.storage.hashing import digest_of
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore

FEW, MANY = 10, 10_000
MODELS, VERSIONS = 100, 20
METRICS = {"accuracy": 0.9123, "loss": 0.2104}
METADATA = {"dataset": "IMDB Reviews", "learning_rate": 1e-3, "epochs": 20}


def write_model(folder: Path, model: str, versions: int) -> None:
    """A model with so many versions and one alias, as publishing would leave it."""
    memory = MemoryStore()
    state = State(model=model)
    snapshots = Snapshots(memory, model, lambda model, seq: state)
    for number in range(versions + 1):
        action = (
            Publish(
                version=f"1.{number}.0",
                digest=digest_of(f"{model} {number}".encode()),
                size=5_400_000,
                new_bytes=300_000,
                parameters=1_350_000,
                metrics=METRICS,
                metadata=METADATA,
                tags=("nightly",),
                backend="tensorflow",
                keras="3.15.1",
            )
            if number < versions
            else Move(alias="production", kind="promote", targets={f"1.{versions // 2}.0": 100.0})
        )
        entry = Entry(
            format=FORMAT,
            model=model,
            seq=state.seq + 1,
            previous=state.head,
            time="2024-05-01T00:00:00.000000Z",
            actor="ada@lab",
            action=action,
        )
        data = encode(entry)
        memory.create(entry_key(model, entry.seq), [data])
        state = fold(state, data)
        if entry.seq % EVERY == 0:
            state = snapshots.write(state)
    for info in memory.list(""):
        path = folder / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(memory.get(info.key))


def median_ms(work: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter) -> float:
    taken = []
    for _ in range(times):
        begun = clock()
        work()
        taken.append(clock() - begun)
    return statistics.median(taken) * 1e3


def resolve_anew(folder: Path, ref: str) -> None:
    Registry(LocalStore(folder)).resolve(ref)


def resolving(folder: Path) -> None:
    print(f"resolving, milliseconds         {FEW:>8,} versions {MANY:>8,} versions    ratio")
    warm = Registry(LocalStore(folder))
    for what, selector in {"newest": "", "exact": ":1.7.0", "within": ":1", "alias": "@production"}.items():
        for how, work in {"for the first time": partial(resolve_anew, folder), "again": warm.resolve}.items():
            few, many = (median_ms(partial(work, model + selector), 300) for model in ("few", "many"))
            print(f"  {what:<8} {how:<18} {few:16.3f} {many:17.3f} {many / few:12.2f}")


def listing(folder: Path) -> None:
    taken = median_ms(lambda: Registry(LocalStore(folder)).models(), 20, time.process_time)
    print(f"listing {MODELS} models of {VERSIONS} versions for the first time: {taken:.1f} ms of CPU")


def main() -> None:
    with tempfile.TemporaryDirectory() as few_and_many, tempfile.TemporaryDirectory() as hundred:
        write_model(Path(few_and_many), "few", FEW)
        write_model(Path(few_and_many), "many", MANY)
        resolving(Path(few_and_many))
        for number in range(MODELS):
            write_model(Path(hundred), f"team{number % 5}/model{number}", VERSIONS)
        listing(Path(hundred))


if __name__ == "__main__":
    main()
