"""What a process that looks at a file might try: each is a function for ``sandbox.call``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from modelkeep.errors import LimitExceeded
from modelkeep.formats.limits import Limits
from modelkeep.safety import confinement


def read(path: Path, limits: Limits, **arguments: Any) -> Any:
    return [path.read_text(), arguments, limits.seconds]


def read_beside(path: Path, limits: Limits, name: str) -> str:
    return path.with_name(name).read_text()


def read_system(path: Path, limits: Limits) -> str:
    return Path("/etc/passwd").read_text()


def write(path: Path, limits: Limits, where: str) -> None:
    Path(where).write_text("written")


def append(path: Path, limits: Limits) -> None:
    with path.open("a") as file:
        file.write("more")


def write_scratch(path: Path, limits: Limits, size: int) -> str:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        for _ in range(size // 2**20 or 1):
            file.write(bytes(2**20))
        return file.name


def connect(path: Path, limits: Limits, port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=1)


def start_program(path: Path, limits: Limits) -> int:
    return subprocess.run(["/bin/true"], check=True).returncode


def leave_child(path: Path, limits: Limits) -> str:
    if os.fork() == 0:
        time.sleep(600)
    return "left"


def use_memory(path: Path, limits: Limits, size: int) -> int:
    return len(bytearray(size))


def spin(path: Path, limits: Limits) -> None:
    while True:
        pass


def sleep(path: Path, limits: Limits) -> None:
    time.sleep(600)


def crash(path: Path, limits: Limits) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(path: Path, limits: Limits) -> None:
    os._exit(3)


def refuse(path: Path, limits: Limits) -> None:
    raise LimitExceeded("too deep", found=3, expected="at most 2", hint="less")


def stumble(path: Path, limits: Limits) -> None:
    raise KeyError("layers")


def lack(path: Path, limits: Limits) -> None:
    import_module("absent_reader")


def chatter(path: Path, limits: Limits) -> str:
    print("noise")
    os.write(1, b"noise")
    return "said"


def measures(path: Path, limits: Limits) -> list[str]:
    return list(confinement.absent())


def answer_much(path: Path, limits: Limits) -> str:
    return "x" * (300 * 2**20)


def peak(path: Path, limits: Limits, rule: str) -> int:
    """The most memory that this process ever had, in bytes, once it has scanned the file."""
    from modelkeep.safety.scanning import scan_here

    assert rule in {problem[0] for problem in scan_here(path, limits=limits)["problems"]}
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
