"""What a rank prints: its messages with its number, and no noise of libraries. In processes of their own."""

import subprocess
import sys

import pytest

CODE = """
import logging, os, sys, warnings
from dataclasses import replace
from dstrain.cluster.console import quiet_libraries
from dstrain.cluster.environment import read_process_info
quiet_libraries(replace(read_process_info({}), rank=int(sys.argv[1])))
logging.getLogger("dstrain.run").info("an info")
logging.getLogger("dstrain.run").warning("a warning")
logging.getLogger("DeepSpeed").warning("no GPU here")
logging.getLogger("DeepSpeed").error("a real error")
warnings.warn_explicit("deprecated", FutureWarning, "x.py", 1, module="torch.distributed.fsdp")
print(os.environ["PATH"].split(os.pathsep)[0] == os.path.dirname(sys.executable), os.environ["TOKENIZERS_PARALLELISM"])
"""


def run_rank(rank: int) -> tuple[list[str], str]:
    """Lines on standard error, and standard output."""
    command = [sys.executable, "-c", CODE, str(rank)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stderr.splitlines(), done.stdout.strip()


@pytest.mark.parametrize(
    ("rank", "lines"),
    [
        (0, ["an info", "a warning", "a real error"]),
        (3, ["rank 3: a warning", "rank 3: a real error"]),
    ],
)
def test_rank_0_prints_everything_and_others_their_warnings_with_their_number(rank: int, lines: list[str]) -> None:
    assert run_rank(rank)[0] == lines


def test_tools_beside_the_interpreter_are_found_and_tokenizers_use_one_thread() -> None:
    assert run_rank(0)[1] == "True false"
