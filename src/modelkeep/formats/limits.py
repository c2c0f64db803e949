"""How much a foreign file may ask of us. Whatever goes beyond is refused before it is taken."""

from __future__ import annotations

from dataclasses import dataclass, fields

from modelkeep.errors import LimitExceeded

KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that is read of one file; every field may be set, and each default says what it is for."""

    file: int = 20 * GIB  # bytes of the file, or of all files of a folder
    members: int = 10_000  # files in an archive or folder
    name: int = 1_024  # bytes of a member's path
    depth: int = 64  # folders in a path, groups in HDF5, archives in archives count by `nested`
    nested: int = 2  # archives within archives
    config: int = 32 * MIB  # bytes of config.json, model_config, keras_metadata; ResNet50's has 176 kB
    metadata: int = 64 * KIB  # bytes of metadata.json
    asset: int = 32 * MIB  # bytes of a vocabulary that a layer reads, which take some 20 times as much of memory
    json_depth: int = 100  # honest configs have 8 to 12
    json_nodes: int = 2_000_000  # ResNet50: 10,380
    layers: int = 20_000  # at all depths, and calls of them
    sequential: int = 250  # layers of one Sequential model, which Keras builds anew for each: 9 s for so many
    expansion_floor: int = 64 * MIB  # a smaller member may have any ratio: zeros reach 800 to 1 in honest files
    expansion_ratio: int = 100
    objects: int = 50_000  # in HDF5; the largest of Keras' applications has some 7,000 with its optimizer
    attributes: int = 1_000  # of one HDF5 object; Keras 2 splits its long lists over many
    attribute_bytes: int = 64 * MIB
    tensors: int = 200_000
    graph: int = 2 * GIB - 1  # bytes of a protobuf message, which is protobuf's own limit
    nodes: int = 5_000_000  # in a graph and all its functions
    functions: int = 100_000
    constant: int = 256 * MIB  # bytes of one tensor inside a graph
    opcodes: int = 2_000_000  # of a pickle
    seconds: int = 8  # of CPU for one file, and one more for each 100 MB of it
    memory: int = 768 * MIB  # bytes, of the process that looks at the file

    def check(self, limit: str, found: int, what: str) -> None:
        """Raise LimitExceeded, naming the limit, where ``found`` is more than the limit of that name."""
        most = getattr(self, limit)
        if found > most:
            raise LimitExceeded(
                what,
                found=f"{found:,}",
                expected=f"at most {most:,}",
                hint=f"where the file can be trusted, raise the limit {limit!r}",
            )


LIMITS = tuple(field.name for field in fields(Limits))
DEFAULT = Limits()
