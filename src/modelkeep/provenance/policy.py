"""What an alias demands: signatures by so many of these keys, kept in the model's ledger.

A policy is an entry of the ledger, so it cannot be set, changed or taken away without a trace that the chain protects;
it holds the public keys themselves, so that nothing else is needed to check it. It is asked whenever an alias
is moved, and by whoever serves one before they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelkeep.catalog import VersionRecord
from modelkeep.entry import Policy
from modelkeep.errors import GateRefused
from modelkeep.provenance import signing, trust
from modelkeep.registry import Registry
from modelkeep.report import Finding, Report, Severity


def of_keys(aliases: str, trusted: Path, required: int) -> Policy:
    """The policy that ``required`` of the keys in a trust file (see :mod:`trust`) sign what ``aliases`` point at."""
    return Policy(aliases=aliases, keys=trust.read(trusted), required=required)


def guard(registry: Registry, model: str, alias: str, policies: Sequence[Policy], record: VersionRecord) -> None:
    """Raise GateRefused, with the report, unless a version meets every policy. Raises like :func:`judge`."""
    judge(registry, model, alias, policies, record).raise_for_failures()


def judge(registry: Registry, model: str, alias: str, policies: Sequence[Policy], record: VersionRecord) -> Report:
    """Whether a version meets the policies of an alias; a finding for each, with what each key's signature is worth.

    Raises IntegrityError's kin where the manifest is damaged, MissingExtra without ``cryptography``.
    """
    findings = tuple(_judge(registry, model, policy, record) for policy in policies)
    return Report(f"{model}:{record.version} may not stand behind {model}@{alias}", findings, GateRefused)


def _judge(registry: Registry, model: str, policy: Policy, record: VersionRecord) -> Finding:
    """A signature that is wrong refuses, however many others are right: somebody changed something."""
    found = signing.check_version(
        registry.manifest(model, record),
        record.digest,
        record.attachments,
        registry.blobs,
        policy.keys,
        now=registry.ledgers.now(),
    )
    wrong = [finding for finding in found if finding.severity is Severity.FAILURE]
    enough = signing.require(found, policy.required)
    said = {finding.details["key"]: finding.message for finding in found if finding.check == "signature"}
    values = {key.name: said.get(key.id, "no signature") for key in policy.keys}
    message = "; ".join(
        [enough.message, *(f"{finding.check} {finding.subject}: {finding.message}" for finding in wrong)]
    )
    severity = Severity.FAILURE if wrong else enough.severity
    return Finding("policy", severity, message, text(policy), {"values": values})


def text(policy: Policy) -> str:
    """A policy in a line: ``signed by 2 of ada, grace, linus``."""
    return f"signed by {policy.required} of {', '.join(key.name for key in policy.keys)}"
