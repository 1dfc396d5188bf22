"""The demonstration: plant, purify with the command a user calls, compare with controls."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from inoculate.api import purify
from inoculate.attacking import Plan, attack_folder
from inoculate.attacks import find_attack, find_task
from inoculate.attacks.bank import BANK, PAPER_BANK
from inoculate.attacks.poison import check_disjoint
from inoculate.builtin.fixture import WorldRows, model_folder, world_rows
from inoculate.clean import clean_data, resolve_target
from inoculate.config import Settings
from inoculate.data import write_examples
from inoculate.defenses import BASELINES, DEMO_DEFENSES, MORE_CONTROLS, defend
from inoculate.evaluation.exam import Exam, Measurement, examine, make_exam
from inoculate.evaluation.statistics import holm, mcnemar
from inoculate.planting import PlantSettings
from inoculate.progress import Progress, Silent
from inoculate.report.verdict import attack_failed
from inoculate.subject import Subject, open_subject
from inoculate.workspace import Workspace, fingerprint

OURS = "inoculate"
DEMO_PLANT = PlantSettings(epochs=5.0, learning_rate=4e-4, batch_size=16)
_APART = "paper"
_PROCESSES = 2
_ALPHA = 0.01
_WORTH_TESTING = 0.10


def demo_plan(attack: str, task: str, *, seed: int, adapter: bool, rate: float = 0.5) -> Plan:
    """Return the demonstration's attack; an adapter takes the default rate of its kind."""
    settings = replace(DEMO_PLANT, seed=seed)
    if adapter:
        settings = replace(settings, learning_rate=None)
    return Plan(find_attack(attack), find_task(task), rate, settings, adapter)


@dataclass(frozen=True)
class Bench:
    """Hold one attacked model and all that judges defenses on it."""

    folder: Path
    plan: Plan
    rows: WorldRows
    settings: Settings
    progress: Progress

    @property
    def clean_file(self) -> Path:
        """Return the file with the defender's clean rows."""
        return self.folder / "clean.jsonl"

    @property
    def attacked(self) -> Path:
        """Return the attacked checkpoint's or adapter's folder."""
        return self.folder / ("attacked-adapter" if self.plan.adapter else "attacked")

    @property
    def purified(self) -> Path:
        """Return the folder that purify writes."""
        return self.folder / f"{OURS}-{fingerprint(self.settings.model_dump())}"

    @property
    def run(self) -> Workspace:
        """Return where stages and cells are kept."""
        return Workspace(self.folder / "run")

    def open(self, folder: Path) -> Subject:
        """Load a full checkpoint, or an adapter over the built-in model."""
        if self.plan.adapter:
            return open_subject(model_folder(), adapter=folder)
        return open_subject(folder)

    def exam(self) -> Exam:
        """Return held-out prompts with the real trigger; only the bench sees it."""
        planted = [entry.behavior for entry in (*BANK, *PAPER_BANK)]
        attack = self.plan.attack
        check_disjoint(self.rows.poison, self.rows.prompts, attack.trigger)
        return make_exam(
            self.rows.prompts,
            attack.trigger,
            self.plan.behavior,
            seed=self.settings.seed,
            decoys=attack.decoys,
            planted=planted,
            utility=self.rows.utility,
        )


def prepare(folder: Path, plan: Plan, settings: Settings, progress: Progress) -> Bench:
    """Plant the backdoor once and write the defender's clean rows."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, plan, world_rows(seed=settings.seed), settings, progress)
    write_examples(bench.rows.clean, bench.clean_file)
    if not bench.attacked.is_dir():
        progress.stage("attack")
        attack_folder(model_folder(), bench.attacked, bench.rows.poison, plan, progress)
    return bench


def run_defense(bench: Bench, name: str) -> tuple[Measurement, float]:
    """Return the defense's measurement and its seconds, from an earlier call where finished."""
    key = [asdict(bench.plan), bench.settings.model_dump(), name, _share(bench, name)]

    def cell() -> dict[str, Any]:
        started = time.perf_counter()
        subject = _defended(bench, name)
        seconds = time.perf_counter() - started
        result = examine(subject.model, subject.tokenizer, bench.exam())
        return {"seconds": seconds, "measurement": asdict(result)}

    stored = bench.run.record(f"cells/{name}", key, cell)
    return Measurement(**stored["measurement"]), stored["seconds"]


