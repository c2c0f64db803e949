from __future__ import annotations

import os
import pickle
import time

import h5py
import numpy as np
import pytest

from hostile_zips import honest
from model_files import keras_members, unpacked, weights_h5, zipped
from modelkeep.errors import NotFound, UsageError
from modelkeep.formats import bundle, forms
from modelkeep.formats.forms import all_forms, look, open_contents, recognise, title_of
from modelkeep.manifest import Manifest, Part, encode
from modelkeep.storage.blobs import Blobs, TensorSource
from modelkeep.storage.memory import MemoryStore
from test_architecture import KERAS_2, YAML, json


def npz(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))


def npy(path):
    with path.open("wb") as file:
        np.save(file, np.ones(2))


def whole_h5(path):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(KERAS_2)
        file.create_group("model_weights").attrs["layer_names"] = np.array([b"dense"])
        file["model_weights"].create_group("dense").attrs["weight_names"] = np.array([], "S1")


def safetensors(path):
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def torch(path):
    zipped({"archive/data.pkl": pickle.dumps([1], 2), "archive/version": b"3\n"}, path)


MAKERS = {
    "keras": lambda path: zipped(keras_members(), path),
    "h5": whole_h5,
    "weights_h5": lambda path: path.write_bytes(weights_h5()),
    "npz": npz,
    "npy": npy,
    "safetensors": safetensors,
    "json": lambda path: path.write_text(json.dumps(KERAS_2)),
    "yaml": lambda path: path.write_text(YAML),
    "torch": torch,
    "pickle": lambda path: path.write_bytes(pickle.dumps({"a": [1, 2]})),
}


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize("name", ["model", "model.keras", "model.h5", "model.json", "model.tar.gz"])
def test_a_form_is_found_by_what_is_in_a_file_and_never_by_its_name(form, name, tmp_path):
    MAKERS[form](tmp_path / name)
    with open_contents(tmp_path / name, thorough=True) as contents:
        assert contents.form == form


@pytest.mark.parametrize("form", MAKERS)
def test_a_folder_that_holds_one_model_stands_for_it(form, tmp_path):
    (tmp_path / "folder").mkdir()
    MAKERS[form](tmp_path / "folder" / "model")
    (tmp_path / "folder" / "README.md").write_text("# Read me")
    with open_contents(tmp_path / "folder") as contents:
        assert (contents.form, contents.path) == (form, tmp_path / "folder" / "model")


def test_every_form_that_a_reader_can_name_has_a_title():
    assert {name for form in all_forms() for name in form.names} == set(forms.TITLES)
    assert title_of("keras") == "a .keras file of Keras 3"


@pytest.mark.parametrize("data", [b"", b"\0" * 5000, b"PK", b"# a text\n", b"\x89PNG\r\n\x1a\n", os.urandom(600)])
def test_other_files_are_no_kind_of_model(data, tmp_path):
    (tmp_path / "model.keras").write_bytes(data)
    with pytest.raises(UsageError, match="no kind of model file"):
        recognise(look(tmp_path / "model.keras"))


def test_folders_of_other_things_are_no_kind_of_model(tmp_path):
    for folder in (tmp_path / "empty", unpacked({"a.txt": b"", "b/c.txt": b""}, tmp_path / "texts")):
        folder.mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="a folder of other files"):
            recognise(look(folder))


def test_an_empty_file_is_said_to_be_so(tmp_path):
    (tmp_path / "model.keras").touch()
    with pytest.raises(UsageError, match="found an empty file"):
        recognise(look(tmp_path / "model.keras"))


def test_a_folder_of_very_many_files_is_not_searched(tmp_path):
    for number in range(1001):
        (tmp_path / f"{number}.npy").touch()
    started = time.process_time()
    with pytest.raises(UsageError, match="a folder of other files"):
        recognise(look(tmp_path))
    assert time.process_time() - started < 3


def test_what_is_not_there_or_no_file_is_said_to_be_so(tmp_path):
    with pytest.raises(NotFound):
        look(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        look(tmp_path / "pipe")


def test_a_zip_behind_other_bytes_is_still_known_for_what_it_is(tmp_path):
    (tmp_path / "model").write_bytes(b"#!/bin/sh\nexit\n" + honest(keras_members()))
    with open_contents(tmp_path / "model") as contents:
        assert contents.form == "keras"
        assert "zip-prefix" in {problem.rule for problem in contents.problems}


def test_a_zip_that_ends_a_tar_does_not_make_it_one(tmp_path):
    path = zipped({"model.keras": honest(keras_members())}, tmp_path / "a.zip")
    with open_contents(path) as contents:
        assert contents.details["archive"] == {"form": "zip", "member": "model.keras"}


def test_a_bundle_is_told_as_a_foreign_form(tmp_path):
    blobs = Blobs(MemoryStore())
    written = blobs.write([TensorSource("weights/layers/dense/vars/0", "float32", (2,), 8, lambda: bytes(8))])
    parts = [
        Part(name=name, digest=blobs.put(data), size=len(data)) for name, data in (("config.json", b"{}"), ("a", b"b"))
    ]
    manifest = Manifest(
        model="m",
        version="1.0.0",
        created="2026-05-01T00:00:00Z",
        writer="test",
        parts=tuple(parts),
        tensors=written.tensors,
    )
    bundle.write(encode(manifest), blobs, tmp_path / "m.zip")
    with open_contents(tmp_path / "m.zip", thorough=True) as contents:
        assert (contents.form, contents.config, contents.writer["producer"]) == ("bundle", {}, "test")
        assert (contents.details["model"], contents.details["version"]) == ("m", "1.0.0")
        assert contents.tensors[0].read().tolist() == [0.0, 0.0]
        assert [(member.name, member.read()) for member in contents.members] == [("config.json", b"{}"), ("a", b"b")]
