"""A promotion that is killed at any of its system calls leaves the old model or the new one, whole."""

import logging
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.bootstrap import bootstrap
from fraud_detection.features import FeatureList
from fraud_detection.model import write
from fraud_detection.model.files import CURRENT, PICKLE
from fraud_detection.model.read import ModelRefused, load, read_manifest, read_version, verify_file, versions
from fraud_detection.model.write import KEPT_VERSIONS, collect, install_version
from fraud_detection.settings import SharedSettings
from tests.support.project import ROOT

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.faults, pytest.mark.long_file]

PATIENCE_SECONDS = 60

PROMOTE = """
with lock.promoter(models_dir):
    version = write.install_version(models_dir, source)
    write.promote(models_dir, version, actor="sweep", reason="killed somewhere")
    write.collect(models_dir, set())
"""

COLLECT = """
with lock.promoter(models_dir):
    write.collect(models_dir, {read.read_manifest(source).digest})
"""

# Two files, each renamed atomically: how it is often done, and how it tears.
REPLACE_EACH_FILE = """
import os, shutil
for name in ("model.onnx", "rf_model.pkl", "manifest.json"):
    shutil.copyfile(source / name, models_dir / "current" / (name + ".tmp"))
    os.replace(models_dir / "current" / (name + ".tmp"), models_dir / "current" / name)
"""

