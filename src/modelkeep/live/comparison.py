"""Two answers compared: nesting, shapes, dtypes, and every value within what its dtype allows.

Tolerances
----------
Replayed on the backend and machine of the save, outputs are nearly always equal to the bit; the little room left is
for sums that threads add in another order. Another backend orders every sum its own way and has other kernels for
``exp`` and the like, so each layer costs a few units in the last place. A value passes when
``|found - recorded| <= tolerance + tolerance * |recorded|``, with the tolerance of the output's dtype or of the
coarsest dtype the model computes in, whichever is greater:

==========  ===========  ===============  =======================================================
dtype       unit         same backend     another backend
==========  ===========  ===============  =======================================================
float64     2e-16        1e-12            1e-9
float32     1e-7         1e-6             1e-5
float16     1e-3         2e-3             1e-2
bfloat16    8e-3         1.6e-2           5e-2
int8, …     as float32   as float32       2e-2 (a last digit can move a rounded activation by a step)
==========  ===========  ===============  =======================================================

Integers, booleans and text are compared exactly; NaN equals NaN, and an infinity itself, where it was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelkeep.live.arrays import Array, is_array, is_float, to_array
from modelkeep.report import Finding, Severity

# dtype → tolerance on the same backend, and on another one.
_TOLERANCES = {
    "float64": (1e-12, 1e-9),
    "float32": (1e-6, 1e-5),
    "float16": (2e-3, 1e-2),
    "bfloat16": (1.6e-2, 5e-2),
    "float8": (2e-1, 5e-1),
    "int": (1e-6, 2e-2),
}


@dataclass(frozen=True)
class Comparison:
    """How much two answers may differ; see above. ``atol`` and ``rtol`` replace the table."""

    same_backend: bool
    computed_in: tuple[str, ...] = ()
    atol: float | None = None
    rtol: float | None = None

    def compare(self, name: str, recorded: Any, found: Any) -> Iterator[Finding]:
        """One finding for each output."""
        if isinstance(recorded, np.ndarray):
            yield self._arrays(name, recorded, found)
        elif isinstance(recorded, Mapping) and isinstance(found, Mapping) and set(recorded) == set(map(str, found)):
            for key, value in found.items():
                yield from self.compare(f"{name}/{key}", recorded[str(key)], value)
        elif _is_sequence(recorded) and _is_sequence(found) and len(recorded) == len(found):
            for index, (was, now) in enumerate(zip(recorded, found, strict=True)):
                yield from self.compare(f"{name}/{index}", was, now)
        elif _is_nested(recorded) or _is_nested(found):
            yield _differs(name, "is nested in another way", _form(recorded), _form(found))
        else:
            yield self._values(name, recorded, found)

    def _values(self, name: str, recorded: Any, found: Any) -> Finding:
        found = found.item() if isinstance(found, np.generic) else found
        if isinstance(recorded, float) and isinstance(found, int | float):
            return self._arrays(name, np.asarray(recorded, "float32"), np.asarray(found, "float32"))
        if type(recorded) is not type(found) or recorded != found:
            return _differs(name, "differs", recorded, found)
        return Finding("golden-output", Severity.OK, "equal", subject=name)

    def _arrays(self, name: str, recorded: Array, found: Any) -> Finding:
        if not is_array(found):
            return _differs(name, "is nested in another way", _form(recorded), _form(found))
        found = to_array(found)
        if recorded.shape != found.shape:
            return _differs(name, "has another shape", recorded.shape, found.shape)
        kinds = {recorded.dtype.kind, found.dtype.kind}
        # JAX computes in 32 bits where others do in 64.
        if recorded.dtype.name != found.dtype.name and kinds != {"U"} and (self.same_backend or len(kinds) > 1):
            return _differs(name, "has another dtype", recorded.dtype.name, found.dtype.name)
        if not is_float(recorded):
            return _exactly(name, recorded, found)
        return self._within(name, recorded, found)

    def _within(self, name: str, recorded: Array, found: Array) -> Finding:
        atol, rtol = self._tolerance(recorded.dtype.name, found.dtype.name)
        wide = np.complex128 if recorded.dtype.kind == "c" else np.float64
        was, now = recorded.astype(wide), found.astype(wide)
        # Infinities and NaN have no distance; they are right where they are the same, and infinitely off elsewhere.
        same = (was == now) | (np.isnan(was) & np.isnan(now))
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.where(same, 0.0, np.nan_to_num(np.abs(now - was), nan=np.inf, posinf=np.inf))
            excess = distance - np.where(np.isfinite(was), rtol * np.abs(was), 0.0)
        if excess.size == 0:
            return Finding("golden-output", Severity.OK, "equal (empty)", subject=name)
        worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
        details = {
            "index": [int(position) for position in worst],
            "recorded": _number(was[worst]),
            "found": _number(now[worst]),
            "difference": _number(distance[worst]),
            "atol": atol,
            "rtol": rtol,
        }
        if excess[worst] <= atol:
            message = f"equal to {float(distance.max()):.1e}" if distance.max() else "equal to the bit"
            return Finding("golden-output", Severity.OK, message, subject=name, details=details)
        message = (
            f"{int(np.sum(excess > atol))} of {excess.size} values differ; the worst at {details['index']}: "
            f"{details['recorded']} was recorded, {details['found']} found "
            f"(difference {float(distance[worst]):.2g}, allowed {atol:.0e} + {rtol:.0e} of the value)"
        )
        return Finding("golden-output", Severity.FAILURE, message, subject=name, details=details)

    def _tolerance(self, *dtypes: str) -> tuple[float, float]:
        coarsest = max(_TOLERANCES[_precision(dtype)][not self.same_backend] for dtype in (*dtypes, *self.computed_in))
        return coarsest if self.atol is None else self.atol, coarsest if self.rtol is None else self.rtol


def _precision(dtype: str) -> str:
    if dtype in _TOLERANCES:
        return dtype
    if dtype.startswith("float8"):
        return "float8"
    return {"complex64": "float32", "complex128": "float64"}.get(dtype, "int")


def _exactly(name: str, recorded: Array, found: Array) -> Finding:
    wrong = recorded != found
    if not wrong.any():
        return Finding("golden-output", Severity.OK, "equal", subject=name)
    worst = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    index = [int(position) for position in worst]
    was, now = recorded[worst].item(), found[worst].item()
    message = (
        f"{int(wrong.sum())} of {wrong.size} values differ; the first at {index}: {was!r} was recorded, {now!r} found"
    )
    details = {"index": index, "recorded": was, "found": now}
    return Finding("golden-output", Severity.FAILURE, message, subject=name, details=details)


def _differs(name: str, how: str, recorded: object, found: object) -> Finding:
    message = f"{how}: {recorded} was recorded, {found} found"
    details = {"recorded": str(recorded), "found": str(found)}
    return Finding("golden-output", Severity.FAILURE, message, subject=name, details=details)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_nested(value: Any) -> bool:
    return _is_sequence(value) or is_array(value) or isinstance(value, Mapping)


def _form(value: Any) -> str:
    if is_array(value):
        return f"an array {np.shape(value)}"
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(map(str, value))}"
    return f"{len(value)} items" if _is_sequence(value) else f"a {type(value).__name__}"


def _number(value: Any) -> Any:
    # JSON has neither infinities nor complex numbers.
    number = value.item()
    return number if isinstance(number, float) and np.isfinite(number) else str(number)
