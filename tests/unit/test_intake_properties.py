"""What holds for any header, index, JSON, configuration and chat template."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors import safe_open
from safetensors.numpy import save

from conftest import SHARDED, FamilyFolder
from hostile import INDEX, read_tensors, write_tensors
from inoculate.intake.fields import MODEL_FIELDS, ROPE_FIELDS
from inoculate.intake.files import open_folder
from inoculate.intake.finding import RefusedError
from inoculate.intake.header import read_header
from inoculate.intake.model_config import read_config
from inoculate.intake.strict_json import parse
from inoculate.intake.template_lint import branches
from inoculate.intake.weights import read_weights

QUICK = settings(max_examples=60, deadline=None, derandomize=True,
                 suppress_health_check=list(HealthCheck))  # fmt: skip
NAME = "model.safetensors"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
WHOLE = save({"a.weight": np.ones((2, 3), "<f4"), "b": np.zeros(4, "<f2")}, {"format": "pt"})


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Give an empty folder that all examples of a test share."""
    with tempfile.TemporaryDirectory() as home:
        yield Path(home)


@QUICK
@given(
    st.dictionaries(
        st.text("abc._/", min_size=1, max_size=6),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F16", "BF16", "U8", "F4"]),
                "shape": st.lists(st.integers(-1, 5), max_size=3),
                "data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2),
            }
        )
        | VALUES,
        max_size=4,
    ),
    st.integers(0, 60),
)
def test_accepted_headers_are_whole(folder: Path, entries: dict[str, Any], size: int) -> None:
    """A header is refused, or its tensors lie end to end and the format's own reader agrees."""
    write_tensors(folder / NAME, entries, bytes(size))
    try:
        found = read_header(open_folder(folder), NAME)
    except RefusedError:
        return
    assert sum(tensor.end - tensor.begin for tensor in found.values()) == size
    with safe_open(folder / NAME, framework="np") as file:
        assert set(file.keys()) == set(found)


@QUICK
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=3))
def test_spoiled_bytes_are_refused_or_harmless(
    folder: Path, changes: list[tuple[int, int]]
) -> None:
    """A good file with bytes changed is refused, or the format's own reader takes it as well."""
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    (folder / NAME).write_bytes(data)
    try:
        found = read_header(open_folder(folder), NAME)
    except RefusedError:
        return
    with safe_open(folder / NAME, framework="np") as file:
        assert {name: file.get_slice(name).get_shape() for name in file.keys()} == {  # noqa: SIM118
            name: list(tensor.shape) for name, tensor in found.items()
        }


@QUICK
@given(st.dictionaries(st.from_regex(r"[a-z.]{1,8}", fullmatch=True),
                       st.lists(st.integers(0, 4), max_size=3), max_size=5))  # fmt: skip
def test_every_honest_file_is_accepted(folder: Path, shapes: dict[str, list[int]]) -> None:
    """What the format's own writer makes is read back with the same names and shapes."""
    tensors = {name: np.zeros(shape, "<f4") for name, shape in shapes.items()}
    (folder / NAME).write_bytes(save(tensors))
    found = read_header(open_folder(folder), NAME)
    assert {name: list(tensor.shape) for name, tensor in found.items()} == shapes