# One parent imports everything once; each child that it forks says its pid, waits for the tracer, and acts.
PARENT = """
import os, sys, traceback
from pathlib import Path
from fraud_detection import lock
from fraud_detection.model import read, write
models_dir, source = map(Path, sys.argv[1:3])
act = compile(sys.argv[3], "act", "exec")
while said := os.read(0, 1):
    if said == b"g":  # for a child that was killed before it took it
        continue
    child = os.fork()
    if child == 0:
        try:
            os.write(1, b"%d\\n" % os.getpid())
            os.read(0, 1)
            exec(act)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    os.write(1, b"%d\\n" % os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class SystemCall:
    """One call of this name in the traced process, counted from 1."""

    name: str
    occurrence: int


@dataclass(frozen=True)
class Sweep:
    """Runs an act on a copy of a models folder once for each of its system calls, and kills it there."""

    strace: str
    scratch: Path

    def each_kill(self, act: str, start: Path, source: Path) -> Iterator[tuple[SystemCall, Path]]:
        """Yield every system call of the act with the models folder that a kill there left."""
        models_dir = self.scratch / "swept"
        shutil.copytree(start, models_dir, symlinks=True)
        command = [sys.executable, "-c", PARENT, str(models_dir), str(source), act]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=ROOT) as parent:
            calls = self._calls(parent)
            assert 10 < len(calls) < 2000
            for call in calls:
                shutil.rmtree(models_dir)
                shutil.copytree(start, models_dir, symlinks=True)
                kill = ["-e", f"inject={call.name}:signal=KILL:when={call.occurrence}", "-o", "/dev/null"]
                ended = self._run(parent, kill)
                if ended == 0:  # Python itself reads once more or less from run to run
                    continue
                assert ended == -signal.SIGKILL, call
                yield call, models_dir

    def _calls(self, parent: "subprocess.Popen[bytes]") -> list[SystemCall]:
        trace = self.scratch / "trace"
        assert self._run(parent, ["-o", str(trace)]) == 0
        seen: Counter[str] = Counter()
        calls = []
        for name in re.findall(r"^(\w+)\(", trace.read_text(), re.MULTILINE):
            seen[name] += 1  # strace counts each name on its own
            calls.append(SystemCall(name, seen[name]))
        return calls

    def _run(self, parent: "subprocess.Popen[bytes]", options: list[str]) -> int:
        """Let the parent fork a child that acts under strace, and return the child's exit code."""
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(b"f")
        attached = [self.strace, *options, "-p", str(int(parent.stdout.readline()))]
        with subprocess.Popen(attached, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            parent.stdin.write(b"g")
            tracer.wait(timeout=PATIENCE_SECONDS)
        return int(parent.stdout.readline())


@pytest.fixture
def sweep(strace: str, tmp_path: Path) -> Sweep:
    return Sweep(strace, tmp_path)


@pytest.fixture
def challenger(make_version: Callable[..., str], tmp_path: Path) -> Path:
    """A version directory outside the models folder."""
    elsewhere = tmp_path / "elsewhere"
    return elsewhere / make_version(elsewhere, seed=1)


def version_in_service(models_dir: Path, features: FeatureList) -> str:
    """Verify the served version whole, as its readers do, and name it.

    Raises ModelRefused, with reason `missing` where nothing serves.
    """
    served = load(models_dir / PICKLE, features)
    for name in served.manifest.files:
        verify_file(models_dir / CURRENT, name)
    return served.version


def promote(models_dir: Path, source: Path) -> None:
    """Do what PROMOTE does, to its end."""
    version = install_version(models_dir, source)
    write.promote(models_dir, version, actor="sweep", reason="after the kill")
    collect(models_dir, set())


def test_the_old_model_or_the_new_one_serves_and_the_next_promotion_cleans_up(
    sweep: Sweep, models_dir: Path, challenger: Path, features: FeatureList
) -> None:
    old = version_in_service(models_dir, features)
    served: Counter[str] = Counter()

    for call, killed in sweep.each_kill(PROMOTE, models_dir, challenger):
        served[version_in_service(killed, features)] += 1
        promote(killed, challenger)
        assert version_in_service(killed, features) == challenger.name, call
        assert sorted(versions(killed)) == [old, challenger.name], call
        leftovers = {path.name for path in killed.glob(".*")} - {".lock"}
        assert not leftovers, call

    logger.info("killed at %d system calls: old %d, new %d", served.total(), served[old], served[challenger.name])
    assert set(served) == {old, challenger.name}
    assert min(served.values()) > 1


def test_the_first_model_serves_whole_or_not_at_all_and_bootstrap_repairs_it(
    sweep: Sweep, tmp_path: Path, challenger: Path, features: FeatureList
) -> None:
    empty = tmp_path / "models"
    empty.mkdir()
    served: Counter[str] = Counter()

    for call, killed in sweep.each_kill(PROMOTE, empty, challenger):
        try:
            served[version_in_service(killed, features)] += 1
        except ModelRefused as refusal:
            served[refusal.reason] += 1
        bootstrap(
            SharedSettings.from_env(
                {
                    "MODEL_PATH": str(killed / PICKLE),
                    "BASELINE_DIR": str(challenger),
                    "LATEST_DB": str(tmp_path / "data" / "requests.db"),
                }
            )
        )
        assert version_in_service(killed, features) == challenger.name, call

    logger.info("killed at %d system calls: %s", served.total(), dict(served))
    assert set(served) == {"missing", challenger.name}


def test_collecting_old_versions_leaves_each_whole_or_gone(
    sweep: Sweep, models_dir: Path, make_version: Callable[..., str], features: FeatureList
) -> None:
    in_use, *others = [make_version(models_dir, seed=seed) for seed in range(1, 9)]
    serving = version_in_service(models_dir, features)

    kills = 0

    for call, killed in sweep.each_kill(COLLECT, models_dir, models_dir / in_use):
        kills += 1
        for version in versions(killed):
            read_version(killed / version, features)
        collect(killed, {read_manifest(killed / in_use).digest})
        assert versions(killed) == [serving, in_use, *others[-KEPT_VERSIONS:]], call
        assert version_in_service(killed, features) == serving, call

    assert kills > 10


def test_replacing_one_file_after_the_other_is_found_to_tear(
    sweep: Sweep, models_dir: Path, challenger: Path, features: FeatureList
) -> None:
    """The control: the same sweep and the same check find the fault of the usual way."""
    whole = (models_dir / CURRENT).resolve()
    (models_dir / CURRENT).unlink()
    whole.rename(models_dir / CURRENT)
    refusals: Counter[str] = Counter()

    for _, killed in sweep.each_kill(REPLACE_EACH_FILE, models_dir, challenger):
        try:
            version_in_service(killed, features)
        except ModelRefused as refusal:
            refusals[refusal.reason] += 1

    logger.info("torn at %d system calls", refusals.total())
    assert set(refusals) == {"digest"}
