"""Arrays of NumPy in a zip: ``.npz``, each an ``.npy`` under its name."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from modelkeep.errors import IntegrityError, UnsafeContent
from modelkeep.formats import npy
from modelkeep.formats.contents import Contents, ForeignTensor, Member, Problem
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.formats.streams import Chunks, open_regular
from modelkeep.formats.zip_reading import ZipArchive

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_ENDING = ".npy"
_LONGEST_START = 12 + npy.LONGEST_HEADER


@dataclass(frozen=True, slots=True)
class Arrays:
    """What an ``.npz`` holds; its tensors can be read while it is open."""

    tensors: tuple[ForeignTensor, ...]
    members: tuple[Member, ...]  # what is no array
    pickles: tuple[Member, ...]  # what stands in an array of objects
    problems: tuple[Problem, ...]
    optimizer: tuple[ForeignTensor, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@contextmanager
def open_arrays(file: int, limits: Limits, name: str, *, thorough: bool = False) -> Iterator[Arrays]:
    """The arrays in the zip with this descriptor, named for their members; ``thorough`` checks every CRC.

    Raises LimitExceeded, IntegrityError.
    """
    with closing(ZipArchive(file, os.fstat(file).st_size, limits)) as archive:
        limits.check("tensors", len(archive.entries), f"{name} holds too many arrays")
        problems = list(archive.problems)
        tensors, members, pickles = [], [], []
        for member, size in archive.sizes.items():
            if not member.endswith(_ENDING):
                problems.append(Problem("npz-member", f"{member!r} is no array", member))
                members.append(Member(member, size))
                continue
            header = npy.read_header(io.BytesIO(archive.head(member, _LONGEST_START)), member)
            problems.extend(npy.problems_of(header, size, member))
            if header.has_objects:
                pickles.append(Member(member, size - header.length, partial(_behind, archive, member, header.length)))
            elif header.dtype:
                shown = member.removesuffix(_ENDING)
                read = partial(_array, archive, member, header, size)
                tensors.append(ForeignTensor(shown, npy.dtype_name(header), header.shape, header.nbytes, read))
        if thorough:
            for member in archive.entries:
                for _ in archive.chunks(member):
                    pass
        yield Arrays(tuple(tensors), tuple(members), tuple(pickles), tuple(problems))


def _array(archive: ZipArchive, member: str, header: npy.Header, size: int) -> Array:
    if found := npy.problems_of(header, size, member):
        raise UnsafeContent(f"{member} is not read: {found[0].message}")
    stream = Chunks(archive.chunks(member))
    npy.read_header(stream, member)
    array = npy.read_numbers(stream, header, member)
    if stream.read(1):  # and so the CRC is compared, at the end
        raise IntegrityError(f"{member} goes on behind its numbers")
    return array


def _behind(archive: ZipArchive, member: str, start: int) -> bytes:
    return archive.read(member)[start:]


# --- a file of its own


def recognise(place: Place) -> bool:
    """Whether a zip holds arrays of NumPy and nothing else."""
    return bool(place.members) and all(name.endswith(_ENDING) for name in place.members)


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file; see :class:`modelkeep.formats.forms.Form`."""
    file = open_regular(place.path)
    try:
        with open_arrays(file, limits, place.path.name, thorough=thorough) as arrays:
            yield Contents(
                form="npz",
                path=place.path,
                size=place.size,
                tensors=arrays.tensors,
                members=arrays.members,
                pickles=arrays.pickles,
                problems=arrays.problems,
            )
    finally:
        os.close(file)


FORM = Form(
    names=("npz",),
    title="arrays of NumPy (.npz)",
    endings=(".npz",),
    holds=frozenset({"weights"}),
    recognise=recognise,
    read=read,
)
