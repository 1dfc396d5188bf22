"""Find where a chat template depends on what a message says, or on the date.

A condition in a chat template is a whole backdoor that no weight purification reaches
(arXiv 2602.04653). Every expression gets a kind: MANY for the list of messages, ONE for a
message, TEXT for anything that message text or the date flows into. What decides or
computes by TEXT, rather than only writing it out, is reported. Runs in the child process.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import nodes

NONE, MANY, ONE, TEXT = range(4)
# What a message says of itself that is no free text.
_LABELS = frozenset({"role", "type", "name", "id", "tool_call_id"})
_TYPE_TESTS = frozenset({
    "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number",
    "boolean", "true", "false",
})  # fmt: skip
_PLAIN_FILTERS = frozenset({
    "trim", "tojson", "string", "safe", "e", "escape", "default", "d", "indent", "items",
})  # fmt: skip
_WHOLE = frozenset({*_PLAIN_FILTERS, "list", "reverse", "length", "count", "first", "last", "map"})
_PLAIN_METHODS = frozenset({"strip", "lstrip", "rstrip", "get", "items", "append"})
_SELECTING = frozenset({
    "list", "reverse", "selectattr", "rejectattr", "select", "reject", "sort", "unique",
})  # fmt: skip
_CHOOSING = frozenset({
    "selectattr", "rejectattr", "select", "reject", "sort", "unique", "groupby", "max", "min",
})  # fmt: skip
_LOADING = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_MAX_ROUNDS = 20
_MAX_SHOWN = 100

Names = dict[str, int]


def branches(tree: nodes.Template, source: str) -> list[str]:
    """Return "line N: …" for each line that decides or computes by message text or the date.

    Raises:
        ValueError: The template loads another one.
    """
    if any(isinstance(node, _LOADING) for node in _every(tree)):
        raise ValueError("it loads another template")
    names = _names(tree)
    lines = source.splitlines()
    found = sorted({node.lineno for node in _every(tree) if _decides(node, names)})
    return [f"line {n}: {lines[n - 1].strip()[:_MAX_SHOWN]}" for n in found if n <= len(lines)]


def _every(tree: nodes.Node) -> Iterator[nodes.Node]:
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.iter_child_nodes())


def _names(tree: nodes.Template) -> Names:
    """Return the kind of each name, followed through assignments until nothing changes."""
    names: Names = {"messages": MANY, "self": TEXT, "varargs": TEXT, "kwargs": TEXT}
    macros = {node.name: node for node in tree.find_all(nodes.Macro)}
    for _ in range(_MAX_ROUNDS):
        before = dict(names)
        for node in _every(tree):
            for target, kind in _assigned(node, names, macros):
                _bind(names, target, kind)
        if names == before:
            return names
    raise ValueError("its assignments do not settle")


def _assigned(
    node: nodes.Node, names: Names, macros: dict[str, nodes.Macro]
) -> Iterator[tuple[nodes.Node, int]]:
    if isinstance(node, nodes.Assign):
        yield node.target, _kind(node.node, names)
    elif isinstance(node, nodes.AssignBlock):
        yield node.target, max((_kind(part, names) for part in _outputs(node)), default=NONE)
    elif isinstance(node, nodes.For):
        kind = _kind(node.iter, names)
        yield node.target, ONE if kind == MANY else kind
        # How often a loop over text runs depends on the text, and so does what it counts.
        if kind == TEXT:
            yield from ((inner.target, TEXT) for inner in node.find_all(nodes.Assign))
    elif isinstance(node, nodes.With):
        yield from ((t, _kind(v, names)) for t, v in zip(node.targets, node.values, strict=True))
    elif isinstance(node, nodes.Macro | nodes.CallBlock):
        kind = max((_kind(part, names) for part in _outputs(node)), default=NONE)
        yield nodes.Name(getattr(node, "name", "caller"), "store"), kind
    elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
        macro = macros.get(node.node.name)
        if macro is not None:
            kinds = [_kind(argument, names) for argument in _arguments(node)]
            yield from ((parameter, max(kinds, default=NONE)) for parameter in macro.args)


def _outputs(node: nodes.Node) -> Iterator[nodes.Expr]:
    for output in node.find_all(nodes.Output):
        yield from (part for part in output.nodes if not isinstance(part, nodes.TemplateData))


def _bind(names: Names, target: nodes.Node, kind: int) -> None:
    if isinstance(target, nodes.Tuple):
        for item in target.items:
            _bind(names, item, kind)
    key = _key(target)
    if key is not None and kind > names.get(key, NONE):
        names[key] = kind


def _key(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.NSRef):
        return f"{node.name}.{node.attr}"
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    return node.name if isinstance(node, nodes.Name) else None


def _kind(node: nodes.Node | None, names: Names) -> int:
    """Return what an expression holds."""
    if node is None:
        return NONE
    key = _key(node)
    if key is not None and key in names:
        return names[key]
    rule = _KINDS.get(type(node))
    if rule is not None:
        return rule(node, names)
    inner = max((_kind(child, names) for child in node.iter_child_nodes()), default=NONE)
    return TEXT if inner else NONE


def _item_kind(node: Any, names: Names) -> int:
    """Return the kind of `x.name` or `x[key]`."""
    owner = _kind(node.node, names)
    label = _label(node)
    if label in ("previtem", "nextitem"):
        return ONE
    if owner == NONE:
        return TEXT if isinstance(node, nodes.Getitem) and _kind(node.arg, names) else NONE
    if owner == MANY:
        return MANY if isinstance(getattr(node, "arg", None), nodes.Slice) else ONE
    return NONE if label in _LABELS else TEXT


def _label(node: Any) -> object:
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) else None


def _filter_kind(node: Any, names: Names) -> int:
    kind = max([_kind(node.node, names), *(_kind(a, names) for a in _arguments(node))])
    if kind == MANY:
        if node.name in ("first", "last"):
            return ONE
        if node.name in ("length", "count"):
            return NONE
        return MANY if node.name in _SELECTING else TEXT
    return TEXT if kind else NONE


def _call_kind(node: Any, names: Names) -> int:
    target = node.node
    if isinstance(target, nodes.Name) and target.name == "strftime_now":
        return TEXT
    if isinstance(target, nodes.Getattr) and target.attr == "get" and node.args:
        owner, first = _kind(target.node, names), node.args[0]
        known = isinstance(first, nodes.Const) and first.value in _LABELS
        return NONE if owner == NONE or known else TEXT
    parts = [target.node if isinstance(target, nodes.Getattr) else target, *_arguments(node)]
    return TEXT if any(_kind(part, names) for part in parts) else NONE


def _arguments(node: Any) -> list[nodes.Node]:
    return [*(node.args or ()), *(pair.value for pair in node.kwargs or ())]


def _never(node: Any, names: Names) -> int:
    return NONE


def _either(node: Any, names: Names) -> int:
    return max(_kind(node.left, names), _kind(node.right, names))


def _chosen(node: Any, names: Names) -> int:
    return max(_kind(node.expr1, names), _kind(node.expr2, names))


_KINDS: dict[type, Callable[[Any, Names], int]] = {
    nodes.Getattr: _item_kind,
    nodes.Getitem: _item_kind,
    nodes.Filter: _filter_kind,
    nodes.Call: _call_kind,
    nodes.Test: _never,
    nodes.Compare: _never,
    nodes.Not: _never,
    nodes.Or: _either,
    nodes.And: _either,
    nodes.CondExpr: _chosen,
}


def _decides(node: nodes.Node, names: Names) -> bool:
    """Tell whether a node decides or computes by message text or the date."""
    rule = _DECISIONS.get(type(node))
    return rule is not None and rule(node, names)


def _compares(node: Any, names: Names) -> bool:
    parts = [node.expr, *(operand.expr for operand in node.ops)]
    if any(isinstance(part, nodes.Const) and not part.value for part in parts):
        return False
    kinds = [_kind(part, names) for part in parts]
    # 'tool_calls' in message asks for a key, not for words.
    asks_key = node.ops[0].op in ("in", "notin") and kinds[0] == NONE
    whole = kinds.count(NONE) not in (0, len(kinds)) and not asks_key
    return TEXT in kinds or whole


def _tests(node: Any, names: Names) -> bool:
    return node.name not in _TYPE_TESTS and _kind(node.node, names) != NONE


def _filters(node: Any, names: Names) -> bool:
    if node.name == "random":
        return True
    if node.node is None:
        return node.name not in _PLAIN_FILTERS
    if _kind(node.node, names) == MANY:
        if node.name in _CHOOSING:
            return not _by_label(node)
        return node.name not in _WHOLE or (node.name == "map" and bool(node.args))
    text = any(_kind(part, names) != NONE for part in (node.node, *_arguments(node)))
    return text and (node.name not in _PLAIN_FILTERS or (node.name == "trim" and _cuts(node)))


def _by_label(node: Any) -> bool:
    first = next(iter(_arguments(node)), None)
    return isinstance(first, nodes.Const) and first.value in _LABELS


def _cuts(node: Any) -> bool:
    """Tell whether stripping takes away more than white space."""
    return any(
        not isinstance(argument, nodes.Const) or str(argument.value).strip()
        for argument in _arguments(node)
    )


def _calls(node: Any, names: Names) -> bool:
    method = node.node
    if not isinstance(method, nodes.Getattr):
        return False
    if any(_kind(argument, names) == TEXT for argument in _arguments(node)):
        return method.attr != "append"
    if _kind(method.node, names) != TEXT:
        return False
    return method.attr not in _PLAIN_METHODS or (method.attr.endswith("strip") and _cuts(node))


def _looks_up(node: Any, names: Names) -> bool:
    """Tell whether text is the key of a look-up, or is cut into pieces."""
    named = isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str)
    cut = not named and _kind(node.node, names) == TEXT
    return cut or _kind(node.arg, names) == TEXT


def _counts(node: Any, names: Names) -> bool:
    """Tell whether a loop over text asks where it stands."""
    return _kind(node.iter, names) == TEXT and any(map(_asks_place, node.body))


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
    nodes.For: _counts,
}
