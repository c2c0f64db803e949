"""``tokenizers.Tokenizer`` (Hugging Face), in its own JSON form."""

from __future__ import annotations

from typing import Any

from modelkeep.assets.codec import Packed, Stored, extra, one_part
from modelkeep.errors import UsageError


class HuggingFaceTokenizer:
    """Needs the extra ``tokenizers`` to come back."""

    kind = "hf-tokenizer"

    def accepts(self, value: Any) -> bool:
        """``tokenizers.Tokenizer``, or one of the ready-made kinds that wrap one."""
        return type(value).__module__.partition(".")[0] == "tokenizers" and hasattr(value, "to_str")

    def pack(self, name: str, value: Any) -> Packed:
        """Raises UsageError where it has parts written in Python, which have no JSON form."""
        try:
            data = value.to_str().encode()
        except Exception as error:  # the library raises plain Exception
            raise UsageError(f"this tokenizer has no JSON form: {error}") from error
        return one_part(name, self.kind, data, {"words": value.get_vocab_size()}, ".json")

    def unpack(self, stored: Stored) -> Any:
        """A ``tokenizers.Tokenizer``."""
        tokenizers = extra("tokenizers", "tokenizers", f"the asset {stored.asset.name!r}")
        try:
            return tokenizers.Tokenizer.from_str(stored.part().decode())
        except Exception as error:  # the library raises plain Exception
            raise stored.damaged(error) from error
