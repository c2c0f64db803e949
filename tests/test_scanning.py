"""Every hostile file is refused for its own reason, and runs, writes and takes nothing; no honest one is refused."""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hostile
import hostile_zips
from hostile import CANARY, CORPUS, archive, dense, layer, network, whole_h5
from modelkeep.errors import NotFound, UnsafeContent, UsageError
from modelkeep.formats.limits import DEFAULT, MIB, Limits
from modelkeep.report import Severity
from modelkeep.safety import sandbox
from modelkeep.safety.rules import RULES, Level
from modelkeep.safety.scanning import Scan, digest_of, scan, scan_here

HERE = Path(__file__).parent
ENDINGS = (".h5", ".hdf5", ".keras", ".index", ".pb", ".tflite", ".onnx")
FOREIGN = sorted(
    {
        file.parent if file.name.endswith(".pb") else file
        for file in (HERE / "foreign").rglob("*")
        if file.name.endswith(ENDINGS) and file.parent.name != "variables"
    }
)
BACKENDS = {"jax", "keras", "tensorflow", "tf_keras", "torch"}
GB = 10**9
GREEDY = (
    "config_of_spaces",
    "layer_of_gigabytes",
    "member_of_zeros",
    "members_that_overlap",
    "nested_json",
    "pickle_of_many_opcodes",
    "pickle_of_packed_zeros",
    "tar_of_zeros",
    "too_many_members",
    "values_that_are_not_there",
)
LIGHT = [name for name in CORPUS if name not in GREEDY]
# Of each kind of file; the rest is scanned in this very process.
CONFINED = (
    "lambda_in_keras",
    "lambda_in_h5",
    "lambda_in_the_metadata_of_a_saved_model",
    "architecture_of_terabytes",
    "values_in_another_file",
    "graph_that_writes",
    "pickle_of_protocol_4",
    "joblib_with_objects",
    "npy_of_objects",
    "npz_of_objects",
    "torch_archive",
    "tensors_that_overlap",
    "tar_with_a_link",
    "zip_outside",
    "yaml_that_calls",
    "onnx_that_runs_python",
    "xml_that_reads_a_file",
    "empty_file",
)


def rules(found: Scan) -> set[str]:
    return {finding.rule for finding in found.findings}


