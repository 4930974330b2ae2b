"""Find the shell blocks of a document, and run them as a reader does: in order, with a second terminal for servers."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.support.service import family

_FENCE = re.compile(r"^ *```(?:bash|sh)\b", re.MULTILINE)
_BLOCK = re.compile(r"^(?: *<!-- not run: (.+?) -->\n)?( *)```(?:bash|sh)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)
_SERVER = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:make run|fraudctl serve|fraudctl mlflow)\b")
_PATIENCE_SECONDS = 900

_PREAMBLE = """\
set -euo pipefail
shopt -s expand_aliases
stop_server() { test -z "${server-}" || { kill -- "-$server" 2>/dev/null && wait "$server" || true; server=; }; }
trap stop_server EXIT
until_it_answers() {
  until command curl -sf "$API_URL/health" >/dev/null; do
    kill -0 "$server" || { tail -n 20 server.log >&2; return 1; }
    sleep 0.2
  done
}
curl() { command curl --fail-with-body "$@"; }
serve() { stop_server; setsid env "$@" >>server.log 2>&1 & server=$!; until_it_answers; }
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of shell commands."""

    document: Path
    line: int
    """Of its fence."""
    commands: str
    not_run: str | None
    """The reason why no test runs it; None if one does."""

    def __str__(self) -> str:
        """Return where it is."""
        return f"{self.document.name}:{self.line}"


def blocks_of(document: Path) -> list[Block]:
    """Return the shell blocks of a document in order; a comment above the fence may say why none runs it."""
    text = document.read_text(encoding="utf-8")
    blocks = []
    for found in _BLOCK.finditer(text):
        reason, _, commands = found.groups()
        line = text.count("\n", 0, found.start(3))
        blocks.append(Block(document, line, textwrap.dedent(commands), not_run=reason))
    assert len(blocks) == len(_FENCE.findall(text)), f"{document.name}: a shell block has no end"
    return blocks


def run(blocks: Iterable[Block], folder: Path, replaced: Mapping[str, str]) -> str:
    """Run blocks in one shell and return what they print; raises AssertionError, naming the block that fails.

    A line that starts a server runs beside the next ones, once it answers. `# stop the API first` stops it, and
    `# while the API runs` starts it. The shell answers y to every question, and an HTTP status of an error fails.
    `replaced` are texts of the page that mean something else in a test.
    """
    port = free_port()
    script = _PREAMBLE
    for block in blocks:
        script += f"echo '{block}' >reached\n" + "".join(map(_as_run, block.commands.splitlines()))
    for text, meant in {"127.0.0.1:5000": f"127.0.0.1:{port}", **replaced}.items():
        script = script.replace(text, meant)
    (folder / "page.sh").write_text(script)
    environment = {
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PORT": port,
        "PROBE_PORT": free_port(),
        "API_URL": f"http://127.0.0.1:{port}",
    }
    shell = subprocess.Popen(
        ["bash", "-c", "yes | bash page.sh"], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        printed = shell.communicate(timeout=_PATIENCE_SECONDS)[0].decode()
    finally:
        for process in family(shell):
            process.kill()
    reached = (folder / "reached").read_text().strip()
    assert shell.returncode == 0, f"{reached} failed with {shell.returncode}:\n{printed[-3000:]}"
    return printed


def _as_run(line: str) -> str:
    if _SERVER.match(line):
        return f"serve {line}\n"
    if "# stop the API first" in line:
        return f"stop_server\n{line}\n"
    if "# while the API runs" in line:
        return f'test -n "${{server-}}" || serve fraudctl serve\n{line}\n'
    return f"{line}\n"
