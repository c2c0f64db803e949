"""What a model would lose is named, with the class and the attribute; what it keeps raises no alarm."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from modelkeep.live.audit import audit
from modelkeep.live.likeness import same
from modelkeep.report import Severity

pytestmark = pytest.mark.keras

X = np.ones((2, 4), "float32")


class Layer(keras.layers.Layer):
    """Adds nothing; the tests' layers extend it."""

    def call(self, inputs):
        return inputs


def built(*layers):
    model = keras.Sequential([keras.Input((4,)), *layers])
    model(X)
    return model


def called(model):
    model(X)
    return model


def rebuilt(model):
    """As restore does it: from the config alone, with the weights put back."""
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    twin = keras.saving.deserialize_keras_object(config, custom_objects=_classes(model))
    twin(X)
    return twin


def _classes(model):
    return {type(layer).__name__: type(layer) for layer in model._flatten_layers()}


def told(findings):
    return [(finding.check, finding.severity, finding.details.get("attribute")) for finding in findings]


# --- state where Keras does not look


class Helper:
    def __init__(self, thing):
        self.inner = {"list": [thing]}


@pytest.mark.backends
@pytest.mark.parametrize("holder", [Helper, lambda thing: SimpleNamespace(inner={"list": [thing]})])
def test_a_layer_hidden_in_a_plain_object_is_named(holder):
    layer = Layer()
    dense = keras.layers.Dense(3)
    dense.build((None, 4))
    layer.helper = holder(dense)
    (finding,) = audit(built(layer))
    assert told([finding]) == [("hidden-state", Severity.FAILURE, "helper.inner['list'][0]")]
    assert "a Dense with 2 variables" in finding.message


def test_a_variable_hidden_in_a_plain_object_is_named():
    layer = Layer()
    layer.helper = Helper(keras.Variable(1.0))
    assert told(audit(built(layer))) == [("hidden-state", Severity.FAILURE, "helper.inner['list'][0]")]


def test_a_hidden_metric_and_seed_generator_are_warnings():
    layer = Layer()
    layer.helpers = [Helper(keras.metrics.Mean()), Helper(keras.random.SeedGenerator(1))]
    assert [finding.severity for finding in audit(built(layer))] == [Severity.WARNING, Severity.WARNING]


def test_hidden_layers_without_weights_are_no_loss():
    layer = Layer()
    layer.helper = Helper(keras.layers.ReLU())
    assert audit(built(layer)) == ()


def test_what_keras_sees_is_not_hidden_whatever_else_holds_it():
    layer = Layer()
    layer.dense = keras.layers.Dense(3)
    layer.many = {"a": [keras.layers.Dense(1)]}
    layer.dense.build((None, 4))
    layer.many["a"][0].build((None, 4))
    layer.helper = Helper(layer.dense)
    assert audit(built(layer)) == ()


@pytest.mark.backends
def test_a_backend_variable_is_named():
    layer = Layer()
    layer.build((None, 4))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        layer.table = tf.Variable([1.0])
    elif keras.backend.backend() == "torch":
        import torch

        layer.table = torch.nn.Parameter(torch.ones(1))
    else:
        pytest.skip("JAX has no variables of its own")
    (finding,) = audit(built(layer))
    assert told([finding]) == [("hidden-state", Severity.FAILURE, "table")]


@pytest.mark.backends
@pytest.mark.parametrize("make", [np.arange, keras.ops.arange])
def test_an_array_attribute_is_a_warning(make):
    layer = Layer()
    layer.table = [make(3)]
    assert told(audit(built(layer))) == [("array-attribute", Severity.WARNING, "table[0]")]


