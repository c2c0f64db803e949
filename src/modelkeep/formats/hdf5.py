"""An HDF5 file walked without trust: its own groups, datasets and attributes, and nothing outside it.

HDF5 can name other files in five ways (soft, external and user-defined links, external storage, virtual
datasets), load code (filter plugins), and declare more than it holds. So every link is asked what it is
before it is followed, and only hard links are; every count and size is compared before anything is read;
and a dataset is read through HDF5 only where its layout, filters and type are those of a weights file.
What is found otherwise becomes a ``Problem``, and is left alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from modelkeep.errors import IntegrityError, LimitExceeded, MissingExtra, ModelkeepError, UnsafeContent
from modelkeep.formats import hdf5_storage, hdf5_types, superblock
from modelkeep.formats.contents import Problem
from modelkeep.formats.hdf5_driver import Driver
from modelkeep.formats.hdf5_storage import Fault
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.formats.superblock import Stream

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

# JSON values; bytes are text. None is an empty attribute, or one that was not read, which a problem tells.
Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dataset:
    """One array in an HDF5 file, by its path there: ``layers/dense/vars/0``.

    ``dtype`` is NumPy's or ml_dtypes' word (``float32``, ``bool``, ``bfloat16``; ``V1``, ``V2`` for bytes of
    no known type), or HDF5's (``string``, ``reference``, …) for what is no array of numbers and is not read.
    ``stored`` is the number of bytes that it takes in the file. ``read`` raises UnsafeContent where a problem
    with the dataset forbids it, LimitExceeded where memory does not suffice, IntegrityError.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    stored: int
    attributes: Attributes
    read: Callable[[], Array] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Tree:
    """All that an HDF5 file holds. Groups by path (the root's is empty) with their attributes; datasets by path."""

    groups: dict[str, Attributes] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@contextmanager
def open_stream(
    stream: Stream, limits: Limits = DEFAULT, name: str = "the file", *, thorough: bool = False
) -> Iterator[Tree]:
    """Walk an HDF5 file in a stream that can be sought and read; its datasets can be read until the block ends.

    The stream may be a ``ByteRange``: an HDF5 file that lies stored in another one is read in place.
    ``name`` says which file it is, in errors and as the place of problems. ``thorough`` also unpacks every
    compressed chunk. Raises LimitExceeded, IntegrityError, MissingExtra without h5py.
    """
    size = stream.seek(0, os.SEEK_END)
    limits.check("file", size, f"{name} is too large")
    block = superblock.read(stream, size, name)
    driver = Driver(stream, block.start)
    with _damage_told(name):
        file = driver.open()
    try:
        walk = _Walk(driver, limits, name, size, thorough)
        walk.tree.problems.extend(superblock.problems(block, size, name))
        with _damage_told(name):
            walk.all_of(file)
        yield walk.tree
    finally:
        file.close()


