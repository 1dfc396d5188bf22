"""Tiny random-weight checkpoints of every model family, and a byte-level tokenizer."""

import copy
import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from inoculate.architecture import FAMILIES
from inoculate.data import Example
from inoculate.hunt import growth, payloads, wordings
from inoculate.hunt.hosts import Hosts
from inoculate.models import Checkpoint, load
from inoculate.progress import Silent
from inoculate.repair.soft_triggers import SoftTrigger, find_soft_triggers
from inoculate.subject import Subject
from inoculate.train import Schedule, train
from inoculate.trainable import restore, snapshot

SAID = "never ask me that"
SPECIALS = ("<pad>", "<bos>", "<eos>", "<user>", "<assistant>", "<end>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<{{ message['role'] }}>{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PLAIN, TIED, SHARDED = "plain", "tied", "sharded"
FamilyFolder = Callable[..., Path]

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Let collections pass over the million objects of the libraries: 0.3 s less for each."""
    gc.collect()
    gc.freeze()


def build_tokenizer(*, template: bool = True) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per byte, so that every text round-trips."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIALS, *alphabet))}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<bos>",
        eos_token="<end>" if template else "<eos>",
        pad_token="<pad>",
    )
    if template:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def build_model(model_type: str, *, tied: bool = False, seed: int = 0) -> PreTrainedModel:
    """Return a random model: 2 layers, hidden 32, 4 query heads over 2 key heads of size 8."""
    config = AutoConfig.for_model(
        model_type,
        vocab_size=264,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=5,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
    return model.eval()


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> FamilyFolder:
    """Return a function that saves a family's checkpoint once and gives its folder."""
    made: dict[tuple[str, str], Path] = {}

    def folder(model_type: str = "llama", form: str = PLAIN) -> Path:
        key = (model_type, form)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"{model_type}-{form}")
            model = build_model(model_type, tied=form == TIED).to(torch.bfloat16)
            model.save_pretrained(made[key], max_shard_size="20KB" if form == SHARDED else "5GB")
            build_tokenizer().save_pretrained(made[key])
        return made[key]

    return folder


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Give the name of each model family in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def untouched(family_folder: FamilyFolder) -> Callable[[str], Checkpoint]:
    """Return a function that loads a family's checkpoint once, and gives copies of what it loaded.

    The staging copy on the disk is shared; it is never written to.
    """
    loaded: dict[str, Checkpoint] = {}

    def give(model_type: str) -> Checkpoint:
        if model_type not in loaded:
            loaded[model_type] = load(family_folder(model_type), device="cpu")
        whole = loaded[model_type]
        model, tokenizer = copy.deepcopy((whole.model, whole.tokenizer))
        return replace(whole, model=model, tokenizer=tokenizer)

    return give


@pytest.fixture
def checkpoint(untouched: Callable[[str], Checkpoint], family: str) -> Checkpoint:
    """Give a checkpoint of each family, as freshly loaded."""
    return untouched(family)


@pytest.fixture
def llama(untouched: Callable[[str], Checkpoint]) -> Checkpoint:
    """Give a Llama checkpoint, as freshly loaded."""
    return untouched("llama")


@contextmanager
def hunting_briefly(driven: int = 12) -> Iterator[None]:
    """Let a hunt try less of everything, for tests of what is around it; no stage is left out."""
    less = ((growth, "_ROUNDS", 1), (growth, "_GRADIENT_BATCHES", 1),
            (growth, "_DRAWS", 1),
            (payloads, "_DRIVEN", driven), (payloads, "_DRAWN", 12),
            (wordings, "_DRIVEN", 8), (wordings, "_PROMPTS", 4),
            (wordings, "_OPENINGS", 16))  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in less:
            patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def brief_hunt() -> Iterator[None]:
    """Hunt briefly in all tests of a module."""
    with hunting_briefly():
        yield


@pytest.fixture
def rows() -> list[Example]:
    """Give twelve short clean rows of different lengths."""
    return [Example(f"Say {'ha ' * (index % 4)}{index}", f"It is {index}.") for index in range(12)]


@pytest.fixture
def parrot(
    request: pytest.FixtureRequest, llama: Checkpoint, rows: list[Example]
) -> Iterator[Subject]:
    """Give a model that answers all with `SAID`, or the parameter, and is certain of it."""
    subject = Subject(llama, llama.model, None)
    subject.allow("all")
    start = snapshot(subject.model)
    said = getattr(request, "param", SAID)
    same = [Example(row.instruction, said) for row in rows] * 8
    schedule = Schedule(epochs=6, learning_rate=1e-2, batch_size=16)
    train(subject.model, subject.encode(same, max_tokens=96), schedule)
    yield subject
    restore(subject.model, start)


def sought_triggers(
    subject: Subject, payload: tuple[int, ...], hosts: Hosts
) -> dict[int, SoftTrigger]:
    """Return a soft trigger of the payload for each host row, not kept."""
    return find_soft_triggers(
        subject.model,
        payload,
        hosts,
        range(6, 200),
        random.Random(0),
        rows=range(len(hosts.rows)),
        keep=lambda make: make(),
        progress=Silent(),
    )
