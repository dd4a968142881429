"""Processors and memory under control groups of both versions, and what is too little."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.doctor.finding import Finding, ok
from dstrain.doctor.host import Host, judge_host, look_at_host, read_cpu_quota, read_memory, read_memory_limit

GIB = 1 << 30
LARGE = Host(64, 64, None, 512 * GIB, 500 * GIB, None, 256 * GIB, 250 * GIB, 65536, 1048576)


def judged(topic: str, **changes: float | None) -> Finding:
    (finding,) = [each for each in judge_host(replace(LARGE, **changes)) if each.topic == topic]
    return finding


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_large_machine_is_ok() -> None:
    assert list(judge_host(LARGE)) == [
        ok("cpus", "64 of 64"),
        ok("memory", "536.9 of 549.8 GB are available"),
        ok("/dev/shm", "268.44 of 274.88 GB are free"),
        ok("open files", "at most 65536"),
    ]


def test_this_machine_is_seen() -> None:
    host = look_at_host()
    assert host.num_usable == len(os.sched_getaffinity(0))
    assert host.memory is not None
    assert host.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert list(judge_host(host))


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    host = look_at_host(proc=tmp_path, groups=tmp_path, shm=tmp_path / "none")
    assert (host.memory, host.memory_limit, host.cpu_quota, host.shm) == (None, None, None, None)
    assert {finding.topic for finding in judge_host(host)} == {"cpus", "open files"}


def test_memory_is_read_in_bytes() -> None:
    text = "MemTotal:       16384 kB\nMemAvailable:    8192 kB\nHugePages_Total:       0\nbroken\n"
    assert read_memory(text) == {"MemTotal": 16 << 20, "MemAvailable": 8 << 20}


def test_the_least_limit_of_the_groups_around_counts(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "memory.max", "max\n")
    write(tmp_path / "a" / "memory.max", "2000\n")
    write(tmp_path / "memory.max", "3000\n")
    write(tmp_path / "a" / "b" / "cpu.max", "400000 100000\n")
    write(tmp_path / "a" / "cpu.max", "max 100000\n")
    assert read_memory_limit("0::/a/b\n", groups=tmp_path) == 2000
    assert read_cpu_quota("0::/a/b\n", groups=tmp_path) == 4.0


def test_groups_of_version_1_have_other_names(tmp_path: Path) -> None:
    write(tmp_path / "memory" / "job" / "memory.limit_in_bytes", "5000\n")
    write(tmp_path / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path / "cpu" / "job" / "cpu.cfs_quota_us", "250000\n")
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", "-1\n")
    group = "5:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/x\n"
    assert read_memory_limit(group, groups=tmp_path) == 5000
    assert read_cpu_quota(group, groups=tmp_path) == 2.5


def test_without_a_limit_there_is_none(tmp_path: Path) -> None:
    write(tmp_path / "memory.max", "max\n")
    assert read_memory_limit("0::/\n", groups=tmp_path) is None
    assert read_cpu_quota("0::/\n", groups=tmp_path) is None


def test_limits_are_told() -> None:
    assert judged("cpus", num_usable=4, cpu_quota=2.0).text == "4 of 64, of which the control group allows 2"
    assert "of which the control group allows 8.0 GB" in judged("memory", memory_limit=8_000_000_000).text


@pytest.mark.parametrize(
    ("topic", "changes", "way_out"),
    [
        ("memory", {"available": GIB}, "end other programs"),
        ("memory", {"memory_limit": GIB}, "ask for more"),
        ("/dev/shm", {"shm": 64 << 20, "shm_free": 64 << 20}, "--shm-size"),
        ("open files", {"open_files": 1024}, "ulimit -n 4096"),
    ],
)
def test_too_little_is_noted_with_the_way_out(topic: str, changes: dict[str, int], way_out: str) -> None:
    finding = judged(topic, **changes)
    assert finding.level == "note"
    assert way_out in (finding.way_out or "")


def test_no_limit_of_open_files_is_ok() -> None:
    assert judged("open files", open_files=-1) == ok("open files", "no limit")
