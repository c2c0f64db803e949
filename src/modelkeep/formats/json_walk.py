"""JSON values of any depth, walked without recursion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def mapped(value: Any, change: Callable[[dict[str, Any]], Any]) -> Any:
    """A copy in which every mapping is what ``change`` makes of it, from the outside in."""
    top = [value]
    waiting: list[Any] = [top]
    while waiting:
        holder = waiting.pop()
        for key, inner in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(inner, dict):
                inner = change(inner)
            if isinstance(inner, dict | list):
                holder[key] = inner.copy()
                waiting.append(holder[key])
            else:
                holder[key] = inner
    return top[0]
