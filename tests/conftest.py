"""What every test run needs: a quiet backend, examples that repeat in CI, and the quick tests first."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

# Before anything imports Keras. The tests run on the CPU, wherever they run.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import hypothesis
import pytest

# A busy machine is no failure, and a red run in CI has to be red again at home.
patient = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("local", patient)
hypothesis.settings.register_profile("ci", patient, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cold before live and quick before slow, each in the order of the files."""
    items.sort(
        key=lambda item: (item.get_closest_marker("keras") is not None, item.get_closest_marker("slow") is not None)
    )


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a store of their own; the tests must not find it."""
    for name in [name for name in os.environ if name.startswith("MODELKEEP_") and name != "MODELKEEP_OLDEST_KERAS"]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _names_start_anew() -> None:
    """Keras numbers layers through a whole process; each test names its own as in a new one."""
    if keras := sys.modules.get("keras"):
        keras.utils.clear_session(free_memory=False)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """At most 1 GiB more, as in the process that scans: a length in a damaged file must not take all there is."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/statm")
    if not status.exists():
        yield  # what is in use already is not told
        return
    used = int(status.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
