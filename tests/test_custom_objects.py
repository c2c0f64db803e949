"""Custom objects: found with the layers that use them, and gathered again from where they may come from."""

import base64
import contextlib
import json
import linecache
import marshal
import sys
import textwrap
from dataclasses import dataclass, field

import hypothesis
import hypothesis.strategies as st
import keras
import pytest

from modelkeep.errors import CannotLoad, MissingCustomObjects, UnsafeContent, UsageError
from modelkeep.live import lambdas
from modelkeep.live.allowlist import check_config, own_class, own_function
from modelkeep.live.configs import walk
from modelkeep.live.custom_objects import find, resolve
from modelkeep.manifest import CustomObject
from modelkeep.report import Severity

pytestmark = [
    pytest.mark.keras,
    # Keras warns about each lambda it serializes; what becomes of them is tested here.
    pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`:UserWarning"),
]


class Scaled(keras.layers.Layer):
    """The base of :class:`Block`."""

    factor = 2.0


class Block(Scaled):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = Inner(units)

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs) * self.factor

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Inner(keras.layers.Dense):
    """Made by the code of :class:`Block`, so no config names it."""


class Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype=dtype)


@keras.saving.register_keras_serializable(package="tests", name="Soft")
def soft(x):
    return keras.ops.softmax(x)


def custom_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


def half(x):
    return x / 2


def relu(x):
    return keras.ops.maximum(x, -1.0)


@dataclass
class Saved:
    """A model as capture sees it: serialized, searched."""

    model: keras.Model
    allow_lambda: bool = False
    notices: tuple = field(init=False)

    def __post_init__(self):
        config = keras.saving.serialize_keras_object(self.model)
        compiled = config.pop("compile_config", {})
        self.config, first = lambdas.check_or_replace(config, allow_lambda=self.allow_lambda)
        self.compiled, second = lambdas.check_or_replace(compiled, allow_lambda=self.allow_lambda, at=("compile",))
        self.notices = (*first, *second)
        self.found = find(self.config, self.compiled, self.model)
        self.records = {record.name: record for record in self.found.records}

    def rebuilt(self, **given):
        objects, _ = resolve(self.found.records, **given)
        check_config(self.config, objects)
        check_config(self.compiled, objects)
        with keras.saving.custom_object_scope(objects):
            model = keras.saving.deserialize_keras_object(json.loads(json.dumps(self.config)))
            if self.compiled:
                model.compile_from_config(json.loads(json.dumps(self.compiled)))
        return model


def sequential(*layers, **compiled):
    model = keras.Sequential([keras.Input((4,)), *layers])
    if compiled:
        model.compile(**compiled)
    return model


@pytest.fixture
def saved():
    encoder = keras.Sequential([keras.Input((4,)), Block(3, name="block")], name="encoder")
    return Saved(
        sequential(
            encoder,
            keras.layers.Dense(3, kernel_initializer=Ones(), activation=soft, name="head"),
            keras.layers.Lambda(half, name="halved"),
            optimizer="sgd",
            loss=custom_loss,
            metrics=["mae", custom_loss],
        )
    )


def failures(found):
    return [finding for finding in found.findings if finding.severity is Severity.FAILURE]


# --- found


def test_every_custom_object_is_recorded_with_its_kind_and_who_uses_it(saved):
    told = {name: (record.kind, record.used_by) for name, record in saved.records.items() if not record.implied}
    assert told == {
        "Block": ("layer", ("encoder/block",)),
        "Ones": ("initializer", ("head",)),
        "soft": ("activation function", ("head",)),
        "half": ("function", ("halved",)),
        "custom_loss": ("loss function", ("compile/loss", "compile/metrics")),
    }
    assert not failures(saved.found)


def test_a_record_tells_where_the_object_was_defined_without_naming_the_machine(saved):
    record = saved.records["soft"]
    assert (record.module, record.qualname, record.registered) == (__name__, "soft", "tests>Soft")
    assert record.file == "test_custom_objects.py"
    assert record.line == soft.__code__.co_firstlineno


def test_the_source_kept_is_that_of_the_class_and_of_its_own_bases(saved):
    text = saved.found.sources[saved.records["Block"].source].decode()
    assert text.startswith("class Block(Scaled):")
    assert "factor = 2.0" in text
    assert "class Layer" not in text


def test_a_layer_made_by_the_code_of_another_is_recorded_but_need_not_be_given(saved):
    assert saved.records["Inner"].implied
    assert "Inner" not in resolve(saved.found.records, custom_objects=[Block, Ones, custom_loss, half])[0]


def test_a_plain_keras_model_has_no_custom_objects():
    model = sequential(
        keras.layers.Dense(2, activation="relu"), keras.layers.Dropout(0.5), optimizer="adam", loss="mse"
    )
    assert Saved(model).found.records == ()


def test_graphs_of_keras_operations_are_keras_own():
    inputs = keras.Input((4,))
    saved = Saved(keras.Model(inputs, keras.ops.exp(inputs) + 1.0))
    assert saved.found.records == ()
    assert saved.rebuilt()


@pytest.mark.parametrize("function", [keras.ops.abs, keras.applications.resnet50.preprocess_input])
def test_keras_pure_functions_are_rebuilt_though_keras_alone_cannot(function):
    saved = Saved(sequential(keras.layers.Lambda(function)))
    assert saved.found.records[0].module.startswith(("keras.ops", "keras.applications."))
    assert saved.rebuilt().layers[0].function is function


def test_a_loss_that_keras_would_take_for_another_is_a_failure():
    (failure,) = failures(Saved(sequential(keras.layers.Dense(1), loss=keras.ops.binary_crossentropy)).found)
    assert failure.subject == "compile/loss"


def test_a_function_with_the_name_of_keras_own_is_a_failure():
    (failure,) = failures(Saved(sequential(keras.layers.Dense(2, activation=relu, name="head"))).found)
    assert failure.subject == "head"
    assert "relu has the name of another of Keras' own" in failure.message


def test_a_layer_that_looks_functions_up_by_itself_is_let_be():
    class Own(keras.layers.Layer):
        def __init__(self, activation="relu", **kwargs):
            super().__init__(**kwargs)
            self.activation = {"relu": relu}[activation]

        def call(self, inputs):
            return self.activation(inputs)

        def get_config(self):
            return {**super().get_config(), "activation": self.activation.__name__}

    assert not failures(Saved(sequential(Own())).found)


def test_functions_of_a_compile_config_of_its_own_are_found():
    class Adversarial(keras.Sequential):
        def compile(self, critic_loss):
            super().compile("sgd")
            self.critic_loss = critic_loss

        def get_compile_config(self):
            return {"critic_loss": keras.saving.serialize_keras_object(self.critic_loss)}

        def compile_from_config(self, config):
            self.compile(**keras.saving.deserialize_keras_object(config))

    model = Adversarial([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(custom_loss)
    assert "custom_loss" in Saved(model).found.objects


def test_two_classes_of_one_name_are_a_failure():
    def other():
        class Block(keras.layers.Layer):
            def call(self, inputs):
                return inputs

        return Block

    (failure,) = failures(Saved(sequential(Block(2), other()())).found)
    assert "two custom objects are both called Block" in failure.message


def test_a_bound_method_is_a_failure_because_keras_keeps_only_its_name():
    class Losses:
        def squared(self, y_true, y_pred):
            return keras.ops.square(y_true - y_pred)

    (failure,) = failures(Saved(sequential(keras.layers.Dense(1), loss=Losses().squared)).found)
    assert "squared is a method" in failure.message


def test_source_that_cannot_be_read_is_said_and_the_rest_still_recorded():
    made = {"keras": keras, "__name__": "console"}
    exec("def shout(x):\n    return x * 10", made)
    saved = Saved(sequential(keras.layers.Lambda(made["shout"])))
    assert saved.records["shout"].source is None
    assert "cannot be read" in saved.found.findings[0].message
    assert saved.rebuilt(custom_objects=made)


def test_a_class_from_a_notebook_cell_has_its_source(monkeypatch):
    text = "import keras\nclass Cell(keras.layers.Layer):\n    def call(self, x):\n        return x\n"
    monkeypatch.setitem(linecache.cache, "<cell 1>", (len(text), None, text.splitlines(True), ""))
    made = {"__name__": "notebook"}
    exec(compile(text, "<cell 1>", "exec"), made)
    saved = Saved(sequential(made["Cell"]()))
    assert b"class Cell(" in saved.found.sources["source/notebook.Cell.py"]


# --- gathered


@pytest.mark.backends
def test_a_list_or_a_mapping_brings_the_model_back(saved):
    assert saved.rebuilt(custom_objects=[Block, Ones, custom_loss, half]).loss is custom_loss
    given = {"Block": Block, "Ones": Ones, "custom_loss": custom_loss, "half": half, "Unneeded": Scaled}
    assert isinstance(saved.rebuilt(custom_objects=given).layers[0].layers[0], Block)


def test_the_live_objects_of_a_save_are_those_that_rebuild_it(saved):
    assert resolve(saved.found.records, custom_objects=saved.found.objects)[0] == saved.found.objects


def test_all_missing_objects_are_named_at_once_with_the_lines_to_paste(saved):
    with pytest.raises(MissingCustomObjects) as caught:
        resolve(saved.found.records, custom_objects=[Ones, Scaled])
    text = str(caught.value)
    assert "3 custom objects needed" in text
    assert (
        f"layer Block, defined in test_custom_objects.py, line {saved.records['Block'].line}, used by encoder/block"
        in text
    )
    assert "loss function custom_loss" in text
    assert "given, but not needed: Scaled" in text
    assert "from test_custom_objects import Block\n    from test_custom_objects import half\n" in text
    assert text.endswith("custom_objects=[Block, half, custom_loss]")


def test_an_object_defined_inside_a_function_is_described_not_imported():
    def local(x):
        return x

    with pytest.raises(MissingCustomObjects, match=r"# local is defined inside .* in test_custom_objects.py"):
        resolve(Saved(sequential(keras.layers.Lambda(local))).found.records)


def test_objects_of_a_script_are_imported_from_its_file():
    record = CustomObject(name="f", kind="function", module="__main__", qualname="f", file="train.py")
    with pytest.raises(MissingCustomObjects, match="from train import f"):
        resolve([record])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"MyBlock": Block}, "given under another name"),
        ({"Block": Block, "tests>Block": Scaled, "x": 1}, None),
        ({"Block": half}, "of another kind"),
        ({"Block": keras.losses.Loss}, "of another kind"),
        (["Block"], "neither a class nor a function"),
        ("Block", "cannot be read"),
        (Block, "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, message):
    record = CustomObject(name="Block", kind="layer", module=__name__, qualname="Block")
    if message is None:
        assert resolve([record], custom_objects=given)[0] == {"Block": Block}
    else:
        with pytest.raises(UsageError, match=message):
            resolve([record], custom_objects=given)


def test_two_objects_given_for_one_name_are_refused():
    record = CustomObject(name="Block", kind="layer", module="elsewhere", qualname="Block")
    with pytest.raises(UsageError, match="two objects were given for Block"):
        resolve([record], custom_objects=[Block, type("Block", (Scaled,), {})])


def test_another_object_than_the_registered_one_is_refused():
    record = CustomObject(name="soft", kind="function", module=__name__, qualname="soft", registered="tests>Soft")
    with pytest.raises(UsageError, match="another of that name is registered"):
        resolve([record], custom_objects={"soft": half})


def test_a_function_given_for_a_class_and_the_other_way_are_refused(saved):
    with pytest.raises(UsageError, match="expected a loss function"):
        resolve([saved.records["custom_loss"]], custom_objects={"custom_loss": Block})


def test_an_edit_since_the_save_is_a_warning_with_both_digests(saved):
    old = [saved.records["Block"]]
    text = saved.found.sources[old[0].source].decode()
    changed = type("Block", (keras.layers.Layer,), {"call": Block.call})
    (finding,) = resolve(old, custom_objects=[changed])[1]
    assert finding.severity is Severity.WARNING
    assert finding.details["saved"] == old[0].source_digest != finding.details["now"]
    assert "class Block" in text


def test_an_edit_of_an_implied_class_is_noticed_too(saved):
    from msgspec.structs import replace

    edited = replace(saved.records["Inner"], source_digest="blake3:" + "0" * 64)
    (finding,) = resolve([edited])[1]
    assert finding.subject == "Inner"


# --- trusted packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose modules leave a mark when they are imported."""
    folder = tmp_path / "trustpkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "layers.py").write_text(
        textwrap.dedent(f"""
        import os, keras
        open({str(tmp_path / "imported")!r}, "w").close()
        class Shift(keras.layers.Layer):
            def call(self, x):
                return x + 1
        broken = None
        """)
    )
    (folder / "failing.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    yield CustomObject(name="Shift", kind="layer", module="trustpkg.layers", qualname="Shift"), tmp_path / "imported"
    for name in [name for name in sys.modules if name.startswith("trustpkg")]:
        del sys.modules[name]


def test_a_trusted_package_is_imported(package):
    record, mark = package
    assert resolve([record], trust=["trustpkg"])[0]["Shift"].__module__ == "trustpkg.layers"
    assert mark.exists()


@pytest.mark.parametrize("trust", [(), ["trust"], ["layers"], ["trustpkg.layers"], ["other"]])
def test_nothing_is_imported_that_is_not_trusted(package, trust):
    record, mark = package
    with pytest.raises(MissingCustomObjects):
        resolve([record], trust=trust)
    assert not mark.exists()


@pytest.mark.parametrize("qualname", ["os.system", "os", "broken", "keras.Model", "__builtins__", "Shift.call", "none"])
def test_a_trusted_module_gives_only_what_its_package_defines(package, qualname):
    record = CustomObject(name="x", kind="object", module="trustpkg.layers", qualname=qualname)
    with pytest.raises((MissingCustomObjects, UsageError)):
        resolve([record], trust=["trustpkg"])


def test_a_trusted_module_that_fails_says_why(package):
    record = CustomObject(name="Shift", kind="layer", module="trustpkg.failing", qualname="Shift")
    with pytest.raises(CannotLoad, match="no licence") as caught:
        resolve([record], trust=["trustpkg"])
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_trust_is_a_list_of_packages():
    with pytest.raises(UsageError, match="in a list"):
        resolve([], trust="mypackage")


# --- lambdas


def lambda_model():
    return sequential(
        keras.layers.Lambda(lambda x: x * 2, name="double"),
        keras.layers.Dense(1, kernel_initializer="ones", activation=lambda x: -x, name="head"),
        loss=lambda y_true, y_pred: keras.ops.mean(y_true - y_pred),
    )


def test_lambdas_are_refused_with_each_named_and_the_way_out():
    with pytest.raises(UnsafeContent) as caught:
        Saved(lambda_model())
    assert "function of double" in str(caught.value)
    assert "activation of head" in str(caught.value)
    assert "register_keras_serializable" in str(caught.value)


def test_allowed_lambdas_are_kept_by_name_without_their_bytecode():
    saved = Saved(lambda_model(), allow_lambda=True)
    assert [record.name for record in saved.found.records] == [
        "lambda:double",
        "lambda:head.activation",
        "lambda:compile.loss",
    ]
    assert "4wE" not in str(saved.config) + str(saved.compiled)
    assert b"x * 2" in saved.found.sources["source/lambda.double.py"]
    assert len(saved.notices) == 3


@pytest.mark.backends
def test_a_lambda_comes_back_with_the_function_given_again():
    saved = Saved(lambda_model(), allow_lambda=True)
    with pytest.raises(MissingCustomObjects, match=r"lambda:double': …"):
        saved.rebuilt()
    given = {"lambda:double": half, "lambda:head.activation": soft, "lambda:compile.loss": custom_loss}
    rebuilt = saved.rebuilt(custom_objects=given)
    assert rebuilt.layers[0].function is half
    assert rebuilt.layers[1].activation is soft
    assert rebuilt.loss is custom_loss
    assert keras.ops.convert_to_numpy(saved.rebuilt(custom_objects=saved.found.objects)(keras.ops.ones((1, 4)))) == -8.0


def test_the_shape_function_of_a_lambda_layer_has_a_name_of_its_own():
    model = sequential(keras.layers.Lambda(half, output_shape=lambda shape: shape, name="halved"))
    assert "lambda:halved.output_shape" in Saved(model, allow_lambda=True).found.objects


# --- what a config may name


def node(module, name, config=None, registered=None):
    return {"module": module, "class_name": name, "config": config or {}, "registered_name": registered}


@pytest.mark.parametrize(
    "bad",
    [
        node("keras.utils", "get_file"),
        node("keras.utils", "function", "get_file", "function"),
        node("builtins", "function", "deserialize", "function"),
        node("builtins", "function", "eval", "function"),
        node("keras.losses", "function", "deserialize", "function"),
        node("keras.config", "function", "enable_unsafe_deserialization", "function"),
        node("keras.layers", "function", "TFSMLayer", "function"),
        node("keras.layers", "TFSMLayer", {"filepath": "x"}),
        node("keras.layers", "TorchModuleWrapper"),
        node("keras.src.layers", "TFSMLayer"),
        node("keras.callbacks", "LambdaCallback"),
        node("keras.src.utils.file_utils", "get_file"),
        node("os", "system"),
        node("subprocess", "Popen"),
        node(None, "Block"),
        node("keras_hub.models", "Backbone"),
        node("keras.layers", "Dense", {"units": 1}, "other>Dense"),
        node("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        node("tensorflow", "__typespec__"),
        {"class_name": "__lambda__", "config": {"value": "x"}},
        {"class_name": "Dense", "config": {"units": 1}},
    ],
    ids=lambda bad: f"{bad.get('module')}.{bad['class_name']}",
)
def test_a_config_that_names_anything_else_is_refused_with_the_place(bad):
    with pytest.raises(UnsafeContent, match=r"layers\[0\]"):
        check_config(node("keras", "Sequential", {"layers": [bad]}), {})


names = st.sampled_from(
    ["function", "Dense", "Lambda", "__lambda__", "__numpy__", "system", "relu", "keras.layers", "os"]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=60) | names,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class_name", "config", "module", "registered_name", "value", "x"]), inner)
    ),
)


@hypothesis.given(junk)
def test_any_json_is_either_let_pass_or_refused(config):
    with contextlib.suppress(UnsafeContent):
        check_config(config, {})


@pytest.mark.parametrize("function", [textwrap.dedent, json.dumps, check_config, pytest.raises, lambda: None])
def test_marshalled_code_is_refused_wherever_it_stands(function):
    code = base64.encodebytes(marshal.dumps(function.__code__)).decode()
    with pytest.raises(UnsafeContent, match="marshalled code"):
        check_config(node("keras.layers", "Dense", {"name": [code]}), {})


def test_ordinary_text_is_not_taken_for_code():
    check_config({"vocabulary": ["c" * 80, "Yw" * 40, "4wAA" * 20, "a word", "/etc/passwd"]}, {})


def test_what_was_given_may_be_named(saved):
    objects, _ = resolve(saved.found.records, custom_objects=saved.found.objects)
    check_config(saved.config, objects)
    with pytest.raises(UnsafeContent, match="half"):
        check_config(saved.config, {name: thing for name, thing in objects.items() if name != "half"})


def test_a_layer_that_runs_something_from_outside_must_be_given_by_hand():
    record = CustomObject(name="TFSMLayer", kind="layer", module="keras.layers", qualname="TFSMLayer")
    with pytest.raises(MissingCustomObjects, match=r"from keras\.layers import TFSMLayer"):
        resolve([record])
    objects, _ = resolve([record], custom_objects=[keras.layers.TFSMLayer])
    check_config(node("keras.layers", "TFSMLayer", {"filepath": "x"}, "TFSMLayer"), objects)


def test_keras_own_are_found_by_their_public_and_their_inner_names():
    assert own_class("keras.layers", "Dense") is keras.layers.Dense
    assert own_class("keras.src.models.functional", "Functional")
    assert own_class("keras.optimizers.schedules", "CosineDecay")
    assert own_function("builtins", "mean_squared_error") is keras.losses.mean_squared_error
    assert own_function("keras.ops", "abs") is keras.ops.abs


def test_a_walk_is_not_limited_by_depth():
    config = current = {}
    for _ in range(3_000):
        current["inner"] = [{}]
        current = current["inner"][0]
    assert sum(1 for _ in walk(config)) == 6_001
