"""Example inputs from a file that ``--golden`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelkeep.errors import UsageError


def read(path: Path) -> Any:
    """Arrays for the network's inputs, or what the pipeline takes. Raises UsageError for another kind of file."""
    from modelkeep.assets import from_file

    if path.suffix != ".npz":
        return from_file("golden", path)
    from tempfile import TemporaryDirectory
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(path) as archive, TemporaryDirectory() as folder:
            arrays = {Path(name).stem: from_file(name, archive.extract(name, folder)) for name in archive.namelist()}
    except BadZipFile as error:
        raise UsageError(f"{path} is no .npz file: {error}", hint="write it with numpy.savez") from error
    return arrays if len(arrays) > 1 else next(iter(arrays.values()), None)
