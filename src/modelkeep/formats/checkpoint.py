"""TensorFlow's checkpoint: a tensor bundle, ``ckpt-1.index`` with its data files, or the folder that lists several.

A folder has a text file ``checkpoint`` whose first line names the newest (tensorflow/python/training/
checkpoint_state.proto); ``model.meta`` beside the tensors is a graph of TensorFlow 1, and is not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelkeep.errors import IntegrityError
from modelkeep.formats.checkpointed import read_checkpointed
from modelkeep.formats.contents import Contents
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import KIB, Limits
from modelkeep.formats.mapped import MappedFile
from modelkeep.formats.object_graph import KEY
from modelkeep.formats.sorted_table import is_table
from modelkeep.formats.tensor_bundle import open_bundle

STATE = "checkpoint"
INDEX = ".index"
_NEWEST = re.compile(r'^model_checkpoint_path: "((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
_HEADER = b"\0\0"  # the first key of the table is empty
_LONGEST = 64 * KIB  # bytes of the state


def recognise(place: Place) -> bool:
    """Whether a file is the index of a checkpoint, or a folder names its newest one."""
    if place.is_folder:
        named = STATE in place.names and any(name.endswith(INDEX) for name in place.names)
        return named or _only_index(place) is not None
    return place.head.startswith(_HEADER) and _tail_is_table(place)


def _tail_is_table(place: Place) -> bool:
    with place.path.open("rb") as file:
        file.seek(-min(8, place.size), os.SEEK_END)
        return is_table(file.read(8))


def _only_index(place: Place) -> str | None:
    """The index in a folder that holds one checkpoint and no word of which is the newest."""
    found = [name for name in place.names if name.endswith(INDEX)]
    if len(found) != 1 or STATE in place.names:
        return None
    data = f"{found[0].removesuffix(INDEX)}.data-00000-of-"
    return found[0] if any(name.startswith(data) for name in place.names) else None


def _prefix(index: Path) -> Path:
    name = index.name.removesuffix(INDEX)
    return index.with_name(name) if name else index


def prefix_of(place: Place) -> Path:
    """What the files of the checkpoint begin with; in a folder those of the newest one.

    Raises IntegrityError where the folder's state names none that is in the folder.
    """
    if not place.is_folder:
        if not place.path.name.endswith(INDEX):
            raise IntegrityError(
                f"{place.path.name} is the index of a checkpoint under another name",
                expected=f"a name that ends in {INDEX}",
                hint="its data files are found by that name; rename all of them alike",
            )
        return _prefix(place.path)
    alone = _only_index(place)
    if alone is not None:
        return _prefix(place.path / alone)
    state = MappedFile(place.path / STATE)
    try:
        written = bytes(state.pread(0, min(state.size, _LONGEST))).decode(errors="replace")
    finally:
        state.close()
    found = _NEWEST.search(written)
    # A path may be absolute and of another machine; the folder is what was given, and nothing outside it is read.
    name = re.split(r"[/\\]", found[1])[-1] if found else ""
    if f"{name}{INDEX}" not in place.names or not name:
        raise IntegrityError(
            f"the file {STATE!r} names no checkpoint of its folder",
            found=repr(found[1][:200] if found else written[:80]),
            hint="give the path of one checkpoint: …/ckpt-1",
        )
    return place.path / name


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a checkpoint; see :class:`modelkeep.formats.forms.Form`."""
    prefix = prefix_of(place)
    with open_bundle(prefix, limits) as bundle:
        held = read_checkpointed(bundle, limits)
        yield Contents(
            form="tf_checkpoint",
            path=prefix,
            size=bundle.size,
            tensors=held.tensors,
            optimizer=held.training,
            details={**held.details, "object_based": KEY in bundle.entries},
            problems=(*bundle.problems, *(bundle.check() if thorough else ())),
        )


FORM = Form(
    names=("tf_checkpoint",),
    title="checkpoint of TensorFlow (.index and .data)",
    endings=(INDEX,),
    holds=frozenset({"weights", "optimizer"}),
    recognise=recognise,
    read=read,
)
