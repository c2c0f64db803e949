"""Aliases that demand signatures: what they refuse, what is recorded, and that nobody changes them unseen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import modelkeep as mk
from key_files import make_key, public_half
from modelkeep.catalog import Attachment, VersionRecord
from modelkeep.cli.main import main
from modelkeep.entry import Move, Policy, Refuse, TrustedKey, entry_key
from modelkeep.errors import AliasNotFound, Conflict, GateRefused, LedgerDamaged, MissingExtra, UsageError
from modelkeep.fsck import fsck
from modelkeep.ledger import State, check
from modelkeep.registry import Registry
from modelkeep.report import Finding, Report, Severity
from modelkeep.snapshots import EVERY
from modelkeep.storage import marker
from modelkeep.storage.blobs import blob_key
from modelkeep.storage.local import LocalStore
from modelkeep.storage.memory import MemoryStore
from small_versions import publish


@pytest.fixture
def keep(tmp_path: Path) -> mk.Keep:
    """A store with ``sentiment`` 1.0.0, 1.1.0 and 1.2.0; nothing is signed, nothing demanded."""
    store = LocalStore(tmp_path / "models")
    marker.ensure(store)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publish(Registry(store), "sentiment", version, part=version.encode())
    return mk.open(store)


@pytest.fixture
def ada(tmp_path: Path) -> Path:
    return make_key(tmp_path, "ada")


@pytest.fixture
def grace(tmp_path: Path) -> Path:
    return make_key(tmp_path, "grace")


@pytest.fixture
def both(tmp_path: Path, ada: Path, grace: Path) -> Path:
    """A folder with both public keys."""
    folder = tmp_path / "team"
    folder.mkdir()
    for key in (ada, grace):
        shutil.copy(public_half(key), folder)
    return folder


def test_an_alias_takes_only_what_is_signed(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    with pytest.raises(GateRefused, match="signed by 1 of ada: no signature by a trusted key"):
        keep.promote("sentiment:1.0.0", "production")
    keep.sign("sentiment:1.0.0", key=ada)
    keep.promote("sentiment:1.0.0", "production")
    keep.promote("sentiment:1.1.0", "staging")


def test_a_split_is_refused_for_one_share_that_is_not_signed(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    keep.sign("sentiment:1.0.0", key=ada)
    with pytest.raises(GateRefused, match=r"sentiment:1\.1\.0 may not stand behind sentiment@production"):
        keep.split("sentiment@production", {"1.0.0": 90, "1.1.0": 10})
    keep.sign("sentiment:1.1.0", key=ada)
    keep.split("sentiment@production", {"1.0.0": 90, "1.1.0": 10})


def test_a_rollback_does_not_lead_to_what_is_not_signed(keep: mk.Keep, ada: Path) -> None:
    keep.promote("sentiment:1.0.0", "production")
    keep.sign("sentiment:1.1.0", key=ada)
    keep.policy("sentiment@production", keys=public_half(ada))
    keep.promote("sentiment:1.1.0", "production")
    with pytest.raises(GateRefused):
        keep.rollback("sentiment@production")
    assert keep.resolve("sentiment@production").ref == "sentiment:1.1.0"


def test_promoting_again_what_is_there_is_judged_again(keep: mk.Keep, ada: Path) -> None:
    keep.promote("sentiment:1.0.0", "production")
    keep.policy("sentiment@production", keys=public_half(ada))
    with pytest.raises(GateRefused):
        keep.promote("sentiment:1.0.0", "production")


def test_a_refusal_is_in_the_ledger_with_what_each_key_was_worth(keep: mk.Keep, both: Path, ada: Path) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    keep.policy("sentiment@production", keys=both, required=2)
    with pytest.raises(GateRefused, match="1 of 2 signatures by trusted keys"):
        keep.promote("sentiment:1.0.0", "production")
    action = keep.history("sentiment@production")[-1].action
    assert isinstance(action, Refuse)
    assert (action.version, action.alias, action.gates[0].gate) == ("1.0.0", "production", "signed by 2 of ada, grace")
    assert action.gates[0].values == {"ada": "by ada", "grace": "no signature"}


def test_two_of_two_must_sign(keep: mk.Keep, both: Path, ada: Path, grace: Path) -> None:
    keep.policy("sentiment@production", keys=both, required=2)
    keep.sign("sentiment:1.0.0", key=ada)
    keep.sign("sentiment:1.0.0", key=ada)  # twice by one is once
    with pytest.raises(GateRefused):
        keep.promote("sentiment:1.0.0", "production")
    keep.sign("sentiment:1.0.0", key=grace)
    keep.promote("sentiment:1.0.0", "production")


def test_one_signature_under_two_names_is_one(keep: mk.Keep, both: Path, ada: Path, grace: Path) -> None:
    keep.policy("sentiment@production", keys=both, required=2)
    signature = keep.sign("sentiment:1.0.0", key=ada).signature
    registry = Registry(keep.store)
    other = Attachment(kind="signature:" + "0" * 64, digest=registry.blobs.put(signature), size=len(signature))
    registry.attach("sentiment:1.0.0", other)
    with pytest.raises(GateRefused):
        keep.promote("sentiment:1.0.0", "production")


def test_the_key_of_somebody_else_does_not_count(keep: mk.Keep, ada: Path, grace: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    keep.sign("sentiment:1.0.0", key=grace)
    with pytest.raises(GateRefused, match="no signature by a trusted key"):
        keep.promote("sentiment:1.0.0", "production")


def test_a_wrong_signature_refuses_beside_a_right_one(keep: mk.Keep, both: Path, ada: Path, grace: Path) -> None:
    keep.policy("sentiment@production", keys=both)
    keep.sign("sentiment:1.0.0", key=ada)
    moved = keep.sign("sentiment:1.1.0", key=grace)
    registry = Registry(keep.store)
    attachment = next(a for a in keep.resolve("sentiment:1.1.0").attachments if a.kind == f"signature:{moved.key_id}")
    registry.attach("sentiment:1.0.0", attachment)
    with pytest.raises(GateRefused, match="changed since they were signed"):
        keep.promote("sentiment:1.0.0", "production")


def test_an_expired_key_beside_a_good_one_does_not_stop_it(keep: mk.Keep, ada: Path, grace: Path) -> None:
    listed = [
        {"name": "ada", "file": public_half(ada).name},
        {"name": "grace", "file": public_half(grace).name, "not_after": "2020-01-01"},
    ]
    path = ada.with_name("keys.json")
    path.write_text(json.dumps({"keys": listed}))
    keep.policy("sentiment@production", keys=path)
    for key in (ada, grace):
        keep.sign("sentiment:1.0.0", key=key)
    keep.promote("sentiment:1.0.0", "production")
    path.write_text(json.dumps({"keys": [listed[1]]}))
    keep.policy("sentiment@production", keys=path)
    assert not keep.policy_report("sentiment@production").ok


def test_a_signature_that_is_lost_is_none(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    keep.sign("sentiment:1.0.0", key=ada)
    for attachment in keep.resolve("sentiment:1.0.0").attachments:
        keep.store.delete(blob_key(attachment.digest))
    with pytest.raises(GateRefused):
        keep.promote("sentiment:1.0.0", "production")


def test_an_attachment_cut_off_the_ledger_is_a_signature_less(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    keep.sign("sentiment:1.0.0", key=ada)
    keep.store.delete(entry_key("sentiment", len(keep.history("sentiment"))))
    with pytest.raises(GateRefused):
        mk.open(keep.store).promote("sentiment:1.0.0", "production")


def test_a_policy_cut_out_of_the_ledger_damages_it(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    seq = len(keep.history("sentiment"))
    while len(keep.history("sentiment")) < EVERY:
        keep.annotate("sentiment:1.0.0", note=str(len(keep.history("sentiment"))))
    (Path(keep.store.root) / entry_key("sentiment", seq)).unlink()
    with pytest.raises(LedgerDamaged):
        mk.open(keep.store).history("sentiment")


def test_a_policy_lives_through_snapshots(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    for number in range(2 * EVERY):
        keep.annotate("sentiment:1.0.0", note=str(number))
    again = mk.open(LocalStore(keep.store.root))
    assert again.policy("sentiment").keys() == {"production"}
    assert again.fsck().ok
    with pytest.raises(GateRefused):
        again.promote("sentiment:1.0.0", "production")


def test_what_it_trusts_is_written_in_it_so_the_file_may_go(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    keep.sign("sentiment:1.0.0", key=ada)
    public_half(ada).unlink()
    keep.promote("sentiment:1.0.0", "production")
    keep.verify("sentiment:1.0.0", signature=True).raise_for_failures()


def test_a_pattern_is_for_many_aliases(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@prod*", keys=public_half(ada))
    with pytest.raises(GateRefused):
        keep.promote("sentiment:1.0.0", "prod-eu")
    keep.promote("sentiment:1.0.0", "staging")
    assert keep.policy("sentiment@prod-eu").keys() == {"prod*"}
    assert keep.policy("sentiment@staging") == {}


def test_taking_a_policy_away_is_in_the_history(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    keep.policy("sentiment@production", remove=True, reason="an emergency")
    keep.promote("sentiment:1.0.0", "production")
    assert [entry.reason for entry in keep.history("sentiment@production")] == [None, "an emergency", None]
    with pytest.raises(AliasNotFound):
        keep.policy("sentiment@production", remove=True)


def test_before_serving_the_same_question_is_asked(keep: mk.Keep, ada: Path) -> None:
    keep.promote("sentiment:1.0.0", "production")
    assert keep.policy_report("sentiment@production").ok
    keep.policy("sentiment@production", keys=public_half(ada))
    with pytest.raises(GateRefused):
        keep.policy_report("sentiment@production").raise_for_failures()
    keep.sign("sentiment:1.1.0", key=ada)
    assert keep.policy_report("sentiment@production", "1.1.0").ok


def test_a_registry_that_cannot_check_refuses(keep: mk.Keep, ada: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    keep.sign("sentiment:1.0.0", key=ada)
    with pytest.raises(GateRefused, match="nothing here can check them"):
        Registry(keep.store).promote("sentiment:1.0.0", "production")


@pytest.mark.parametrize(
    "call",
    [
        {"name": "sentiment", "remove": True},
        {"name": "sentiment@", "remove": True},
        {"name": "sentiment@a/b", "keys": "ada.pub.pem"},
        {"name": "sentiment@production", "keys": "ada.pub.pem", "remove": True},
        {"name": "sentiment@production", "keys": "ada.pub.pem", "required": 2},
        {"name": "sentiment@production", "keys": "ada.pub.pem", "required": -1},
        {"name": "sentiment@production", "keys": "ada.pem"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(
    keep: mk.Keep, ada: Path, call: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ada.parent)
    with pytest.raises(UsageError):
        keep.policy(**call)  # type: ignore[arg-type]
    assert keep.policy("sentiment") == {}


@pytest.mark.parametrize(
    "keys",
    [
        (TrustedKey(id="short", name="a", pem="x"),),
        (TrustedKey(id="0" * 64, name="a"),),
        (TrustedKey(id="0" * 64, name="a", pem="x"),) * 2,
    ],
)
def test_an_entry_with_keys_that_are_none_breaks_a_rule_of_the_ledger(keys: tuple[TrustedKey, ...]) -> None:
    with pytest.raises(UsageError):
        check(State(model="m"), Policy(aliases="production", keys=keys))


def test_a_key_that_is_not_what_its_id_says_does_not_count(keep: mk.Keep, ada: Path, grace: Path) -> None:
    keep.policy("sentiment@production", keys=public_half(ada))
    policy = keep.policy("sentiment")["production"]
    swapped = msgspec.structs.replace(policy.keys[0], pem=public_half(grace).read_text())
    Registry(keep.store).set_policy("sentiment", msgspec.structs.replace(policy, keys=(swapped,)))
    keep.sign("sentiment:1.0.0", key=grace)
    with pytest.raises(GateRefused):
        keep.promote("sentiment:1.0.0", "production")


def test_a_policy_that_comes_while_an_alias_is_being_moved_is_obeyed(keep: mk.Keep, ada: Path) -> None:
    def meanwhile(_: object) -> None:
        mk.open(LocalStore(keep.store.root)).policy("sentiment@production", keys=public_half(ada))

    with pytest.raises(GateRefused):
        keep._registry.promote("sentiment:1.0.0", "production", judge=meanwhile)
    assert not keep.models()[0].aliases


SOMEBODY = TrustedKey(id="0" * 64, name="somebody", pem="x")
steps = st.one_of(
    st.tuples(st.just("sign"), st.sampled_from(["1.0.0", "1.1.0", "1.2.0"])),
    st.tuples(st.just("policy"), st.sampled_from(["production", "prod*", "*"]), st.sampled_from([0, 1])),
    st.tuples(
        st.just("promote"), st.sampled_from(["1.0.0", "1.1.0", "1.2.0"]), st.sampled_from(["production", "test"])
    ),
    st.tuples(st.just("split"), st.sampled_from(["production", "test"])),
    st.tuples(st.just("rollback"), st.sampled_from(["production", "test"])),
)


@given(st.lists(steps, max_size=30))
def test_in_no_history_does_an_alias_under_a_policy_move_to_what_is_not_signed(history: list[tuple[Any, ...]]) -> None:
    signed: set[str] = set()

    def guard(_: Registry, model: str, alias: str, policies: tuple[Policy, ...], record: VersionRecord) -> None:
        if record.version not in signed:
            results = Finding("policy", Severity.FAILURE, "not signed", "signed", {"values": {}})
            Report(f"{model}@{alias}", (results,), GateRefused).raise_for_failures()

    registry = Registry(MemoryStore(), guard=guard)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publish(registry, "m", version, part=version.encode())
    for step in history:
        before = registry.ledgers.state("m")
        with suppress(GateRefused, Conflict, AliasNotFound):
            match step:
                case ("sign", version):
                    signed.add(version)
                case ("policy", pattern, required):
                    keys = (SOMEBODY,) * required
                    registry.set_policy("m", Policy(aliases=pattern, keys=keys, required=required))
                case ("promote", version, alias):
                    registry.promote(f"m:{version}", alias)
                case ("split", alias):
                    registry.split("m", alias, {"1.0.0": 50, "1.2.0": 50})
                case ("rollback", alias):
                    registry.rollback("m", alias)
        for entry in list(registry.ledgers.entries("m"))[before.seq :]:
            if isinstance(entry.action, Move) and before.policies_for(entry.action.alias):
                assert set(entry.action.targets) <= signed
    assert fsck(registry).ok


# --- the command line


def test_the_commands_from_signing_to_refusal(
    keep: mk.Keep, ada: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(*arguments: str) -> int:
        return main([*arguments, "--store", str(keep.store.root)])

    assert run("policy", "sentiment@production", "--keys", str(public_half(ada)), "--reason", "law") == 0
    assert "production" in capsys.readouterr().out
    assert run("promote", "sentiment:1.0.0", "production") == 23
    assert run("sign", "sentiment:1.0.0", "--key", str(ada), "--to", str(tmp_path / "model.sig")) == 0
    assert run("verify", "sentiment:1.0.0", "--trust-keys", str(public_half(ada))) == 0
    assert run("verify", "sentiment:1.1.0", "--signature") == 20
    assert run("promote", "sentiment:1.0.0", "production") == 0
    capsys.readouterr()
    assert run("show", "sentiment:1.0.0") == 0
    assert "signature:" in capsys.readouterr().out
    assert run("history", "sentiment") == 0
    assert "policy production → signed by 1 of ada" in capsys.readouterr().out
    assert run("policy", "sentiment", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["keys"][0]["name"] == "ada"
    assert run("sbom", "sentiment:1.0.0") == 0
    assert json.loads(capsys.readouterr().out)["bomFormat"] == "CycloneDX"


def test_the_commands_for_a_folder(ada: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"123")
    locked = make_key(tmp_path, "locked", password="secret")
    assert main(["sign", "--path", str(folder), "--key", str(locked)]) == 2  # nobody is there to be asked
    monkeypatch.setenv("MODELKEEP_KEY_PASSWORD", "secret")
    assert main(["sign", "--path", str(folder), "--key", str(locked)]) == 0
    assert main(["verify", "--path", str(folder), "--trust-keys", str(public_half(locked))]) == 0
    assert main(["verify", "--path", str(folder), "--trust-keys", str(public_half(ada))]) == 21
    assert main(["verify", "--path", str(folder)]) == 2
    assert main(["sign", "--path", str(folder)]) == 2
    assert main(["sign", "--key", str(ada)]) == 2
    assert main(["verify"]) == 2


def test_without_cryptography_nothing_is_judged_or_recorded(
    keep: mk.Keep, ada: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep.sign("sentiment:1.0.0", key=ada)
    keep.policy("sentiment@production", keys=public_half(ada))
    before = len(keep.history("sentiment"))
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(MissingExtra, match=r"pip install 'modelkeep\[signing\]'"):
        keep.promote("sentiment:1.0.0", to="production")
    assert len(keep.history("sentiment")) == before


def test_cryptography_is_imported_only_where_something_is_demanded(keep: mk.Keep, ada: Path) -> None:
    script = "import sys; from modelkeep.cli.main import main; main(sys.argv[1:]); print('cryptography' in sys.modules)"

    def loaded(*arguments: str) -> str:
        command = [sys.executable, "-c", script, *arguments, "--store", str(keep.store.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]

    keep.sign("sentiment:1.0.0", key=ada)
    assert {loaded("promote", "sentiment:1.0.0", "production"), loaded("list")} == {"False"}
    keep.policy("sentiment@production", keys=public_half(ada))
    assert {loaded("show", "sentiment:1.0.0"), loaded("policy", "sentiment")} == {"False"}
    assert loaded("promote", "sentiment:1.0.0", "production") == "True"
