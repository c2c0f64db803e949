"""What lies beside a network: tokenizers that contradict themselves, pickles under the name of a vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.errors import UsageError
from modelkeep.formats.contents import Contents, Member, Problem
from modelkeep.formats.limits import Limits
from modelkeep.formats.pickle_machine import begins
from modelkeep.formats.pickles import facts_of_member
from modelkeep.pipeline.tokenizer import Tokenizer
from modelkeep.safety.pickles import judge


def check(contents: Contents, limits: Limits) -> Iterator[Problem]:
    """What is wrong with the files inside a form."""
    for member in contents.members:
        if member.read is not None and member.size <= limits.config:
            yield from _check_member(member, member.read(), limits)


def _check_member(member: Member, data: bytes, limits: Limits) -> Iterator[Problem]:
    # Pickles of protocols 0 and 1 have no sign: a vocabulary may well begin like one.
    if data[:1] == b"\x80" and begins(data[:2], limits):
        yield from judge(facts_of_member(member, limits), of_torch=False)
    elif member.name.endswith(".json") and b'"Tokenizer"' in data[:100]:
        yield from _check_tokenizer(data, member.name)


def _check_tokenizer(text: bytes, place: str) -> Iterator[Problem]:
    try:
        Tokenizer.from_json(text)
    except UsageError as error:
        yield Problem("tokenizer-inconsistent", str(error).partition("\n")[0], place)
