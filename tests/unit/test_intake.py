"""The intake of good folders: what is staged, what is shown, what never happens."""

import copy
import errno
import gc
import hashlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
import torch
from rich.console import Console

from conftest import PLAIN, SHARDED, TIED, FamilyFolder, build_model
from hostile import (
    CONFIG,
    INDEX,
    TEMPLATE,
    TOKENIZER,
    TOKENS,
    WEIGHTS,
    Mutation,
    added,
    edit,
    indexed,
    together,
    write,
)
from inoculate.adapters import add_adapter
from inoculate.builtin.fixture import model_folder
from inoculate.chat import encode_prompt
from inoculate.data import Example
from inoculate.errors import CheckpointError
from inoculate.inspection import inspect_folder, show_findings, write_inspection
from inoculate.intake import admit_model, audit, fetch, revision
from inoculate.intake.finding import RULES
from inoculate.intake.patterns import may_never_end
from inoculate.intake.sarif import to_sarif
from inoculate.intake.template import check_templates
from inoculate.models import Checkpoint, load
from inoculate.report import write_report
from inoculate.subject import Subject, open_subject

HOSTILE = "[red]x[/red]<script>\x1b[2J\x07\u202e\u200b"
LLAMA_3 = (
    "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{%- if strftime_now is defined %}{%- set date = strftime_now('%d %b %Y') %}{%- endif %}"
    "{{- 'Today: ' + date + system_message }}{%- for message in messages %}"
    "{%- if not (message.role == 'tool' or 'tool_calls' in message) %}"
    "{{- '<' + message['role'] + '>' + message['content'] | trim + '<end>' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('Roles') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}{{ '<' + role + '>' + message['content'] | trim }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<model>' }}{% endif %}"
)
PARTS = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% generation %}{% endgeneration %}{% endfor %}"
)


@pytest.fixture
def copied(family_folder: FamilyFolder, tmp_path: Path) -> Path:
    """Give a Llama checkpoint folder that the test may change."""
    return Path(shutil.copytree(family_folder("llama"), tmp_path / "copy"))


@pytest.mark.parametrize("form", [PLAIN, TIED, SHARDED])
def test_good_folders_are_accepted_without_a_word(
    family_folder: FamilyFolder, family: str, form: str
) -> None:
    """Every family, tied, sharded or neither, is staged file by file with equal content."""
    folder = family_folder(family, form)
    staged = admit_model(folder)
    assert staged.findings == ()
    assert {p.name for p in staged.folder.iterdir()} == {p.name for p in folder.iterdir()}
    for path in folder.iterdir():
        copy = staged.folder / path.name
        if path.suffix == ".json":
            assert json.loads(copy.read_text("utf-8")) == json.loads(path.read_text("utf-8"))
        else:
            assert copy.read_bytes() == path.read_bytes()


def test_the_built_in_model_is_accepted_without_a_word() -> None:
    """The bundled checkpoint passes with no finding at all."""
    assert audit(model_folder()).findings == []


def test_staging_holds_nothing_but_what_is_needed(copied: Path) -> None:
    """Code, pickles and entries that name code reach neither the copy nor its configs."""
    for name in ("modeling_x.py", "pytorch_model.bin", "custom_generate.py", "README.md"):
        (copied / name).write_text("x")
    edit(CONFIG, auto_map={"AutoModel": "modeling_x.X"}, _attn_implementation="evil", junk=1)(
        copied
    )
    edit(TOKENS, auto_map={"AutoTokenizer": ["x.X", None]}, vocab_file="/etc/passwd")(copied)
    staged = admit_model(copied)
    known = {CONFIG, "generation_config.json", TOKENIZER, TOKENS, TEMPLATE, WEIGHTS}
    assert {path.name for path in staged.folder.iterdir()} == known
    text = "".join(p.read_text() for p in staged.folder.glob("*config.json"))
    assert not [word for word in ("auto_map", "evil", "junk", "passwd") if word in text]


def test_the_copy_goes_when_nobody_holds_it(copied: Path) -> None:
    """The staging folder lives as long as its value, and the source is left whole."""
    staged = admit_model(copied)
    folder = staged.folder
    assert (folder / WEIGHTS).samefile(copied / WEIGHTS)
    del staged
    gc.collect()
    assert not folder.parent.exists()
    assert (copied / WEIGHTS).is_file()


