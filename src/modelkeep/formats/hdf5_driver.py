"""What the HDF5 library reads a file through: every byte that it gets passes here first."""

from __future__ import annotations

import os
from typing import Any

from modelkeep.errors import MissingExtra
from modelkeep.formats.superblock import Stream


class Driver:
    """A stream as h5py reads files: every read gives all bytes asked for, and zeros beyond the end.

    It looks for what the library does not survive. While ``no_heaps`` is true, no global heap may be read at
    all. Such heaps hold texts of any length, which are read when they are asked for, and what virtual datasets
    are made of, which is read, and trusted, as soon as one is opened; ``heap_refused`` tells that this happened.
    """

    def __init__(self, stream: Stream) -> None:
        self.no_heaps = True
        self.heap_refused = False
        self._stream = stream
        self._size = stream.seek(0, os.SEEK_END)
        self._at = 0

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
        if bytes(view[:4]) == b"GCOL":
            self._check_heap(self._at)
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
