"""What changed in initializers, regularizers and constraints."""

from __future__ import annotations

from modelkeep.legacy.rules import Node, Rules

RULES = rule = Rules()

_OLD_INITIALIZERS = {"IdentityInitializer": "Identity", "OrthogonalInitializer": "Orthogonal"}


@rule("initializer-version", kind="initializer", versions="1.12 to 2.0 of TensorFlow")
def initializer_version(node: Node) -> str | None:
    """Two versions side by side became one, and what they make is no longer theirs to say."""
    node.class_name = node.class_name.removesuffix("V1").removesuffix("V2")
    node.class_name = _OLD_INITIALIZERS.get(node.class_name, node.class_name)
    node.config.pop("dtype", None)
    node.config.pop("partition_info", None)
    return None


@rule("scaled-distribution", "VarianceScaling", kind="initializer", versions="2.0 to 2.2")
def scaled_distribution(node: Node) -> str | None:
    """The normal distribution was always a truncated one."""
    if node.config.get("distribution") != "normal":
        return None
    node.config["distribution"] = "truncated_normal"
    return "distribution normal is truncated_normal"


@rule("regularizer-arrays", "L1L2", "L1", "L2", kind="regularizer", versions="2.0 to 2.2")
def regularizer_arrays(node: Node) -> str | None:
    """Single numbers were written as arrays, and the name beside them."""
    node.config.pop("name", None)
    for name, value in node.config.items():
        if isinstance(value, dict) and "value" in value:
            node.config[name] = value["value"]
    return None


@rule("max-norm-argument", "MaxNorm", kind="constraint", versions="1")
def max_norm_argument(node: Node) -> str | None:
    """The greatest norm has another name."""
    if "m" not in node.config:
        return None
    node.config["max_value"] = node.config.pop("m")
    return f"m is max_value={node.config['max_value']}"


@rule("constraint-name", kind="constraint", versions="1")
def constraint_name(node: Node) -> str | None:
    """The name of the class was written beside its arguments."""
    node.config.pop("name", None)
    return None
