from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.errors import IntegrityError, LimitExceeded, ModelkeepError
from modelkeep.formats import architecture
from modelkeep.formats.forms import look
from modelkeep.formats.limits import DEFAULT

DENSE = {"class_name": "Dense", "config": {"name": "dense", "units": 1}}
KERAS_1 = {"class_name": "Sequential", "keras_version": "1.2.2", "config": [DENSE]}
KERAS_2 = {
    "class_name": "Sequential",
    "config": {"name": "s", "layers": [DENSE]},
    "keras_version": "2.12.0",
    "backend": "tensorflow",
}
KERAS_3 = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {"name": "s", "layers": [{"module": "keras.layers", **DENSE, "registered_name": None}]},
    "registered_name": None,
    "compile_config": {"optimizer": "adam"},
}
YAML = "backend: tensorflow\nclass_name: Sequential\nconfig:\n  layers: []\nkeras_version: 2.4.0\n"


def opened(data, tmp_path):
    (tmp_path / "model.json").write_bytes(data if isinstance(data, bytes) else data.encode())
    place = look(tmp_path / "model.json")
    assert architecture.recognise(place)
    return architecture.read(place, DEFAULT, True)


@pytest.mark.parametrize("value", [KERAS_1, KERAS_2, KERAS_3], ids=["Keras 1", "Keras 2", "Keras 3"])
@pytest.mark.parametrize("options", [{}, {"indent": 4}, {"sort_keys": True}], ids=["plain", "indented", "sorted"])
def test_the_json_of_every_keras_is_read(value, options, tmp_path):
    with opened(json.dumps(value, **options), tmp_path) as contents:
        assert (contents.form, contents.config, contents.problems) == ("json", value, ())
        assert contents.compile == value.get("compile_config")
        writer = {"keras": value.get("keras_version"), "backend": value.get("backend")}
        assert contents.writer == {key: text for key, text in writer.items() if text}


def test_json_that_was_dumped_once_more_is_read(tmp_path):
    with opened(json.dumps(json.dumps(KERAS_2)), tmp_path) as contents:
        assert contents.config == KERAS_2


def test_a_class_behind_a_long_config_is_found(tmp_path):
    value = {"config": {"layers": [DENSE] * 1000}, "class_name": "Sequential"}
    with opened(json.dumps(value), tmp_path) as contents:
        assert contents.config == value


@pytest.mark.parametrize(
    "data",
    [
        json.dumps({"class_name": "Tokenizer", "config": {"word_index": "{}"}}),
        json.dumps({"architectures": ["BertModel"], "class_name": "x"}),
        json.dumps({"config": 1}),
        "name: other\nversion: 1\n",
        "[1, 2]",
        "",
    ],
)
def test_what_is_no_architecture_is_not_taken_for_one(data, tmp_path):
    (tmp_path / "model.json").write_text(data)
    assert not architecture.recognise(look(tmp_path / "model.json"))


@pytest.mark.parametrize("start", ["", "---\n", "!!python/object:keras.Model\n"])
def test_yaml_is_told_with_the_way_out_and_not_read(start, tmp_path):
    with opened(start + YAML, tmp_path) as contents:
        assert (contents.form, contents.config) == ("yaml", None)
        assert "model_from_yaml" in contents.problems[0].message


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!<tag:yaml.org,2002:python/object/new:x>"])
def test_a_tag_of_python_in_yaml_is_told(tag, tmp_path):
    with opened(YAML + f"more: {tag} ['true']\n", tmp_path) as contents:
        assert [problem.rule for problem in contents.problems] == ["yaml-architecture", "yaml-python-tag"]


def test_a_key_that_stands_there_twice_is_told(tmp_path):
    with opened('{"class_name": "Sequential", "config": {}, "config": []}', tmp_path) as contents:
        assert [problem.rule for problem in contents.problems] == ["json-duplicate-key"]


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ('{"class_name": "Sequential", "config": ' + "[" * 200 + "]" * 200 + "}", LimitExceeded, "json_depth"),
        ('{"class_name": "Sequential", "config": "' + "a" * 2**25 + '"}', LimitExceeded, "config"),
        ('{"class_name": "Sequential", ', IntegrityError, "not valid JSON"),
        ('{"class_name": 1}', IntegrityError, "no architecture"),
    ],
)
def test_what_cannot_be_one_is_refused(data, error, said, tmp_path):
    with pytest.raises(error, match=said), opened(data, tmp_path):
        pass


@given(st.text('{}[]":, \n!class_nmeoifgpyth', max_size=60))
def test_any_text_is_read_or_refused_in_our_own_words(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text('{"class_name": ' + text)
    with contextlib.suppress(ModelkeepError), architecture.read(look(path), DEFAULT, True):
        pass


@pytest.mark.keras
def test_what_keras_writes_now_is_read(tmp_path):
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with opened(model.to_json(), tmp_path) as contents:
        assert contents.config == json.loads(model.to_json())
