"""The command line on real models: a .keras file goes in, is verified, goes out as a bundle, and into another store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelkeep.cli.main import main

pytestmark = pytest.mark.keras

LAYERS = """
import keras

class Shift(keras.layers.Layer):
    def call(self, x):
        return x + 1

ALL = [Shift]
BY_NAME = {"Shift": Shift}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``net.keras``, examples for it, and a vocabulary."""
    import keras
    import numpy as np

    folder = tmp_path_factory.mktemp("files")
    layers = [keras.layers.Dense(3, "relu", name="dense"), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input((4,), name="x"), *layers])
    model.compile("adam", "mse")
    x = np.linspace(0, 1, 32, dtype="float32").reshape(8, 4)
    model.fit(x, x[:, :1], verbose=0)
    model.save(folder / "net.keras")
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x)
    (folder / "labels.json").write_text('["no", "yes"]')
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out or "null")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_keras_file_becomes_a_version_with_all_that_was_said_of_it(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [
        "--metric",
        "accuracy=0.92",
        "--meta",
        "lr=1e-3",
        "--meta",
        "data=IMDB",
        "--tag",
        "nightly",
        "--note",
        "new",
    ]
    given = ["--asset", f"labels={files / 'labels.json'}", "--golden", files / "x.npz", "--gate", "accuracy >= 0.9"]
    version = answer(capsys, "add", files / "net.keras", "net", "--version", "2.0.0", *said, *given)
    assert (version["ref"], version["metrics"], version["tags"]) == ("net:2.0.0", {"accuracy": 0.92}, ["nightly"])
    assert (version["metadata"], version["note"]) == ({"lr": 0.001, "data": "IMDB"}, "new")
    manifest = answer(capsys, "show", "net")["manifest"]
    assert (manifest["golden"]["count"], manifest["assets"][0]["name"]) == (8, "labels")
    assert main(["show", "net"]) == 0
    assert "dense/kernel" in capsys.readouterr().out


def test_a_version_verifies_live_and_goes_to_another_store_as_a_bundle(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = answer(capsys, "add", files / "net.keras", "net", "--golden", files / "x.npy")
    assert answer(capsys, "verify", "net", "--live")["ok"]
    exported = answer(capsys, "export", "net", "--to", "net.zip")
    assert (exported["path"], exported["size"]) == ("net.zip", Path("net.zip").stat().st_size)
    taken = answer(capsys, "add", "net.zip", "--store", "other")
    assert taken["digest"] == added["digest"]
    assert answer(capsys, "verify", "net", "--live", "--store", "other")["ok"]
    answer(capsys, "export", "net", "--to", "net.zip", code=11)
    answer(capsys, "export", "net", "--to", "net.zip", "--overwrite")


def test_a_gate_that_is_missed_adds_no_version(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["net", "--metric", "accuracy=0.5", "--gate", "accuracy >= 0.9"]
    answer(capsys, "add", files / "net.keras", *arguments, code=23)
    assert answer(capsys, "versions", "net") == []
    assert [entry["action"]["do"] for entry in answer(capsys, "history", "net")] == ["refuse"]


def test_custom_objects_are_imported_from_where_they_are_said_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("shifting.py").write_text(LAYERS)
    import keras
    from shifting import Shift  # type: ignore[import-not-found]

    keras.Sequential([keras.Input((2,)), Shift(), keras.layers.Dense(1)]).save("custom.keras")
    answer(capsys, "add", "custom.keras", "custom", code=22)
    for name in ("Shift", "ALL", "BY_NAME"):
        answer(capsys, "add", "custom.keras", "custom", "--custom-objects", f"shifting:{name}")
    assert answer(capsys, "verify", "custom", "--live", "--trust", "shifting")["ok"]


@pytest.mark.slow
def test_a_backend_that_starts_keeps_its_chatter_to_itself(files: Path) -> None:
    command = [sys.executable, "-m", "modelkeep", "add", str(files / "net.keras"), "net"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("net:1.0.0  blake3:")
