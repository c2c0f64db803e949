"""A Keras tokenizer as TensorFlow 2.12 pickles it, and as its ``to_json`` tells it.

Run once, on Python 3.11 with ``tensorflow==2.12.1``: ``python tests/pickles/write.py``.
"""

from __future__ import annotations

import pickle
from pathlib import Path

from tensorflow.keras.preprocessing.text import Tokenizer

HERE = Path(__file__).parent

tokenizer = Tokenizer(num_words=50, oov_token="<OOV>")
tokenizer.fit_on_texts(["the cat sat on the mat", "the dog ate my ünïcode homework", "a cat"] * 3)
for protocol in (0, 2, 4):
    (HERE / f"tokenizer_of_tensorflow_2_12.protocol_{protocol}.pkl").write_bytes(pickle.dumps(tokenizer, protocol))
(HERE / "tokenizer_of_tensorflow_2_12.json").write_text(tokenizer.to_json(), encoding="utf-8")
