"""How a dataset of HDF5 lies in its file, compared with what it declares."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

from modelkeep.errors import IntegrityError
from modelkeep.formats.limits import Limits

# A rule that the storage breaks, and what was found.
Fault = tuple[str, str]

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_CHECKSUM = 4  # bytes of Fletcher's


def reaching_outside(dataset: Any) -> Iterator[Fault]:
    """What would make HDF5 read another file, or load code, to read an ``h5py.h5d.DatasetID``."""
    plist = dataset.get_create_plist()
    if plist.get_external_count():
        file = plist.get_external(0)[0][:200].decode(errors="backslashreplace")
        yield "hdf5-external-storage", f"its values are the bytes of {file!r}"
    filters = _filters(plist)
    if set(filters) - {_DEFLATE, _SHUFFLE, _FLETCHER32} or len(filters) != len(set(filters)):
        yield "hdf5-filter", f"packed by the filters {', '.join(map(str, filters))}"


def measure(
    dataset: Any, nbytes: int, size: int, limits: Limits, place: str, *, thorough: bool
) -> tuple[int, list[Fault]]:
    """Bytes that a dataset of ``nbytes`` takes in a file of ``size`` bytes, and the rules that it breaks.

    ``thorough`` inflates what is deflated. Raises IntegrityError, naming the place, where it reaches beyond the end
    of the file; LimitExceeded for too many chunks.
    """
    from h5py import h5d

    plist = dataset.get_create_plist()
    if plist.get_layout() == h5d.CHUNKED:
        chunks = _Chunks(dataset, plist, nbytes, limits, place)
        end = max(((chunk.byte_offset or 0) + chunk.size for chunk in chunks.found), default=0)
        stored, faults = sum(chunk.size for chunk in chunks.found), [*chunks.faults(thorough)]
    else:
        offset = dataset.get_offset()
        missing = offset is None and plist.get_layout() == h5d.CONTIGUOUS
        stored, faults = 0 if missing else dataset.get_storage_size(), []
        end = (offset or 0) + stored
    if end > size:
        raise IntegrityError(f"{place} reaches beyond the end", found=f"byte {end:,}", expected=f"at most {size:,}")
    if nbytes and not stored:
        faults.append(("hdf5-unwritten", "declared and never written: it reads as zeros"))
    if nbytes > limits.expansion_floor and nbytes > limits.expansion_ratio * stored:
        faults.append(("hdf5-declared-size", f"declares {nbytes:,} bytes and stores {stored:,}"))
    return stored, faults


class _Chunks:
    """The chunks of one dataset."""

    def __init__(self, dataset: Any, plist: Any, nbytes: int, limits: Limits, place: str) -> None:
        # HDF5 divides by the chunk's lengths without asking whether there are as many as the shape has.
        steps = list(zip(dataset.shape, plist.get_chunk(), strict=True))
        self._unpacked = math.prod(step for _, step in steps) * dataset.get_type().get_size()
        self._expected = math.prod(-(-length // step) for length, step in steps)
        self._dataset, self._filters, self._nbytes = dataset, _filters(plist), nbytes
        self._floor = limits.expansion_floor
        self.found = self._listed(limits, place)

    def _listed(self, limits: Limits, place: str) -> list[Any]:
        found: list[Any] = []
        most = min(self._expected, limits.objects)

        def add(chunk: Any) -> bool | None:
            found.append(chunk)
            return True if len(found) > most else None

        self._dataset.chunk_iter(add)
        limits.check("objects", len(found), f"{place} has too many chunks")
        return found

    def faults(self, thorough: bool) -> Iterator[Fault]:
        """The rules that they break."""
        if self._unpacked > max(self._nbytes, self._floor):
            yield "hdf5-chunk", f"chunks of {self._unpacked:,} bytes for {self._nbytes:,} bytes of values"
        if len(self.found) > self._expected:
            yield "hdf5-chunk", f"more than the {self._expected:,} chunks that its shape needs"
        elif 0 < len(self.found) < self._expected:
            yield "hdf5-unwritten", f"only {len(self.found):,} of {self._expected:,} chunks were written"
        odd = next((chunk for chunk in self.found if not self._may_take(chunk)), None)
        if odd is not None:
            yield "hdf5-chunk", f"a chunk of {self._unpacked:,} bytes takes {odd.size:,}"
        elif thorough and self._filters:
            sizes = ((chunk, self._inflated(chunk)) for chunk in self.found)
            if wrong := next((size for _, size in sizes if size != self._unpacked), None):
                held = "over" if wrong > self._unpacked else "only"
                yield "hdf5-chunk", f"a chunk of {self._unpacked:,} bytes holds {held} {min(wrong, self._unpacked):,}"

    def _may_take(self, chunk: Any) -> bool:
        """Whether a chunk's size in the file is possible. HDF5 copies that many bytes into room for a whole chunk."""
        checksum = _CHECKSUM if _FLETCHER32 in self._applied(chunk) else 0
        if _DEFLATE not in self._applied(chunk):
            return bool(chunk.size == self._unpacked + checksum)
        # Deflate adds five bytes for each 16 KiB that it cannot shrink.
        return bool(chunk.size <= self._unpacked + self._unpacked // 1000 + 64)

    def _applied(self, chunk: Any) -> list[int]:
        return [one for index, one in enumerate(self._filters) if not chunk.filter_mask & 1 << index]

    def _inflated(self, chunk: Any) -> int:
        """Bytes that a chunk unpacks to, or a few more than it may: HDF5 itself inflates whatever is there."""
        data = bytes(self._dataset.read_direct_chunk(chunk.chunk_offset)[1])
        for one in reversed(self._applied(chunk)):
            if one == _FLETCHER32:
                data = data[:-_CHECKSUM]
            elif one == _DEFLATE:
                data = zlib.decompressobj().decompress(data, self._unpacked + 2 * _CHECKSUM)
        return len(data)


def _filters(plist: Any) -> list[int]:
    """In the order in which they were applied."""
    return [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
