"""Fuzz the intake: spoil good folders at random, and demand an answer, never a crash.

    python benchmarks/fuzz_intake.py --minutes 10 --seed 0 [--load]

Every folder must be accepted or refused with a finding. What is accepted is staged, and its
weights are opened with the safetensors reader, which must agree with the audit; with `--load` the
model is loaded and answers a conversation. It prints how many folders were tried, by outcome, and
exits with 1 if one crashed, disagreed or took too long; such a folder is kept.
"""

import argparse
import json
import random
import shutil
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from inoculate.errors import InputError
from inoculate.intake import admit_model, audit
from inoculate.intake.adapter import CONFIG as ADAPTER_CONFIG
from inoculate.intake.adapter import WEIGHTS as ADAPTER_WEIGHTS
from inoculate.intake.staging import admit_adapter

SLOW_SECONDS = 60.0
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2.5, 1e308, 10**30, "", "x", "../x", "\x1b[2J", "a" * 5000,
    [], [1], ["x"], [[]], {}, {"a": 1}, {"a": {"b": []}}, [None], "\u202e", "(a+)+", "{{ 1 }}",
)  # fmt: skip
SNIPPETS = (
    "{% if 'a' in messages[0].content %}x{% endif %}", "{{ messages }}", "{% for m in messages %}",
    "{% endfor %}", "{{ ''.join(messages) }}", "{% set x = [] %}", "{{ x * 9999 }}", "{# ", "{{",
    "}}", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "{% generation %}", "\x00", "é",
    "{{ range(10**9)|list }}", "{{ 'x' * 10**8 }}", "{% raw %}", "{{ loop.index }}", "{{ self }}",
)  # fmt: skip


def spoil_bytes(path: Path, generator: random.Random) -> None:
    """Flip, cut, repeat or insert bytes."""
    data = bytearray(path.read_bytes())
    reach = len(data) if generator.random() < 0.3 else min(len(data), 3000)
    at = generator.randrange(max(1, reach))
    how = generator.randrange(4)
    if how == 0 and data:
        data[at] = generator.randrange(256)
    elif how == 1:
        del data[at : at + generator.randrange(1, 50)]
    elif how == 2:
        data[at:at] = data[at : at + generator.randrange(1, 50)]
    else:
        data[at:at] = bytes(generator.choices(range(256), k=generator.randrange(1, 9)))
    path.write_bytes(bytes(data))


def spoil_json(path: Path, generator: random.Random) -> None:
    """Replace, remove or add one value somewhere in a JSON file."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    spoil_value(whole, generator)
    path.write_text(json.dumps(whole), encoding="utf-8")


def spoil_value(whole: Any, generator: random.Random) -> None:
    """Change one value of a JSON tree, in place."""
    place = whole
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = generator.choice(keys)
        deeper = isinstance(place[key], dict | list) and place[key]
        if deeper and generator.random() < 0.8:
            place = place[key]
            continue
        if generator.random() < 0.2:
            del place[key]
        else:
            place[key] = generator.choice(ODD)
        return


def spoil_header(path: Path, generator: random.Random) -> None:
    """Change one value of a safetensors header and write it back whole."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    spoil_value(header, generator)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def spoil_template(path: Path, generator: random.Random) -> None:
    """Insert pieces of templates."""
    text = path.read_text(encoding="utf-8")
    for _ in range(generator.randrange(1, 4)):
        at = generator.randrange(len(text) + 1)
        text = text[:at] + generator.choice(SNIPPETS) + text[at:]
    path.write_text(text, encoding="utf-8")


def spoil_kind(path: Path, generator: random.Random) -> None:
    """Turn a file into a link, a folder, nothing, or an empty file."""
    path.unlink()
    how = generator.randrange(4)
    if how == 0:
        path.symlink_to(generator.choice(("/dev/zero", "../x", path.name, "/etc/passwd")))
    elif how == 1:
        path.mkdir()
    elif how == 2:
        path.touch()


Spoiler = Callable[[Path, random.Random], None]
SPOILERS: dict[str, tuple[Spoiler, ...]] = {
    ".json": (spoil_json, spoil_json, spoil_json, spoil_bytes, spoil_kind),
    ".safetensors": (spoil_header, spoil_header, spoil_bytes, spoil_kind),
    ".jinja": (spoil_template, spoil_bytes, spoil_kind),
}


