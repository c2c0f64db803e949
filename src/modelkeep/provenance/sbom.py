"""The bill of materials of a version, as CycloneDX 1.6 JSON (https://cyclonedx.org/docs/1.6/json/).

The version is a ``machine-learning-model`` component; its files are parts of it, the packages it was saved with what
it depends on. Serial number and time are the version's own, so a version has one document wherever it is made; only
the licences of packages are those that are installed here in the very version that was recorded.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from modelkeep.errors import MissingExtra
from modelkeep.manifest import Manifest, TensorSpec, encode
from modelkeep.provenance.signing import ref_of

if TYPE_CHECKING:
    from cyclonedx.model import HashType, Property
    from cyclonedx.model.component import Component, Pedigree
    from cyclonedx.model.license import License

FRAMEWORKS = frozenset({"keras", "tensorflow", "jax", "torch", "scikit-learn"})
_DIGEST = re.compile(r"\bblake3:[0-9a-f]{64}\b")
_REF = re.compile(rf"(?P<name>[^:@]+)[:@](?P<version>[^@]+)@{_DIGEST.pattern}")
LONGEST_LICENCE = 100  # characters; what is longer is a licence's text and not its name


def bill(manifest: Manifest, digest: str) -> dict[str, Any]:
    """The document of a version; ``digest`` is its manifest's. Raises MissingExtra without ``cyclonedx-python-lib``."""
    try:
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise MissingExtra("a bill of materials needs CycloneDX", hint="pip install 'modelkeep[sbom]'") from error

    model, packages = _model(manifest, digest), list(_packages(manifest))
    about = BomMetaData(component=model, timestamp=datetime.fromisoformat(manifest.created))
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest), metadata=about, components=packages)
    bom.register_dependency(model, packages)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    # The library has no class for it yet.
    document["metadata"]["component"]["modelCard"] = _card(manifest)
    return document


def _model(manifest: Manifest, digest: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=manifest.model,
        version=manifest.version,
        bom_ref=ref_of(manifest),
        description=manifest.note,
        hashes=[_hash(digest)],
        licenses=_licences(manifest.metadata.get("license")),
        pedigree=_pedigree(manifest),
        components=list(_files(manifest, digest)),
        properties=_properties(
            {
                "kind": manifest.kind,
                "writer": manifest.writer,
                "parameters": manifest.parameters,
                "backend": manifest.environment.backend if manifest.environment else None,
                "source": manifest.lineage.source,
                "run": manifest.lineage.run,
            }
        ),
    )


def _files(manifest: Manifest, digest: str) -> Iterator[Component]:
    """The manifest, each part by its name, and the blobs that hold tensors as a bundle names them."""
    from cyclonedx.model.component import Component, ComponentType

    tensors: dict[str, int] = {}
    for tensor in manifest.tensors:
        for piece in tensor.pieces:
            tensors[piece.blob] = tensors.get(piece.blob, 0) + 1
    files: list[tuple[str, str, dict[str, Any]]] = [("manifest.json", digest, {"bytes": len(encode(manifest))})]
    files += [(part.name, part.digest, {"bytes": part.size}) for part in manifest.parts]
    files += [(f"blobs/{blob.removeprefix('blake3:')}", blob, {"tensors": n}) for blob, n in tensors.items()]
    for name, of, facts in files:
        yield Component(
            type=ComponentType.FILE,
            name=name,
            bom_ref=f"{ref_of(manifest)}/{name}",
            hashes=[_hash(of)],
            properties=_properties(facts),
        )


def _packages(manifest: Manifest) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    environment = manifest.environment
    if environment is None:
        return
    for name, version in {"python": environment.python, **environment.packages}.items():
        purl = PackageURL("generic" if name == "python" else "pypi", name=name, version=version)
        framework = name in FRAMEWORKS
        yield Component(
            type=ComponentType.PLATFORM
            if name == "python"
            else ComponentType.FRAMEWORK
            if framework
            else ComponentType.LIBRARY,
            name=name,
            version=version,
            bom_ref=str(purl),
            purl=purl,
            licenses=_licences(_licence_of(name, version)),
        )


