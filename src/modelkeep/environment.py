"""Where a version was saved, and what is different here: what can be known without importing a backend."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from modelkeep.manifest import Environment
from modelkeep.report import Finding, Severity

# Whatever can change what a model answers, or whether its assets can be read.
PACKAGES = ("modelkeep", "keras", "numpy", "ml-dtypes", "h5py", "scikit-learn", "skops", "tokenizers")
# A backend comes in several distributions of one version; it is recorded under its own name.
BACKENDS = {
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tf-nightly"),
    "jax": ("jax",),
    "torch": ("torch",),
}
# Instruction sets that numerical libraries choose their kernels by; the rest of the flags say nothing here.
_FEATURES = re.compile(r"sse4_[12]|avx\w*|fma|f16c|amx_\w+|asimd\w*|sve\w*|neon|bf16|i8mm")


def here(
    *,
    backend: str | None = None,
    accelerators: Iterable[str] = (),
    packages: Iterable[str] = (),
    modules: Iterable[str] = (),
) -> Environment:
    """This environment, with the versions of the distributions that matter.

    Beside :data:`PACKAGES` and the backend's, those of ``packages`` and those that hold the top-level
    ``modules`` are looked up. ``backend`` and ``accelerators`` are what only a live backend can tell.
    """
    names = dict.fromkeys([*PACKAGES, *([backend] if backend else []), *packages, *_distributions(modules)])
    cpu, features = _cpu()
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        machine=platform.machine(),
        cpu=cpu,
        cpu_features=features,
        accelerators=tuple(accelerators),
        backend=backend,
        packages={name: version for name in names if (version := installed(name)) is not None},
    )


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or of a backend from whichever it comes; None without it."""
    for name in BACKENDS.get(distribution, (distribution,)):
        try:
            return metadata.version(name)
        except (metadata.PackageNotFoundError, ValueError):
            continue
    return None


def compare(saved: Environment, now: Environment, *, needed: Iterable[str] = ()) -> tuple[Finding, ...]:
    """What differs from where the version was saved, worst for a load first.

    ``needed`` are distributions without which part of the version cannot be read. ``now`` should have been
    made with ``packages=saved.packages``. Nothing here is a failure: a difference may be harmless, and
    replaying the golden examples tells.
    """
    findings = [*_packages(saved, now, frozenset(needed)), *_platform(saved, now)]
    return tuple(sorted(findings, key=lambda finding: finding.severity is not Severity.WARNING))


def _packages(saved: Environment, now: Environment, needed: frozenset[str]) -> Iterator[Finding]:
    for name in sorted({*saved.packages, *needed}):
        was, found = saved.packages.get(name), now.packages.get(name)
        if found is None:
            # A version of another backend, or of an optional library that it does not need, is no loss.
            if name in needed or name not in (*PACKAGES, *BACKENDS):
                yield _finding("package", Severity.WARNING, name, was, None, f"{name} is not installed")
        elif was is not None and was != found:
            older = name == "keras" and _numbers(found) < _numbers(was)
            message = f"{name} {found} is here, {was} was at the save"
            if older:
                message += "; an older Keras reads what it knows of a newer one's config"
            yield _finding("package", Severity.WARNING if older else Severity.NOTE, name, was, found, message)


def _platform(saved: Environment, now: Environment) -> Iterator[Finding]:
    was, found = saved.python.split(".")[:2], now.python.split(".")[:2]
    if was != found:
        yield _note("python", saved.python, now.python, f"Python {now.python} is here, {saved.python} was at the save")
    if saved.backend and now.backend and saved.backend != now.backend:
        text = (
            f"the backend is {now.backend}, it was {saved.backend} at the save: answers may differ in the last digits"
        )
        yield _note("backend", saved.backend, now.backend, text)
    if saved.machine != now.machine:
        yield _note("machine", saved.machine, now.machine, f"this is {now.machine}, it was {saved.machine} at the save")
    elif lost := [feature for feature in saved.cpu_features if feature not in now.cpu_features]:
        text = f"this processor lacks {', '.join(lost)}: answers may differ in the last digits"
        yield _note("cpu-features", list(saved.cpu_features), list(now.cpu_features), text)
    if saved.accelerators and not now.accelerators:
        text = f"there was {', '.join(saved.accelerators)} at the save, and there is no accelerator here"
        yield _note("accelerators", list(saved.accelerators), [], text)


def _note(subject: str, was: object, found: object, message: str) -> Finding:
    return _finding(subject, Severity.NOTE, "", was, found, message)


def _finding(kind: str, severity: Severity, subject: str, was: object, found: object, message: str) -> Finding:
    return Finding(f"environment-{kind}", severity, message, subject=subject, details={"saved": was, "now": found})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])


def _distributions(modules: Iterable[str]) -> list[str]:
    """The distributions that hold top-level modules. Reading which does costs a while, so only when asked."""
    own = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"__main__"}
    if not own:
        return []
    owners = metadata.packages_distributions()
    return [name for module in sorted(own) for name in owners.get(module, ())]


def _cpu() -> tuple[str | None, tuple[str, ...]]:
    """The processor's name and instruction sets; from ``/proc/cpuinfo``, so on Linux alone the latter."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor() or None, ()
    # x86 says "model name" and "flags", Arm has no name and says "Features".
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    fields = {name.strip().lower(): value.strip() for name, _, value in lines}
    flags = (fields.get("flags") or fields.get("features") or "").split()
    return fields.get("model name"), tuple(sorted(flag for flag in flags if _FEATURES.fullmatch(flag)))
