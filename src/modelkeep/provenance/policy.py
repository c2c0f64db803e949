"""What an alias demands: signatures by so many of these keys, kept in the model's ledger.

A policy is an entry of the ledger, so it cannot be set, changed or taken away without a trace that the chain protects;
it holds the public keys themselves, so that nothing else is needed to check it. It is asked whenever an alias
is moved, and by whoever serves one before they do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from modelkeep.catalog import VersionRecord
from modelkeep.entry import Policy, TrustedKey
from modelkeep.errors import GateRefused
from modelkeep.provenance import signing, trust
from modelkeep.registry import Registry
from modelkeep.report import Finding, Report, Severity


def of_keys(aliases: str, trusted: Path, required: int) -> Policy:
    """The policy that ``required`` of the keys in a trust file (see :mod:`trust`) sign what ``aliases`` point at."""
    return Policy(aliases=aliases, keys=trust.read(trusted), required=required)


def none(aliases: str) -> Policy:
    """What takes the policy for ``aliases`` away."""
    return Policy(aliases=aliases, required=0)


def of(registry: Registry, model: str, alias: str | None) -> dict[str, Policy]:
    """The policies of a model, or of one alias or pattern, by their patterns. Raises ModelNotFound."""
    found = registry.policies(model)
    return {each: found[each] for each in found if alias is None or alias == each or fnmatchcase(alias, each)}


def trusted(registry: Registry, model: str, path: Path | None) -> tuple[TrustedKey, ...]:
    """The keys of a trust file, or without one of the file that the environment names, or of the model's policies.

    Raises UsageError where nobody is trusted, and what :func:`trust.read` raises.
    """
    found = {key.id: key for policy in registry.policies(model).values() for key in policy.keys}
    if path is None and trust.VARIABLE not in os.environ and found:
        return tuple(found.values())
    return trust.here(path, model)


def report(registry: Registry, model: str, alias: str, version: str | None = None) -> Report:
    """Whether a version, or every one that an alias points at, meets the alias' policies."""
    state = registry.ledgers.state(model)
    policies = state.policies_for(alias)
    versions = [version] if version is not None else list(state.pointing(alias).targets)
    reports = [judge(registry, model, alias, policies, state.live_record(each)) for each in versions]
    return replace(reports[0], findings=tuple(finding for each in reports for finding in each))


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
    told = [enough.message, *(f"{finding.check} {finding.subject}: {finding.message}" for finding in wrong)]
    if enough.severity is Severity.FAILURE:
        told.append(f"sign it: modelkeep sign {model}:{record.version} --key KEY")
    severity = Severity.FAILURE if wrong else enough.severity
    return Finding("policy", severity, "; ".join(told), text(policy), {"values": values})


def text(policy: Policy) -> str:
    """A policy in a line: ``signed by 2 of ada, grace, linus``."""
    return f"signed by {policy.required} of {', '.join(key.name for key in policy.keys)}"
