"""On the way of a micro-batch and of a generated token nothing is on the host, whatever the family and the precision."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def look(*planted: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.unit.evaluation.fake_device", *planted]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_a_micro_batch_reads_nothing_and_a_token_one_value_and_nothing_is_copied() -> None:
    found = look()
    assert len(found) == 5 * 3
    for line in found:
        assert "failed" not in line, line
        # transformers' Marian asks in fp16 after each of its two encoder layers whether all is finite
        reads = 2 if (line["family"], line["dtype"]) == ("marian", "float16") else 0
        assert line["loss"] == {"reads": reads, "copies": 0}, line
        # four tensors of a micro-batch to the device, one shard of a snapshot to the host
        assert line["transfers"] == {"reads": 0, "copies": 5, "waits": 0}, line
        assert line["greedy"] == line["beam"] == {"reads": 1.0, "copies": 0.0}, line


def test_a_read_that_is_planted_is_counted() -> None:
    (line,) = look("a read")
    assert line["loss"] == {"reads": 1, "copies": 0}


def test_a_host_mask_that_is_planted_fails_with_file_and_line() -> None:
    (line,) = look("a mask of the host")
    assert "dstrain/models/loss.py:" in line["failed"]


def test_an_index_of_python_that_is_planted_fails_with_file_and_line_or_is_counted() -> None:
    (line,) = look("an index of Python")
    if "failed" in line:
        assert "dstrain/evaluation/decode.py:" in line["failed"]
    else:  # torch before 2.13 copies the index instead of using it as it is
        assert line["greedy"]["copies"] == line["beam"]["copies"] == 1
