"""Several processes tokenise: their token set is that of one, their errors are its errors, and none outlives the work."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.schema import RunConfig
from dstrain.data import shards
from dstrain.errors import UserError
from dstrain.run import encode_together
from dstrain.run.encode_together import _listen, _running, num_processes
from dstrain.run.prepare import Prepared, prepare
from tests.unit.run.run_cases import CPU, build_config

SMALL_SHARDS = """
import runpy
from dstrain.data import shards
shards.SHARD_RECORDS = 4
runpy.run_module("dstrain.run.encode_shards", run_name="__main__")
"""


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "rows.tsv"
    path.write_text("".join(f"source {row} of {row % 7}\ttarget {row}\n" for row in range(25)))
    return [{"path": str(path)}]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_RECORDS", 4)
    monkeypatch.setattr(encode_together, "PROGRAM", ("-c", SMALL_SHARDS))


def build(folder: Path, rows: list[dict[str, Any]], *, processes: int, cache: str, **changes: Any) -> RunConfig:
    scratch = {"architecture": "t5", "vocabulary_size": 60}
    return build_config(
        output_dir=str(folder / cache / "run"),
        data={"train": rows, "eval": rows},
        task={"kind": "translation"},
        model={"scratch": scratch},
        machine__data_processes=processes,
        machine__cache_dir=str(folder / cache),
        **changes,
    )


def test_the_set_that_two_processes_make_is_that_of_one(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    def made(processes: int) -> Prepared:
        return prepare(build(tmp_path, rows, processes=processes, cache=str(processes)), ranks=CPU)

    alone, together = made(1), made(2)
    assert together.fingerprints == alone.fingerprints
    for name in ("source_ids.bin", "target_lengths.bin", "bad_rows.jsonl", "token_set.json"):
        assert (together.train.folder / name).read_bytes() == (alone.train.folder / name).read_bytes()


def test_null_is_a_process_for_each_cpu_that_may_be_used_but_not_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [(2, None, 2), (64, None, 8), (64, 20, 20), (2, 1, 1)]
    for cpus, wanted, expected in given:
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cpus=cpus: set(range(cpus)))
        assert num_processes(build_config(machine__data_processes=wanted)) == expected


def run_code(*codes: str) -> list[Any]:
    commands: Sequence[Sequence[str]] = [[sys.executable, "-c", code] for code in codes]
    with _running(commands) as processes:
        said = list(_listen(processes))
    assert all(process.returncode is not None for process in processes)
    return said


def test_what_each_process_says_is_heard() -> None:
    said = run_code("print(3); print(4)", "print(5)")
    assert sorted(word for word in said if word is not None) == [3, 4, 5]


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("""print('{"error": "a.tsv:3: bad"}'); raise SystemExit(1)""", UserError, r"^a\.tsv:3: bad$"),
        ("import os; os.kill(os.getpid(), 9)", UserError, r"killed by SIGKILL.*lower machine\.data_processes"),
        ("raise SystemExit(3)", RuntimeError, "failed with code 3"),
    ],
)
def test_the_end_of_one_process_ends_the_others(code: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run_code(code, "import time; time.sleep(600)")
