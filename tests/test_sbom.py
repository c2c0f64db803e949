"""Bills of materials: valid CycloneDX, the same each time, and complete."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import modelkeep as mk
from modelkeep.errors import MissingExtra
from modelkeep.manifest import Environment, Golden, Lineage, Signature, TensorSpec, Transfer
from modelkeep.registry import Registry
from modelkeep.storage import marker
from modelkeep.storage.memory import MemoryStore
from small_versions import publish


@pytest.fixture
def keep() -> mk.Keep:
    """A store with ``bare`` 1.0.0, which says nothing, and ``full`` 1.0.0, which says all there is to say."""
    store = MemoryStore()
    marker.ensure(store)
    registry = Registry(store)
    publish(registry, "bare", "1.0.0")
    publish(
        registry,
        "team/full",
        "1.0.0",
        tensors=[b"weights", b"bias"],
        metrics={"accuracy": 0.9, "f1": {"cat": 0.8}},
        metadata={"license": "Apache-2.0"},
        note="a model",
        environment=Environment(
            python="3.11.9",
            platform="Linux",
            machine="x86_64",
            backend="jax",
            packages={"keras": "3.0.0", "msgspec": metadata.version("msgspec")},
        ),
        lineage=Lineage(
            parent="team/full:0.9.0@blake3:" + "1" * 64,
            data_digest="sha256:" + "2" * 64,
            git_commit="3" * 40,
            parents=("full-run@1200@blake3:" + "4" * 64,),
            transfers=(Transfer(source=f"old.h5: Keras HDF5 (blake3:{'5' * 64})"),),
            run="full-run@1200",
        ),
        signature=Signature(
            inputs=(TensorSpec(name="words", shape=(None, 20), dtype="int32"),),
            outputs=(TensorSpec(name="score", shape=None, dtype="float32"),),
        ),
        golden=Golden(count=4, outputs="golden/0"),
    )
    return mk.open(store)


def component(document: dict[str, Any], name: str) -> dict[str, Any]:
    inner = document["metadata"]["component"]["components"]
    found: dict[str, Any] = next(each for each in [*document["components"], *inner] if each["name"] == name)
    return found


@pytest.mark.parametrize("ref", ["bare", "team/full"])
def test_it_is_valid_cyclonedx(keep: mk.Keep, ref: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(keep.sbom(ref))) is None


def test_it_is_the_same_each_time(keep: mk.Keep) -> None:
    document = keep.sbom("team/full")
    assert document == keep.sbom("team/full")
    assert document["serialNumber"] != keep.sbom("bare")["serialNumber"]
    assert document["metadata"]["timestamp"] == "2024-05-01T00:00:00+00:00"


def test_the_version_is_a_model_with_its_licence_and_where_it_came_from(keep: mk.Keep) -> None:
    model = keep.sbom("team/full")["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "team/full", "1.0.0")
    assert [each["license"]["id"] for each in model["licenses"]] == ["Apache-2.0"]
    assert model["hashes"] == [{"alg": "BLAKE3", "content": keep.resolve("team/full").digest.removeprefix("blake3:")}]
    assert model["pedigree"]["commits"] == [{"uid": "3" * 40}]
    ancestors = {
        each["name"]: (each.get("version"), each["hashes"][0]["content"]) for each in model["pedigree"]["ancestors"]
    }
    assert ancestors == {
        "team/full": ("0.9.0", "1" * 64),
        "full-run": ("1200", "4" * 64),
        f"old.h5: Keras HDF5 (blake3:{'5' * 64})": (None, "5" * 64),
    }
    assert {"name": "modelkeep:run", "value": "full-run@1200"} in model["properties"]


def test_every_file_is_in_it_by_its_digest(keep: mk.Keep) -> None:
    document, manifest = keep.sbom("team/full"), keep.resolve("team/full").manifest
    hashes = {each["hashes"][0]["content"] for each in document["metadata"]["component"]["components"]}
    assert {blob.removeprefix("blake3:") for blob in manifest.blobs()} < hashes
    assert component(document, "config.json")["type"] == "file"


def test_packages_have_a_purl_and_the_licence_of_the_installed_one(keep: mk.Keep) -> None:
    document = keep.sbom("team/full")
    assert component(document, "msgspec")["purl"] == f"pkg:pypi/msgspec@{metadata.version('msgspec')}"
    assert "licenses" in component(document, "msgspec")
    assert component(document, "keras")["type"] == "framework"
    assert "licenses" not in component(document, "keras")  # no 3.0.0 is installed here


def test_metrics_inputs_and_data_are_in_the_model_card(keep: mk.Keep) -> None:
    card = keep.sbom("team/full")["metadata"]["component"]["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "accuracy", "value": "0.9"},
        {"type": "f1.cat", "value": "0.8"},
    ]
    assert card["modelParameters"]["inputs"] == [{"format": "words: int32 (any, 20)"}]
    assert card["modelParameters"]["datasets"] == [{"type": "dataset", "name": "sha256:" + "2" * 64}]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("MIT OR Apache-2.0", 1),
        ("our own terms", 1),
        (["MIT", "our own terms"], 2),
        (["MIT OR Apache-2.0", "MIT"], 1),
        ("", 0),
        (7, 0),
    ],
)
def test_a_licence_may_be_said_in_many_ways(said: Any, kept: int) -> None:
    store = MemoryStore()
    marker.ensure(store)
    publish(Registry(store), "m", "1.0.0", metadata={"license": said})
    document = mk.open(store).sbom("m")
    assert len(document["metadata"]["component"].get("licenses", [])) == kept
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None


def test_without_cyclonedx_the_line_that_installs_it(keep: mk.Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.model.bom", None)
    with pytest.raises(MissingExtra, match=r"pip install 'modelkeep\[sbom\]'"):
        keep.sbom("bare")
