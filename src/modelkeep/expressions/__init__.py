"""The language of gates and search: one condition over what is known of a version.

::

    accuracy >= 0.85 and size <= 50 MB
    accuracy >= @production.accuracy - 0.01
    "nightly" in tags and created > now - 7 days

A text is parsed to a small tree and judged over a resolver, which gives each name its value.
Nothing is executed. The guide (``docs/guide/expressions.md``) shows every form; the grammar,
loosest binding first, is::

    condition  = condition "or" condition | condition "and" condition | "not" condition | comparison
    comparison = sum (("<" | "<=" | ">" | ">=" | "==" | "!=" | "in" | "not in") sum)?
    sum        = sum ("+" | "-") product | product
    product    = product ("*" | "/") operand | operand
    operand    = "-" operand | "(" condition ")" | name | number unit? | text | time | "true" | "false"
    name       = (version ".")? identifier ("." word | "[" text "]")*
    version    = "@" alias | "[" ref "]"

A condition has three outcomes (Kleene's strong logic): true, false, or undecided with its reasons,
where a value is missing or does not fit. ``false and x`` is false and ``true or x`` is true,
whatever ``x`` is.
"""

from __future__ import annotations

from modelkeep.expressions.evaluation import Resolve, Undecided, Unknown, Why, evaluate
from modelkeep.expressions.fields import FIELDS, OTHER_NAMES, find, match, resolver, select, values_of
from modelkeep.expressions.syntax import (
    MAX_LENGTH,
    MAX_NESTING,
    MAX_NODES,
    UNITS,
    Binary,
    Constant,
    Name,
    Tree,
    Unary,
    names,
    parse,
    show,
)

__all__ = [
    "FIELDS",
    "MAX_LENGTH",
    "MAX_NESTING",
    "MAX_NODES",
    "OTHER_NAMES",
    "UNITS",
    "Binary",
    "Constant",
    "Name",
    "Resolve",
    "Tree",
    "Unary",
    "Undecided",
    "Unknown",
    "Why",
    "evaluate",
    "find",
    "match",
    "names",
    "parse",
    "resolver",
    "select",
    "show",
    "values_of",
]
