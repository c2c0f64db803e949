"""An archive with a model of another form in it: ``zip``, ``tar.gz``, ``tar.zst``."""

from __future__ import annotations

import tempfile
import weakref
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import keras

from modelkeep.engines.engine import MODULES as ENGINES
from modelkeep.engines.engine import Engine, open_engine
from modelkeep.errors import UsageError
from modelkeep.formats.archives import pack
from modelkeep.formats.forms import open_contents
from modelkeep.live import exporting
from modelkeep.live.golden import Predict
from modelkeep.live.signature import signature as signature_of
from modelkeep.live.tensors import numpy_dtype
from modelkeep.live.writing.tracing import by_name, nested
from modelkeep.manifest import Signature
from modelkeep.report import Finding, Severity

BACKENDS = ("tensorflow", "jax", "torch")


def write(
    model: keras.Model, path: Path, *, form: str, signature: Signature, of: str = "keras", **options: Any
) -> tuple[Finding, ...]:
    """Write ``model`` as the form ``of``, proved as if it stood alone, and pack it as ``form``."""
    if of == form or exporting.WRITERS.get(of, exporting.WRITERS[form]).module == "archives":
        raise UsageError("an archive holds a model of another form", found=f"of={of!r}", expected="such as 'keras'")
    with tempfile.TemporaryDirectory(prefix="modelkeep-") as folder:
        inner = Path(folder, f"model{exporting.WRITERS[of].ending}")
        report = exporting.export(model, of, inner, signature=signature, **options)
        pack(inner, path, form)
    return tuple(finding for finding in report if finding.severity is not Severity.OK)  # it is replayed once more


def reopen(path: Path, *, form: str, model: keras.Model) -> Predict:
    """What the model in the archive answers."""
    with ExitStack() as stack:
        contents = stack.enter_context(open_contents(path))
        if contents.form not in ENGINES:
            writer = import_module(f"modelkeep.live.writing.{exporting.WRITERS[contents.form].module}")
            predict: Predict = writer.reopen(contents.path, form=contents.form, model=model)
            return predict
        engine = open_engine(contents.form, contents.path)
        # The unpacked files are there as long as what may still read from them.
        weakref.finalize(engine, stack.pop_all().close)
    return lambda inputs: _answered(engine, model, inputs)


def _answered(engine: Engine, model: keras.Model, inputs: Any) -> Any:
    signature = signature_of(model)
    assert signature is not None  # it was exported by one
    given = by_name(signature.input_structure, inputs)
    dtypes = {spec.name: spec.dtype for spec in engine.signature.inputs}
    cast = {
        name: array if dtypes[name] == "string" else array.astype(numpy_dtype(dtypes[name]))
        for name, array in given.items()
    }
    return nested(signature.output_structure, engine.run(cast))
