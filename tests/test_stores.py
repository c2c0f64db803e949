"""Stores written by every release so far: this one must read all of each, for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import modelkeep as mk
from modelkeep.manifest import encode
from modelkeep.storage.hashing import digest_of

STORES = sorted(path for path in (Path(__file__).parent / "stores").iterdir() if path.is_dir() and path.name.isdigit())


@pytest.fixture(params=STORES, ids=lambda path: f"format {path.name}")
def keep(request: pytest.FixtureRequest, tmp_path: Path) -> mk.Keep:
    shutil.copytree(request.param, tmp_path / "models")
    return mk.open(tmp_path / "models", actor="grace")


def test_there_is_a_store_of_every_format():
    assert [path.name for path in STORES] == ["1"]


def test_its_names_lead_where_they_led(keep):
    assert [model.name for model in keep.models()] == ["team/sentiment"]
    assert [str(version.version) for version in keep.versions("team/sentiment")] == ["1.0.0", "1.1.0", "2.0.0-rc.1"]
    assert keep.resolve("team/sentiment").ref == "team/sentiment:1.1.0"
    assert keep.resolve("team/sentiment@production").ref == "team/sentiment:1.0.0"
    assert [version.ref for version in keep.search("accuracy < 0.85 and metadata.dataset == 'two films'")] == [
        "team/sentiment:1.0.0"
    ]


def test_every_byte_of_it_verifies(keep):
    assert keep.fsck().ok
    for version in keep.versions("team/sentiment"):
        keep.verify(version.ref).raise_for_failures()


def test_its_manifests_give_the_same_bytes_again(keep):
    versions = keep.versions("team/sentiment")
    assert [digest_of(encode(version.manifest)) for version in versions] == [version.digest for version in versions]


def test_it_can_be_written_to(keep):
    keep.promote("team/sentiment:1.1.0", "production")
    assert keep.rollback("team/sentiment@production").ref == "team/sentiment:1.0.0"


@pytest.mark.keras
def test_its_models_answer_as_they_did(keep):
    keep.verify("team/sentiment:1.1.0", live=True).raise_for_failures()
    assert keep.load("team/sentiment@production").predict(["a fine film"])[0]["label"] in {"negative", "positive"}