def _pedigree(manifest: Manifest) -> Pedigree | None:
    """What it was trained on from, averaged of, or given weights of; and the commit of the code."""
    from cyclonedx.model.component import Commit, Pedigree

    lineage = manifest.lineage
    commits = [Commit(uid=lineage.git_commit)] if lineage.git_commit else []
    told = (lineage.parent, *lineage.parents, *(transfer.source for transfer in lineage.transfers))
    ancestors = [_ancestor(text) for text in dict.fromkeys(filter(None, told))]
    return Pedigree(ancestors=ancestors, commits=commits) if commits or ancestors else None


def _ancestor(text: str) -> Component:
    """``model:version@blake3:…``, ``run@step@blake3:…``, or a file with its digest somewhere in the text."""
    from cyclonedx.model.component import Component, ComponentType

    ref, digest = _REF.fullmatch(text), _DIGEST.search(text)
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=text if ref is None else ref["name"],
        version=None if ref is None else ref["version"],
        bom_ref=text,
        hashes=[] if digest is None else [_hash(digest[0])],
    )


def _hash(digest: str) -> HashType:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.BLAKE3, content=digest.removeprefix("blake3:"))


def _properties(facts: Mapping[str, Any]) -> list[Property]:
    from cyclonedx.model import Property

    return [Property(name=f"modelkeep:{name}", value=str(value)) for name, value in facts.items() if value]


# --- licences


def _licences(said: Any) -> list[License]:
    """Licences as SPDX ids or expressions where they are, else by name: of a text, or a list of texts."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.license import LicenseExpression

    texts = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    found = [LicenseFactory().make_from_string(text) for text in texts if isinstance(text, str) and text.strip()]
    # CycloneDX 1.6 takes one expression, or any number of single licences.
    return found if len(found) == 1 else [each for each in found if not isinstance(each, LicenseExpression)]


def _licence_of(package: str, version: str) -> str | None:
    """What an installed distribution says of its licence, if it is of that very version."""
    try:
        about = metadata.metadata(package)
    except (metadata.PackageNotFoundError, ValueError):
        return None
    if about["Version"] != version:
        return None
    said = [*about.get_all("License-Expression", []), *about.get_all("License", [])]
    said += [each.rpartition(" :: ")[2] for each in about.get_all("Classifier", []) if each.startswith("License ::")]
    return next((text for text in said if 0 < len(text) <= LONGEST_LICENCE and "\n" not in text), None)


# --- the model card


def _card(manifest: Manifest) -> dict[str, Any]:
    """What CycloneDX keeps of a model beside its files: data, inputs and outputs, metrics."""
    signature, golden = manifest.signature, manifest.golden
    parameters: dict[str, Any] = {
        "inputs": _formats(signature.inputs) if signature else [],
        "outputs": _formats(signature.outputs) if signature else [],
    }
    if manifest.lineage.data_digest:
        parameters["datasets"] = [{"type": "dataset", "name": manifest.lineage.data_digest}]
    metrics = [{"type": name, "value": str(value)} for name, value in _flat(manifest.metrics)]
    examples = [{"name": "modelkeep:golden-examples", "value": str(golden.count)}] if golden else []
    card = {
        "modelParameters": {name: value for name, value in parameters.items() if value},
        "quantitativeAnalysis": {"performanceMetrics": metrics} if metrics else {},
        "properties": examples,
    }
    return {name: value for name, value in card.items() if value}


def _formats(specs: Iterable[TensorSpec]) -> list[dict[str, str]]:
    """``words: int32 (any, 20)``."""
    shapes = {
        spec.name: "any" if spec.shape is None else ", ".join(str(n or "any") for n in spec.shape) for spec in specs
    }
    return [{"format": f"{spec.name}: {spec.dtype} ({shapes[spec.name]})"} for spec in specs]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """``{"f1": {"cat": 0.9}}`` → ``f1.cat``, 0.9."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
