"""OpenVINO models read as data: the XML without anything that XML readers follow, the numbers within their file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError, UnsafeContent
from modelkeep.formats import openvino as form
from modelkeep.formats.contents import Contents
from modelkeep.formats.forms import look, recognise
from modelkeep.formats.limits import DEFAULT, Limits
from modelkeep.manifest import TensorSpec
from modelkeep.safety.scanning import scan

KERNEL = np.arange(6, dtype="float32").reshape(3, 2)
XML = """<?xml version="1.0"?>
<net name="tests" version="11">
  <layers>
    <layer id="0" name="in" type="Parameter" version="opset1">
      <data shape="?,3" element_type="f32" />
      <output><port id="0" precision="FP32" names="x"><dim>-1</dim><dim>3</dim></port></output>
    </layer>
    <layer id="1" name="kernel" type="Const" version="opset1">
      <data element_type="f32" shape="3, 2" offset="0" size="24" />
      <output><port id="0" precision="FP32"><dim>3</dim><dim>2</dim></port></output>
    </layer>
    <layer id="2" name="product" type="MatMul" version="opset1">
      <input><port id="0" precision="FP32"><dim>-1</dim></port><port id="1"><dim>3</dim></port></input>
      <output><port id="2" precision="FP32" names="y,other"><dim>-1</dim><dim>2</dim></port></output>
    </layer>
    <layer id="3" name="out" type="Result" version="opset1"><input><port id="0" /></input></layer>
  </layers>
  <edges>
    <edge from-layer="0" from-port="0" to-layer="2" to-port="0" />
    <edge from-layer="1" from-port="0" to-layer="2" to-port="1" />
    <edge from-layer="2" from-port="2" to-layer="3" to-port="0" />
  </edges>
</net>
"""
BODY = """<layer id="9" name="loop" type="Loop" version="opset5"><body><layers>
  <layer id="0" name="inner" type="Const" version="opset1">
    <data element_type="f32" shape="2" offset="16" size="8" /></layer>
  <layer id="1" name="secret" type="Parameter" version="opset1" />
</layers></body></layer></layers>"""


def written(folder: Path, xml: str = XML, numbers: bytes | None = KERNEL.tobytes()) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.xml").write_text(xml)
    if numbers is not None:
        (folder / "model.bin").write_bytes(numbers)
    return folder


@contextmanager
def opened(path: Path, limits: Limits = DEFAULT) -> Iterator[Contents]:
    with form.read(look(path), limits, True) as contents:
        yield contents


@pytest.mark.parametrize("name", ["", "model.xml"])
def test_a_model_tells_its_signature_operators_and_weights(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m") / name
    assert recognise(look(path)) is form.FORM
    with opened(path) as contents:
        assert contents.signatures["main"].inputs == (TensorSpec(name="x", shape=(None, 3), dtype="float32"),)
        assert contents.signatures["main"].outputs == (TensorSpec(name="other", shape=(None, 2), dtype="float32"),)
        assert contents.details["ops"] == {"Const": 1, "MatMul": 1, "Parameter": 1, "Result": 1}
        np.testing.assert_array_equal(contents.tensors[0].read(), KERNEL, strict=True)
        assert contents.problems == ()


def test_what_lies_in_the_body_of_a_loop_is_counted_and_is_no_input(tmp_path: Path) -> None:
    with opened(written(tmp_path, XML.replace("</layers>", BODY, 1))) as contents:
        assert [tensor.name for tensor in contents.tensors] == ["kernel", "inner"]
        assert contents.tensors[1].read().tolist() == [4.0, 5.0]
        assert [spec.name for spec in contents.signatures["main"].inputs] == ["x"]
        assert contents.details["ops"]["Parameter"] == 2


@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE net>",
        '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE net [<!ENTITY a "aa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE net SYSTEM "http://127.0.0.1/x.dtd">',
    ],
)
def test_a_document_type_is_refused_before_anything_in_it_is_followed(doctype: str, tmp_path: Path) -> None:
    path = written(tmp_path, XML.replace("<net", f"{doctype}<net", 1))
    with pytest.raises(UnsafeContent, match="a document type"), opened(path):
        pass
    assert [(finding.rule, finding.level) for finding in scan(path).refused] == [("openvino-doctype", "critical")]


def test_a_layer_from_elsewhere_is_told_and_does_not_refuse(tmp_path: Path) -> None:
    found = scan(written(tmp_path, XML.replace('"MatMul" version="opset1"', '"Magic" version="extension"')))
    assert [(finding.rule, finding.place) for finding in found.findings] == [
        ("openvino-custom-layer", "extension:Magic")
    ]
    assert found.ok


@pytest.mark.parametrize(
    ("old", "new"),
    [('size="24"', 'size="20"'), ('offset="0"', 'offset="8"'), ('shape="3, 2"', 'shape="3000000000,3000000000"')],
)
def test_numbers_that_are_not_all_there_are_damage(old: str, new: str, tmp_path: Path) -> None:
    with opened(written(tmp_path, XML.replace(old, new, 1))) as contents:
        assert [problem.rule for problem in contents.problems] == ["damaged"]
        assert contents.tensors == ()


def test_numbers_that_are_missing_or_behind_a_link_are_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "m", numbers=None) / "model.xml"
    with opened(path) as contents:
        assert [problem.rule for problem in contents.problems] == ["damaged", "damaged"]
    os.symlink("/etc/hostname", tmp_path / "m" / "model.bin")
    with opened(path) as contents:
        assert [problem.rule for problem in contents.problems] == ["folder-special-file", "damaged"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("</net>", "", "is no XML"),
        ('offset="0"', 'offset="x"', "something else where a number belongs"),
        ("<dim>-1</dim>", "<dim>1e9</dim>", "something else where a number belongs"),
        ('from-layer="2"', 'from-layer="7"', "comes from nowhere"),
        ("<net", "<net><a>" + "<a>" * 300, "more than 200 deep"),
    ],
)
def test_what_is_no_model_is_refused_with_its_reason(old: str, new: str, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, XML.replace(old, new, 1))
    with pytest.raises(IntegrityError, match=reason), opened(path):
        pass


def test_more_than_a_limit_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, XML.replace("</layers>", BODY, 1))
    for limits in (Limits(nodes=5), Limits(tensors=1), Limits(graph=100), Limits(file=1000)):
        with pytest.raises(LimitExceeded), opened(path, limits):
            pass


@pytest.mark.parametrize("text", ["", "<html><body>", "net", "<!-- <networks -->"])
def test_other_xml_is_not_taken_for_openvino(text: str, tmp_path: Path) -> None:
    (tmp_path / "other.xml").write_text(text)
    assert not form.recognise(look(tmp_path / "other.xml"))


@given(data=st.data())
def test_a_damaged_model_is_refused_in_the_librarys_own_words(data: Any, tmp_path_factory: Any) -> None:
    whole = bytearray(XML.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "model.xml").write_bytes(bytes(whole))
    (folder / "model.bin").write_bytes(KERNEL.tobytes())
    try:
        with opened(folder) as contents:
            for tensor in contents.tensors:
                tensor.read()
    except ModelkeepError:
        pass


def test_what_openvino_writes_is_read_as_it_reads_it(tmp_path: Path) -> None:
    import openvino

    path = written(tmp_path)
    read = openvino.Core().read_model(str(path / "model.xml"))
    openvino.save_model(read, str(tmp_path / "again" / "model.xml"), compress_to_fp16=False)
    with opened(path) as first, opened(tmp_path / "again") as again:
        assert first.signatures == again.signatures
        np.testing.assert_array_equal(again.tensors[0].read(), KERNEL)
