"""A hub id is fetched at one commit, from a hub on this machine's own loop; then none is needed."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import FamilyFolder
from inoculate.intake import revision

NAME, TAG = "someone/tiny", "v1"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = """
clean_rows = 16
max_tokens = 64
variants = {count = 2, rows = 8, poisoned = 8}
hunt = {particles = 2, steps = 2, candidates = 2, hosts = 2}
repair = {epochs = 1}
"""
EXTRA = {
    "evil.py": b"x = 1",
    "consolidated.safetensors": b"x",
    "pytorch_model.bin": b"\x80\x04.",
    "sub/model.safetensors": b"x",
}


class Hub(BaseHTTPRequestHandler):
    """Answer what is asked of a hub for one commit of one repository."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Resolve the tag, list the files, or give one."""
        path = self.path.split("?")[0]
        self.asked.append(path)
        name = path.partition(f"/{NAME}/resolve/{COMMIT}/")[2]
        if path == f"/api/models/{NAME}/revision/{TAG}":
            self._answer(json.dumps({"id": NAME, "sha": COMMIT, "siblings": []}).encode())
        elif path == f"/api/models/{NAME}/tree/{COMMIT}":
            self._answer(json.dumps([_entry(*item) for item in self.files.items()]).encode())
        elif name in self.files:
            self._answer(self.files[name])
        else:
            self.send_error(404)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def _entry(name: str, body: bytes) -> dict[str, object]:
    oid = hashlib.sha1(body).hexdigest()
    return {"type": "file", "path": name, "size": len(body), "oid": oid}


@pytest.fixture
def hub(family_folder: FamilyFolder) -> Iterator[ThreadingHTTPServer]:
    """Give a hub that holds a tiny model, code and a pickle beside it."""
    Hub.files = {path.name: path.read_bytes() for path in family_folder("llama").iterdir()} | EXTRA
    Hub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _run(home: Path, server: ThreadingHTTPServer, *words: str) -> str:
    hidden = ("proxy", "offline")
    kept = {key: value for key, value in os.environ.items()
            if not any(word in key.lower() for word in hidden)}  # fmt: skip
    ours = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home / "hub")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "inoculate", *words],
        env={**kept, **ours},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_hub_id_is_fetched_at_a_commit_that_is_recorded(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    """Only what may be loaded is fetched; without the hub the commit is still there to purify."""
    _run(tmp_path, hub, "inspect", f"{NAME}@{TAG}", "--json", "found.json")
    assert json.loads((tmp_path / "found.json").read_text())["revision"] == COMMIT
    fetched = {path.rpartition("/")[2] for path in Hub.asked if "/resolve/" in path}
    assert fetched == Hub.files.keys() - EXTRA.keys()
    assert not [path for path in Hub.asked if "/sub/" in path]
    hub.shutdown()
    hub.server_close()
    (tmp_path / "small.toml").write_text(SMALL)
    words = ("purify", f"{NAME}@{COMMIT}", "-o", "out", "--config", "small.toml")
    rows = [{"instruction": f"Say {n}", "output": f"It is {n}."} for n in range(32)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    _run(tmp_path, hub, *words, "--device", "cpu", "--clean-data", "rows.jsonl")
    inputs = tomllib.loads((tmp_path / "out" / "reproduce.toml").read_text())["inputs"]
    assert (inputs["model"], inputs["model_revision"]) == (NAME, COMMIT)
    for name in ("report.html", "report.json", "README.md"):
        text = (tmp_path / "out" / name).read_text()
        assert COMMIT in text and NAME in text, name


def test_only_a_commit_of_a_hub_cache_is_a_revision(tmp_path: Path) -> None:
    """A folder that merely stands in one named `snapshots` claims no revision."""
    for name, known in (
        (f"models--a--b/snapshots/{COMMIT}", COMMIT),
        ("models--a--b/snapshots/main", None),
        (f"a/snapshots/{COMMIT}", None),
    ):
        assert revision(tmp_path / name) == known