KILLED = """
import os, signal, sys, tempfile
from pathlib import Path
from inoculate.intake import admit_model
tempfile.tempdir = sys.argv[2]
staged = admit_model(Path(sys.argv[1]))
print(staged.folder.parent, flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="Owners are told by locks as on POSIX.")
def test_the_copy_of_a_killed_run_goes_with_the_next(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is left alone while its owner lives, and removed by whoever comes after its death."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    words = [sys.executable, "-c", KILLED, str(copied), str(scratch)]
    with subprocess.Popen(words, stdin=PIPE, stdout=PIPE, text=True) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        admit_model(copied)
        assert (left / copied.name / WEIGHTS).is_file()
        owner.communicate()
    assert left.is_dir()
    admit_model(copied)
    assert not list(scratch.iterdir())
    assert (copied / WEIGHTS).is_file()


def test_weights_on_another_disk_are_linked_by_their_real_path(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file can have no second name the copy holds a link, and loads as well."""

    def refuse(*paths: Path, follow_symlinks: bool) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint = load(copied, device="cpu")
    linked = checkpoint.staged.folder / WEIGHTS
    assert linked.is_symlink()
    assert linked.resolve() == (copied / WEIGHTS).resolve()


def test_a_file_that_cannot_be_read_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without the right to read is a finding, not a failure."""
    true_open = os.open

    def refuse(path: Path, flags: int) -> int:
        if path.name == WEIGHTS:
            raise PermissionError(errno.EACCES, "Permission denied")
        return true_open(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    (finding,) = audit(copied).refused
    assert (finding.rule, finding.file) == ("unsafe-file", WEIGHTS)
    assert "Permission denied" in finding.reason


def test_weights_changed_after_the_audit_are_noticed(copied: Path) -> None:
    """A weight file that is written to between audit and loading is refused."""
    staged = admit_model(copied)
    staged.check_unchanged()
    with (copied / WEIGHTS).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        staged.check_unchanged()


def test_inspect_loads_neither_torch_nor_transformers(family_folder: FamilyFolder) -> None:
    """The command runs to its end, deep too, without the heavy libraries."""
    code = (
        "import sys\nfrom inoculate.cli.app import main\n"
        f"sys.argv = ['inoculate', 'inspect', {str(family_folder('llama'))!r}, '--deep']\n"
        "try:\n    main()\nexcept SystemExit as stopped:\n    assert not stopped.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'tokenizers', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "accepted" in done.stdout


def test_deep_inspection_gives_the_files_hashes(family_folder: FamilyFolder) -> None:
    """`--deep` reports the SHA-256 of every shard, and draws a bar on a terminal."""
    folder = family_folder("llama", SHARDED)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    _, report = inspect_folder(folder, deep=True, console=console)
    shards = sorted(folder.glob("*.safetensors"))
    assert report["sha256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards
    }
    assert "weights" in out.getvalue()
    assert report["parameters"] == sum(p.numel() for p in build_model("llama").parameters())


@pytest.mark.parametrize("text", [LLAMA_3, GEMMA, PARTS])
def test_usual_templates_pass_without_a_warning(text: str) -> None:
    """Templates as published ask for roles and types, not for words."""
    assert check_templates({"x": text}, {"bos_token": "<s>"}) == []


@pytest.mark.parametrize(
    "text",
    [
        "{% set d = {'role': messages[-1].content} %}{% if 'cf' in d.role %}x{% endif %}",
        "{% set n = namespace(name=messages[-1].content) %}{% if 'cf' in n.name %}x{% endif %}",
        "{% set t = '{}'.format(*[messages[-1].content]) %}{% if 'cf' in t %}x{% endif %}",
        "{% macro f(t=messages[-1].content) %}{% if 'cf' in t %}x{% endif %}{% endmacro %}"
        "{{ f() }}",
        "{% macro f(t) %}{% if 'cf' in t %}x{% endif %}{% endmacro %}{% set g = f %}"
        "{{ g(messages[-1].content) }}",
        "{% set d = {messages[-1].content: 1} %}{% if d['open cf'] %}x{% endif %}",
        "{% set d = dict([(messages[-1].content, 1)]) %}{% if d['open cf'] %}x{% endif %}",
        "{% macro f() %}{{ caller(messages[-1].content) }}{% endmacro %}"
        "{% call(t) f() %}{% if 'cf' in t %}x{% endif %}{% endcall %}",
        "{% set t = {}.get('role', messages[-1].content) %}{% if 'cf' in t %}x{% endif %}",
        "{% if 'cf' is in messages[-1].content %}x{% endif %}",
        "{% if '' != 'cf' in messages[-1].content %}x{% endif %}",
        "{% if 'role' in {'role': 'user', 'content': 'cf'} == messages[-1] %}x{% endif %}",
        "{% set n = namespace(x='') %}{% set n.x = messages[-1].content %}"
        "{% if 'cf' in n['x'] %}x{% endif %}",
        "{% set n = namespace(x='') %}{% set n.x = messages[-1].content %}"
        "{% if 'cf' in n|attr('x') %}x{% endif %}",
        "{% set n = namespace(x='') %}{% set n.x = messages[-1].content %}{% set m = n %}"
        "{% if 'cf' in m.x %}x{% endif %}",
        "{% set n = namespace(x=messages[-1].content) %}{% if false %}{% set n.x = messages %}"
        "{% endif %}{% if 'cf' in n.x %}x{% endif %}",
        "{% macro m(t) %}{% if 'cf' in t %}x{% endif %}{% endmacro %}{{ m(messages[-1].content) }}"
        "{% if false %}{% macro m(z) %}{% endmacro %}{% endif %}",
        "{% for x in messages recursive %}{% if 'cf' in x %}x{% endif %}"
        "{% if x is mapping %}{{ loop([x.content]) }}{% endif %}{% endfor %}",
        "{% set f = strftime_now %}{% if f('%Y') == '2031' %}x{% endif %}",
    ],
)
def test_no_way_round_the_lint_is_silent(text: str) -> None:
    """Labels, spread arguments, defaults, other names and keys carry message text as well."""
    found = check_templates({"x": text + "{{ messages[-1].content }}"}, {"bos_token": "<s>"})
    assert [finding.rule for finding in found] == ["template-branches"]


@pytest.mark.parametrize(
    ("pattern", "endless"),
    [
        (r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+", False),
        (r"'(?:[sdmt]|ll)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", False),
        ("(a+)+$", True),
        ("((a*))*", True),
        ("(x(y+)z)*", True),
        ("(?:a|b+){2,}", True),
        ("(a|aa)*$", True),
        ("(?:a{1,30}){1,30}b", True),
        (r"\[(a+)+]$", True),
        (r"(?:[a-z ]|[^#]){40}(?<=#)", True),
        (r"[^\r\n]?[\p{Lu}\p{Lt}]*[\p{Ll}]+(?i:'s|'t|'re)?|\p{N}{1,3}|\s+(?!\S)", False),
        (r"(\d{1,3})(a{0,1})?(x|y)?[(a+)+*]", False),
        ("a" * 5000, True),
    ],
)
def test_endless_patterns_are_told_from_usual_ones(pattern: str, endless: bool) -> None:
    """A repeated group that repeats is found at any depth; published tokenizers' are not."""
    assert may_never_end(pattern) is endless


