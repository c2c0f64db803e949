"""What the HDF5 library reads a file through: every byte that it gets passes here first."""

from __future__ import annotations

import os
from typing import Any

from modelkeep.errors import MissingExtra
from modelkeep.formats.superblock import Stream

_GROUP_KEY = 8  # bytes
_CHILDREN = 64  # room in a node for chunks, of any rank
_ADDRESSES = _CHILDREN * 8  # bytes


class Driver:
    """A stream as h5py reads files: every read gives all bytes asked for, and zeros beyond the end.

    It looks for what the library does not survive. While ``no_heaps`` is true, no global heap may be read at
    all. Such heaps hold texts of any length, which are read when they are asked for, and what virtual datasets
    are made of, which is read, and trusted, as soon as one is opened; ``heap_refused`` tells that this happened.
    """

    def __init__(self, stream: Stream, base: int = 0) -> None:
        """``base`` is the place that addresses in the file count from."""
        self.no_heaps = True
        self.heap_refused = False
        self._stream, self._base = stream, base
        self._size = stream.seek(0, os.SEEK_END)
        self._at = 0
        self._levels: dict[int, int] = {}  # of a B-tree's nodes, by their addresses
        self._checked: set[int] = set()

    def open(self) -> Any:
        """The ``h5py.h5f.FileID`` of the file. Raises MissingExtra, and whatever h5py does where it is damaged."""
        try:
            from h5py import h5f, h5fd, h5p
        except ImportError as error:
            raise MissingExtra("reading HDF5 files needs h5py", hint="pip install 'modelkeep[files]'") from error
        access = h5p.create(h5p.FILE_ACCESS)
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        access.set_fileobj_driver(h5fd.fileobj_driver, self)
        return h5f.open(b"modelkeep", h5f.ACC_RDONLY, access)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, counted from the start or from the end, for the next read."""
        self._at = offset + (self._size if whence == os.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        """The place of the next read."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Raises OSError, which the library takes for a file that cannot be read."""
        view = memoryview(buffer).cast("B")
        self._fill(view, self._at)
        mark = bytes(view[:4])
        if mark == b"GCOL":
            self._check_heap(self._at)
        elif mark == b"TREE":
            self._check_node(self._at - self._base, view)
        return len(view)

    def _fill(self, view: memoryview, at: int) -> None:
        inside = max(0, min(len(view), self._size - at))
        view[inside:] = bytes(len(view) - inside)
        rest = view[:inside]
        self._stream.seek(at)
        while rest:
            count = self._stream.readinto(rest)  # type: ignore[union-attr]
            if not count:
                raise OSError("the file was cut while it was read")
            rest = rest[count:]

    def _check_heap(self, at: int) -> None:
        """A global heap must step forwards: the library goes round a step of 0 for ever.

        Section III.E of the HDF5 File Format Specification: 16 bytes with the size of the heap, then objects, each
        with its index and its size, padded to 8 bytes. Index 0 is free space, whose size counts its own 16 bytes.
        """
        if self.no_heaps:
            self.heap_refused = True
            raise OSError("a global heap is read where none should be")
        header = bytearray(16)
        self._fill(memoryview(header), at)
        size = int.from_bytes(header[8:], "little")
        if not 16 <= size <= self._size - at:
            raise OSError("a global heap reaches beyond the end of the file")
        heap = bytearray(size)
        self._fill(memoryview(heap), at)
        place = 16
        while place + 16 <= size:
            length = int.from_bytes(heap[place + 8 : place + 16], "little")
            step = 16 + (length + 7 & -8) if heap[place : place + 2] != b"\0\0" else length
            if not 16 <= step <= size - place:
                raise OSError(f"the global heap at byte {at:,} is damaged")
            place += step

    def _check_node(self, address: int, node: memoryview) -> None:
        """The nodes of a B-tree must form a tree: the library follows one that leads to itself until its stack ends.

        Section III.A.1: 24 bytes, of which the fifth is the kind (groups or chunks), then level and number of
        children, then keys and the children's addresses in turn. Each child is one level below, and has one parent.
        """
        if address in self._checked:
            return
        self._checked.add(address)
        level, count = node[5], int.from_bytes(node[6:8], "little")
        step = 8 + (_GROUP_KEY if node[4] == 0 else (len(node) - 24 - _ADDRESSES) // (_CHILDREN + 1))
        places = range(16 + step, 16 + step * (count + 1), step)
        if self._levels.setdefault(address, level) != level or 24 + step * count > len(node):
            raise OSError(f"the B-tree node at byte {address:,} is damaged")
        for place in places if level else ():
            child = int.from_bytes(node[place : place + 8], "little")
            if child in self._levels:
                raise OSError(f"the B-tree node at byte {address:,} leads to another one's child, or in a circle")
            self._levels[child] = level - 1
