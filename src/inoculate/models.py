"""Load and save checkpoints; the only place that touches the Auto classes.

Shapes: B batch, T tokens, D hidden, V vocabulary, R response positions of a batch.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging

from inoculate.architecture import SPARE_TOKENS, Architecture, read_architecture
from inoculate.errors import CheckpointError, DataError, InputError, first_line
from inoculate.intake import Staged, admit_model
from inoculate.intake.shapes import EMBEDDINGS, HEAD
from inoculate.precision import shorten

_PROBE = "Is 1 + 1 = 2? Yes, naïvely."
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    _INDEX,
)


@dataclass(frozen=True)
class Checkpoint:
    """Hold a loaded model with its tokenizer, its shapes and the folder it came from.

    `folder` is the user's and only named; `staged` is the checked copy that was loaded.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    architecture: Architecture
    folder: Path
    staged: Staged


def load(folder: Path, *, device: str = "auto", frozen: bool = False) -> Checkpoint:
    """Load a causal language model in fp32, the precision in which differences are taken.

    The folder is audited first, and only a staging copy of it is loaded. Where it is `frozen` no
    weight of it will train, as under an adapter, and some may stay in the 16 bits of their file.

    Raises:
        CheckpointError: The folder is refused, does not load, or holds NaN weights; or its
            tokenizer, as its class completes it, encodes no text or needs more embedding rows.
        ArchitectureError: The model type is not supported.
    """
    staged = admit_model(folder)
    architecture = read_architecture(staged.folder)
    logging.disable_progress_bar()
    try:
        tokenizer, (model, info) = _from_staged(staged.folder)
        ids = _ids_in_use(tokenizer)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # A panic of the tokenizers library is no Exception.
        raise CheckpointError(f"{folder} does not load: {first_line(error)}") from error
    staged.check_unchanged()
    _check_loaded(folder, model, info)
    _check_rows(folder, model, ids)
    model.name_or_path = model.config._name_or_path = str(folder)
    place = resolve_device(device)
    if frozen:
        shorten(model, place.type)
    return Checkpoint(model.to(place).eval(), tokenizer, architecture, folder, staged)


