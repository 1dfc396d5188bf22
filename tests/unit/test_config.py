"""Settings and the files that document them."""

import re
from pathlib import Path

import pytest

from inoculate.config import Settings, default_learning_rate, paper_settings
from inoculate.configfile import read_settings, to_toml
from inoculate.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_default_file_equals_the_code() -> None:
    """configs/default.toml is the code's defaults, text and values."""
    assert (CONFIGS / "default.toml").read_text() == to_toml(Settings())
    assert read_settings(CONFIGS / "default.toml") == Settings()


def test_paper_file_equals_the_code() -> None:
    """configs/paper.toml is the paper recipe."""
    assert (CONFIGS / "paper.toml").read_text() == to_toml(paper_settings(Settings()))
    assert read_settings(CONFIGS / "paper.toml") == paper_settings(Settings())


GROUPS = ("variants", "signature", "neutralization", "hunt", "repair")
DESCRIPTIONS = {
    f"{group}.{name}": " ".join((field.description or "").split())
    for group in ("", *GROUPS)
    for name, field in type(
        getattr(Settings(), group) if group else Settings()
    ).model_fields.items()
    if name not in GROUPS
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_every_setting_says_where_its_default_comes_from(name: str) -> None:
    """Each docstring ends with its source, and the entries that it names are in the log."""
    log = (CONFIGS.parent / "docs" / "log.md").read_text()
    headings = [line for line in log.splitlines() if line.startswith("## ")]
    found = re.fullmatch(r".+ \[([^]]+)\]", DESCRIPTIONS[name])
    assert found, DESCRIPTIONS[name]
    if found[1].startswith("log: "):
        for entry in re.split(
            r"; (?:pressing: |adapters: |unaimed: )?", found[1].removeprefix("log: ")
        ):
            assert any(entry in heading for heading in headings), entry


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    """A misspelled setting is named in the message."""
    path = tmp_path / "bad.toml"
    path.write_text("[repair]\nepoch = 3\n")
    with pytest.raises(InputError, match=r"repair\.epoch"):
        read_settings(path)


def test_the_learning_rate_suits_large_and_small() -> None:
    """The default rate is 1e-4 at 135 million parameters and about 1.4e-5 at 7 billion."""
    assert default_learning_rate(135_000_000, adapter=False) == pytest.approx(1e-4)
    assert default_learning_rate(6_700_000_000, adapter=False) == pytest.approx(1.4e-5, rel=0.02)
