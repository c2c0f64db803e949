"""Keras' legacy text ``Tokenizer``, of whichever Keras; comes back as our own, which runs without it."""

from __future__ import annotations

from typing import Any

from modelkeep.assets.codec import Packed, Stored, one_part
from modelkeep.errors import LimitExceeded, UsageError
from modelkeep.pipeline.tokenizer import MAX_JSON, Tokenizer

# Keras 3, Keras 2 and tf-keras, standalone keras_preprocessing, and TensorFlow's own copy.
_PACKAGES = ("keras", "tf_keras", "keras_preprocessing", "tensorflow")


class KerasTokenizer:
    """Stored in Keras' own JSON form, checked when written and when read."""

    kind = "keras-tokenizer"

    def accepts(self, value: Any) -> bool:
        """Our own, or a class named Tokenizer from a module of Keras that ends in ``preprocessing.text``."""
        if type(value) is Tokenizer:
            return True
        module = type(value).__module__
        of_keras = module.partition(".")[0] in _PACKAGES and module.endswith("preprocessing.text")
        return of_keras and type(value).__name__ == "Tokenizer"

    def pack(self, name: str, value: Any) -> Packed:
        """As JSON in Keras' form."""
        tokenizer = Tokenizer.from_keras(value)
        data = tokenizer.to_json().encode("ascii")
        if len(data) > MAX_JSON:
            raise LimitExceeded(
                "the tokenizer is too large", found=f"{len(data)} bytes", expected=f"at most {MAX_JSON}"
            )
        info = {"words": len(tokenizer.word_index), "num_words": tokenizer.num_words}
        return one_part(name, self.kind, data, info, ".json")

    def unpack(self, stored: Stored) -> Tokenizer:
        """A :class:`modelkeep.Tokenizer`; ``to_keras()`` gives Keras' own."""
        try:
            return Tokenizer.from_json(stored.part())
        except UsageError as error:
            raise stored.damaged(error) from error
