"""A store in which any byte has changed: a named error or the right model, never a wrong one."""

from __future__ import annotations

import errno
import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

import modelkeep as mk
from modelkeep.errors import CannotRebuild, IntegrityError, ModelkeepError, StorageError
from modelkeep.storage.memory import MemoryStore
from modelkeep.testing.faults import Fault, FaultyStore

pytestmark = pytest.mark.keras

X = np.random.default_rng(3).standard_normal((4, 600)).astype("float32")


def network() -> keras.Model:
    """Small tensors, which share a pack, and one of more than 1 MiB, which is a blob of its own."""
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [keras.Input((600,)), keras.layers.Dense(500, name="wide"), keras.layers.Dense(2, name="head")]
    )
    model.compile("sgd", "mse")
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("whole") / "models"
    model = network()
    keep = mk.open(folder)
    keep.save(model, "m", golden=X)
    keep.promote("m", "production")
    return folder, np.asarray(model(X))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def kinds_of_damage(data: bytes) -> Iterator[tuple[str, bytes]]:
    places = {0, 1, len(data) // 4, len(data) // 2, 3 * len(data) // 4, len(data) - 2, len(data) - 1}
    for place in sorted(places & set(range(len(data)))):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        yield f"bit flipped in byte {place}", bytes(flipped)
        yield f"cut to {place} bytes", data[:place]


def test_whatever_byte_is_damaged_loading_raises_by_name_or_gives_the_right_model(whole, tmp_path):
    folder, answers = whole
    for name in files(folder):
        for what, damaged in kinds_of_damage((folder / name).read_bytes()):
            copy = tmp_path / "models"
            shutil.copytree(folder, copy, copy_function=shutil.copyfile)
            (copy / name).write_bytes(damaged)
            try:
                found = mk.open(copy).load("m@production").predict(X)
            except ModelkeepError:
                pass
            else:
                np.testing.assert_array_equal(found, answers, err_msg=f"{name}: {what}")
            shutil.rmtree(copy)


def test_fsck_tells_every_damage_and_goes_on(whole, tmp_path):
    folder, _ = whole
    for name in files(folder):
        if "snapshots" in name or name == "modelkeep.json":
            continue
        copy = tmp_path / "models"
        shutil.copytree(folder, copy, copy_function=shutil.copyfile)
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert not mk.open(copy).fsck().ok, name
        shutil.rmtree(copy)


@pytest.mark.parametrize("missing", ["blobs", "models"])
def test_a_file_that_is_gone_is_named(whole, tmp_path, missing):
    folder, _ = whole
    shutil.copytree(folder, tmp_path / "models")
    for path in (tmp_path / "models" / missing).rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(ModelkeepError):
        mk.open(tmp_path / "models").load("m")


def test_a_layer_whose_config_cannot_be_had_is_named_and_nothing_is_kept(whole, tmp_path):
    class Stubborn(keras.layers.Dense):
        def get_config(self):
            raise NotImplementedError("not today")

    model = keras.Sequential([keras.Input((3,)), Stubborn(2, name="stubborn")])
    keep = mk.open(tmp_path / "models")
    with pytest.raises(CannotRebuild, match=r"Stubborn(.|\n)*get_config"):
        keep.save(model, "m")
    assert files(tmp_path / "models") == ["modelkeep.json"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB, which the model fits into once."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(model: keras.Model, number: float) -> keras.Model:
    for variable in model.weights:
        variable.assign(np.random.default_rng(int(number)).standard_normal(variable.shape))
    return model


def test_a_full_disk_stops_a_save_and_harms_nothing(small_disk):
    keep = mk.open(small_disk / "models")
    model = network()

    def save_until_it_is_full() -> None:
        for number in range(10):
            keep.save(fill(model, number), "m")

    with pytest.raises(StorageError, match="No space left"):
        save_until_it_is_full()
    kept = keep.versions("m")
    assert 1 <= len(kept) < 10
    assert not list((small_disk / "models" / "tmp").iterdir())
    for version in kept:
        keep.verify(version.ref, live=True).raise_for_failures()


def test_a_read_only_disk_can_be_read_and_refuses_to_be_written(small_disk):
    keep = mk.open(small_disk / "models")
    keep.save(network(), "m")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="read-only"):
        keep.save(fill(network(), 1), "m")
    assert mk.open(small_disk / "models").load("m").predict(X).shape == (4, 2)


def test_a_blob_that_was_damaged_is_not_trusted_by_the_next_save(whole, tmp_path):
    folder, _ = whole
    copy = tmp_path / "models"
    shutil.copytree(folder, copy)
    keep = mk.open(copy)
    wide = next(t for t in keep.resolve("m").manifest.tensors if t.nbytes > 2**20 and t.name.startswith("weights/"))
    blob = wide.digest.removeprefix("blake3:")
    path = copy / "blobs" / blob[:2] / blob
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(IntegrityError, match="damaged"):
        keep.save(network(), "m", golden=X)
    assert len(keep.versions("m")) == 1


@pytest.mark.parametrize("method", ["create", "refresh", "get", "map", "list"])
def test_whichever_call_of_the_store_fails_a_save_raises_and_leaves_no_half_version(method):
    inner = MemoryStore()
    keep = mk.open(inner)
    model = network()
    keep.save(model, "m", golden=X)
    for call in itertools.count(1):
        fault = Fault(method, call=call, error=errno.EIO)
        before = [version.ref for version in keep.versions("m")]
        try:
            mk.open(FaultyStore(inner, fault)).save(fill(model, call), "m", golden=X)
        except StorageError:
            assert [version.ref for version in keep.versions("m")] == before
        keep.verify("m").raise_for_failures()
        if not fault.fired:
            break
    assert call > 1
    assert keep.fsck().ok


def test_a_reply_that_was_lost_leaves_the_version_wholly_there(tmp_path):
    inner = MemoryStore()
    fault = Fault("create", key="/ledger/", error=errno.EIO, after=True)
    with pytest.raises(StorageError):
        mk.open(FaultyStore(inner, fault)).save(network(), "m", golden=X)
    mk.open(inner).verify("m", live=True).raise_for_failures()