class Table(Layer):
    def __init__(self, size=3, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.table = np.arange(size)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def test_an_array_that_comes_back_by_itself_is_no_finding_beside_the_rebuilt_model():
    model = built(Table(5))
    assert told(audit(model)) == [("array-attribute", Severity.WARNING, "table")]
    assert audit(model, rebuilt(model)) == ()


def test_an_array_that_does_not_come_back_is_one():
    model = built(Table(5))
    model.layers[0].table = model.layers[0].table + 1
    assert told(audit(model, rebuilt(model))) == [("attribute-changed", Severity.WARNING, "table")]


def test_hidden_state_is_looked_for_when_weights_alone_are_kept():
    layer = Forgetful(scale=2.0)
    layer.helper = Helper(keras.Variable(1.0))
    assert [finding.check for finding in audit(built(layer), architecture=False)] == ["hidden-state"]


# --- arguments


class NoConfig(keras.Model):
    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_model_whose_default_arguments_are_recorded_is_a_failure():
    model = called(NoConfig(units=5))
    for findings in (audit(model), audit(model, rebuilt(model))):
        assert told(findings) == [("layer-changed", Severity.FAILURE, "dense")]
        assert "units=5 comes back as 3: NoConfig has no get_config; add one that returns units" in findings[0].message


def test_a_model_made_with_its_defaults_is_fine():
    model = called(NoConfig())
    assert audit(model) == ()
    assert audit(model, rebuilt(model)) == ()


class Forgetful(Layer):
    def __init__(self, rate=0.1, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.rate, self._scale = rate, scale

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


def test_an_argument_that_get_config_leaves_out_is_a_failure():
    (finding,) = audit(built(Forgetful(scale=2.0)))
    assert told([finding]) == [("attribute-changed", Severity.FAILURE, "_scale")]
    assert "2.0 comes back as 1.0: get_config of Forgetful leaves out scale" in finding.message


def test_the_rebuilt_model_shows_it_too():
    model = built(Forgetful(scale=2.0))
    assert ("attribute-changed", Severity.FAILURE, "_scale") in told(audit(model, rebuilt(model)))


def test_an_argument_left_out_at_its_default_is_no_finding():
    assert audit(built(Forgetful())) == ()


class Needy(Forgetful):
    def __init__(self, needed, **kwargs):
        super().__init__(**kwargs)


def test_a_needed_argument_left_out_is_a_failure():
    (finding,) = audit(built(Needy(1)))
    assert "Needy.needed: the constructor needs it, and get_config of Needy leaves out scale" in finding.message


def test_an_argument_left_out_that_changes_an_inner_layer_is_a_failure():
    class Dropping(Layer):
        def __init__(self, rate=0.1, **kwargs):
            super().__init__(**kwargs)
            self.dropout = keras.layers.Dropout(rate)

        def get_config(self):
            return super().get_config()

    (finding,) = audit(built(Dropping(0.3)))
    assert "Dropping.dropout: rate=0.3 comes back as 0.1: get_config of Dropping leaves out rate" in finding.message
    assert audit(built(Dropping(0.1))) == ()


def test_a_layer_that_cannot_be_written_is_a_failure_with_the_method_to_add():
    class Holder(Layer):
        def __init__(self, thing, **kwargs):
            super().__init__(**kwargs)

    (finding,) = audit(built(Holder(Helper(1))))
    assert finding.check == "no-config"
    assert "Holder has no get_config; add one that returns thing" in finding.message


def test_arguments_of_a_base_class_count_where_they_are_passed_on():
    class Passing(Forgetful):
        def __init__(self, extra=0, **kwargs):
            super().__init__(**kwargs)
            self.extra = extra

        def get_config(self):
            return {**super().get_config(), "extra": self.extra}

    (finding,) = audit(built(Passing(scale=3.0, extra=1)))
    assert "leaves out scale" in finding.message


def test_a_class_that_reads_its_own_config_is_trusted():
    class Own(Forgetful):
        @classmethod
        def from_config(cls, config):
            return cls(scale=2.0, **config)

    assert audit(built(Own(scale=2.0))) == ()


def test_an_attribute_that_training_changed_is_a_warning():
    model = built(Table())
    twin = rebuilt(model)
    model.layers[0].best = 0.3
    (finding,) = audit(model, twin)
    assert "Table.best: 0.3 does not come back" in finding.message
    assert finding.severity is Severity.WARNING


# --- functions


shared = keras.layers.Dense(4)
shared.build((None, 4))


def uses_shared(x):
    return shared(x)


def test_a_function_that_uses_a_layer_of_this_model_from_outside_is_a_failure():
    (finding,) = audit(built(shared, keras.layers.Lambda(uses_shared, output_shape=(4,), name="again")))
    assert (finding.check, finding.severity, finding.subject) == ("state-outside", Severity.FAILURE, "layers/lambda")
    assert "Lambda.function: uses_shared uses shared from outside, which is part of this model" in finding.message


def test_a_function_that_uses_another_layer_of_its_module_is_a_warning():
    (finding,) = audit(built(keras.layers.Lambda(uses_shared, output_shape=(4,))))
    assert finding.severity is Severity.WARNING


def test_a_function_that_holds_a_layer_is_a_failure():
    inner = keras.layers.Dense(4)
    inner.build((None, 4))

    def closing(x):
        return inner(x)

    (finding,) = audit(built(keras.layers.Lambda(closing, output_shape=(4,))))
    assert finding.severity is Severity.FAILURE


def test_a_call_that_uses_a_layer_from_outside_is_named():

    class Outside(Layer):
        def call(self, inputs):
            return inputs + shared(inputs)

    (finding,) = audit(built(Outside()))
    assert finding.message.startswith("Outside.call uses shared")


def test_an_attribute_with_the_name_of_a_global_layer_is_not_that_layer():
    class Innocent(Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.shared = 2.0

        def call(self, inputs):
            return inputs * self.shared

    assert audit(built(Innocent())) == ()


def test_a_function_that_a_layer_makes_over_its_own_parts_is_fine():
    class Making(Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(4)
            self.twice = lambda x: self.dense(x) * 2

        def build(self, shape):
            self.dense.build(shape)

        def call(self, inputs):
            return self.twice(inputs)

    model = built(Making())
    assert audit(model) == ()
    assert audit(model, rebuilt(model)) == ()


def test_a_loss_that_uses_another_network_is_a_warning():

    def perceptual(y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(shared(y_true) - shared(y_pred)))

    model = built(keras.layers.Dense(4))
    model.compile("sgd", {"dense": perceptual})
    assert [(finding.subject, finding.severity) for finding in audit(model)] == [("compile/loss", Severity.WARNING)]


# --- no false alarms


class Encoder(keras.layers.Layer):
    """An ordinary layer with a good config, and much that is set on the way."""

    def __init__(self, units, rate=0.1, activation="relu", sizes=(1, 2), options=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.rate, self.sizes = units, rate, sizes
        self.activation = keras.activations.get(activation)
        self.options = options or {}
        self.initializer = keras.initializers.RandomNormal(seed=1)
        self.blocks = [keras.layers.Dense(units) for _ in range(2)]
        self.normal = keras.layers.BatchNormalization()
        self.dropout = keras.layers.Dropout(rate)
        self.width = None
        self.lookup = {"a": 1}

    def build(self, input_shape):
        self.width = input_shape[-1]
        self.table = np.eye(self.width)
        self.scale = self.add_weight(shape=(self.units,), initializer=self.initializer, name="scale")
        for block in self.blocks:
            block.build(input_shape)
            input_shape = (*input_shape[:-1], self.units)
        self.normal.build(input_shape)
        super().build(input_shape)

    def call(self, inputs, training=False):
        for block in self.blocks:
            inputs = self.activation(block(inputs))
        return self.dropout(self.normal(inputs, training=training), training=training) * self.scale

    def get_config(self):
        config = super().get_config()
        config.update(units=self.units, rate=self.rate, sizes=self.sizes, options=self.options)
        return {**config, "activation": keras.activations.serialize(self.activation)}


class Classifier(keras.Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.encoder = Encoder(units)
        self.head = keras.Sequential([keras.layers.Dense(units, activation="relu"), keras.layers.Dense(1)])
        self.tracker = keras.metrics.Mean(name="tracker")

    def call(self, inputs):
        return self.head(self.encoder(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def trained(model):
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(X, np.ones((2, *model.output_shape[1:]) if hasattr(model, "output_shape") else (2, 1)), verbose=0)
    model.predict(X, verbose=0)
    model.evaluate(X, np.ones((2, 1)), verbose=0)
    return model


@pytest.mark.backends
# Keras says so of a subclassed model that is built by being called.
@pytest.mark.filterwarnings("ignore:.*build\\(\\).*:UserWarning")
def test_an_ordinary_subclassed_model_raises_no_alarm():
    model = trained(Classifier(3))
    assert [f for f in audit(model) if f.check != "array-attribute"] == []
    assert audit(model, rebuilt(model)) == ()


def test_an_ordinary_functional_model_raises_no_alarm():
    inputs = keras.Input((4,))
    hidden = Encoder(3)(keras.layers.Dense(4, activation=keras.activations.gelu)(inputs))
    model = trained(keras.Model(inputs, keras.layers.Dense(1)(hidden)))
    assert audit(model, rebuilt(model)) == ()


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="it compiles every shape anew, which takes minutes")
@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "ConvNeXtTiny"])
def test_applications_raise_no_alarm(name):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=2)
    assert audit(model) == ()


# --- likeness


class Point:
    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (1, 1.0, True),
        (float("nan"), float("nan"), True),
        ((1, [2]), [1, (2,)], True),
        ({"a": 1}, {"a": 2}, False),
        ({1: "a"}, {"1": "a"}, False),
        (np.float32(1), 1.0, True),
        (np.ones(2), np.ones(2), True),
        (np.ones(2), np.ones(3), False),
        (np.ones(2), None, False),
        (np.ones(2), [1.0, 1.0], False),
        (None, 3, False),
        (None, object(), None),
        ("relu", keras.activations.relu, None),
        (keras.activations.relu, keras.activations.relu, True),
        (keras.activations.relu, keras.activations.gelu, None),
        (keras.activations.relu, keras.ops.relu, False),
        (keras.initializers.RandomNormal(seed=1), keras.initializers.RandomNormal(seed=1), True),
        (keras.initializers.RandomNormal(seed=1), keras.initializers.RandomNormal(seed=2), False),
        (Point(1), Point(1), True),
        (Point(1), Point(2), False),
        (Point(object()), Point(object()), None),
        ({1, 2}, {1, 2}, True),
        ({1, 2}, {1, 3}, False),
        ({Point}, {Helper}, None),
        (keras.layers.Dense(1), keras.layers.Dense(2), None),
    ],
)
def test_values_are_alike_or_not_or_not_to_be_told(a, b, verdict):
    assert same(a, b) is verdict
    assert same(b, a) is verdict
