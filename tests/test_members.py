"""Files beside a network are looked into: a vocabulary that is a pickle, a tokenizer that contradicts itself."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from hostile import Touch, archive
from modelkeep.formats.limits import DEFAULT
from modelkeep.pipeline.tokenizer import Tokenizer
from modelkeep.safety.scanning import scan_here


def rules(path: Path, **assets: bytes) -> list[str]:
    archive(path, extra={f"assets/{name.replace('_', '.')}": data for name, data in assets.items()})
    return [problem[0] for problem in scan_here(path, limits=DEFAULT)["problems"]]


@pytest.fixture
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer()
    tokenizer.fit_on_texts(["the cat sat on the mat"])
    return tokenizer


def test_honest_files_are_in_order(tokenizer: Tokenizer, tmp_path: Path) -> None:
    words = b"(the\ncat\nNone\n"
    assert rules(tmp_path / "model.keras", words_txt=words, tokenizer_json=tokenizer.to_json().encode()) == []


def test_a_pickle_under_another_name_is_judged(tmp_path: Path) -> None:
    data = pickle.dumps({"words": ["a"]})
    assert rules(tmp_path / "model.keras", words_txt=data) == ["pickle"]
    assert "pickle-call" in rules(tmp_path / "model.keras", words_txt=pickle.dumps(Touch(tmp_path)))


def test_a_tokenizer_that_contradicts_itself_is_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = json.loads(tokenizer.to_json())
    config["config"]["word_index"] = json.dumps({**tokenizer.word_index, "cat": 1})
    assert rules(tmp_path / "model.keras", tokenizer_json=json.dumps(config).encode()) == ["tokenizer-inconsistent"]
