"""Starts processes that tokenise the training rows of a run together, and waits for them.

Knows nothing of tokens: `dstrain.run.encode_shards` is what each of them does.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrain.config.schema import RunConfig
from dstrain.data.shards import Beat
from dstrain.errors import UserError

PROGRAM = ("-m", "dstrain.run.encode_shards")

MOST_PROCESSES = 8
"""Processes that null starts at most: each takes about half a GB of memory, and ten seconds to start."""


@dataclass(frozen=True)
class Encoders:
    """Processes that tokenise the training rows of a recipe together."""

    config: RunConfig
    tokenizer: Path
    """The folder of the tokenizer."""
    fingerprint: str
    """That of the tokenizer."""
    beat: Beat

    def __call__(self, folder: Path) -> Iterator[None]:
        """Make all shards in the folder; yields again and again, and ends when all are there.

        Raises UserError if a process cannot read the data or was killed, RuntimeError if it failed otherwise.
        """
        number = num_processes(self.config)
        request = {
            "config": self.config.model_dump(mode="json"),
            "tokenizer": str(self.tokenizer),
            "fingerprint": self.fingerprint,
            "folder": str(folder),
            "num_processes": number,
        }
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "request.json"
            path.write_text(json.dumps(request))
            with _running([[sys.executable, *PROGRAM, str(path), str(first)] for first in range(number)]) as processes:
                for said in _listen(processes):
                    if isinstance(said, int):
                        self.beat(said)
                    yield


def num_processes(config: RunConfig) -> int:
    """How many processes tokenise: `machine.data_processes`, else one for each CPU that this process may use."""
    return config.machine.data_processes or min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


@contextmanager
def _running(commands: Sequence[Sequence[str]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    # each process is one of several: it needs no GPU, and threads of its own would compete with the others
    alone = {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **alone}))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _listen(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[Any]:
    """What the processes say, as it comes, until all have ended well."""
    said: queue.SimpleQueue[tuple[subprocess.Popen[bytes], Any]] = queue.SimpleQueue()
    for process in processes:
        threading.Thread(target=_read, args=(process, said), daemon=True).start()
    error, running = None, len(processes)
    while running:
        process, words = said.get()
        if words is None:
            running -= 1
            _check_end(process.wait(), error=error)
        elif isinstance(words, dict):
            error = words.get("error")
        yield words


def _read(process: subprocess.Popen[bytes], said: "queue.SimpleQueue[tuple[subprocess.Popen[bytes], Any]]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.put((process, json.loads(line)))
    said.put((process, None))


def _check_end(code: int, *, error: str | None) -> None:
    if error is not None:
        raise UserError(error)
    if code < 0:
        raise UserError(
            f"a process that tokenises the data was killed by {signal.Signals(-code).name}, perhaps because memory ran out: "
            "lower machine.data_processes (1 tokenises in the process of rank 0)"
        )
    if code > 0:
        raise RuntimeError(f"a process that tokenises the data failed with code {code}; it has printed its traceback")
