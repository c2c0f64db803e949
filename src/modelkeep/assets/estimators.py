"""scikit-learn scalers, encoders and other estimators, through skops: a zip of JSON and arrays, no pickle.

A ``.skops`` file names types, and reading it imports and builds them. Only those that skops trusts by
default (scikit-learn's own, SciPy's and NumPy's) are; for others the caller says so with ``trust=``.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

from modelkeep.assets.codec import Packed, Stored, extra, one_part
from modelkeep.errors import LimitExceeded, ModelkeepError, UnsafeContent, UsageError

MAX_UNPACKED = 2**30  # bytes of all members


class Estimator:
    """Needs the extra ``sklearn``."""

    kind = "sklearn"

    def accepts(self, value: Any) -> bool:
        """An instance of a class that is scikit-learn's, or inherits from one that is."""
        kinds = type(value).__mro__
        return any(kind.__module__.partition(".")[0] == "sklearn" for kind in kinds) and hasattr(value, "get_params")

    def pack(self, name: str, value: Any) -> Packed:
        """Raises UsageError where it holds something that skops has no form for."""
        skops = extra("skops.io", "sklearn", f"the asset {name!r}")
        try:
            data = skops.dumps(value)
            # skops writes some things, a lambda for one, that it cannot read again: find out while the value is here.
            skops.loads(data, trusted=skops.get_untrusted_types(data=data))
        except Exception as error:  # whatever an estimator holds decides what goes wrong
            raise UsageError(f"skops cannot keep this {type(value).__name__}: {error}") from error
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        return one_part(name, self.kind, data, {"class": kind}, ".skops")

    def unpack(self, stored: Stored) -> Any:
        """The estimator. Raises UnsafeContent, naming the types, where it holds any that are not trusted."""
        what = f"the asset {stored.asset.name!r}"
        try:
            return read(stored.part(), what, stored.trust)
        except UsageError as error:
            raise stored.damaged(error.what) from error


def read(data: bytes, what: str, trust: Sequence[str] = ()) -> Any:
    """The value in the bytes of a ``.skops`` file.

    ``trust`` names packages (``"mypackage"``) or types (``"mypackage.text.Cleaner"``). Raises
    UnsafeContent for other types, LimitExceeded for a zip that unpacks to more than ``MAX_UNPACKED``,
    UsageError for bytes that are no such file.
    """
    skops = extra("skops.io", "sklearn", what)
    try:
        _check_size(data, what)
        untrusted = skops.get_untrusted_types(data=data)
        refused = [name for name in untrusted if not any(name == t or name.startswith(f"{t}.") for t in trust)]
        if refused:
            raise UnsafeContent(
                f"{what} holds types that are not trusted by default",
                found=", ".join(refused),
                hint=f"if you know them: keep.load(…, trust={refused!r})",
            )
        return skops.loads(data, trusted=untrusted)
    except ModelkeepError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in skops
        raise UsageError(f"{what} is no skops file: {type(error).__name__}: {error}") from error


def _check_size(data: bytes, what: str) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_UNPACKED:
        raise LimitExceeded(f"{what} unpacks to too much", found=f"{size} bytes", expected=f"at most {MAX_UNPACKED}")
