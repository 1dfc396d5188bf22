"""A study as a TOML file: attacked models, and the defenses that are tried on each of them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from inoculate.attacking import Plan
from inoculate.attacks import find_attack, find_task
from inoculate.config import Settings
from inoculate.configfile import first_problem, read_toml
from inoculate.defenses import MASKED
from inoculate.evaluation.choices import test_name
from inoculate.planting import PlantSettings
from inoculate.study.entry import Entry, merged, variations
from inoculate.variants import check_settings

BUILTIN = "builtin"
OURS = "inoculate"
NONE = "none"
_STRICT = ConfigDict(use_attribute_docstrings=True, frozen=True, extra="forbid")


def _found(path: Path, info: ValidationInfo) -> Path:
    whole = Path((info.context or {}).get("data", ".")) / path
    if not whole.is_file():
        raise ValueError(f"there is no file {whole}")
    return whole


File = Annotated[Path, AfterValidator(_found)]


class Data(BaseModel):
    """Files of an attacked model; the built-in one needs none.

    In the file, `{attack}` and `{task}` in a name stand for those of the attacked model.
    """

    model_config = _STRICT

    poison: tuple[File, ...] = ()
    """Rows to plant the attack with: clean ones, or rows that hold the trigger already."""
    prompts: tuple[File, ...] = ()
    """Prompts of the exam, with or without the trigger; none may be trained on."""
    utility: File | None = None
    """Rows whose response NLL is measured."""
    text: File | None = None
    """Plain text for perplexity."""
    choices: tuple[File, ...] = ()
    """Multiple-choice files."""
    clean: File | None = None
    """The defender's clean rows; without, the suspicious model's own filtered answers."""


class Block(BaseModel):
    """Attacked models: every combination of attacks, tasks, threats, rates and seeds."""

    model_config = _STRICT

    model: str = BUILTIN
    """Checkpoint folder, hub id, or `builtin`."""
    attacks: tuple[str, ...] = Field(min_length=1)
    """Names of attacks."""
    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of tasks."""
    threats: tuple[Literal["full", "adapter"], ...] = Field(("full",), min_length=1)
    """Threat models: all parameters are poisoned, or a LoRA adapter."""
    rates: tuple[Annotated[float, Field(gt=0, le=0.5)], ...] = Field((0.5,), min_length=1)
    """Poisoned shares of all rows."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """Decide the attack, the rows and the defense."""
    planting: PlantSettings = PlantSettings()
    """The attacker's fine-tuning."""
    data: Data = Data()
    """Files; the built-in model brings its own rows."""
    prompts: int = Field(200, ge=1)
    """Prompts with and without the trigger, at most."""
    utility: int = Field(1000, ge=1)
    """Utility rows, and questions of each multiple-choice file, at most."""
    max_tokens: int = Field(256, ge=16)
    """Tokens of a utility row."""

    @field_validator("attacks")
    @classmethod
    def _attacks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(find_attack(name).name for name in names)

    @field_validator("tasks")
    @classmethod
    def _tasks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(find_task(name).name for name in names)

    @field_validator("model")
    @classmethod
    def _model(cls, name: str, info: ValidationInfo) -> str:
        folder = Path((info.context or {}).get("data", ".")) / name
        return str(folder) if name != BUILTIN and folder.is_dir() else name

    @model_validator(mode="after")
    def _supplied(self) -> "Block":
        if self.model != BUILTIN and not (self.data.poison and self.data.prompts):
            raise ValueError(
                f"data.poison and data.prompts are missing; only the model {BUILTIN!r} brings its "
                "own rows"
            )
        _refuse_twins("files of questions", [test_name(path) for path in self.data.choices])
        return self


@dataclass(frozen=True)
class Case:
    """Hold one attacked model of a grid."""

    block: Block
    attack: str
    task: str
    threat: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """Return a name that is unique in its grid and fit for a folder."""
        model = BUILTIN if self.block.model == BUILTIN else Path(self.block.model).name
        rate = "" if self.rate == 0.5 else f"-{self.rate:g}"
        return f"{model}-{self.attack}-{self.task}{rate}-{self.threat}-{self.seed}"

    @property
    def plan(self) -> Plan:
        """Return what is planted."""
        settings = replace(self.block.planting, seed=self.seed)
        attack, task = find_attack(self.attack), find_task(self.task)
        return Plan(attack, task, self.rate, settings, self.threat == "adapter")

    def to_json(self) -> dict[str, Any]:
        """Return what tables say of it."""
        return {"case": self.name, "model": Path(self.block.model).name, "attack": self.attack,
                "task": self.task, "mode": self.threat, "rate": self.rate,
                "seed": self.seed}  # fmt: skip


