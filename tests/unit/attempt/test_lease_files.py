"""Claims on file systems that are full, read-only or unreliable, and claims that are malformed."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.attempt.lease import LeaseHeld
from dstrain.cluster.processes import this_process
from dstrain.run_folder.claims import MAX_CLAIM_BYTES, Claim, read_claims
from tests.unit.attempt.lease_cases import STALE_SECONDS, claim_path, make_old, names, take

# --- file systems


def test_a_link_whose_reply_was_lost_is_recognised_as_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def repeated(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    assert take(tmp_path).number == 1
    assert names(tmp_path) == ["00000001.json"]


def test_a_file_system_without_hard_links_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    take(tmp_path).renew()
    with pytest.raises(LeaseHeld):
        take(tmp_path)
    assert names(tmp_path) == ["00000001.json"]


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A separate file system of 64 KiB."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        take(disk / "used").release()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for name in ("used", "new"):
            with pytest.raises(ValueError, match=r"cannot be written \(Read-only.*another output_dir") as refused:
                take(disk / name)
            assert not isinstance(refused.value, LeaseHeld)
            assert str(disk / name) in str(refused.value)


def test_on_a_full_disk_a_new_attempt_is_refused_but_a_held_lease_is_not_lost(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        lease = take(disk / "run")
        lease.set_base(3)
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(1 << 20))
        with pytest.raises(OSError, match="No space left"):
            lease.renew()
        with pytest.raises(ValueError, match=r"cannot be written \(No space left.*free some space"):
            take(disk / "another")
        lease.check()
        beat = read_claims(disk / "run")[0].beat
        filler.unlink()
        lease.renew()
        (claim,) = read_claims(disk / "run")
        assert claim.beat > beat
        assert claim.base_step == 3


def test_a_release_that_cannot_be_written_does_not_fail_a_finished_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        lease = take(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        lease.release()
        assert "could not be released" in caplog.text
        assert not read_claims(disk)[0].released


def test_a_file_instead_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text("")
    assert read_claims(tmp_path) == []
    with pytest.raises(ValueError, match="cannot be written"):
        take(tmp_path)


# --- malformed claims


def whole_claim(number: int, /, **changes: Any) -> bytes:
    return json.dumps(asdict(Claim(number=number, holder=this_process())) | changes).encode()


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)),
    "torn": whole_claim(1)[:-20],
    "huge": whole_claim(1, holder=asdict(replace(this_process(), host="a" * MAX_CLAIM_BYTES))),
    "a list": b"[]",
    "deep": b"[" * 20_000,
    "a copy of another": whole_claim(2),
    "a beat of text": whole_claim(1, beat="5"),
    "a truth of 1": whole_claim(1, released=1),
    "a negative step": whole_claim(1, base_step=-1),
    "half a holder": whole_claim(1, holder={"host": "a"}),
    "no process id": whole_claim(1, holder=asdict(this_process()) | {"pid": 0}),
    "every process id": whole_claim(1, holder=asdict(this_process()) | {"pid": -1}),
    "a process id past all": whole_claim(1, holder=asdict(this_process()) | {"pid": 1 << 40}),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_malformed_claim_counts_as_held_by_an_unknown_process(content: bytes, tmp_path: Path) -> None:
    path = claim_path(tmp_path, 1)
    path.parent.mkdir()
    path.write_bytes(content)
    assert read_claims(tmp_path) == [Claim(number=1, holder=None)]

    def rewrite(seconds: float) -> None:
        path.write_bytes(content)
        make_old(path, seconds=-1)  # as if it had just been renewed, even on a coarse clock

    with pytest.raises(LeaseHeld, match=r"an unknown process \(.*wait for it"):
        take(tmp_path, sleep=rewrite)
    slept: list[float] = []
    assert take(tmp_path, sleep=slept.append).number == 2
    assert sum(slept) >= STALE_SECONDS
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["directory", "pipe", "dangling link", "link to itself"])
def test_an_entry_that_is_not_a_file_counts_as_a_claim_too(kind: str, tmp_path: Path) -> None:
    path = claim_path(tmp_path, 1)
    path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "link to itself" else tmp_path / "absent")
    assert read_claims(tmp_path) == [Claim(number=1, holder=None)]
    assert take(tmp_path, sleep=lambda seconds: None).number == 2


def test_a_claim_larger_than_memory_is_not_read_completely(tmp_path: Path) -> None:
    take(tmp_path).release()
    os.truncate(claim_path(tmp_path, 1), 1 << 43)  # a sparse file, which takes no space
    assert read_claims(tmp_path) == [Claim(number=1, holder=None)]


def test_names_that_are_not_claims_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    for name in ("1.json", "000000009.json", "00000009.tmp", "00000009.json~", "٠٠٠٠٠٠٠٩.json", "00000009.stop"):
        (tmp_path / "lease" / name).write_text("")
    assert read_claims(tmp_path) == []
    assert take(tmp_path).number == 1


def test_numbers_may_exceed_eight_digits(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "99999999.json").write_bytes(whole_claim(99999999, released=True))
    take(tmp_path).release()
    assert take(tmp_path).number == 100000001


def test_a_claim_whose_own_file_was_corrupted_is_kept_and_written_again(tmp_path: Path) -> None:
    lease = take(tmp_path)
    claim_path(tmp_path, 1).write_bytes(b"")
    lease.check()
    lease.renew()
    assert read_claims(tmp_path)[0].holder is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
CLAIM_FIELDS = ("number", "holder", "base_step", "beat", "released")
HOLDER_FIELDS = ("host", "pid", "process_start", "pid_namespace", "since")


@given(st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), JSON))
def test_arbitrary_content_is_read_without_an_error(content: bytes) -> None:
    check_content(content)


@given(st.sampled_from(CLAIM_FIELDS), JSON)
def test_an_arbitrary_value_of_a_field_is_read_without_an_error(name: str, value: object) -> None:
    check_content(whole_claim(1, **{name: value}))


@given(st.sampled_from(HOLDER_FIELDS), JSON)
def test_an_arbitrary_value_of_a_field_of_the_holder_is_read_without_an_error(name: str, value: object) -> None:
    check_content(whole_claim(1, holder=asdict(this_process()) | {name: value}))


def check_content(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        claim_path(Path(folder), 1).parent.mkdir()
        claim_path(Path(folder), 1).write_bytes(content)
        (claim,) = read_claims(Path(folder))
        assert claim.number == 1
        assert claim.base_step is None or claim.base_step >= 0
        assert isinstance(claim.beat, int)
        try:
            assert take(Path(folder), sleep=lambda seconds: None).number == 2
        except LeaseHeld:
            assert claim.holder  # the content happened to stay that of this living process
            assert claim.holder.pid == os.getpid()
