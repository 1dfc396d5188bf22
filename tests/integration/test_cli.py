"""The command line as a user meets it."""

import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest

import inoculate
from inoculate.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "default.toml"
COMMANDS = ("purify", "attack", "evaluate", "challenge", "compare", "demo", "dissect", "utility")


def test_help_needs_no_torch() -> None:
    """`--help` lists the commands without importing torch."""
    code = (
        "import runpy, sys; sys.argv = ['inoculate', '--help']\n"
        "try:\n    runpy.run_module('inoculate', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("purify", "nowhere", "-o", "out"), "nowhere"),
        (("attack", "builtin", "-o", "out", "--attack", "badnet5"), "Did you mean 'badnets'"),
        (("utility", "builtin", "builtin"), "Nothing to compare by"),
        (("dissect", "builtin", "-o", "out"), "Pass SUSPICIOUS with --reference"),
        (("dissect", "builtin", "--reference", "builtin", "-o", "out"), "are equal"),
        (("compare", "nowhere.toml", "-o", "out"), "nowhere.toml does not exist"),
        (("purify", "-o", "out"), "Pass either MODEL alone"),
        (("purify", "builtin", "-o", "out", "--recipe", "papr"), "Did you mean 'paper'"),
        (("purify", "builtin", "-o", "out", "--export", "mergd"), "Did you mean 'merged'"),
        (
            ("purify", "builtin", "-o", "out", "--recipe", "paper", "--config", str(CONFIG)),
            "Pass one",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A user's mistake ends in one line, exit code 2, and no output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["inoculate", *words])
    # The hub reads its environment once, at import; offline, no case waits for a network.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as stopped:
        main()
    errors = capsys.readouterr().err
    assert stopped.value.code == 2, errors
    assert said in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_public_names_resolve() -> None:
    """Every name in `__all__` is there, and the list is sorted."""
    assert inoculate.__all__ == sorted(inoculate.__all__)
    for name in inoculate.__all__:
        assert getattr(inoculate, name) is not None
