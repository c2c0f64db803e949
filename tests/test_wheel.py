"""What is shipped works where only it and its core dependencies are installed."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import modelkeep

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a new environment that holds the wheel and what it requires, nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True, capture_output=True)
    return folder / "bin"


def answer(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=folder, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_its_types_and_its_licence_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names}
    assert roots == {"modelkeep", f"modelkeep-{modelkeep.__version__}.dist-info"}
    assert "modelkeep/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_runs_without_keras_or_a_backend(installed: Path, tmp_path: Path) -> None:
    helped = answer(installed / "modelkeep", "--help", folder=tmp_path)
    assert helped.returncode == 0, helped.stderr
    assert "Usage: modelkeep" in helped.stdout
    version = answer(installed / "modelkeep", "--version", folder=tmp_path)
    assert modelkeep.__version__ in version.stdout


def test_every_public_name_is_there_without_keras_or_a_backend(installed: Path, tmp_path: Path) -> None:
    # What was loaded or opened holds a Keras model, so there is none without Keras.
    script = "import modelkeep as mk; [getattr(mk, name) for name in mk.__all__ if name not in ('Loaded', 'Opened')]"
    imported = answer(installed / "python", "-W", "error", "-c", script, folder=tmp_path)
    assert imported.returncode == 0, imported.stderr
