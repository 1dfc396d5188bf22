"""Find where a chat template depends on what a message says, or on the date.

A condition in a chat template is a whole backdoor that no weight purification reaches
(arXiv 2602.04653). What decides or computes by a piece of a message, by text that flowed from
one, or by the date, rather than only writing it out, is reported; of a piece the labels, such as
its type, are no text (`template_kinds`). Runs in the child process.
"""

import re
from collections.abc import Callable
from typing import Any

from jinja2 import nodes

from inoculate.intake.template_kinds import (
    LABELS,
    MANY,
    NONE,
    PART,
    Names,
    arguments,
    every,
    kind_of,
    names_of,
)

_TYPE_TESTS = frozenset({
    "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number",
    "boolean", "true", "false",
})  # fmt: skip
_PLAIN_FILTERS = frozenset({
    "trim", "tojson", "string", "safe", "e", "escape", "default", "d", "indent", "items",
})  # fmt: skip
_WHOLE = frozenset({*_PLAIN_FILTERS, "list", "reverse", "length", "count", "first", "last", "map"})
_PLAIN_METHODS = frozenset({"strip", "lstrip", "rstrip", "get", "items", "append"})
_CHOOSING = frozenset({
    "selectattr", "rejectattr", "select", "reject", "sort", "unique", "groupby", "max", "min",
})  # fmt: skip
_LOADING = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_MAX_SHOWN = 100


def branches(tree: nodes.Template, source: str) -> list[str]:
    """Return "line N: …" for each line that decides or computes by message text or the date.

    Raises:
        ValueError: The template loads another one.
    """
    if any(isinstance(node, _LOADING) for node in every(tree)):
        raise ValueError("it loads another template")
    names = names_of(tree)
    lines = _LINE_ENDS.split(source)  # As Jinja counts them.
    found = sorted({node.lineno for node in every(tree) if _decides(node, names)})
    return [f"line {n}: {lines[n - 1].strip()[:_MAX_SHOWN]}" for n in found if n <= len(lines)]


def _decides(node: nodes.Node, names: Names) -> bool:
    """Tell whether a node decides or computes by message text or the date."""
    rule = _DECISIONS.get(type(node))
    return rule is not None and rule(node, names)


def _compares(node: Any, names: Names) -> bool:
    lefts = [node.expr, *(operand.expr for operand in node.ops)]
    return any(
        _compares_two(left, operand, names) for left, operand in zip(lefts, node.ops, strict=False)
    )


def _compares_two(left: Any, operand: Any, names: Names) -> bool:
    pair = left, operand.expr
    if any(isinstance(part, nodes.Const) and not part.value for part in pair):
        return False
    kinds = [kind_of(part, names) for part in pair]
    # 'tool_calls' in message asks for a key, not for words.
    asks_key = operand.op in ("in", "notin") and kinds[0] == NONE
    return max(kinds) >= PART or (kinds.count(NONE) == 1 and not asks_key)


def _tests(node: Any, names: Names) -> bool:
    text = any(kind_of(part, names) != NONE for part in (node.node, *arguments(node)))
    return text and node.name not in _TYPE_TESTS


def _filters(node: Any, names: Names) -> bool:
    if node.name == "random":
        return True
    if node.node is None:
        return node.name not in _PLAIN_FILTERS
    if kind_of(node.node, names) == MANY:
        if node.name in _CHOOSING:
            return not _by_label(node)
        return node.name not in _WHOLE or (node.name == "map" and bool(node.args))
    text = any(kind_of(part, names) != NONE for part in (node.node, *arguments(node)))
    return text and (node.name not in _PLAIN_FILTERS or (node.name == "trim" and _cuts(node)))


def _by_label(node: Any) -> bool:
    first = next(iter(arguments(node)), None)
    return isinstance(first, nodes.Const) and first.value in LABELS


def _cuts(node: Any) -> bool:
    """Tell whether stripping takes away more than white space."""
    return any(
        not isinstance(argument, nodes.Const) or str(argument.value).strip()
        for argument in arguments(node)
    )


def _calls(node: Any, names: Names) -> bool:
    method = node.node
    text = any(kind_of(argument, names) >= PART for argument in arguments(node))
    if not isinstance(method, nodes.Getattr):
        return text and isinstance(method, nodes.Name) and method.name == "dict"
    if text:
        return method.attr != "append"
    if kind_of(method.node, names) < PART:
        return False
    return method.attr not in _PLAIN_METHODS or (method.attr.endswith("strip") and _cuts(node))


def _looks_up(node: Any, names: Names) -> bool:
    """Tell whether text is the key of a look-up, or is cut into pieces."""
    named = isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str)
    cut = not named and kind_of(node.node, names) >= PART
    return cut or kind_of(node.arg, names) >= PART


def _is_key(node: Any, names: Names) -> bool:
    """Tell whether text becomes the key of a mapping, to be looked up by words."""
    return kind_of(node.key, names) >= PART


def _counts(node: Any, names: Names) -> bool:
    """Tell whether a loop over text asks where it stands."""
    return kind_of(node.iter, names) >= PART and any(map(_asks_place, node.body))


def _asks_place(node: nodes.Node) -> bool:
    if isinstance(node, nodes.For):
        return False
    here = isinstance(node, nodes.Name) and node.name == "loop"
    return here or any(map(_asks_place, node.iter_child_nodes()))


_DECISIONS: dict[type, Callable[[Any, Names], bool]] = {
    nodes.Compare: _compares,
    nodes.Test: _tests,
    nodes.Filter: _filters,
    nodes.Call: _calls,
    nodes.Getitem: _looks_up,
    nodes.Pair: _is_key,
    nodes.For: _counts,
}
