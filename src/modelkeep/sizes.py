"""Numbers of bytes, written for people: decimal units, as disks and the expression language count them."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def human_bytes(count: int) -> str:
    """``5360000`` → ``5.4 MB``; whole numbers below 1 kB."""
    value = float(count)
    for unit in _UNITS:
        if abs(value) < 999.95 or unit == _UNITS[-1]:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit always returns")