class _Walk:
    """One pass over a file: what was seen, and how much of it."""

    def __init__(self, driver: Driver, limits: Limits, name: str, size: int, thorough: bool) -> None:
        self.tree = Tree()
        self._driver, self._limits, self._name, self._size, self._thorough = driver, limits, name, size, thorough
        self._seen: dict[int, str] = {}  # the path of each object, by its address; none is in another file

    def problem(self, rule: str, message: str, path: str = "") -> None:
        self.tree.problems.append(Problem(rule, message, f"{self._name}:/{path}"))

    def all_of(self, file: Any) -> None:
        """Every object that hard links lead to, from the root on."""
        groups, datasets = self._opened(file)
        # Only now: the library keeps a heap that it has read, and the driver would not see it being read again.
        self._driver.no_heaps = False
        self.tree.groups.update((path, self._attributes(group, path)) for path, group in groups)
        for path, dataset in datasets:
            self._take(dataset, path)
        self._check_totals()

    def _opened(self, file: Any) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        """All groups and all datasets, with their paths; each was opened, and nothing else was done to it."""
        from h5py import h5d, h5g, h5o

        root = h5o.open(file, b"/")
        self._seen[h5o.get_info(root).addr] = ""
        groups, datasets, waiting = [], [], [("", root)]
        while waiting:
            path, group = waiting.pop()
            groups.append((path, group))
            links = self._links(group, path)
            found = [(inner, self._followed(group, inner, name, kind, at)) for inner, name, kind, at in links]
            datasets += [one for one in found if isinstance(one[1], h5d.DatasetID)]
            waiting += reversed([one for one in found if isinstance(one[1], h5g.GroupID)])
        return groups, datasets

    def _links(self, group: Any, path: str) -> list[tuple[str, bytes, int, int]]:
        """What a group holds: path and name, the kind of the link and, of a hard one, the address of its object."""
        from h5py import h5

        room = self._limits.objects - len(self._seen)
        found: list[tuple[bytes, int, int]] = []

        def add(name: bytes, link: Any) -> bool | None:
            found.append((name, link.type, link.u))
            return True if len(found) > room else None

        # In native order the index is read as it lies: sorting it first would trust its size.
        group.links.iterate(add, info=True, order=h5.ITER_NATIVE)
        self._limits.check("objects", len(self._seen) + len(found), f"{self._name} holds too many objects")
        self._limits.check("depth", path.count("/") + 1, f"{self._name} nests its groups too deep")
        links = [(f"{path}/{_text(name)}".lstrip("/"), name, kind, address) for name, kind, address in sorted(found)]
        for (one, *_), (other, *_) in pairwise(sorted(links)):
            if one == other:
                self.problem("hdf5-name", "two links of one name: readers differ in which they follow", one)
        return links

    def _followed(self, group: Any, path: str, name: bytes, link: int, address: int) -> Any:
        """The object that a link leads to, if it is a hard link and leads to a group or dataset not seen before."""
        from h5py import h5d, h5g, h5l

        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            self.problem("hdf5-name", f"a link is named {name[:80]!r}", path)
        elif link == h5l.TYPE_SOFT:
            target = group.links.get_val(name)
            self.problem("hdf5-soft-link", f"a soft link to {_text(target[:200])!r}", path)
        elif link == h5l.TYPE_EXTERNAL:
            file, target = group.links.get_val(name)
            self.problem("hdf5-external-link", f"a link to {_text(target[:200])!r} in {_text(file[:200])!r}", path)
        elif link != h5l.TYPE_HARD:
            self.problem("hdf5-user-link", f"a link of the user-defined kind {link}", path)
        elif address in self._seen:
            self.problem("hdf5-shared-object", f"it is /{self._seen[address]} once more", path)
        else:
            self._seen[address] = path
            found = self._at(group, path, name)
            if found is None or isinstance(found, h5g.GroupID | h5d.DatasetID):
                return found
            self.problem("hdf5-object", "neither a group nor a dataset", path)
        return None

    def _at(self, group: Any, path: str, name: bytes) -> Any:
        """The object of that name; None for a virtual dataset, whose parts lie in a heap."""
        from h5py import h5d, h5o

        try:
            found = h5o.open(group, name)
        except Exception:  # whatever h5py makes of the driver's refusal
            if not self._driver.heap_refused:
                raise
            self._driver.heap_refused = False
        else:
            if not isinstance(found, h5d.DatasetID) or found.get_create_plist().get_layout() != h5d.VIRTUAL:
                return found
        self.problem("hdf5-virtual-dataset", "its values are those of other datasets or files", path)
        return None

    def _take(self, dataset: Any, path: str) -> None:
        """Describe a dataset. Whether reading it would lead outside is found before anything else is asked."""
        attributes = self._attributes(dataset, path)
        faults = [*hdf5_storage.reaching_outside(dataset)]
        dtype, memory_type = hdf5_types.word_for(dataset.get_type(), attributes)
        if rule := hdf5_types.rule_of(dtype):
            faults.append((rule, f"a dataset of type {dtype}"))
        shape = dataset.shape
        if shape is None:
            faults.append(("hdf5-type", "a dataset without a dataspace"))
            shape = ()
        nbytes, stored = math.prod(shape) * dataset.get_type().get_size(), 0
        if not _forbidding(faults):
            place = f"/{path} in {self._name}"
            stored, more = hdf5_storage.measure(
                dataset, nbytes, self._size, self._limits, place, thorough=self._thorough
            )
            faults += more
        for rule, message in faults:
            self.problem(rule, message, path)
        rule = _forbidding(faults)
        read = partial(_refuse, path, rule) if rule else partial(_read, dataset, path, dtype, memory_type)
        self.tree.datasets[path] = Dataset(path, dtype, shape, nbytes, stored, attributes, read)

    def _check_totals(self) -> None:
        datasets = self.tree.datasets.values()
        declared, stored = sum(one.nbytes for one in datasets), sum(one.stored for one in datasets)
        if stored > self._size:
            self.problem("hdf5-overlap", f"its datasets claim {stored:,} of {self._size:,} bytes")
        floor = 4 * self._limits.expansion_floor
        if declared > floor and declared > self._limits.expansion_ratio * stored:
            self.problem("hdf5-declared-size", f"its datasets declare {declared:,} bytes and store {stored:,}")

    def _attributes(self, owner: Any, path: str) -> Attributes:
        """All attributes of an object that are text or numbers, as JSON values."""
        from h5py import h5, h5a

        place = f"/{path} in {self._name}"
        self._limits.check("attributes", h5a.get_num_attrs(owner), f"{place} has too many attributes")
        sizes: dict[bytes, int] = {}

        def add(name: bytes, info: Any) -> bool | None:
            sizes[name] = info.data_size
            return True if len(sizes) > self._limits.attributes else None

        h5a.iterate(owner, add, info=True, order=h5.ITER_NATIVE)
        self._limits.check("attributes", len(sizes), f"{place} has too many attributes")
        self._limits.check("attribute_bytes", sum(sizes.values()), f"{place} has too long attributes")
        values: dict[str, Any] = {}
        for name in sorted(sizes):
            values[_text(name)] = None
            try:
                values[_text(name)] = _value(h5a.open(owner, name), self._limits)
            except _OddAttribute as odd:
                self.problem("hdf5-attribute", f"the attribute {_text(name)!r} is {odd}", path)
        return values


