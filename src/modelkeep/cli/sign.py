"""``modelkeep sign``: vouch for a version, or for a file or folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelkeep.cli import completing, shapes
from modelkeep.cli.answer import Answer, Lines
from modelkeep.cli.command import command, reason_option

if TYPE_CHECKING:
    from modelkeep.keep import Keep

PASSWORD = "MODELKEEP_KEY_PASSWORD"
_FILE = click.Path(path_type=Path)


@command("sign", example="modelkeep sign sentiment:1.1.0 --key ada.pem", shape="Signed")
@click.argument("ref", required=False, shell_complete=completing.refs)
@click.option("--key", type=_FILE, metavar="FILE", help=f"A private key, PEM. Its password: ${PASSWORD}, or asked for.")
@click.option("--keyless", is_flag=True, help="Sign as whom Sigstore knows one to be; needs the network.")
@click.option(
    "--token", envvar="SIGSTORE_IDENTITY_TOKEN", metavar="TOKEN", help="An OpenID Connect token for --keyless."
)
@click.option("--signature", type=_FILE, metavar="FILE", help="Take in a signature that was made elsewhere.")
@click.option("--path", type=_FILE, metavar="PATH", help="Sign this file or folder instead of a version.")
@click.option("--to", type=_FILE, metavar="FILE", help="Write the signature here; replaces what is there.")
@reason_option
def run(
    keep: Keep,
    *,
    ref: str | None,
    key: Path | None,
    keyless: bool,
    token: str | None,
    signature: Path | None,
    path: Path | None,
    to: Path | None,
    reason: str | None,
) -> Answer:
    """Sign a version with a key, or without one.

    The signature is kept beside the version, one for each key. A file or folder gets its own
    beside or in it, as `model_signing verify` reads it.
    """
    from modelkeep.provenance import signing

    if (ref is None) == (path is None):
        raise click.UsageError("name a version, or a file or folder with --path")
    if path is not None:
        if (key is None) != keyless or signature is not None:
            raise click.UsageError("a file or folder is signed with --key or --keyless")
        signer = signing.signer(key, password=_password(key), token=token)
        at = signing.write(signing.sign_path(path, signer, signature=to), to or signing.beside(path))
        return _answer(str(path), signer.id, at)
    signed = keep.sign(
        str(ref),
        key=key,
        password=_password(key),
        keyless=keyless,
        token=token,
        signature=signature,
        reason=reason,
    )
    return _answer(signed.ref, signed.key_id, signing.write(signed.signature, to) if to else None)


def _password(key: Path | None) -> str | None:
    """What opens a key that is locked: the environment knows, or whoever sits at the terminal."""
    from modelkeep.provenance import keys

    if key is None or b"ENCRYPTED" not in keys.read_pem(key):
        return None
    if PASSWORD in os.environ:
        return os.environ[PASSWORD]
    if not sys.stdin.isatty():
        return None
    try:
        return str(click.prompt(f"Password of {key}", hide_input=True, err=True))
    except click.Abort:
        raise KeyboardInterrupt from None


def _answer(what: str, key_id: str, at: Path | None) -> Answer:
    wrote = f"  → {at}" if at else ""
    signed = shapes.Signed(signed=what, key=key_id, path=str(at) if at else None)
    return Answer(signed, [Lines(f"{what} signed with the key {key_id[:8]}{wrote}")])
