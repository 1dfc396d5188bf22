"""The shape of the package: who may import whom, how long things are, who may print."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import inoculate

SOURCE = Path(inoculate.__file__).parent
# A module imports only from rooms before its own, or from its own package.
ROOMS = (
    "errors",
    "config architecture data destination memory precision progress show",
    "intake",
    "attacks configfile models workspace",
    "chat components trainable",
    "adapters train generate neutralize signature rounding",
    "lead",
    "importance voice subject builtin",
    "clean variants share planting evaluation",
    "hunt",
    "repair",
    "purification editing dissection",
    "attacking",
    "defenses challenge",
    "report provenance resources",
    "api examination",
    "study inspection reproduction __init__",
    "cli",
    "__main__",
)
ROOM = {name: number for number, names in enumerate(ROOMS) for name in names.split()}
ONLY_TORCH = ("signature", "components", "neutralize")
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40


def test_every_module_has_a_room() -> None:
    """No module or package stands outside the house."""
    assert {_owner(module) for module in MODULES} - set(ROOM) == set()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """A module imports only from rooms listed before its own, or from its own package."""
    owner = _owner(module)
    wrong = {
        name
        for name in _imported_owners(module)
        if name != owner and ROOM.get(name, len(ROOMS)) >= ROOM[owner]
    }
    assert not wrong


def test_attacks_never_know_defenses_nor_the_report() -> None:
    """Attacks import neither defenses nor evaluation nor report."""
    known = {name for module in _below("attacks") for name in _imported_owners(module)}
    assert known <= {"attacks", "data", "errors"}


@pytest.mark.parametrize("name", ONLY_TORCH)
def test_method_needs_no_third_party_but_torch(name: str) -> None:
    """The modules that carry the method import torch, the standard library and the package."""
    tops = {target.split(".")[0] for target in _imports(f"{name}.py")}
    assert tops - set(sys.stdlib_module_names) <= {"torch", "inoculate"}


@pytest.mark.parametrize("module", MODULES)
def test_sizes_stay_readable(module: str) -> None:
    """No module is over 300 lines and no function over 40."""
    assert len((SOURCE / module).read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES
    long = {
        node.name
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


@pytest.mark.parametrize(
    "module", [name for name in MODULES if not name.startswith(("cli/", "__main__"))]
)
def test_only_the_command_line_prints_exits_or_reads_the_environment(module: str) -> None:
    """Below the command line nothing prints, exits, reads os.environ or seeds globally."""
    forbidden = {"print", "exit", "sys.exit", "os.environ", "os.getenv", "torch.manual_seed"}
    forbidden |= {"random.seed", "np.random.seed", "numpy.random.seed"}
    assert not forbidden & set(_names(module))


def test_exports_are_sorted_and_exist() -> None:
    """`inoculate.__all__` is sorted without repeats, and every name in it exists."""
    exported = list(getattr(inoculate, "__all__", []))
    assert exported == sorted(set(exported))
    assert all(hasattr(inoculate, name) for name in exported)


def _owner(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((SOURCE / module).read_text(encoding="utf-8"))


def _below(package: str) -> list[str]:
    return [module for module in MODULES if module.startswith(f"{package}/")]


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "Import by the full name."
            # `from inoculate import adapters` names a module, not a member.
            here = node.module == "inoculate"
            yield from (f"inoculate.{a.name}" for a in node.names if here)
            yield from () if here else (str(node.module),)


def _imported_owners(module: str) -> set[str]:
    targets = (target.split(".") for target in _imports(module))
    return {
        parts[1] if parts[1] in ROOM else "__init__"
        for parts in targets
        if parts[0] == "inoculate" and len(parts) > 1
    }


def _names(module: str) -> Iterator[str]:
    """Yield every plain or dotted name that the module mentions."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            yield ast.unparse(node)
