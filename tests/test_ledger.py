"""What may follow what in a ledger, and what it leaves."""

from __future__ import annotations

from functools import reduce

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelkeep.catalog import Attachment
from modelkeep.entry import (
    FORMAT,
    Annotate,
    AnyAction,
    Attach,
    Delete,
    Entry,
    Move,
    Publish,
    Refuse,
    Yank,
    encode,
)
from modelkeep.errors import (
    AliasNotFound,
    Conflict,
    LedgerDamaged,
    ModelkeepError,
    UsageError,
    VersionExists,
    VersionNotFound,
)
from modelkeep.ledger import State, check, fold
from modelkeep.manifest import GateResult

DIGEST = "blake3:" + "ab" * 32


def publish(version: str) -> Publish:
    return Publish(version=version, digest=DIGEST, size=10, new_bytes=4)


def promote(version: str, *, was: dict[str, float] | None = None, beneath: int | None = None) -> Move:
    return Move(alias="production", kind="promote", targets={version: 100}, was=was or {}, beneath=beneath)


def next_entry(state: State, action: AnyAction, **changes: object) -> bytes:
    entry = Entry(
        format=FORMAT,
        model=state.model,
        seq=state.seq + 1,
        previous=state.head,
        time=state.time or "2024-05-01T00:00:00.000000Z",
        actor="ada@lab",
        action=action,
    )
    return encode(msgspec.structs.replace(entry, **changes))


def after(*actions: AnyAction) -> State:
    state = State(model="m")
    for action in actions:
        state = fold(state, next_entry(state, action))
    return state


def test_a_published_version_is_the_newest() -> None:
    state = after(publish("1.0.0"), publish("1.1.0"), publish("1.0.1"))
    newest = state.catalog.newest()
    assert newest is not None
    assert (newest.version, newest.seq, newest.actor) == ("1.1.0", 2, "ada@lab")
    assert (state.live, state.stored) == (3, 12)


def test_moves_lie_on_each_other() -> None:
    state = after(publish("1.0.0"), publish("1.1.0"), promote("1.0.0"), promote("1.1.0", was={"1.0.0": 100}, beneath=3))
    assert state.aliases == {"production": {"1.1.0": 100}}
    assert state.pointings["production"].beneath == 3


def test_a_rollback_takes_the_place_of_the_move_it_goes_back_to() -> None:
    state = after(publish("1.0.0"), publish("1.1.0"), promote("1.0.0"), promote("1.1.0", was={"1.0.0": 100}, beneath=3))
    back = Move(alias="production", kind="rollback", targets={"1.0.0": 100}, was={"1.1.0": 100})
    state = fold(state, next_entry(state, back))
    assert state.aliases == {"production": {"1.0.0": 100}}
    with pytest.raises(Conflict, match="no earlier move"):
        check(state, Move(alias="production", kind="rollback", targets={}, was={"1.0.0": 100}))


def test_a_removed_alias_is_not_there_but_can_be_rolled_back() -> None:
    state = after(publish("1.0.0"), promote("1.0.0"))
    gone = Move(alias="production", kind="remove", targets={}, was={"1.0.0": 100}, beneath=2)
    state = fold(state, next_entry(state, gone))
    assert state.aliases == {}
    with pytest.raises(AliasNotFound):
        state.pointing("production")
    check(state, Move(alias="production", kind="rollback", targets={"1.0.0": 100}))


def test_annotations_yanks_and_attachments_stand_in_the_record() -> None:
    onnx = Attachment(kind="onnx", digest=DIGEST, size=3)
    newer = Attachment(kind="onnx", digest=DIGEST, size=4)
    state = after(
        publish("1.0.0"),
        Annotate(version="1.0.0", add=("a", "b"), note="first"),
        Annotate(version="1.0.0", add=("c",), remove=("a",)),
        Yank(version="1.0.0"),
        Attach(version="1.0.0", attachment=onnx),
        Attach(version="1.0.0", attachment=newer),
    )
    record = state.live_record("1.0.0")
    assert (record.tags, record.note, record.yanked, record.attachments) == (("b", "c"), "first", True, (newer,))
    assert state.catalog.newest() is None


