"""What only handles names and numbers answers at once: it never imports Keras, NumPy, h5py or a backend."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from modelkeep.registry import Registry
from modelkeep.storage import marker
from modelkeep.storage.local import LocalStore
from small_runs import add
from small_versions import publish

HEAVY = {"h5py", "jax", "keras", "ml_dtypes", "numpy", "scipy", "sklearn", "skops", "tensorflow", "tokenizers", "torch"}
COLD = [
    "--help",
    "--version",
    "list",
    "list --json",
    "list --help",
    "versions sentiment",
    "show sentiment@production",
    "history sentiment",
    "search 'accuracy > 0.9'",
    "promote sentiment:1.1.0 production --gate 'accuracy > 0.9'",
    "split sentiment@production 1.0.0=90 1.1.0=10",
    "rollback sentiment@production",
    "unalias sentiment@production",
    "annotate sentiment:1.1.0 --tag seen",
    "yank sentiment:1.1.0",
    "delete sentiment:1.1.0",
    "policy sentiment",
    "checkpoints",
    "checkpoints sentiment-run",
    "checkpoints sentiment-run --prune --keep-last 1",
    "watch sentiment-run --once",
    "watch sentiment-run --json",
    "show sentiment-run@10",
    "publish --help",
    "gc --dry-run",
    "completion bash",
]

SCRIPT = """
import sys
from modelkeep.cli.main import main
code = main(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = LocalStore(tmp_path)
    marker.ensure(store)
    registry = Registry(store)
    publish(registry, "sentiment", "1.0.0", metrics={"accuracy": 0.85})
    publish(registry, "sentiment", "1.1.0", metrics={"accuracy": 0.92})
    registry.promote("sentiment:1.1.0", "production")
    registry.promote("sentiment:1.0.0", "production")
    add(store, "sentiment-run", 10, metrics={"loss": 0.5})
    return tmp_path


def loaded_by(line: str, folder: Path) -> set[str]:
    """The top-level packages that are loaded after a command line has run."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *shlex.split(line)],
        env={**os.environ, "MODELKEEP_STORE": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("line", COLD)
def test_a_command_about_names_imports_nothing_heavy(line: str, folder: Path) -> None:
    loaded = loaded_by(line, folder)
    assert "modelkeep" in loaded
    assert loaded & HEAVY == set()


def test_a_table_in_a_pipe_is_printed_without_rich(folder: Path) -> None:
    assert "rich" not in loaded_by("list", folder)


@pytest.mark.parametrize("absent", ["keras", "keras.src"])  # none at all, or none that starts
@pytest.mark.parametrize("line", ["verify sentiment --live", "add model.keras sentiment"])
def test_without_keras_a_command_that_needs_a_model_names_the_line_to_install_it(
    line: str, absent: str, folder: Path
) -> None:
    (folder / "model.keras").touch()
    script = f"import sys; sys.modules[{absent!r}] = None\n{SCRIPT}"
    done = subprocess.run(
        [sys.executable, "-c", script, *shlex.split(line), "--store", str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 30
    assert "pip install 'modelkeep[tensorflow]'" in done.stderr
