"""A command that has started a server is interrupted, so that it ends the server, by whatever signal ends it."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from jobs.rollout.own_server import interrupted_by_signals
from tests.support.project import ROOT
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def listens_to_its_terminal() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it, as nohup does
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_the_command(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), interrupted_by_signals():
        signal.raise_signal(number)


def test_a_command_under_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with interrupted_by_signals():
        signal.raise_signal(signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_server_ends_when_its_command_is_killed() -> None:
    starts_one = (
        "from jobs.rollout.own_server import start\n"
        "server = start(['/bin/sleep', '600'])\n"
        "print(server.pid, flush=True)\n"
        "server.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", starts_one], cwd=ROOT, stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        server = psutil.Process(int(command.stdout.readline()))
        wait_until(lambda: server.name() == "sleep", process=command)

        command.kill()

    wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