PUBLISHED = (publish("1.0.0"), publish("1.1.0"), publish("1.2.0"), Yank(version="1.2.0"))


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (publish("1.1.0"), VersionExists),
        (publish("1.1.0+other"), VersionExists),
        (publish("1.9"), UsageError),
        (promote("3.0.0"), VersionNotFound),
        (promote("1.2.0"), Conflict),
        (promote("1.0.0", was={"1.1.0": 100}), Conflict),
        (promote("1.0.0", beneath=2), Conflict),
        (Move(alias="2nd", kind="promote", targets={"1.0.0": 100}), UsageError),
        (Move(alias="a", kind="promote", targets={"1.0.0": 50, "1.1.0": 50}), UsageError),
        (Move(alias="a", kind="split", targets={}), UsageError),
        (Move(alias="a", kind="split", targets={"1.0.0": 50, "1.1.0": 40}), UsageError),
        (Move(alias="a", kind="split", targets={"1.0.0": 110, "1.1.0": -10}), UsageError),
        (Move(alias="a", kind="rollback", targets={}), Conflict),
        (Move(alias="a", kind="remove", targets={}), AliasNotFound),
        (Delete(version="3.0.0"), VersionNotFound),
        (Yank(version="3.0.0"), VersionNotFound),
        (Yank(version="no version"), UsageError),
        (Move(alias="a", kind="promote", targets={"1": 100}), UsageError),
        (Annotate(version="3.0.0"), VersionNotFound),
        (Attach(version="1.0.0", attachment=Attachment(kind="onnx", digest="sha1:00", size=1)), UsageError),
        (Refuse(gates=()), UsageError),
        (Refuse(gates=(GateResult(gate="a > 1", passed=True),)), UsageError),
    ],
)
def test_what_breaks_a_rule_is_refused_before_and_found_after(action: AnyAction, error: type[ModelkeepError]) -> None:
    state = after(*PUBLISHED)
    with pytest.raises(error):
        check(state, action)
    with pytest.raises(LedgerDamaged, match=r"entry 5 .* breaks a rule"):
        fold(state, next_entry(state, action))


@pytest.mark.parametrize("action", [Delete(version="1.0.0"), Yank(version="1.0.0")])
def test_a_version_stays_while_an_alias_points_at_it(action: AnyAction) -> None:
    with pytest.raises(Conflict, match="while m@production points at it"):
        check(after(publish("1.0.0"), promote("1.0.0")), action)


def test_a_deleted_number_is_never_used_again() -> None:
    state = after(publish("1.0.0"), Delete(version="1.0.0"))
    assert (state.live, state.stored) == (0, 0)
    with pytest.raises(VersionExists, match="a number is never used again"):
        check(state, publish("1.0.0"))
    with pytest.raises(VersionNotFound, match="it was deleted"):
        state.live_record("1.0.0")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"previous": "blake3:" + "00" * 32}, "does not follow the one before"),
        ({"previous": ""}, "does not follow the one before"),
        ({"seq": 3}, "is another entry"),
        ({"model": "other"}, "is another entry"),
        ({"time": "2024-04-30T23:59:59.999999Z"}, "is older than the one before"),
        ({"time": "2024-05-01"}, "has no proper time"),
    ],
)
def test_an_entry_that_does_not_fit_the_chain_is_found(changes: dict[str, object], what: str) -> None:
    state = after(publish("1.0.0"))
    with pytest.raises(LedgerDamaged, match=what):
        fold(state, next_entry(state, publish("1.1.0"), **changes))


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6), st.data())
def test_a_ledger_with_entries_left_out_or_swapped_does_not_fold(bumps: list[int], data: st.DataObject) -> None:
    state, files = State(model="m"), []
    for number, bump in enumerate(bumps):
        files.append(next_entry(state, publish(f"{number}.{bump}.0")))
        state = fold(state, files[-1])
    order = data.draw(st.lists(st.sampled_from(files), min_size=1, unique=True))
    assume(order != files[: len(order)])
    with pytest.raises(LedgerDamaged):
        reduce(fold, order, State(model="m"))
