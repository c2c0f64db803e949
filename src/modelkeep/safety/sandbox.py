"""Look at a foreign file in a process of its own, which a hostile file may fill, hang or kill.

The process is a new interpreter, not a fork: the one that asks may hold the threads of a backend. It
gets the question on its standard input and answers on its standard output, both as JSON; all else that
it could reach is taken from it first (:mod:`modelkeep.safety.confinement`).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from modelkeep import errors
from modelkeep.errors import LimitExceeded, ModelkeepError, UnsafeContent
from modelkeep.formats.forms import look
from modelkeep.formats.limits import DEFAULT, MIB, Limits
from modelkeep.safety import confinement

MAX_ANSWER = 256 * MIB  # bytes of JSON
_BYTES_A_SECOND = 100 * 10**6  # of the file, each of which gives another second
_PATIENCE = 3  # times as long by the clock as by the CPU: the machine may be busy
_START = "import json, sys; _ = json.load(sys.stdin); sys.path[:] = _['sys_path']; " + (
    "from modelkeep.safety import sandbox; sandbox.answer(_)"
)
_TOO_LONG = (signal.SIGXCPU,) if hasattr(signal, "SIGXCPU") else ()


def call(function: str, path: Path, arguments: Mapping[str, Any] | None = None, limits: Limits = DEFAULT) -> Any:
    """The JSON value that ``function``, such as ``modelkeep.safety.scanning:scan_here``, gives for a path.

    It is called as ``function(path, limits=limits, **arguments)``, and may read ``path`` (a folder with all
    that is in it; beside a file, also its siblings whose names begin alike, as shards do) and write into
    ``tempfile.gettempdir()``, which is gone afterwards. Errors of :mod:`modelkeep.errors` that it raises are
    raised here. Raises LimitExceeded where it takes too long or too much memory, UnsafeContent where it fails
    in any other way: no honest file should bring a reader down. NotFound and StorageError as ``look`` does.
    """
    path = look(Path(os.path.abspath(path))).path
    seconds = limits.seconds + _size(path, limits) // _BYTES_A_SECOND
    with tempfile.TemporaryDirectory(prefix="modelkeep-", ignore_cleanup_errors=True) as scratch:
        question = {
            "sys_path": [place for place in map(os.path.abspath, sys.path) if os.path.exists(place)],
            "function": function,
            "path": os.fspath(path),
            "arguments": dict(arguments or {}),
            "limits": asdict(limits),
            "seconds": seconds,
            "scratch": scratch,
        }
        text, code = _ask(json.dumps(question).encode(), scratch, path, seconds * _PATIENCE)
    return _understood(text, code, path, limits)


def _ask(question: bytes, scratch: str, path: Path, seconds: float) -> tuple[bytes, int]:
    """What the process printed, and its exit code."""
    # One thread each: libraries take memory for every thread they may start.
    environment = {"TMPDIR": scratch, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
    environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=scratch,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdout, process.stdin:
            process.stdin.write(question)
            process.stdin.close()
            text = b"".join(_chunks(process.stdout, path, time.monotonic() + seconds))
        return text, process.wait(timeout=_PATIENCE)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        return b"", process.poll() or 0
    finally:
        _end(process)


def _chunks(stream: IO[bytes], path: Path, until: float) -> Iterator[bytes]:
    """What comes before the stream ends, in pieces."""
    size = 0
    with selectors.DefaultSelector() as waiting:
        waiting.register(stream, selectors.EVENT_READ)
        while True:
            if not waiting.select(max(0.0, until - time.monotonic())):
                raise _took_too_long(path)
            if not (chunk := os.read(stream.fileno(), MIB)):
                return
            size += len(chunk)
            if size > MAX_ANSWER:
                raise LimitExceeded(
                    f"{path.name} holds more than can be told", found=f"over {size:,} bytes", expected=f"{MAX_ANSWER:,}"
                )
            yield chunk


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and whatever it started are gone when this returns."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _understood(text: bytes, code: int, path: Path, limits: Limits) -> Any:
    if code in (-number for number in _TOO_LONG):
        raise _took_too_long(path)
    if code != 0 or not text:
        raise UnsafeContent(
            f"looking at {path.name} killed the process that looked",
            found=signal.Signals(-code).name if code < 0 else f"exit code {code}",
            hint="no honest file should do that; nothing of it was run, and nothing was kept",
        )
    answer = json.loads(text)
    if "error" not in answer:
        return answer["value"]
    if answer["error"] == "memory":
        raise LimitExceeded(
            f"looking at {path.name} takes too much memory",
            expected=f"at most {limits.memory:,} bytes",
            hint="where the file can be trusted, raise the limit 'memory'",
        )
    kind = getattr(errors, answer["error"])
    raise kind(*answer["what"], **answer["parts"])


def _took_too_long(path: Path) -> LimitExceeded:
    return LimitExceeded(
        f"looking at {path.name} takes too long", hint="where the file can be trusted, raise the limit 'seconds'"
    )


def _size(path: Path, limits: Limits) -> int:
    """Bytes of a file, or of the files of a folder; of as many as may be looked at."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    sizes = (entry.lstat().st_size for entry in path.rglob("*"))
    return sum(size for _, size in zip(range(limits.members), sizes, strict=False))


# --- in the process that looks


def answer(question: Mapping[str, Any]) -> None:
    """Confine this process, answer the question on standard output, and end."""
    out = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # a library that prints must not print into the answer
    os.dup2(nowhere, 2)
    limits, path = Limits(**question["limits"]), Path(question["path"])
    confinement.confine(
        _readable(path, limits),
        Path(question["scratch"]),
        seconds=question["seconds"],
        memory=limits.memory,
        file_size=max(limits.expansion_floor, min(limits.file, limits.expansion_ratio * _size(path, limits))),
    )
    reply = _reply(question["function"], path, question["arguments"], limits)
    with os.fdopen(out, "wb") as stream:
        stream.write(json.dumps(reply).encode())
    os._exit(0)  # what the interpreter would still tidy up goes with the process


def _reply(function: str, path: Path, arguments: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        asked = getattr(import_module(module), name)
        return {"value": asked(path, limits=limits, **arguments)}
    except ModelkeepError as error:
        parts = {"found": error.found, "expected": error.expected, "hint": error.hint}
        told = {part: str(value) for part, value in parts.items() if value is not None}
        return {"error": type(error).__name__, "what": [error.what], "parts": told}
    except ModuleNotFoundError as error:  # of what reads files, and says so itself where it knows a better way
        extra = "pip install 'modelkeep[files]'"
        return {"error": "MissingExtra", "what": [f"reading {path.name} needs {error.name}"], "parts": {"hint": extra}}
    except MemoryError:
        return {"error": "memory"}
    except Exception as error:  # noqa: BLE001 - whatever a hostile file makes a reader do, it is no answer
        found = f"{type(error).__name__}: {str(error)[:300]}"
        return {"error": "UnsafeContent", "what": [f"{path.name} cannot be read"], "parts": {"found": found}}


def _readable(path: Path, limits: Limits) -> list[Path]:
    """The path itself, and the files beside it that can belong to it: ``model.bin`` to ``model.xml``."""
    if path.is_dir():
        return [path]
    stem = path.name.partition(".")[0]
    with os.scandir(path.parent) as beside:
        alike = (entry for entry in beside if entry.name.startswith(stem) and entry.is_file(follow_symlinks=False))
        return [path, *(Path(entry.path) for _, entry in zip(range(limits.members), alike, strict=False))]