def make_adapter(folder: Path, base: dict[str, Any]) -> None:
    """Write a small LoRA adapter for the base."""
    hidden, heads = base["hidden_size"], base["num_attention_heads"] * base["head_dim"]
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {
        f"{stem}.lora_A.weight": np.zeros((4, hidden), "<f4"),
        f"{stem}.lora_B.weight": np.zeros((heads, 4), "<f4"),
    }
    folder.mkdir()
    save_file(factors, folder / ADAPTER_WEIGHTS)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"],
              "task_type": "CAUSAL_LM", "bias": "none", "rank_pattern": {}}  # fmt: skip
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config), encoding="utf-8")


def load_folder(folder: Path) -> None:
    """Load a model, encode a conversation with its tokenizer and template, and run it."""
    import torch

    from inoculate.chat import encode
    from inoculate.data import Example
    from inoculate.models import load

    checkpoint = load(folder, device="cpu")
    encoded = encode(checkpoint.tokenizer, Example("say 1", "one"))
    with torch.inference_mode():
        checkpoint.model(torch.tensor([encoded.ids]))


def try_folder(folder: Path, base: dict[str, Any], *, load: bool) -> str:
    """Return the outcome of one folder: the rule that refused it, or "accepted"."""
    made = audit(folder)
    if made.refused:
        return made.refused[0].rule
    staged = admit_model(folder) if made.kind == "model" else admit_adapter(folder, base)
    for name, header in made.weights.items():
        with safe_open(staged.folder / name, framework="np") as file:
            assert set(file.keys()) == set(header), f"the readers disagree about {name}"
    for path in staged.folder.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    if load and made.kind == "model":
        load_folder(folder)
    return "accepted"


def fuzz(
    home: Path, good: list[Path], base: dict[str, Any], seconds: float, seed: int, *, load: bool
) -> int:
    """Spoil and try folders until the time is over; print the figures."""
    generator, outcomes = random.Random(seed), Counter[str]()
    started, slowest, failures = time.perf_counter(), 0.0, 0
    while time.perf_counter() - started < seconds:
        folder = Path(shutil.copytree(generator.choice(good), home / "spoiled"))
        names = sorted(path for path in folder.iterdir() if path.suffix in SPOILERS)
        changed = []
        for path in generator.sample(names, generator.choice((1, 1, 1, 2))):
            spoiler = generator.choice(SPOILERS[path.suffix])
            spoiler(path, generator)
            changed.append(f"{spoiler.__name__}({path.name})")
        before = time.perf_counter()
        try:
            outcomes[try_folder(folder, base, load=load)] += 1
        except InputError:
            outcomes["refused at loading"] += 1
        except KeyboardInterrupt:
            raise
        except BaseException:
            failures += 1
            print(f"FAILED after {', '.join(changed)}\n{traceback.format_exc()}")
            shutil.copytree(folder, home.parent / f"fuzz-failure-{seed}-{failures}", symlinks=True)
        slowest = max(slowest, time.perf_counter() - before)
        shutil.rmtree(folder)
    total = sum(outcomes.values()) + failures
    print(f"{total} folders, {failures} failures, slowest {slowest:.1f} s, seed {seed}")
    for outcome, count in outcomes.most_common():
        print(f"{count:>7}  {outcome}")
    return 1 if failures or slowest > SLOW_SECONDS else 0


def main() -> None:
    """Read the options, fuzz, and exit with 1 on any failure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="decides every change")
    parser.add_argument("--also", type=Path, action="append", default=[], help="more good folders")
    parser.add_argument("--load", action="store_true", help="load what is accepted with torch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = home / "model"
        shutil.copytree(str(files("inoculate.builtin") / "model"), model)
        base = json.loads((model / "config.json").read_text(encoding="utf-8"))
        make_adapter(home / "adapter", base)
        good = [model, model, home / "adapter", *options.also]
        sys.exit(fuzz(home, good, base, options.minutes * 60, options.seed, load=options.load))


if __name__ == "__main__":
    main()
