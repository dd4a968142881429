"""Which signals save, and what a closed terminal does; in real processes."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dstrain.cluster.signals import ending_in_order

WAIT = """
import signal, sys, time
from dstrain.cluster.signals import catch_saving_signals
caught = []
catch_saving_signals(lambda number, frame: caught.append(number))
print("ready", flush=True)
deadline = time.monotonic() + 60
while not caught and time.monotonic() < deadline:
    time.sleep(0.01)
print("saving", flush=True)
sys.exit(caught[0])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_each_of_these_signals_is_caught(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(timeout=60) == number
        assert process.stdout.read() == "saving\n"


def test_nohup_keeps_a_hangup_ignored() -> None:
    command = ["nohup", sys.executable, "-c", WAIT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.terminate()
        assert process.wait(timeout=60) == signal.SIGTERM


def test_a_closed_terminal_does_not_break_what_is_printed_afterwards() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    assert os.read(ours, 100).strip() == b"ready"
    os.close(ours)  # from here on, writing there fails
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == signal.SIGHUP


WRITE = """
import sys, time
from pathlib import Path
from dstrain.cluster.signals import ending_in_order
from dstrain.run_folder.atomic import open_new
with ending_in_order(), open_new(Path(sys.argv[1])) as file:
    file.write(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_program_that_is_ended_leaves_no_half_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path / "rows.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_the_signal_means_what_it_meant_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ending_in_order():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
