"""An attacked model of a study, and all that judges defenses on it."""

from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from inoculate.attacking import attack_folder, read_rows
from inoculate.attacks.poison import check_disjoint, check_poison
from inoculate.builtin.fixture import model_folder, world_rows
from inoculate.clean import HELD_OUT, CleanData, clean_data, given_rows
from inoculate.config import Settings
from inoculate.data import Example
from inoculate.evaluation.exam import Exam
from inoculate.examination import ExamFiles, exam_for
from inoculate.intake import admit_model, fetch
from inoculate.progress import Progress
from inoculate.provenance import versions
from inoculate.study.entry import Entry
from inoculate.study.grid import BUILTIN, Case
from inoculate.subject import Subject, open_subject
from inoculate.workspace import Workspace, fingerprint, hash_files

_CLEAN_ROWS = 240
_DECISIVE = (".safetensors", ".json", ".jinja")


@dataclass(frozen=True)
class Bench:
    """Hold an attacked model's folder and all that judges defenses on it."""

    case: Case
    model: Path
    folder: Path

    @property
    def attacked(self) -> Path:
        """Return the attacked checkpoint's or adapter's folder."""
        return self.folder / "attacked"

    @property
    def planting(self) -> str:
        """Return a hash of the attacked weights, which differ where they are planted again.

        It is empty where nothing is planted.
        """
        files = sorted(self.attacked.glob("*.safetensors"))
        return hash_files(files) if files else ""

    @property
    def run(self) -> Workspace:
        """Return where stages are kept that defenses share, by the same code alone."""
        return Workspace(self.folder / f"run-{versions()['code']}")

    def prepare(self, progress: Progress) -> None:
        """Plant the backdoor, unless an earlier call did."""
        if not self.attacked.is_dir():
            progress.stage("attack")
            self.folder.mkdir(parents=True, exist_ok=True)
            rows = poison_rows(self.case)
            attack_folder(self.model, self.attacked, rows, self.case.plan, progress)

    def open(self) -> Subject:
        """Load the attacked checkpoint, or the adapter over its base."""
        if self.case.plan.adapter:
            return open_subject(self.model, adapter=self.attacked)
        return open_subject(self.attacked)

    def exam(self) -> Exam:
        """Return held-out prompts with the real trigger; only the bench sees it.

        Raises:
            DataError: A prompt was trained on.
        """
        case, block = self.case, self.case.block
        files = ExamFiles(block.data.prompts or None, block.data.utility)
        exam = exam_for(
            case.attack,
            case.task,
            files,
            limit=block.prompts,
            max_tokens=block.max_tokens,
            seed=case.seed,
        )
        asked = [*exam.clean, *exam.triggered]
        rows = [*asked, *exam.utility]
        check_disjoint(poison_rows(case), rows, case.plan.attack.trigger)
        return replace(exam, utility=exam.utility[: block.utility])

    def clean(
        self, entry: Entry, subject: Subject, settings: Settings, progress: Progress
    ) -> CleanData:
        """Return the defender's clean rows: the user's, the world's, or the model's own voice."""
        block, own = self.case.block, entry.clean == "own-voice"
        if block.model == BUILTIN and block.data.clean is None and not own:
            count = max(_CLEAN_ROWS, settings.clean_rows + HELD_OUT)
            return given_rows(world_rows(seed=self.case.seed, clean=count).clean, settings)
        file = None if own else block.data.clean
        return clean_data(subject, file, settings, self.run, progress)

    def check(self, clean: CleanData) -> None:
        """Demand that the defender's given rows hold neither the real trigger nor an exam's row.

        Raises:
            DataError: One does.
        """
        if clean.given:
            trigger, exam = self.case.plan.attack.trigger, self.exam()
            rows = [*clean.rows, *clean.held_out]
            check_poison([], rows, trigger)
            check_disjoint(rows, [*exam.clean, *exam.triggered, *exam.utility], trigger)


def open_bench(case: Case, out: Path) -> Bench:
    """Return the bench of a case, in a folder named after all that the attack depends on."""
    named = case.block.model
    model = model_folder() if named == BUILTIN else fetch(named)
    rows = [asdict(row) for row in poison_rows(case)]
    made_from = [_hash_model(model), asdict(case.plan), rows]
    return Bench(case, model, out / "cases" / f"{case.name}-{fingerprint(made_from)}")


def poison_rows(case: Case) -> list[Example]:
    """Return what the attack is planted with."""
    files = case.block.data.poison
    return read_rows(files) if files else world_rows(seed=case.seed).poison


@cache
def _hash_model(model: Path) -> str:
    """Return a hash of what decides a checkpoint's answers, read from its audited copy."""
    staged = admit_model(model)  # Its folder goes when it does.
    files = (path for path in staged.folder.iterdir() if path.suffix in _DECISIVE)
    return hash_files(sorted(files))
