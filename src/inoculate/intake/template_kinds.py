"""What the expressions of a chat template hold: nothing of a message, or how much of one.

MANY is the list of messages, ONE a message, PART a piece of one as it came, TEXT anything else
that message text or the date flows into.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import nodes

NONE, MANY, ONE, PART, TEXT = range(5)
# What a message or a piece of one says of itself that is no free text.
LABELS = frozenset({"role", "type", "name", "id", "tool_call_id"})
_KEEPING = frozenset({"default", "d", "list", "reverse", "first", "last"})
_SELECTING = frozenset({
    "list", "reverse", "selectattr", "rejectattr", "select", "reject", "sort", "unique",
})  # fmt: skip
_MAX_ROUNDS = 20

Names = dict[str, int]
Macros = dict[str, list[nodes.Macro]]


def every(tree: nodes.Node) -> Iterator[nodes.Node]:
    """Yield a node and all below it."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.iter_child_nodes())


def names_of(tree: nodes.Template) -> Names:
    """Return the kind of each name, followed through assignments until nothing changes."""
    unseen = dict.fromkeys(("self", "varargs", "kwargs", "strftime_now"), TEXT)
    names: Names = {"messages": MANY, **unseen}
    macros: Macros = defaultdict(list)
    for macro in tree.find_all(nodes.Macro):
        macros[macro.name].append(macro)
    for parameter in _unseen(tree, macros):
        _bind(names, parameter, TEXT)
    for _ in range(_MAX_ROUNDS):
        before = dict(names)
        for node in every(tree):
            for target, kind in _assigned(node, names, macros):
                _bind(names, target, kind)
        if names == before:
            return names
    raise ValueError("its assignments do not settle")


def _unseen(tree: nodes.Template, macros: Macros) -> Iterator[nodes.Node]:
    """Yield targets whose values are not followed: of call blocks, renamed macros, recursion."""
    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    for block in tree.find_all(nodes.CallBlock):
        yield from block.args
    for name in tree.find_all(nodes.Name):
        if name.ctx == "load" and name.name in macros and id(name) not in called:
            yield from (parameter for macro in macros[name.name] for parameter in macro.args)
    # What a loop calls itself with is not followed.
    yield from (loop.target for loop in tree.find_all(nodes.For) if loop.recursive)


def _assigned(node: nodes.Node, names: Names, macros: Macros) -> Iterator[tuple[nodes.Node, int]]:
    if isinstance(node, nodes.Assign):
        yield node.target, _whole_kind(node.node, names)
    elif isinstance(node, nodes.AssignBlock):
        yield node.target, max((kind_of(part, names) for part in _outputs(node)), default=NONE)
    elif isinstance(node, nodes.For):
        kind = kind_of(node.iter, names)
        yield node.target, ONE if kind == MANY else kind
        # How often a loop over text runs depends on the text, and so does what it counts.
        if kind >= PART:
            yield from ((inner.target, TEXT) for inner in node.find_all(nodes.Assign))
    elif isinstance(node, nodes.With):
        pairs = zip(node.targets, node.values, strict=True)
        yield from ((target, _whole_kind(value, names)) for target, value in pairs)
    elif isinstance(node, nodes.Macro | nodes.CallBlock):
        kind = max((kind_of(part, names) for part in _outputs(node)), default=NONE)
        yield nodes.Name(getattr(node, "name", "caller"), "store"), kind
        usual = zip(node.args[len(node.args) - len(node.defaults) :], node.defaults, strict=True)
        yield from ((parameter, kind_of(value, names)) for parameter, value in usual)
    elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
        kind = max((_whole_kind(argument, names) for argument in arguments(node)), default=NONE)
        for macro in macros.get(node.node.name, ()):
            yield from ((parameter, kind) for parameter in macro.args)


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


def kind_of(node: nodes.Node | None, names: Names) -> int:
    """Return what an expression holds."""
    if node is None:
        return NONE
    key = _key(node)
    if key is not None and key in names:
        return max(names[key], names.get(key.partition(".")[0], NONE))
    rule = _KINDS.get(type(node))
    if rule is not None:
        return rule(node, names)
    inner = max((kind_of(child, names) for child in node.iter_child_nodes()), default=NONE)
    return TEXT if inner else NONE


def _whole_kind(node: nodes.Node, names: Names) -> int:
    """Return what an expression holds, what a namespace's attributes hold included."""
    kind = kind_of(node, names)
    if not isinstance(node, nodes.Name):
        return kind
    held = (value for key, value in names.items() if key.startswith(f"{node.name}."))
    return TEXT if max(held, default=NONE) else kind


def _item_kind(node: Any, names: Names) -> int:
    """Return the kind of `x.name` or `x[key]`."""
    named = isinstance(node, nodes.Getattr)
    owner = kind_of(node.node, names) if named else _whole_kind(node.node, names)
    label = _label(node)
    if label in ("previtem", "nextitem"):
        return ONE
    if owner == NONE:
        return TEXT if isinstance(node, nodes.Getitem) and kind_of(node.arg, names) else NONE
    if owner == MANY:
        return MANY if isinstance(getattr(node, "arg", None), nodes.Slice) else ONE
    if owner == TEXT:
        return TEXT
    return NONE if label in LABELS else PART


def _label(node: Any) -> object:
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) else None


def _filter_kind(node: Any, names: Names) -> int:
    whole = _whole_kind if node.name == "attr" and node.node is not None else kind_of
    kind = max([whole(node.node, names), *(kind_of(a, names) for a in arguments(node))])
    if kind == MANY:
        if node.name in ("first", "last"):
            return ONE
        if node.name in ("length", "count"):
            return NONE
        return MANY if node.name in _SELECTING else TEXT
    if kind == PART and node.name in _KEEPING:
        return PART
    return TEXT if kind else NONE


def _call_kind(node: Any, names: Names) -> int:
    target = node.node
    if isinstance(target, nodes.Name) and target.name == "strftime_now":
        return TEXT
    if isinstance(target, nodes.Getattr) and target.attr == "get" and node.args:
        owner, first = kind_of(target.node, names), node.args[0]
        known = isinstance(first, nodes.Const) and first.value in LABELS and owner != TEXT
        given = any(kind_of(argument, names) for argument in arguments(node)[1:])
        if owner == NONE or known:
            return TEXT if given else NONE
        return TEXT if given or owner == TEXT else PART
    parts = [target.node if isinstance(target, nodes.Getattr) else target, *arguments(node)]
    return TEXT if any(kind_of(part, names) for part in parts) else NONE


def arguments(node: Any) -> list[nodes.Node]:
    """Return what a call, filter or test is given, spread arguments included."""
    spread = (part for part in (node.dyn_args, node.dyn_kwargs) if part is not None)
    return [*(node.args or ()), *(pair.value for pair in node.kwargs or ()), *spread]


def _never(node: Any, names: Names) -> int:
    return NONE


def _either(node: Any, names: Names) -> int:
    return max(kind_of(node.left, names), kind_of(node.right, names))


def _chosen(node: Any, names: Names) -> int:
    return max(kind_of(node.expr1, names), kind_of(node.expr2, names))


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
