"""Processes identified by more than their id; real processes, no mock."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.cluster.processes import HIDDEN, end_with_descendants, process_start, this_process


def test_a_process_names_itself_as_others_find_it() -> None:
    mine = this_process()
    assert mine.pid == os.getpid()
    assert mine.process_start == process_start(os.getpid())
    assert mine.may_see(this_process())
    assert mine.host in str(mine)
    assert str(mine.pid) in str(mine)
    assert mine.since in str(mine)


def test_a_start_counts_the_ticks_since_boot() -> None:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    started = process_start(os.getpid())
    assert started is not None
    assert 0 < started / os.sysconf("SC_CLK_TCK") <= uptime


@pytest.mark.parametrize("field", ["host", "pid_namespace"])
def test_process_ids_of_another_host_or_namespace_mean_nothing_here(field: str) -> None:
    mine = this_process()
    assert not mine.may_see(replace(mine, **{field: "another"}))


def test_without_a_namespace_no_process_ids_are_compared() -> None:
    mine = replace(this_process(), pid_namespace="")
    assert not mine.may_see(mine)


@pytest.mark.parametrize("name", ["a) S 1 (b", "a학습학습학습"])
def test_a_strange_process_name_does_not_confuse(name: str, tmp_path: Path) -> None:
    program = tmp_path / name
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        started, mine = process_start(process.pid), process_start(os.getpid())
        assert started is not None
        assert mine is not None
        assert started >= mine
    finally:
        process.kill()
        process.wait()


def test_a_killed_process_is_gone_before_its_parent_waits_for_it() -> None:
    process = subprocess.Popen(["sleep", "60"])
    assert process_start(process.pid) is not None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the process table
    assert Path(f"/proc/{process.pid}/stat").exists()
    assert process_start(process.pid) is None
    process.wait()
    assert process_start(process.pid) is None


def test_another_pid_namespace_of_this_host_is_told_apart() -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c"]
    if subprocess.run([*command, ""], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a pid namespace")
    code = "from dstrain.cluster.processes import this_process; print(this_process().pid_namespace)"
    other = subprocess.run([*command, code], capture_output=True, text=True, check=True).stdout.strip()
    mine = this_process().pid_namespace
    assert other.split()[0] != mine.split()[0]
    assert other.split()[1] == mine.split()[1]


def test_a_process_that_proc_hides_is_not_taken_for_gone() -> None:
    code = """
import os, sys
from dstrain.cluster.processes import process_start
os.setgroups([])
os.setgid(65534)  # group 0 may see everything
os.setuid(65534)
assert not os.path.exists(f"/proc/{sys.argv[1]}"), "not hidden"
print(process_start(int(sys.argv[1])), process_start(int(sys.argv[2])), process_start(os.getpid()) > 0)
"""
    gone = subprocess.Popen(["true"])
    gone.wait()
    hide = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
    shell = ["unshare", "--mount", "sh", "-c", hide, "sh"]
    if subprocess.run([*shell, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount /proc with hidepid")
    command = [*shell, sys.executable, "-c", code, str(os.getpid()), str(gone.pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(HIDDEN), "None", "True"]


@pytest.mark.parametrize("itself", [True, False])
def test_a_process_is_ended_with_all_that_it_has_started_in_any_session(itself: bool) -> None:
    code = """
import subprocess, sys
inner = "import subprocess, sys; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)"
inner += "; sys.stdin.read()"
child = subprocess.Popen([sys.executable, "-c", inner], start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other = subprocess.Popen(["sleep", "600"])
    assert process.stdout is not None
    started = [int(process.stdout.readline()) for _ in range(2)]
    assert [process_start(pid) is not None for pid in started] == [True, True]
    end_with_descendants(process.pid, itself=itself)
    while any(process_start(pid) is not None for pid in started):
        time.sleep(0.01)
    assert other.poll() is None
    if itself:
        assert process.wait() == -signal.SIGKILL
    else:
        assert process.poll() is None
    for each in (process, other):
        each.kill()
        each.wait()
