"""Processes that train together: one writes, all go on from the same checkpoint, each with what is its own."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelkeep as mk
from modelkeep.errors import Conflict, StorageError
from modelkeep.live.training import state
from modelkeep.live.training.processes import Processes

pytestmark = pytest.mark.keras


def each_of(count: int, act: Callable[[Processes], Any]) -> list[Any]:
    """What ``act`` returns, or raises, in each of so many processes, which are threads here."""
    barrier, given = threading.Barrier(count), [b""] * count

    def gather_as(rank: int, data: bytes) -> list[bytes]:
        given[rank] = data
        barrier.wait(10)
        told = list(given)
        barrier.wait(10)
        return told

    def run(rank: int) -> Any:
        try:
            return act(Processes(rank, count, lambda data: gather_as(rank, data)))
        except (Conflict, StorageError) as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def own(rank: int) -> dict[str, Any]:
    return {"random": {"numpy": rank}, "extra": np.full(20_000, rank, "float64"), "logs": {"loss": float(rank)}}


def kept_by(count: int) -> dict[str, Any]:
    """What the one that writes has to write, and reads again."""
    packed = state.pack(each_of(count, lambda these: these.together(own(these.rank)))[0])
    return dict(state.unpack(packed.document, packed.arrays))


def test_all_get_what_the_first_decided() -> None:
    asked: list[int] = []
    told = each_of(3, lambda these: these.decided(lambda: [*asked, asked.append(these.rank)][:-1] or [7], list[int]))
    assert told == [[7]] * 3
    assert asked == [0]


def test_a_failure_to_decide_is_told_to_all() -> None:
    def decide() -> int:
        raise StorageError("the disk is gone")

    first, *others = each_of(3, lambda these: these.decided(decide, int))
    assert isinstance(first, StorageError)
    assert all(isinstance(error, Conflict) and "the disk is gone" in str(error) for error in others)


def test_the_first_tells_when_one_is_due_and_any_of_them_when_all_end() -> None:
    told = each_of(3, lambda these: these.agreed(due=these.rank == 0, interrupted=False))
    assert told == [(True, False)] * 3
    told = each_of(3, lambda these: these.agreed(due=these.rank > 0, interrupted=these.rank == 2))
    assert told == [(False, True)] * 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_gets_back_what_was_its_own(count: int) -> None:
    value = kept_by(count)
    for rank, (back, findings) in enumerate(each_of(count, lambda these: these.own(value))):
        assert back["random"] == {"numpy": rank}
        assert np.array_equal(back["extra"], own(rank)["extra"])
        assert back["logs"] == {"loss": 0.0}  # what they have in common is the first one's
        assert not findings


def test_another_number_of_processes_is_said() -> None:
    value = kept_by(2)
    for count in (1, 3):
        told = each_of(count, lambda these: these.own(value))
        assert all([finding.check for finding in findings] == ["processes-changed"] for _, findings in told)
    back, _ = told[2]
    assert back["random"] is None  # two that draw the same numbers would be worse
    assert np.array_equal(back["extra"], own(0)["extra"])


# --- two processes of torch.distributed


def together(script: str, *arguments: str) -> list[dict[str, Any]]:
    """What each of two processes told that were started together, with ``{rank}`` in the place of which it is."""
    program = [sys.executable, str(Path(__file__).parent / script)]
    ranks = [
        subprocess.Popen(
            [*program, *(argument.format(rank=rank) for argument in arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    told = [rank.communicate(timeout=300) for rank in ranks]
    assert all(out for out, _ in told), told
    return [json.loads(out) for out, _ in told]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    folder = tmp_path_factory.mktemp("ranks")
    mk.open(folder / "store")
    told: dict[str, Any] = {"keep": mk.open(folder / "store")}
    for life in ("first", "second"):
        told[life] = together("ranks.py", str(folder / "store"), str(folder / life), "{rank}", life)
    return told


@pytest.mark.slow
def test_a_training_of_two_processes_that_are_killed_goes_on_to_the_bit(lives: dict[str, Any]) -> None:
    for first, second in zip(lives["first"], lives["second"], strict=True):
        whole, resumed = first["undisturbed"], second["resumed"]
        assert 1 < resumed["first"] < 8
        assert resumed["losses"] == whole["losses"][resumed["first"] - 1 :]
        assert resumed["variables"] == whole["variables"]
    one, other = lives["first"]
    assert one["undisturbed"]["losses"] != other["undisturbed"]["losses"]  # of the data and dropout of each


@pytest.mark.slow
def test_all_processes_go_on_from_one_checkpoint_each_with_its_own(lives: dict[str, Any]) -> None:
    resumed = [one["resumed"] for one in lives["second"]]
    assert resumed[0]["first"] == resumed[1]["first"]
    assert [one["extra"] for one in resumed] == [{"rank": 0}, {"rank": 1}]


@pytest.mark.slow
def test_one_process_writes_and_the_others_nothing(lives: dict[str, Any]) -> None:
    for one, other in (lives["first"], lives["second"]):
        assert one["wrote"]
        assert not other["wrote"]
    steps = [checkpoint.step for checkpoint in lives["keep"].run("undisturbed").checkpoints]
    assert steps == [8, 10, 12]


@pytest.mark.slow
def test_one_clock_decides_for_all(lives: dict[str, Any]) -> None:
    one, other = (life["by time"]["kept"] for life in lives["first"])
    assert one == other


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_after_the_same_step(lives: dict[str, Any]) -> None:
    assert [(life["exit"], life["last"]) for life in lives["second"]] == [(143, [5, "signal"])] * 2


@pytest.mark.slow
def test_one_process_goes_on_with_what_two_began_and_says_so(lives: dict[str, Any]) -> None:
    assert lives["second"][0]["alone"]["findings"] == ["processes-changed"]


# --- replicas of tf.distribute, in one process


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    told: dict[str, Any] = {}
    program = [sys.executable, str(Path(__file__).parent / "mirrored.py")]
    store = tmp_path_factory.mktemp("replicas") / "store"
    for life in ("first", "second"):
        done = subprocess.run([*program, str(store), life], capture_output=True, text=True, timeout=300)
        assert done.stdout, done.stderr
        told |= json.loads(done.stdout)
    return told


@pytest.mark.slow
def test_a_training_on_replicas_that_is_killed_within_an_epoch_goes_on_to_the_bit(replicas: dict[str, Any]) -> None:
    assert replicas["resumed"] == replicas["whole"]


@pytest.mark.slow
def test_what_replicas_trained_is_restored_without_any(replicas: dict[str, Any]) -> None:
    assert replicas["alone"] == [replicas["whole"]["variables"]] * 2


@pytest.mark.slow
def test_data_that_is_fetched_ahead_for_replicas_is_said(replicas: dict[str, Any]) -> None:
    assert replicas["whole"]["findings"] == []
    assert replicas["batches"]["findings"] == ["data-not-exact"]


# --- two workers of tf.distribute


def free_ports() -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return [str(server.getsockname()[1]) for server in (one, other)]


@pytest.mark.slow
def test_two_workers_that_are_killed_go_on_to_the_bit(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    store = str(tmp_path / "store")
    whole, resumed = (together("workers.py", store, "{rank}", *free_ports(), life) for life in ("first", "second"))
    assert resumed[0]["first"] == resumed[1]["first"] > 1
    for rank, (one, other) in enumerate(zip(whole, resumed, strict=True)):
        assert other["losses"] == one["losses"][other["first"] - 1 :]
        assert other["variables"] == one["variables"]
        assert other["extra"] == str(rank)