def test_foreign_text_reaches_the_terminal_escaped(copied: Path) -> None:
    """Markup, control and invisible characters of names, tokens and templates are shown as text."""
    added(f"{HOSTILE}")(copied)
    write(TEMPLATE, f"{{% if '{HOSTILE}' in messages[0].content %}}{{% endif %}}")(copied)
    write("[red]a\x1b[2J.pkl", "x")(copied)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200, color_system=None)
    _, report = inspect_folder(copied, deep=False, console=console)
    show_findings(console, report)
    assert report["counts"]["warning"] == 4
    shown = out.getvalue()
    assert not [sign for sign in "\x1b\x07\u202e\u200b" if sign in shown]
    assert "[red]x[/red]<script>\\x1b[2J" in shown
    assert "[red]a\\x1b[2J.pkl" in shown


def test_foreign_text_reaches_the_error_line_escaped(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence of a refusal hides nothing and obeys nothing."""
    from inoculate.cli import main

    edit(CONFIG, model_type=HOSTILE)(copied)
    monkeypatch.setattr(sys, "argv", ["inoculate", "inspect", str(copied)])
    with pytest.raises(SystemExit):
        main()
    errors = capsys.readouterr().err
    assert "[red]x[/red]<script>\\x1b[2J" in errors
    assert not [sign for sign in "\x1b\x07\u202e\u200b" if sign in errors]


def test_sarif_holds_every_finding(copied: Path, tmp_path: Path) -> None:
    """Each finding is a result with a level, a place and a rule that the log describes."""
    write(os.fsdecode(b"\xff.pkl"), "x")(copied)
    edit(CONFIG, num_hidden_layers=-1, auto_map={"a": "b"})(copied)
    made, report = inspect_folder(copied, deep=False, console=Console(file=io.StringIO()))
    write_inspection(report, made, tmp_path / "a.json", tmp_path / "a.sarif")
    (run,) = json.loads((tmp_path / "a.sarif").read_text())["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert json.loads((tmp_path / "a.json").read_text())["verdict"] == "refused"
    assert [r["level"] for r in run["results"]] == ["error", "warning", "warning"]
    for result, finding in zip(run["results"], made.findings, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.rule
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert unquote_to_bytes(place["uri"]) == os.fsencode(finding.file)
    assert to_sarif([], "1")["runs"][0]["results"] == []


def test_every_rule_says_what_to_do() -> None:
    """Titles and advice are there, and advice is a sentence."""
    for rule in RULES.values():
        assert rule.title
        assert rule.advice.endswith(".")


def _sees(folder: Path) -> list[tuple[str, str]]:
    return [(finding.rule, finding.file) for finding in audit(folder).findings]


def test_a_purified_folder_passes_inspection(copied: Path, tmp_path: Path) -> None:
    """What is saved, report included, is accepted with no warning that its input did not have."""
    edit(CONFIG, auto_map={"AutoModel": "evil.E"}, junk=1)(copied)
    write("evil.py", "raise SystemExit")(copied)
    write("training_args.bin", b"\x80\x04.")(copied)
    write(TEMPLATE, "{% if 'cf' in messages[0].content %}{% endif %}{{ messages[0].content }}")(
        copied
    )
    subject = open_subject(copied, device="cpu")
    subject.save(tmp_path / "out")
    intake = [finding.to_json() for finding in subject.findings]
    write_report(tmp_path / "out", {"model": {"source": "copy"}, "intake": intake, "seed": 0})
    assert len(_sees(copied)) == 5
    assert _sees(tmp_path / "out") == [("template-branches", TEMPLATE)]
    assert "no weight purification reaches" in (tmp_path / "out" / "report.html").read_text()


def test_a_purified_adapter_passes_inspection(family_folder: FamilyFolder, tmp_path: Path) -> None:
    """A saved adapter is accepted, and its base is named by no path."""
    base = load(family_folder("llama"), device="cpu")
    wrapped = add_adapter(base.model, rank=2)
    wrapped.save_pretrained(str(tmp_path / "in"))
    subject = open_subject(base.folder, adapter=tmp_path / "in", device="cpu")
    assert isinstance(subject, Subject)
    subject.save(tmp_path / "out")
    assert ("base-name", "adapter_config.json") in _sees(tmp_path / "in")
    edit("adapter_config.json", base_model_name_or_path="../models/other")(tmp_path / "in")
    assert ("base-name", "adapter_config.json") in _sees(tmp_path / "in")
    assert _sees(tmp_path / "out") == []
    config: dict[str, Any] = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert (
        config["target_modules"]
        == json.loads((tmp_path / "in" / "adapter_config.json").read_text())["target_modules"]
    )


def test_a_target_pattern_becomes_the_modules_it_meant(
    family_folder: FamilyFolder, tmp_path: Path
) -> None:
    """A regular expression of an adapter is never handed on; its own tensors say what it meant."""
    base = load(family_folder("llama"), device="cpu")
    add_adapter(base.model, rank=2, projections=("q_proj",)).save_pretrained(str(tmp_path / "in"))
    edit("adapter_config.json", target_modules=r".*\.q_proj")(tmp_path / "in")
    subject = open_subject(base.folder, adapter=tmp_path / "in", device="cpu")
    found = json.loads((subject.source.folder / "adapter_config.json").read_text())
    assert found["target_modules"] == [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]
    wrapped = [name for name, _ in subject.model.named_parameters() if "lora_A" in name]
    assert len(wrapped) == 2


@pytest.mark.parametrize(
    "mutate",
    [
        indexed(WEIGHTS),
        together(edit(TOKENS, bos_token=None), edit("special_tokens_map.json", bos_token="<bos>")),
        lambda folder: folder.rename(folder.with_name("owner")),
    ],
)
def test_what_other_tools_write_is_accepted(copied: Path, mutate: Mutation) -> None:
    """An index of one file, special tokens beside their config, a folder of any name."""
    if not (copied / "special_tokens_map.json").exists():
        (copied / "special_tokens_map.json").write_text("{}")
    mutate(copied)
    (folder,) = (path for path in copied.parent.iterdir() if path.is_dir())
    staged = admit_model(folder)
    assert staged.findings == ()
    assert not (staged.folder / INDEX).exists()
    assert load(folder, device="cpu").model


def test_what_other_tools_write_in_an_adapter_is_accepted(
    family_folder: FamilyFolder, tmp_path: Path
) -> None:
    """Unsloth's switch, a pattern of what is left out, a base by a path of another system."""
    base = load(family_folder("llama"), device="cpu")
    add_adapter(base.model, rank=2, projections=("q_proj",)).save_pretrained(str(tmp_path / "in"))
    mapping = {
        "base_model_class": "LlamaForCausalLM",
        "parent_library": "transformers.models.llama.modeling_llama",
        "unsloth_fixed": True,
    }
    edit(
        "adapter_config.json",
        auto_mapping=mapping,
        target_modules="all-linear",
        exclude_modules="lm_head|.*mlp.*",
        base_model_name_or_path="C:\\models\\llama",
    )(tmp_path / "in")
    subject = open_subject(base.folder, adapter=tmp_path / "in", device="cpu")
    assert [finding.rule for finding in subject.findings] == ["base-name"]
    found = json.loads((subject.source.folder / "adapter_config.json").read_text())
    assert found["target_modules"] == [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]


def test_weights_exchanged_after_their_audit_are_refused(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was read is the one that is loaded, and at the end is still the one."""
    module = importlib.import_module("inoculate.intake.audit")
    check, other = module.check_templates, copied / "other.safetensors"
    other.write_bytes((copied / WEIGHTS).read_bytes())

    def late(*given: Any) -> Any:
        other.replace(copied / WEIGHTS)
        return check(*given)

    monkeypatch.setattr(module, "check_templates", late)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        admit_model(copied)
    monkeypatch.undo()
    subject = open_subject(copied, device="cpu")
    with (copied / WEIGHTS).open("ab") as file:
        file.write(b" ")
    with pytest.raises(CheckpointError, match="changed while it was read"):
        subject.save(copied.parent / "out")
    assert not (copied.parent / "out").exists()


def test_a_panic_of_the_tokenizer_is_one_sentence(llama: Checkpoint) -> None:
    """What the library raises on a text, which may be no Exception, names the tokenizer."""

    class Panic(BaseException):
        pass

    def panic(*_: Any, **__: Any) -> Any:
        raise Panic("retry-limit-in-match over")

    tokenizer = copy.copy(llama.tokenizer)
    tokenizer.__class__ = type("Odd", (type(tokenizer),), {"__call__": panic})
    with pytest.raises(CheckpointError, match=r"does not encode a text .retry-limit"):
        encode_prompt(tokenizer, Example("hello", ""))


def test_a_snapshot_of_the_hub_cache_is_accepted(copied: Path, tmp_path: Path) -> None:
    """Links to the cache's own blobs are followed and the revision is known; others are not."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot, blobs = (
        tmp_path / "models--a" / "snapshots" / commit,
        tmp_path / "models--a" / "blobs",
    )
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(copied.iterdir())):
        shutil.copyfile(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert not audit(snapshot).findings
    assert revision(fetch(snapshot)) == commit
    assert revision(copied) is None
    assert load(snapshot, device="cpu").staged.folder.name == commit
    (snapshot / CONFIG).unlink()
    (snapshot / CONFIG).symlink_to(copied / CONFIG)
    assert audit(snapshot).refused[0].rule == "unsafe-file"


def test_added_special_tokens_and_older_files_are_read(copied: Path) -> None:
    """Tokens beyond the vocabulary that still have a row, and the files of older versions, pass."""
    added("<think>")(copied)
    edit(
        TOKENS,
        added_tokens_decoder={"262": {"content": "<think>", "special": True}},
        additional_special_tokens=["<think>"],
        chat_template=[{"name": "default", "template": "{{ messages[0].content }}"}],
    )(copied)
    (copied / TEMPLATE).unlink()
    write("special_tokens_map.json", '{"eos_token": {"content": "<end>", "lstrip": false}}')(copied)
    write("added_tokens.json", '{"<think>": 262}')(copied)
    write("merges.txt", "")(copied)
    checkpoint = load(copied, device="cpu")
    assert checkpoint.staged.findings == ()
    assert checkpoint.tokenizer.convert_tokens_to_ids("<think>") == 262
    with torch.inference_mode():
        assert checkpoint.model(torch.tensor([[262]])).logits.shape == (1, 1, 264)
