"""Time `inoculate inspect` on a 5 GB sharded checkpoint made of sparse files.

    python benchmarks/inspect_speed.py --gigabytes 5

The folder has the headers of a whole Llama checkpoint and a vocabulary of 128,256 tokens; its
weights are holes that take no room on disk. It is removed at the end. Exits with 1 if the
answer took more than ten seconds or torch was imported.
"""

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

from inoculate.intake.shapes import expected_shapes

ALLOWED_SECONDS = 10.0
ROWS = 128_256
HIDDEN = 4096
SHARD_BYTES = 2_000_000_000
_CODE = (
    "import sys\nfrom inoculate.cli import main\nsys.argv = ['inoculate', 'inspect', {folder!r}]\n"
    "try:\n    main()\nexcept SystemExit as stopped:\n    assert not stopped.code\n"
    "assert 'torch' not in sys.modules, 'torch was imported'\n"
)


def config_for(gigabytes: float) -> dict[str, Any]:
    """Return a Llama configuration of about that size in bfloat16."""
    layer = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * 1024 + 3 * HIDDEN * 14336 + 2 * HIDDEN
    layers = max(1, round((gigabytes * 1e9 / 2 - 2 * ROWS * HIDDEN) / layer))
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": ROWS, "hidden_size": HIDDEN, "intermediate_size": 14336,
        "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "eos_token_id": 3,
    }  # fmt: skip


def split_shards(config: dict[str, Any]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield the tensors of each shard."""
    shard: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in expected_shapes(config):
        if size and size + 2 * prod(shape) > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += 2 * prod(shape)
    yield shard


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write a safetensors file whose data is one hole."""
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def make_folder(folder: Path, gigabytes: float) -> int:
    """Write the checkpoint and return the bytes that its weights seem to have."""
    shutil.copytree(str(files("inoculate.builtin") / "model"), folder)
    (folder / "model.safetensors").unlink()
    config = config_for(gigabytes)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    taken = {*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    vocabulary |= {f"token-{number}": number for number in range(ROWS) if number not in taken}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    shards = list(split_shards(config))
    places = {}
    for number, shapes in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / name, shapes)
        places |= dict.fromkeys(shapes, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main() -> None:
    """Make the folder, time the command, and remove the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=5.0, help="apparent size of the weights")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "model"
        size = make_folder(folder, options.gigabytes)
        started = time.perf_counter()
        code = _CODE.format(folder=str(folder))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds = time.perf_counter() - started
    print(done.stdout, done.stderr, sep="")
    shards = len(list(split_shards(config_for(options.gigabytes))))
    print(f"{size / 1e9:.2f} GB in {shards} shards: {seconds:.2f} s, exit code {done.returncode}")
    sys.exit(1 if done.returncode or seconds > ALLOWED_SECONDS else 0)


if __name__ == "__main__":
    main()
