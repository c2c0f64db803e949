"""What is told of an environment, and how much each difference matters."""

import platform
import subprocess
import sys

import msgspec
import pytest

from modelkeep import environment
from modelkeep.manifest import CustomObject, Environment
from modelkeep.report import Severity

SAVED = Environment(
    python="3.11.7",
    platform="Linux",
    machine="x86_64",
    cpu_features=("avx2", "fma"),
    backend="tensorflow",
    packages={"keras": "3.15.1", "numpy": "2.1.0", "tensorflow": "2.21.0", "mypackage": "1.0"},
)


def differences(**changes):
    now = msgspec.structs.replace(SAVED, **changes)
    return [(finding.check, finding.severity) for finding in environment.compare(SAVED, now)]


def with_packages(**versions):
    kept = {**SAVED.packages, **versions}
    return {name: version for name, version in kept.items() if version}


def test_this_environment_has_its_versions():
    here = environment.here(backend="tensorflow")
    assert here.python == platform.python_version()
    assert here.packages["keras"].startswith("3.")
    assert {"modelkeep", "numpy", "h5py"} <= set(here.packages)


def test_reading_it_imports_neither_keras_nor_numpy():
    code = "import sys; from modelkeep import environment; environment.here(backend='jax'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"keras", "numpy", "tensorflow", "jax", "torch"} & set(loaded)


def test_the_distribution_of_a_module_is_found():
    assert "scikit-learn" in environment.here(modules=["sklearn.linear_model", "os", "__main__", "unknown"]).packages


def test_a_name_that_is_not_installed_is_left_out():
    assert "no-such-package" not in environment.here(packages=["no-such-package"]).packages


def test_the_same_environment_has_no_findings():
    here = environment.here(backend="tensorflow", accelerators=["A100"])
    assert environment.compare(here, here) == ()


@pytest.mark.parametrize(
    ("changes", "check", "severity"),
    [
        ({"packages": with_packages(keras="3.14.0")}, "environment-package", Severity.WARNING),
        ({"packages": with_packages(keras="3.16.0")}, "environment-package", Severity.NOTE),
        ({"packages": with_packages(keras="3.9.2")}, "environment-package", Severity.WARNING),
        ({"packages": with_packages(numpy="1.26.4")}, "environment-package", Severity.NOTE),
        ({"packages": with_packages(mypackage=None)}, "environment-package", Severity.WARNING),
        ({"python": "3.12.0"}, "environment-python", Severity.NOTE),
        ({"backend": "jax"}, "environment-backend", Severity.NOTE),
        ({"machine": "aarch64", "cpu_features": ("asimd",)}, "environment-machine", Severity.NOTE),
        ({"cpu_features": ("avx2",)}, "environment-cpu-features", Severity.NOTE),
    ],
)
def test_a_difference_is_found_with_its_severity(changes, check, severity):
    assert differences(**changes) == [(check, severity)]


@pytest.mark.parametrize(
    "changes",
    [
        {"python": "3.11.9"},
        {"cpu_features": ("avx2", "avx512f", "fma")},
        {"packages": with_packages(tensorflow=None)},
        {"platform": "another kernel"},
    ],
)
def test_what_cannot_matter_is_not_mentioned(changes):
    assert differences(**changes) == []


def test_a_package_that_assets_need_is_missed():
    (finding,) = environment.compare(SAVED, SAVED, needed=["scikit-learn"])
    assert (finding.subject, finding.severity) == ("scikit-learn", Severity.WARNING)


def test_a_lost_accelerator_is_a_note():
    saved = msgspec.structs.replace(SAVED, accelerators=("A100",))
    (finding,) = environment.compare(saved, SAVED)
    assert "A100" in finding.message


def test_warnings_come_first():
    now = msgspec.structs.replace(SAVED, packages=with_packages(h5py="1", keras="3.1.0", numpy="9"), python="3.13.0")
    assert next(finding.severity for finding in environment.compare(SAVED, now)) is Severity.WARNING


@pytest.mark.keras
def test_a_live_backend_is_named_with_its_version():
    from modelkeep.live import environment as live

    record = CustomObject(name="x", kind="layer", module="sklearn.base", qualname="x")
    here = live.here([record])
    assert here.backend in ("tensorflow", "jax", "torch")
    assert here.accelerators == ()
    assert {here.backend, "scikit-learn"} <= set(here.packages)
