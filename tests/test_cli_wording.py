"""How aliases, numbers and events read in a table."""

from __future__ import annotations

import pytest

from modelkeep.catalog import Attachment
from modelkeep.cli import wording
from modelkeep.entry import Annotate, AnyAction, Attach, Delete, Move, Publish, Refuse, Yank
from modelkeep.manifest import GateResult

GATES = (GateResult(gate="loss < 1", passed=True), GateResult(gate="accuracy > 0.9", passed=False))
ONNX = Attachment(kind="onnx", digest="blake3:" + "0" * 64, size=1)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Publish(version="1.0.0", digest="blake3:" + "0" * 64, size=1, new_bytes=1), "publish 1.0.0"),
        (Refuse(gates=GATES, version="1.1.0"), "refuse 1.1.0: accuracy > 0.9"),
        (Refuse(gates=GATES, version="1.1.0", alias="production"), "refuse production → 1.1.0: accuracy > 0.9"),
        (Move(alias="production", kind="promote", targets={"1.0.0": 100}), "promote production → 1.0.0"),
        (
            Move(alias="production", kind="split", targets={"1.0.0": 90, "1.1.0": 10}, was={"1.0.0": 100}),
            "split production → 1.0.0 90 %, 1.1.0 10 % (was 1.0.0)",
        ),
        (Move(alias="old", kind="remove", targets={}, was={"1.0.0": 100}), "remove old → nothing (was 1.0.0)"),
        (Attach(version="1.0.0", attachment=ONNX), "attach onnx to 1.0.0"),
        (Annotate(version="1.0.0", add=("a",), remove=("b",), note=""), "annotate 1.0.0 +a -b note ''"),
        (Yank(version="1.0.0"), "yank 1.0.0"),
        (Yank(version="1.0.0", undo=True), "unyank 1.0.0"),
        (Delete(version="1.0.0"), "delete 1.0.0"),
    ],
)
def test_an_event_reads_as_what_was_done(action: AnyAction, text: str) -> None:
    assert wording.event(action) == text


def test_numbers_are_short_and_other_values_as_they_are() -> None:
    assert wording.numbers({"accuracy": 0.123456789, "epochs": 3, "data": "IMDB"}) == (
        "accuracy=0.123457 epochs=3 data=IMDB"
    )


def test_an_alias_that_is_split_shows_its_shares() -> None:
    assert wording.pointings({"b": {"1.0.0": 100.0}, "a": {"1.0.0": 99.5, "1.1.0": 0.5}}) == (
        "a=1.0.0 99.5 %, 1.1.0 0.5 % b=1.0.0"
    )