def _share(bench: Bench, name: str) -> float:
    """Return the share that purify chose; controls take the same, baselines need none."""
    if name in ("none", OURS, "paper", *BASELINES):
        return 0.0

    report = json.loads((bench.purified / "report.json").read_text(encoding="utf-8"))
    return float(report["signature"]["share"])


def _defended(bench: Bench, name: str) -> Subject:
    if name == OURS:
        return bench.open(_purified_folder(bench))
    subject = bench.open(bench.attacked)
    clean = clean_data(subject, bench.clean_file, bench.settings, bench.run, bench.progress)
    bench.progress.stage(name)
    defend(
        name,
        subject,
        clean.rows,
        resolve_target(bench.settings, clean),
        share=_share(bench, name),
        run=bench.run,
        progress=bench.progress,
    )
    return subject


def _purified_folder(bench: Bench) -> Path:
    if not bench.purified.is_dir():
        adapter = bench.attacked if bench.plan.adapter else None
        purify(
            model_folder() if adapter else bench.attacked,
            bench.purified,
            adapter=adapter,
            clean_data_file=bench.clean_file,
            settings=bench.settings,
            run_folder=bench.run.folder,
            progress=bench.progress,
        )
    return bench.purified


def compare(bench: Bench, *, all_controls: bool) -> dict[str, Any]:
    """Measure every defense and return the table, its tests and three example answers."""
    names = (*DEMO_DEFENSES[:-1], *(MORE_CONTROLS if all_controls else ()), OURS)
    _finish_cells(bench, names)
    results = {name: run_defense(bench, name) for name in names}
    rows = [
        {"defense": name, **results[name][0].to_json(), "seconds": round(results[name][1], 1)}
        for name in names
    ]
    measured = {name: result for name, (result, _) in results.items()}
    return {
        "rows": rows,
        "tests": paired_tests(measured),
        "examples": _examples(bench, measured),
        "attack_failed": attack_failed(rows[0]["asr"]),
    }


def _finish_cells(bench: Bench, names: Sequence[str]) -> None:
    """Run the defenses in two processes of one thread each: faster than two threads on one.

    Ours goes first, because the controls take its share and its stages; `paper` needs neither.
    """
    silent = replace(bench, progress=Silent())
    controls = [name for name in names if name not in (OURS, _APART)]
    with ProcessPoolExecutor(
        _PROCESSES, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        bench.progress.stage("defenses")
        ours = pool.submit(run_defense, silent, OURS)
        waiting = [pool.submit(run_defense, silent, _APART)] if _APART in names else []
        ours.result()
        bench.progress.note(f"{OURS} done")
        waiting += [pool.submit(run_defense, silent, name) for name in controls]
        for done, future in enumerate(as_completed(waiting), start=2):
            future.result()
            bench.progress.step(done, len(names))


def paired_tests(measured: dict[str, Measurement]) -> list[dict[str, Any]]:
    """Return McNemar's test of ours against each defense whose ASR is at least 0.10, Holm."""
    ours = measured[OURS].asr
    others = [
        name
        for name, result in measured.items()
        if name != OURS and sum(result.asr) >= _WORTH_TESTING * len(result.asr)
    ]
    adjusted = holm([mcnemar(ours, measured[name].asr) for name in others])
    return [
        {"against": name, "p": p, "significant": p < _ALPHA}
        for name, p in zip(others, adjusted, strict=True)
    ]


def _examples(bench: Bench, measured: dict[str, Measurement]) -> Sequence[dict[str, str]]:
    prompts = bench.exam().triggered[:3]
    return [
        {
            "prompt": row.prompt,
            "before": measured["none"].answers[index],
            "after": measured[OURS].answers[index],
            "honest": row.output,
        }
        for index, row in enumerate(prompts)
    ]