def seconds_of_children() -> float:
    """Of CPU: other programs on this machine do not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- hostile files


@pytest.mark.parametrize("name", CONFINED)
def test_a_hostile_file_is_refused_for_its_own_reason_and_does_nothing(name: str, tmp_path: Path) -> None:
    path = CORPUS[name].write(tmp_path / "files")
    before, began = tree(tmp_path), seconds_of_children()
    found = scan(path)
    assert seconds_of_children() - began < 10
    assert CORPUS[name].rule in rules(found), str(found)
    assert not found.ok
    assert not (path.parent / CANARY).exists()
    assert tree(tmp_path) == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", GREEDY)
def test_a_file_that_asks_for_much_does_not_get_it(name: str, tmp_path: Path) -> None:
    path, began = CORPUS[name].write(tmp_path), seconds_of_children()
    assert sandbox.call("looking:peak", path, {"rule": CORPUS[name].rule}) < GB
    assert seconds_of_children() - began < 10


@pytest.mark.parametrize("name", LIGHT)
def test_where_nothing_confines_the_process_it_does_nothing_either(name: str, tmp_path: Path) -> None:
    path = CORPUS[name].write(tmp_path / "files")
    before = tree(tmp_path)
    told = scan_here(path, limits=DEFAULT)
    assert CORPUS[name].rule in {problem[0] for problem in told["problems"]}
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["lambda_in_keras", "lambda_in_h5", "pickle_of_protocol_4", "tar_outside", "yaml_that_calls"]
)
def test_no_backend_is_imported_to_find_it(name: str, tmp_path: Path) -> None:
    import subprocess

    path = CORPUS[name].write(tmp_path / "files")
    script = (
        "import sys; from pathlib import Path\n"
        "from modelkeep.formats.limits import DEFAULT; from modelkeep.safety.scanning import scan_here\n"
        "scan_here(Path(sys.argv[1]), limits=DEFAULT); print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert not BACKENDS & set(done.stdout.split())


# --- honest files


def honest_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"classes": ["a", "b"], "mean": np.ones(3), "counts": OrderedDict(a=1)}))


def honest_torch(path: Path) -> None:
    data = {"model/data.pkl": pickle.dumps(OrderedDict(), 2), "model/version": b"3\n", "model/byteorder": b"little"}
    path.write_bytes(hostile_zips.honest(data))


def honest_tar(path: Path) -> None:
    archive(path.with_name("model.keras"))
    with tarfile.open(path, "w:gz") as file:
        file.add(path.with_name("model.keras"), "model.keras")


def honest_zip(path: Path) -> None:
    archive(path.with_name("model.keras"))
    path.write_bytes(hostile_zips.honest({"model.keras": path.with_name("model.keras").read_bytes()}))


HONEST: dict[str, Callable[[Path], object]] = {
    "model.keras": archive,
    "old.h5": whole_h5,
    "old.keras": whole_h5,  # TensorFlow 2.12 wrote HDF5 under this name
    "model.weights.h5": lambda path: path.write_bytes(hostile.weights()),
    "model.json": lambda path: path.write_text(json.dumps(network(dense()))),
    "array.npy": lambda path: np.save(path, np.ones(3)),
    "arrays.npz": lambda path: np.savez(path, a=np.ones(3), b=np.array(["text"])),
    "values.pkl": honest_pickle,
    "model.pt": honest_torch,
    "model.tar.gz": honest_tar,
    "model.zip": honest_zip,
    "served": hostile.saved_model,
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_file_is_not_refused(name: str, tmp_path: Path) -> None:
    HONEST[name](tmp_path / name)
    found = scan(tmp_path / name)
    assert found.ok, str(found)
    assert found.form
    assert not rules(found) & {"not-scanned", "unknown-form"}


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_of_an_older_keras_is_not_refused(path: Path) -> None:
    told = scan_here(path, limits=DEFAULT)
    assert told["form"] is not None
    levels = {RULES[rule].level for rule, _, _ in told["problems"]}
    assert levels <= {Level.MEDIUM, Level.LOW}, told["problems"]


# --- the answer


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    path = tmp_path / "evil.keras"
    archive(path, network(layer("keras.utils", "get_file"), layer("mine", "Mine", "Mine")))
    return path


def test_a_rule_may_be_allowed_by_name(evil: Path) -> None:
    assert not scan(evil).ok
    found = scan(evil, allow=["gadget"])
    assert found.ok
    assert [finding.rule for finding in found.findings if finding.allowed] == ["gadget"]


def test_a_strict_scan_refuses_what_is_of_medium_level(evil: Path) -> None:
    found = scan(evil, allow=["gadget"], strict=True)
    assert [finding.rule for finding in found.refused] == ["custom-object"]


def test_a_rule_that_is_not_there_cannot_be_allowed(evil: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'gadget'"):
        scan(evil, allow=["gagdet"])


def test_what_nobody_looked_at_cannot_be_allowed(evil: Path) -> None:
    with pytest.raises(UsageError, match="cannot be allowed"):
        scan(evil, allow=["not-scanned"])


def test_a_refusal_names_every_reason_and_the_way_to_allow_them(evil: Path) -> None:
    with pytest.raises(UnsafeContent, match=r"evil\.keras was refused:") as caught:
        scan(evil).raise_for_failures()
    assert "gadget (critical): the class 'get_file' of 'keras.utils', at config.config.layers[1]" in str(caught.value)
    assert "--allow gadget" in str(caught.value)
    assert caught.value.report is not None


def test_the_folder_one_is_in_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(scan(Path("."))).startswith(f"{tmp_path.name}: 1 failure")


def test_a_clean_file_passes(tmp_path: Path) -> None:
    archive(tmp_path / "model.keras")
    found = scan(tmp_path / "model.keras")
    assert found.findings == ()
    found.raise_for_failures()
    assert str(found).splitlines()[0] == "model.keras: 1 ok"


def test_a_scan_reads_as_a_report_and_is_json(evil: Path) -> None:
    found = scan(evil)
    assert [finding.severity for finding in found.report] == [Severity.FAILURE, Severity.WARNING, Severity.OK]
    assert "✗ gadget" in str(found)
    assert "gadget" in found._repr_html_()
    value = json.loads(json.dumps(found.to_json()))
    assert (value["form"], value["ok"], value["findings"][0]["advisories"][0]) == ("keras", False, "CVE-2025-8747")


def test_a_system_that_confines_less_is_told(evil: Path) -> None:
    found = replace(scan(evil), unconfined=("Landlock",))
    assert "· unconfined" in str(found)
    assert found.to_json()["unconfined"] == ["Landlock"]


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    for name in ("ünïcode 模型.keras", "line\nbreak.keras", os.fsdecode(b"not-utf8-\xff.keras")):
        archive(tmp_path / name)
        assert scan(tmp_path / name).ok
        assert json.dumps(scan(tmp_path / name).to_sarif())


def test_findings_of_one_rule_are_counted_after_a_while(tmp_path: Path) -> None:
    archive(tmp_path / "many.keras", network(*(layer("keras.utils", "get_file") for _ in range(100))))
    found = scan(tmp_path / "many.keras")
    assert len(found.findings) == 26
    assert found.findings[-1].message == "and 75 more"


def test_a_path_that_is_not_there_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        scan(tmp_path / "none.h5")


def test_a_limit_that_is_set_is_kept(tmp_path: Path) -> None:
    archive(tmp_path / "model.keras")
    assert rules(scan(tmp_path / "model.keras", limits=Limits(members=2))) == {"limit"}


def test_a_process_that_dies_leaves_a_finding(tmp_path: Path) -> None:
    path = CORPUS["pickle_of_many_opcodes"].write(tmp_path)
    found = scan(path, limits=Limits(seconds=1, memory=64 * MIB))
    assert rules(found) == {"limit"}
    assert found.digest == digest_of(path)


# --- digests


def test_the_digest_of_a_folder_follows_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    digests = [digest_of(tmp_path)]
    (tmp_path / "a" / "x").write_bytes(b"2")
    digests.append(digest_of(tmp_path))
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    digests.append(digest_of(tmp_path))
    (tmp_path / "link").symlink_to("/etc")
    digests.append(digest_of(tmp_path))
    assert len(set(digests)) == 4
