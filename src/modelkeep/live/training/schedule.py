"""When a checkpoint is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modelkeep.errors import UsageError


@dataclass
class Schedule:
    """Every so many steps, epochs, or seconds: one of them; each epoch where nothing is said.

    Steps and epochs are counted from the beginning of the run, so a run that is gone on with keeps its rhythm.
    Raises UsageError for more than one, and for less than one.
    """

    steps: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("steps", "epochs", "seconds")}
        given = {f"every_{name}": value for name, value in given.items() if value is not None}
        if len(given) > 1:
            raise UsageError("a run has one rhythm", found=", ".join(given), expected="one of them")
        for name, value in given.items():
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole or (name == "every_seconds" and isinstance(value, float))) or not value > 0:
                raise UsageError(f"{name} is a number above zero", found=repr(value))
        if not given:
            self.epochs = 1
        self._last = self.clock()

    def after_step(self, before: int, now: int, *, busy: bool) -> bool:
        """Whether a checkpoint is due when training came from step ``before`` to ``now``.

        One by the clock is put off while the one before is still being written, so that it never waits for that.
        """
        if self.steps is not None:
            return now // self.steps > before // self.steps
        return self.seconds is not None and not busy and self.clock() - self._last >= self.seconds

    def after_epoch(self, epoch: int) -> bool:
        """Whether a checkpoint is due when ``epoch`` epochs are done."""
        return self.epochs is not None and epoch % self.epochs == 0

    def kept(self) -> None:
        """A checkpoint was just taken."""
        self._last = self.clock()