def _from_staged(folder: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    loaded = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    return tokenizer, loaded


def _ids_in_use(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the id of every token that a text can hold, after encoding one."""
    try:  # Some classes rebuild tokenizer.json, and fail only when they meet a text.
        ids: list[int] = tokenizer(_PROBE)["input_ids"]
    except Exception as error:  # The tokenizers' own errors have no class of theirs.
        raise CheckpointError(
            f"tokenizer.json encodes no text in the class of tokenizer_config.json "
            f"({first_line(error)}). Save the tokenizer anew with transformers."
        ) from error
    return {**tokenizer.get_vocab(), _PROBE: max(ids)}


def resolve_device(name: str) -> torch.device:
    """Return the named device; `auto` prefers CUDA, then MPS, then the CPU.

    Raises:
        InputError: There is no such device here.
    """
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    here = [*found[:1], *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    known = {"auto": here[0], "cuda": found[0]} if found else {"auto": here[0]}
    chosen = known.get(name, name)
    if chosen not in {*found, *here}:
        raise InputError(f"No device {name!r} is here. Pass one of: auto, {', '.join(here)}.")
    return torch.device(chosen)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that loading the folder would read, sorted.

    Raises:
        CheckpointError: There are none, or the index names a path outside the folder.
    """
    index = folder / _INDEX
    if (folder / _SINGLE).is_file():
        files = [folder / _SINGLE]
    elif index.is_file():
        files = [folder / name for name in _shards(index)]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"{folder} holds no .safetensors file. Convert the weights to safetensors first; "
            "pickle files are not opened."
        )
    return files


def _shards(index: Path) -> list[str]:
    try:
        names = {str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no shard index: {error}. Save the model anew.") from None
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names {name!r}, which is no file beside it.")
    return sorted(names)


def response_logits(model: PreTrainedModel, response_BT: Tensor, **inputs: Tensor) -> Tensor:
    """Return the logits that predict the marked tokens only, shape (R, V).

    Args:
        response_BT: True at each token to be predicted; the first column must be false.
        inputs: `input_ids` or `inputs_embeds`, and `attention_mask`.
    """
    hidden_BTD = decoder(model)(**inputs, use_cache=False).last_hidden_state
    return logits_of(model, hidden_BTD, response_BT)


def hidden_states(model: PreTrainedModel, **inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the embeddings and each block's output, the last one normalized, (B, T, D) each."""
    states: tuple[Tensor, ...] = decoder(model)(
        **inputs, use_cache=False, output_hidden_states=True
    ).hidden_states
    return states


def logits_of(model: PreTrainedModel, hidden_BTD: Tensor, response_BT: Tensor) -> Tensor:
    """Return the logits of the last hidden states that predict the marked tokens, (R, V)."""
    predicting_BT = torch.zeros_like(response_BT)
    predicting_BT[:, :-1] = response_BT[:, 1:]
    logits_RV: Tensor = model.get_output_embeddings()(hidden_BTD[predicting_BT])
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits_RV if cap is None else torch.tanh(logits_RV / cap) * cap


def cache_name(model: PreTrainedModel) -> str:
    """Return what transformers calls the cache of keys and values, in calls and in outputs.

    It is `cache` from 5.24 on, and was `past_key_values`.
    """
    known = signature(decoder(model).forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def decoder(model: PreTrainedModel) -> torch.nn.Module:
    """Return the module that maps tokens to last hidden states, below any adapter wrapper."""
    causal: Any = model
    if hasattr(causal, "get_base_model"):
        causal = causal.get_base_model()
    inner: torch.nn.Module = causal.model
    return inner


def save_like(
    source: Path,
    destination: Path,
    changed: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint like `source` in which only `changed` tensors differ.

    Files, sharding, tensor order, dtypes and every other tensor's bits stay as they were.

    Raises:
        CheckpointError: A changed tensor is in no file, or its shape differs.
    """
    destination.mkdir(parents=True, exist_ok=True)
    changed = _with_tied_head(source, changed)
    missing = set(changed)
    for path in weight_files(source):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        for name in tensors.keys() & changed.keys():
            tensors[name] = _like(tensors[name], changed[name], name)
        missing -= tensors.keys()
        save_file(tensors, destination / path.name, metadata=metadata)
    if missing:
        raise CheckpointError(f"{source} holds no tensor named {min(missing)!r}.")
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)


def _with_tied_head(source: Path, changed: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Let a head that is stored beside the embeddings it is tied to follow them."""
    if HEAD in changed or EMBEDDINGS not in changed:
        return changed
    stored = []
    for path in weight_files(source):
        with safe_open(path, framework="pt") as file:
            names = {HEAD, EMBEDDINGS} & set(file.keys())
            stored += [file.get_tensor(name) for name in names]
    tied = len(stored) > 1 and torch.equal(*stored)
    return {**changed, HEAD: changed[EMBEDDINGS]} if tied else changed


def _like(old: Tensor, new: Tensor, name: str) -> Tensor:
    if old.shape != new.shape:
        raise CheckpointError(
            f"Tensor {name!r} has shape {tuple(new.shape)}, the file has {tuple(old.shape)}."
        )
    return new.detach().to("cpu", old.dtype).contiguous()


def _check_loaded(folder: Path, model: PreTrainedModel, info: dict[str, Any]) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            found = sorted(str(key) for key in info[kind])[0]
            raise CheckpointError(f"{folder}: {kind.replace('_', ' ')}, the first is {found}.")
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise CheckpointError(f"{folder}: tensor {name!r} holds NaN or Inf.")


def _check_rows(folder: Path, model: PreTrainedModel, ids: Mapping[str, int]) -> None:
    """Demand a row for every token; the family's spare ones are refused when a text holds them."""
    embeddings: Any = model.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    past = {token for token, number in ids.items() if number >= rows}
    spare = past & set(SPARE_TOKENS.get(model.config.model_type, ()))
    if spare:
        embeddings.register_forward_pre_hook(_RowGuard(rows, min(spare)))
    if past - spare:
        highest = max(ids[token] for token in past - spare)
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'}: its class gives a token id {highest} and the "
            f"embedding has {rows} rows. Save the tokenizer anew with transformers."
        )


@dataclass(frozen=True)
class _RowGuard:
    """Refuse tokens past the rows before an embedding looks them up."""

    rows: int
    token: str

    def __call__(self, embedding: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
        if given and given[0].numel() and int(given[0].max()) >= self.rows:
            raise DataError(
                f"A text holds {self.token}, for which the model has no embedding row. "
                "Take it out of the text."
            )
