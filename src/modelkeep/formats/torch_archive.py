"""A file of ``torch.save`` since PyTorch 1.6: a zip with a pickle of what was saved and its tensors beside it.

It holds no Keras model. It is told apart so that its pickles can be looked through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from modelkeep.formats.contents import Contents, Member, Problem
from modelkeep.formats.forms import Form, Place
from modelkeep.formats.limits import Limits
from modelkeep.formats.zip_reading import ZipArchive, open_zip

_PICKLE = ".pkl"
_HEADS = (b"\x80", b"(")  # how pickles of protocol 2 and later begin, and most of 0 and 1


def recognise(place: Place) -> bool:
    """Whether a zip holds the pickle of ``torch.save`` or of TorchScript, in whatever folder."""
    return any(name.rpartition("/")[2] == "data.pkl" for name in place.members)


@contextmanager
def read(place: Place, limits: Limits, thorough: bool) -> Iterator[Contents]:
    """Open a file; see :class:`modelkeep.formats.forms.Form`."""
    with open_zip(place.path, limits) as archive:
        names = list(archive.entries)
        if thorough:
            for name in names:
                for _ in archive.chunks(name):
                    pass
        pickles = [name for name in names if _is_pickle(archive, name)]
        code = [name for name in names if name.endswith(".py") and "/code/" in name]
        problems = [Problem("torch-code", f"{name!r} is code of TorchScript", name) for name in code[:1]]
        yield Contents(
            form="torch",
            path=place.path,
            size=place.size,
            members=tuple(Member(name, size) for name, size in archive.sizes.items()),
            pickles=tuple(Member(name, archive.sizes[name], partial(archive.read, name)) for name in pickles),
            problems=(*archive.problems, *problems),
        )


def _is_pickle(archive: ZipArchive, name: str) -> bool:
    # A tensor's bytes lie in data/0, data/1, …; a pickle under another name is one all the same.
    return name.endswith(_PICKLE) or ("/data/" not in name and archive.head(name, 1).startswith(_HEADS))


FORM = Form(
    names=("torch",),
    title="PyTorch file (.pt, .pth)",
    endings=(".pt", ".pth"),
    holds=frozenset(),
    recognise=recognise,
    read=read,
)
