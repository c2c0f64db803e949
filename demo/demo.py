"""Train a sentiment classifier and keep it: refuse, save, verify, promote, resume, compare, export, roll back.

Run by ``make demo``; asks nothing, takes about a minute and a half on two cores. What it keeps is in
``./models`` (or $MODELKEEP_STORE) afterwards, and a second run goes on from there with higher versions.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same numbers on every processor

import keras
import numpy as np
from keras import layers
from keras.src.legacy.preprocessing.text import Tokenizer
from rich.console import Console

import modelkeep as mk
from data import reviews

DATA = Path(__file__).parent.parent / "demo-data"
# As it stands in the environment that runs this, so that it can be pasted.
COMMAND = os.path.relpath(Path(sys.executable).parent / "modelkeep")
STORE = os.environ.get("MODELKEEP_STORE", "models")
WORDS, LENGTH = 10_000, 100
console = Console(highlight=False)


def baseline() -> keras.Model:
    """A small recurrent network."""
    return keras.Sequential(
        [
            layers.Input((LENGTH,), dtype="int32", name="words"),
            layers.Embedding(WORDS, 128, name="embedding"),
            layers.LSTM(64, name="lstm"),
            layers.Dense(1, activation="sigmoid", name="positive"),
        ],
        name="sentiment",
    )


def improved() -> keras.Model:
    """The same, learning with parts of it switched off."""
    return keras.Sequential(
        [
            layers.Input((LENGTH,), dtype="int32", name="words"),
            layers.Embedding(WORDS, 128, name="embedding"),
            layers.SpatialDropout1D(0.3, name="word_dropout"),
            layers.LSTM(64, name="lstm"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(1, activation="sigmoid", name="positive"),
        ],
        name="sentiment",
    )


class TakeAway(keras.callbacks.Callback):
    """Ends the process after so many steps, as whoever lends a machine does."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def get_state(self) -> int:
        """What a checkpoint keeps of this callback."""
        return self.after

    def set_state(self, after: int) -> None:
        """Take it back."""
        self.after = after

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Count."""
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """The whole story, step by step."""
    began = time.perf_counter()
    with step("Read 10,605 snippets of film reviews, rated by people"):
        texts, labels = reviews(DATA)
        train, test = slice(0, 8_605), slice(8_605, None)
        y = np.array(labels)
        tokenizer = Tokenizer(num_words=WORDS)
        tokenizer.fit_on_texts(texts[train])
        x = keras.utils.pad_sequences(tokenizer.texts_to_sequences(texts), maxlen=LENGTH)

    def train_on(model: keras.Model, samples: int, epochs: int) -> dict[str, float]:
        model.fit(x[train][:samples], y[train][:samples], epochs=epochs, batch_size=64, verbose=0)
        return scores(model)

    def scores(model: keras.Model) -> dict[str, float]:
        return {k: round(v, 4) for k, v in model.evaluate(x[test], y[test], return_dict=True, verbose=0).items()}

    keep = mk.open(STORE, actor="demo")
    whole = {
        "assets": {"tokenizer": tokenizer},
        "pipeline": mk.Pipeline(
            [mk.steps.tokenize("tokenizer"), mk.steps.pad(LENGTH)],
            outputs=[mk.steps.labels(["negative", "positive"])],
        ),
        "golden": texts[test][:10],
    }

    keras.utils.set_random_seed(2)
    model = baseline()
    model.compile(keras.optimizers.Adam(name="adam"), "binary_crossentropy", metrics=["accuracy"])
    with step("Train on 500 snippets, which is too few"):
        metrics = train_on(model, samples=500, epochs=1)
        say(f"accuracy {metrics['accuracy']:.3f}")
    with step("Keep it, if it is good enough"):
        try:
            keep.save(model, "sentiment", bump="minor", metrics=metrics, gates=["accuracy >= 0.75"], **whole)
        except mk.errors.GateRefused as refusal:
            say(refusal)

    with step("Train on all of them, two epochs"):
        metrics = train_on(model, samples=len(x), epochs=2)
        say(f"accuracy {metrics['accuracy']:.3f}, loss {metrics['loss']:.3f}")
    with step("Keep it: network, optimizer, tokenizer, pipeline, ten golden examples"):
        metadata = {"dataset": "movie review snippets", "epochs": 2, "batch_size": 64, "learning_rate": 1e-3}
        first = keep.save(
            model, "sentiment", bump="minor", metrics=metrics, metadata=metadata, gates=["accuracy >= 0.75"], **whole
        )
        say(first)
    with step("Verify it: every digest, every weight to the bit, the golden examples replayed"):
        report = keep.verify(first.ref, live=True)
        report.raise_for_failures()
        say(report.summary)
    with step("Promote it to production"):
        keep.promote(first.ref, to="production", reason="the first that passes")

    def train_improved(*callbacks: keras.callbacks.Callback) -> keras.Model:
        model = improved()
        model.compile(keras.optimizers.Adam(use_ema=True, name="adam"), "binary_crossentropy", metrics=["accuracy"])
        run = keep.checkpoints(f"run-{begun}", every_epochs=1)
        run.fit(model, x[train], y[train], epochs=3, batch_size=64, verbose=0, callbacks=callbacks)
        return model

    begun = f"{datetime.now():%m%d-%H%M%S}"
    with step("Train an improved network under checkpoints: dropout, averaged weights; ended in its second epoch"):
        try:
            train_improved(TakeAway(after=200))
        except SystemExit as ended:
            say(f"ended by SIGTERM, exit code {ended.code}, as a spot instance is")
            say(modelkeep("checkpoints", f"run-{begun}"))
    with step("Start it again: it goes on with the very next step, to the bit"):
        model = train_improved(TakeAway(after=0))  # which is put back, too: it has taken away what it will
        metrics = scores(model)
        say(f"accuracy {metrics['accuracy']:.3f}, loss {metrics['loss']:.3f}")
    with step("Keep it as the next version, and compare"):
        second = keep.save(
            model, "sentiment", bump="minor", metrics=metrics, metadata=metadata | {"epochs": 3},
            parent="sentiment@production", **whole,
        )  # fmt: skip
        say(second)
        diff = keep.diff(first.ref, second.ref)
        for section in ("architecture", "compile", "metrics"):
            for change in diff[section]:
                say(f"{change.kind} {change.subject}: {change}")
    with step("Promote it, if it is no worse than what is in production"):
        gates = ["loss <= @production.loss", "accuracy >= @production.accuracy - 0.01"]
        keep.promote(second.ref, to="production", gates=gates, reason="better on the test set")

    with step("Classify sentences with what is in production"):
        loaded = keep.load("sentiment@production")
        sentences = ["I loved every minute of it", "A dull film, far too long", "Moving, funny and beautifully played"]
        for sentence, answer in zip(sentences, loaded.predict(sentences), strict=True):
            say(f"{answer['score']:.2f} {answer['label']}  {sentence}")
    with step("Hand it to a server without Keras: as ONNX, opened again and asked the same"), temporary() as folder:
        exported = keep.export("sentiment@production", "onnx", to=folder / "sentiment.onnx")
        say(exported.report)
        say(mk.scan(exported.path))
    with step("Roll back, as if it had gone wrong"):
        say(f"production is {keep.rollback('sentiment@production', reason='a rehearsal').ref} again")
    with step("What happened: modelkeep history sentiment"):
        say(modelkeep("history", "sentiment"))

    seconds = time.perf_counter() - began
    console.print(f"\n[bold green]Done in {seconds:.0f} s.[/] Everything is in {STORE}. Now try:")
    for line in (
        "list",
        "versions sentiment",
        f"show {second.ref}",
        f"diff {first.ref} {second.ref}",
        f"verify {second.ref} --live",
        f"promote {second.ref} production",
        "history sentiment",
        f"watch run-{begun} --once",
        "export sentiment@production saved_model --to serving/1",
        "inspect serving/1",
    ):
        say(f"{COMMAND} {line}")


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder that goes again."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def modelkeep(*words: str) -> str:
    """What the command says of the same store."""
    command = [sys.executable, "-m", "modelkeep", *words, "--store", STORE]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    console.print(f"\n[bold cyan]●[/] [bold]{title}[/]")
    began = time.perf_counter()
    yield
    console.print(f"  [dim]{time.perf_counter() - began:.2f} s[/]")


def say(what: object) -> None:
    """What a step has found out."""
    for line in str(what).splitlines():
        console.print(f"  {line}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