# --- attributes


class _OddAttribute(Exception):
    """An attribute that no writer of models makes."""


def _value(attribute: Any, limits: Limits) -> Any:
    import numpy as np
    from h5py import h5s, h5t

    if attribute.get_space().get_simple_extent_type() == h5s.NULL:
        return None
    stored_type = attribute.get_type()
    word, memory_type = hdf5_types.word_for(stored_type, {})
    if word != "string" and not hdf5_types.is_number(word):
        raise _OddAttribute(f"of type {word}")
    size = math.prod(attribute.shape) * stored_type.get_size()
    limits.check("attribute_bytes", size, "an attribute is too long")
    limits.check("objects", math.prod(attribute.shape), "an attribute has too many values")
    if word != "string":
        array = np.empty(attribute.shape, word)
        attribute.read(array, memory_type)
        return array.tolist()
    array = np.empty(attribute.shape, stored_type.dtype)
    attribute.read(array, h5t.py_create(stored_type.dtype))
    return _decoded(array.tolist())


def _decoded(value: Any) -> Any:
    """Text for bytes, in lists of any depth that an array can have."""
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise _OddAttribute("no UTF-8 text") from error


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


# --- reading

# Whoever allows such a rule may open the file; the dataset is not read even then.
_FORBIDDING = {"hdf5-external-storage", "hdf5-filter", "hdf5-type", "hdf5-string-dataset", "hdf5-chunk"}


def _forbidding(faults: list[Fault]) -> str | None:
    return next((rule for rule, _ in faults if rule in _FORBIDDING), None)


def _read(opened: Any, path: str, dtype: str, memory_type: Any) -> Array:
    import numpy as np
    from h5py import h5s

    raw = dtype == "bfloat16" or dtype.startswith("V")
    with _damage_told(f"/{path}"):
        array = np.empty(opened.shape, f"V{memory_type.get_size()}" if raw else dtype)
        if array.size:
            opened.read(h5s.ALL, h5s.ALL, array, memory_type)
        return array.view(_bfloat16()) if dtype == "bfloat16" else array


def _bfloat16() -> Any:
    try:
        import ml_dtypes
    except ImportError as error:
        raise MissingExtra("bfloat16 needs ml_dtypes", hint="pip install 'modelkeep[files]'") from error
    return ml_dtypes.bfloat16


def _refuse(path: str, rule: str) -> Array:
    raise UnsafeContent(f"/{path} is not read", found=rule, hint="no writer of models makes such a dataset")


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    try:
        yield
    except (ModelkeepError, MemoryError) as error:
        if isinstance(error, MemoryError):
            raise LimitExceeded(f"{name} declares more than fits into memory") from error
        raise
    except Exception as error:  # h5py tells of damaged bytes by a dozen kinds of errors
        raise IntegrityError(f"{name} is damaged: {str(error)[:300]}", hint="get it again") from error