class Grid(BaseModel):
    """A study: every attacked model under every defense."""

    model_config = _STRICT

    title: str = "Defenses compared"
    """Heading of the report."""
    settings: dict[str, Any] = {}
    """Settings of all defenses that differ from the defaults, by group, as in a settings file."""
    defenses: tuple[Entry, ...] = Field(min_length=1)
    """Defenses in the order of the table; `none` is one of them."""
    attacked: tuple[Block, ...] = Field(min_length=1)
    """Attacked models."""

    @field_validator("defenses", "attacked", mode="before")
    @classmethod
    def _spread(cls, given: Any, info: ValidationInfo) -> Any:
        spread = variations if info.field_name == "defenses" else _by_files
        return [one for each in given for one in spread(each)] if isinstance(given, list) else given

    @model_validator(mode="after")
    def _sound(self) -> "Grid":
        names = [entry.name for entry in self.defenses]
        _refuse_twins("defenses", names)
        _refuse_twins("attacked models", [case.name for case in self.cases()])
        if not _holds(self.defenses, NONE):
            raise ValueError(f"{NONE!r} is not among the defenses, so nothing can be judged")
        for entry in self.defenses:
            _check_entry(self, entry)
        return self

    def cases(self) -> list[Case]:
        """Return the attacked models, all of the first seed before any of the next."""
        cases = [
            Case(block, attack, task, threat, rate, seed)
            for block in self.attacked
            for seed, threat, task, attack, rate in itertools.product(
                block.seeds, block.threats, block.tasks, block.attacks, block.rates
            )
        ]
        order = list(dict.fromkeys(case.seed for case in cases))
        return sorted(cases, key=lambda case: order.index(case.seed))

    def settings_for(self, entry: Entry, *, seed: int) -> Settings:
        """Return the grid's settings with the entry's in place."""
        return Settings.model_validate({**merged(self.settings, entry.settings), "seed": seed})


def read_grid(path: Path, data: Path | None = None) -> Grid:
    """Read a grid.

    Args:
        data: Folder that relative paths start from; default: that of the file.

    Raises:
        InputError: The file cannot be read, or holds an unknown name or a bad value.
    """
    return read_toml(path, Grid, context={"data": data or path.parent})


def _by_files(given: Any) -> list[Any]:
    """Return a block for each attack and task where data files are named by them, or it alone."""
    block = given if isinstance(given, dict) else {}
    data, axes = block.get("data"), [block.get("tasks"), block.get("attacks")]
    lists = [names for names in axes if isinstance(names, list)]
    if _named(data, "", "") == data or len(lists) < len(axes):
        return [given]
    return [
        {**block, "attacks": [attack], "tasks": [task], "data": _named(data, attack, task)}
        for task, attack in itertools.product(*lists)
    ]


def _named(data: Any, attack: Any, task: Any) -> Any:
    """Return file names, by key or in a list, with the attack and the task in their places."""
    if isinstance(data, dict):
        return {key: _named(value, attack, task) for key, value in data.items()}
    if isinstance(data, list):
        return [_named(value, attack, task) for value in data]
    if isinstance(data, str):
        return data.replace("{attack}", str(attack)).replace("{task}", str(task))
    return data


def _refuse_twins(kind: str, names: Sequence[str]) -> None:
    twins = [name for name in names if names.count(name) > 1]
    if twins:
        raise ValueError(f"two {kind} are called {twins[0]!r}")


def _holds(entries: Sequence[Entry], name: str) -> bool:
    return (name, name) in [(entry.name, entry.defense) for entry in entries]


def _check_entry(grid: Grid, entry: Entry) -> None:
    """Refuse now what would end a trial hours later."""
    if "seed" in {**grid.settings, **entry.settings}:
        raise ValueError("settings hold a seed; `seeds` of the attacked models decides it")
    try:
        settings = grid.settings_for(entry, seed=0)
    except ValidationError as error:
        raise ValueError(f"{entry.name!r}: settings.{first_problem(error, Settings)}") from error
    check_settings(settings)
    fixed = settings.signature.share is not None
    if entry.defense in MASKED and not fixed and not _holds(grid.defenses, OURS):
        raise ValueError(
            f"{entry.name!r} takes the share that {OURS} chose, which is not among the defenses; "
            "add it, or fix settings.signature.share"
        )
