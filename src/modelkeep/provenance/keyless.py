"""Signing by who one is instead of with a key: Sigstore's certificates and public log, where the network allows.

The optional package ``sigstore`` does all of it: an OpenID Connect token (given, found in the surroundings of a CI job,
or asked for in a browser) buys a certificate for a key that lives for minutes, and the signature enters a public log.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from modelkeep.entry import TrustedKey
from modelkeep.errors import MissingExtra, StorageError, UnsafeContent
from modelkeep.provenance import dsse, trust


class KeylessSigner:
    """Whoever the token names, or, without one, the surroundings or a browser say. Raises StorageError offline."""

    def __init__(self, token: str | None = None) -> None:
        self._sigstore = _sigstore()
        self._given = token

    @cached_property
    def _context(self) -> tuple[Any, Any]:
        """A signing context and the token to sign with."""
        models, oidc, sign = (getattr(self._sigstore, name) for name in ("models", "oidc", "sign"))
        try:
            config = models.ClientTrustConfig.production()
            given = self._given or oidc.detect_credential()
            token = (
                oidc.IdentityToken(given)
                if given
                else oidc.Issuer(config.signing_config.get_oidc_url()).identity_token()
            )
            return sign.SigningContext.from_trust_config(config), token
        except Exception as error:
            raise _unreachable("sign without a key", error) from error

    @property
    def id(self) -> str:
        """What stands for a key's id: the identity and its issuer."""
        token = self._context[1]
        return trust.identity_id(token.identity, token.federated_issuer)

    def seal(self, payload: bytes) -> bytes:
        """The bundle of a payload, with its certificate and its entry in the log."""
        context, token = self._context
        try:
            with context.signer(token) as signer:
                bundle: str = signer.sign_dsse(self._sigstore.dsse.Statement(payload)).to_json()
        except Exception as error:
            raise _unreachable("sign without a key", error) from error
        return bundle.encode()


def verifies(key: TrustedKey, data: bytes) -> bool:
    """Whether a bundle was signed by a trusted identity, and entered in the log.

    Offline, Sigstore's own keys are those that were last seen, or came with the package.
    Raises MissingExtra, UnsafeContent for what cannot be read, StorageError where there are no keys.
    """
    sigstore = _sigstore()
    try:
        try:
            verifier = sigstore.verify.Verifier.production()
        except sigstore.errors.Error:
            verifier = sigstore.verify.Verifier.production(offline=True)
    except Exception as error:
        raise _unreachable("check a signature without a key", error) from error
    try:
        policy = sigstore.verify.policy.Identity(identity=key.identity, issuer=key.issuer)
        _, payload = verifier.verify_dsse(sigstore.models.Bundle.from_json(data), policy)
    except sigstore.errors.VerificationError:
        return False
    except sigstore.errors.Error as error:
        raise UnsafeContent(f"a signature cannot be read: {error}") from error
    return bool(payload == dsse.decode(data).payload)


def _sigstore() -> Any:
    try:
        import sigstore
        import sigstore.dsse
        import sigstore.errors
        import sigstore.models
        import sigstore.oidc
        import sigstore.sign
        import sigstore.verify
        import sigstore.verify.policy
    except ImportError as error:
        raise MissingExtra("signing without a key needs sigstore", hint="pip install 'modelkeep[keyless]'") from error
    return sigstore


def _unreachable(what: str, error: Exception) -> StorageError:
    reason = f"{type(error).__name__}: {error}".strip(": ")
    return StorageError(
        f"cannot {what}: Sigstore did not answer as expected ({reason})",
        hint="that needs the network and an identity; offline, sign with a key: --key key.pem",
    )