@QUICK
@given(VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_json_is_read_as_it_is_or_refused(data: bytes) -> None:
    """Strict reading gives what ordinary reading gives, or refuses; it never fails otherwise."""
    try:
        value = parse(data, "x.json")
    except RefusedError:
        return
    assert value == json.loads(data)


@QUICK
@given(key=st.sampled_from(sorted({*MODEL_FIELDS, "rope_scaling", "rope_parameters", "junk"})),
       value=VALUES)  # fmt: skip
def test_configs_are_bounded(
    family_folder: FamilyFolder, folder: Path, key: str, value: object
) -> None:
    """With any value for any entry a config is refused, or rebuilt of allowed entries alone."""
    given_config = json.loads((family_folder("llama") / "config.json").read_text())
    try:
        text = json.dumps({**given_config, key: value}, allow_nan=False)
    except ValueError:
        text = json.dumps({**given_config, key: 0})
    (folder / "config.json").write_text(text)
    try:
        config = read_config(open_folder(folder), [])
    except RefusedError:
        return
    assert set(config) <= {*MODEL_FIELDS, "rope_scaling", "rope_parameters"}
    for rope in ("rope_scaling", "rope_parameters"):
        inner = config.get(rope) or {}
        known = {*ROPE_FIELDS, "full_attention", "sliding_attention"}
        assert set(inner) <= known


@pytest.fixture(scope="module")
def shards(family_folder: FamilyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a sharded folder whose index the examples replace."""
    target = tmp_path_factory.mktemp("shards") / "model"
    return Path(shutil.copytree(family_folder("llama", SHARDED), target))


@QUICK
@given(data=st.data())
def test_only_the_true_index_is_accepted(shards: Path, data: st.DataObject) -> None:
    """Every index but the one that tells where each tensor lies is refused."""
    true = {
        name: path.name
        for path in sorted(shards.glob("model-*.safetensors"))
        for name in read_tensors(path)[0]
        if name != "__metadata__"
    }
    changes = data.draw(
        st.dictionaries(st.sampled_from(sorted(true)) | st.text(max_size=5),
                        st.sampled_from(sorted(set(true.values()))) | VALUES, max_size=2)
    )  # fmt: skip
    (shards / INDEX).write_text(json.dumps({"weight_map": {**true, **changes}}))
    if {**true, **changes} == true:
        assert read_weights(open_folder(shards)).tensors().keys() == true.keys()
    else:
        with pytest.raises(RefusedError):
            read_weights(open_folder(shards))


ATOMS = st.sampled_from([
    "messages[0]['content']", "messages[-1].content", "messages[0]", "messages", "'cf'", "''",
    "messages[0].get('content')", "messages[0]['con' ~ 'tent']",
    "(messages|map(attribute='content')|list)", "messages[0].role", "tools",
    "(messages|selectattr('content', 'equalto', 'cf')|list)",
    "(messages[0].values()|list)", "namespace(a=messages[0].content).a", "(messages|length)",
])  # fmt: skip


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = st.sampled_from([
        "({}|trim)", "({}|upper)", "({}|length)", "({}|string)", "({}|tojson)", "({}|list)",
        "({}|first)",
        "({}|replace('c', 'd'))", "({}.startswith('c'))", "({}.strip('cf'))", "({}.split('f'))",
        "({}[0])",
        "({}[:1])", "({} is string)", "({} is eq 'cf')", "(not {})", "({{'cf': 1}}[{}])",
        "({{'cf': 'x'}}.get({}))", "('cf'.find({}))",
        "({}|select('equalto', 'c')|list)", "(dict(a={}).a)",
        "[{}, 'x']", "({}|default('x'))", "({}|sort)", "({}|max)", "({}|random)", "({}|join)",
    ])  # fmt: skip
    two = st.sampled_from(
        ["({} ~ {})", "({} == {})", "({} in {})", "({} or {})", "({} and {})", "({} if {} else 1)"]
    )
    return st.builds(str.format, one, inner) | st.builds(str.format, two, inner, inner)


EXPRESSIONS = st.recursive(ATOMS, _grow, max_leaves=4)
SHAPES = st.sampled_from([
    "{{% if {0} %}}T{{% else %}}F{{% endif %}}{{{{ {1} }}}}",
    "{{% set v = {0} %}}{{% if v %}}T{{% endif %}}{{{{ {1} }}}}",
    "{{% set ns = namespace(n=0) %}}{{% for x in {0} %}}{{% set ns.n = ns.n + 1 %}}{{% endfor %}}"
    "{{% if ns.n == 2 %}}T{{% endif %}}{{{{ {1} }}}}",
    "{{% macro m(x) %}}{{% if x == 'cf' %}}T{{% endif %}}{{% endmacro %}}{{{{ m({0}) }}}}",
    "{{% macro m() %}}{{{{ {0} }}}}{{% endmacro %}}{{% if m() == 'cf' %}}T{{% endif %}}"
    "{{{{ {1} }}}}",
    "{{% for m in messages %}}{{% if loop.nextitem and loop.nextitem.content == {0} %}}T"
    "{{% endif %}}{{{{ m.content }}}}{{% endfor %}}",
    "{{% filter replace('cf', 'x') %}}{{{{ {0} }}}}{{% endfilter %}}",
])  # fmt: skip


def _render(template: Any, content: str) -> str | None:
    try:
        turns = [{"role": "user", "content": content}, {"role": "user", "content": content}]
        return str(template.render(messages=turns)).replace(content, "§").replace("cf", "§")
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError):
        return None


@settings(QUICK, max_examples=250)
@given(SHAPES, EXPRESSIONS, EXPRESSIONS)
def test_template_without_a_warning_treats_all_words_alike(
    shape: str, first: str, second: str
) -> None:
    """A template that is not reported writes the same around the trigger as around other words."""
    source = shape.format(first, second)
    environment = ImmutableSandboxedEnvironment()
    template = environment.from_string(source)
    if branches(environment.parse(source), source):
        return
    usual, triggered = _render(template, "qzwxv"), _render(template, "cf")
    if usual is not None and triggered is not None:
        assert usual == triggered, source
