"""What a training logs as event files, which TensorBoard shows while it goes on.

Names are those of Keras' own callback: ``epoch_<name>`` by epoch in ``train/`` and ``validation/``, ``batch_<name>`` by
step, here in ``steps/``. Each lies in a folder of its own, since a ``SessionLog.START`` takes away all events of its
folder from its step on (tensorboard/backend/event_processing/event_accumulator.py): what an attempt that was killed had
logged beyond the checkpoint that it is resumed from.

The ``tensorboard`` package encodes the events. Its own ``EventFileWriter`` is not used: it brings TensorFlow to life
where that is installed, which a training under JAX or PyTorch has no use for.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelkeep.curves import numbers
from modelkeep.errors import MissingExtra, StorageError

try:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError as error:
    raise MissingExtra(
        "TensorBoard's event files need tensorboard", hint="pip install 'modelkeep[tensorboard]'"
    ) from error

_FILE = "events.out.tfevents.{number:010d}.{host}.{process}"
_NUMBER = re.compile(r"events\.out\.tfevents\.(\d+)\.")
_ALL = 1_000  # steps that are all written; from there on fewer, so that a million take about a megabyte
_VALIDATION = "val_"


class Events:
    """The event files of a run below ``folder``, going on after step ``resume_at``; None: from the beginning.

    What lies there already of later steps is no longer shown. Every event is with the operating system when a method
    returns, so a killed process loses none. Raises MissingExtra, and StorageError where the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], resume_at: int | None = None) -> None:
        self._folder = Path(folder)
        self._files: dict[str, _File] = {}
        self._open("steps", (resume_at or -1) + 1)

    def step(self, step: int, logs: Mapping[str, Any]) -> None:
        """What was logged after ``step`` steps in all; of many steps not every one is written."""
        if step % _stride(step) == 0:
            self._files["steps"].add(step, {f"batch_{name}": value for name, value in numbers(logs).items()})

    def epoch(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """What was logged at the end of ``epoch``, which Keras counts from 0."""
        values = numbers(logs)
        train = {f"epoch_{name}": value for name, value in values.items() if not name.startswith(_VALIDATION)}
        validation = {
            f"epoch_{name.removeprefix(_VALIDATION)}": value
            for name, value in values.items()
            if name.startswith(_VALIDATION)
        }
        for part, scalars in (("train", train), ("validation", validation)):
            if scalars:
                self._open(part, epoch).add(epoch, scalars)

    def close(self) -> None:
        """No more will come."""
        for file in self._files.values():
            file.close()

    def _open(self, part: str, begin: int) -> _File:
        """The file of one folder, opened when there is something for it: only then is known where it goes on."""
        if part not in self._files:
            self._files[part] = _File(self._folder / part, begin)
        return self._files[part]


class _File:
    """One event file of a folder: read after those that are there, it takes away their events from ``begin`` on."""

    def __init__(self, folder: Path, begin: int) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name = _FILE.format(number=_next_number(folder), host=socket.gethostname(), process=os.getpid())
            self._stream = (folder / name).open("xb", buffering=0)
        except OSError as error:
            raise StorageError(f"no event file can be made in {folder}: {error}") from error
        self._writer = RecordWriter(self._stream)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(Event(wall_time=time.time(), step=begin, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Scalars of one step."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """No more will come."""
        self._stream.close()

    def _write(self, event: Event) -> None:
        try:
            self._writer.write(event.SerializeToString())
        except OSError as error:
            raise StorageError(f"{self._stream.name} cannot be written: {error}") from error


def _next_number(folder: Path) -> int:
    """Files are read in the order of their names: the time in seconds, or later than what is there."""
    found = [int(match[1]) for path in folder.iterdir() if (match := _NUMBER.match(path.name))]
    return max(int(time.time()), *(number + 1 for number in found), 0)


def _stride(step: int) -> int:
    """1 for the first steps, then 2, 4, …: so many steps are written of each stretch that is twice as long."""
    return 1 << max(0, (step // _ALL).bit_length() - 1)
