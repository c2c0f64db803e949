"""Write ``safety/tensorflow_ops.json``: the operations that TensorFlow has, and which of them are stateful.

``python tests/write_tensorflow_ops.py``, once with each TensorFlow whose files are known, adds what that one has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent.parent / "src" / "modelkeep" / "safety" / "tensorflow_ops.json"


def here() -> dict[str, Any]:
    """What the TensorFlow that is installed has registered, ``functions`` being those that may call functions."""
    import tensorflow
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session as session

    ops = op_def_pb2.OpList.FromString(session.TF_GetBuffer(session.TF_GetAllOpList())).op
    return {
        "releases": [tensorflow.__version__],
        "ops": [op.name for op in ops],
        "stateful": [op.name for op in ops if op.is_stateful],
        "functions": [op.name for op in ops if any(a.type in ("func", "list(func)") for a in op.attr)],
    }


if __name__ == "__main__":
    old = json.loads(PATH.read_text()) if PATH.exists() else {}
    both = {word: sorted({*old.get(word, ()), *found}) for word, found in here().items()}
    PATH.write_text(json.dumps(both, indent=0) + "\n")
