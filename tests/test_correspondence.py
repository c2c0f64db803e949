"""Which layer is which: by path, by name, by structure, and where nothing tells."""

from __future__ import annotations

from typing import Any

import pytest

from modelkeep.live.correspondence import Holder, Match, Weight, correspond, paired

pytestmark = pytest.mark.keras


def holder(name: str, *shapes: tuple[int, ...], path: str | None = None, **more: Any) -> Holder[Any]:
    weights = tuple(Weight((), f"vars/{index}", shape, None) for index, shape in enumerate(shapes or ((2, 2),)))
    return Holder(tuple(name.split("/")) if name else (), weights, path, **more)


def chain(*names: str, **more: Any) -> list[Holder[Any]]:
    """Layers of different shapes, one after the other."""
    return [holder(name, (place, 2), place=place, **more) for place, name in enumerate(names)]


def found(sources: list[Holder[Any]], targets: list[Holder[Any]], match: Match = "auto") -> dict[str, str]:
    pairs = correspond(sources, targets, match).pairs
    return {f"{source.name} → {target.name}": rule for source, target, rule in pairs}


def test_equal_paths_are_one_layer() -> None:
    assert found([holder("dense_4", path="layers/dense")], [holder("dense", path="layers/dense")]) == {
        "dense_4 → dense": "path"
    }


def test_chosen_names_go_before_paths() -> None:
    sources = [holder("encoder", path="layers/dense"), holder("head", path="layers/dense_1")]
    targets = [holder("extra", path="layers/dense"), holder("encoder", path="layers/dense_1")]
    assert found(sources, targets) == {"encoder → encoder": "name"}


def test_two_chosen_names_at_one_path_are_two_layers_unless_paths_alone_are_asked() -> None:
    sources = [holder("user", path="layers/embedding"), holder("head", path="layers/dense")]
    targets = [holder("item", path="layers/embedding"), holder("head", path="layers/dense")]
    assert found(sources, targets) == {"head → head": "path"}
    assert found(sources, targets, "path") == {"user → item": "path", "head → head": "path"}


def test_a_backbone_within_another_model_is_found_by_the_last_names() -> None:
    assert found([holder("conv1"), holder("top")], [holder("backbone/conv1"), holder("head")]) == {
        "conv1 → backbone/conv1": "name"
    }


def test_names_of_two_layers_are_of_neither() -> None:
    assert found([holder("conv1")], [holder("left/conv1"), holder("right/conv1")]) == {}


def test_of_automatic_names_only_the_order_counts() -> None:
    sources = [holder("conv2d_94"), holder("conv2d_95")]
    targets = [holder("backbone/conv2d"), holder("backbone/conv2d_1")]
    assert found(sources, targets) == {
        "conv2d_94 → backbone/conv2d": "name",
        "conv2d_95 → backbone/conv2d_1": "name",
    }


def test_an_automatic_name_tells_nothing_of_another_model_where_shapes_differ() -> None:
    assert found([holder("dense", (2, 3))], [holder("backbone/dense", (2, 4))]) == {}


def test_other_names_for_the_same_graph_are_found_by_structure() -> None:
    sources, targets = chain("a", "b", "c", kind="Dense"), chain("x", "y", kind="Dense")
    assert found(sources, targets) == {"a → x": "structure", "b → y": "structure"}


def test_structure_ends_where_the_networks_differ() -> None:
    sources, targets = chain("a", "b", "c"), [*chain("x"), holder("y", (9, 9), place=1), holder("z", (2, 2), place=2)]
    assert found(sources, targets) == {"a → x": "structure"}


def test_where_a_chosen_name_fits_the_others_differ_on_purpose() -> None:
    assert found(chain("trunk", "old_head"), chain("trunk", "new_head")) == {"trunk → trunk": "name"}


def test_a_layer_of_another_class_is_another_layer() -> None:
    assert found(chain("a", kind="Dense"), chain("x", kind="EinsumDense")) == {}


def twins(first: str, second: str, *, merged: bool) -> list[Holder[Any]]:
    """Two equal towers, and what takes them, if anything does."""
    towers = [holder(name, (2, 2), place=place, feeds=()) for place, name in enumerate((first, second))]
    end = holder(f"{first}{second}", (4, 1), place=2, feeds=((first,), (second,)))
    return [*towers, end] if merged else towers


def test_towers_that_could_change_places_are_not_guessed() -> None:
    result = correspond(twins("a", "b", merged=False), twins("x", "y", merged=False))
    assert result.pairs == []
    assert "a and b could be either" in result.doubts[0]


def test_towers_are_told_apart_by_what_takes_them() -> None:
    assert found(twins("a", "b", merged=True), twins("x", "y", merged=True)) == {
        "a → x": "structure",
        "b → y": "structure",
        "ab → xy": "structure",
    }


def test_without_an_order_all_paths_and_shapes_must_be_the_same() -> None:
    sources = [holder("a", path="layers/dense"), holder("b", (3, 3), path="layers/dense_1")]
    targets = [holder("x", path="layers/dense"), holder("y", (3, 3), path="layers/dense_1")]
    assert found(sources, targets) == {"a → x": "structure", "b → y": "structure"}
    result = correspond(sources, targets[:1])
    assert result.pairs == []
    assert "order of the layers is not known" in result.doubts[0]


def test_weights_of_a_layer_are_paired_by_name_then_by_place_then_as_the_only_ones_left() -> None:
    def weights(*named: tuple[str, str]) -> Holder[str]:
        return Holder(("x",), tuple(Weight(tuple(n.split("/")) if n else (), k, (1,), n or k) for n, k in named))

    source = weights(("lstm_cell_3/bias", "vars/9"), ("", "_query/vars/0"), ("depthwise_kernel", ""))
    target = weights(("kernel", "vars/2"), ("lstm_cell/bias", "vars/1"), ("query/kernel", "query/vars/0"))
    pairs = {mine.item: theirs.item for mine, theirs in paired(source, target)}
    assert pairs == {
        "lstm_cell_3/bias": "lstm_cell/bias",
        "_query/vars/0": "query/kernel",
        "depthwise_kernel": "kernel",
    }


def test_a_layer_that_takes_nothing_counts_for_the_structure_alone() -> None:
    sources, targets = chain("a", "b"), chain("x", "y")
    pairs = correspond(sources, targets, closed=targets[:1]).pairs
    assert [(source.name, target.name) for source, target, _ in pairs] == [("b", "y")]
    targets = chain("a", "b")
    assert [target.name for _, target, _ in correspond(sources, targets, closed=targets[:1]).pairs] == ["b"]
