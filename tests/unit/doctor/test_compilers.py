"""What compiles, by what the tools say of themselves, and whether nvcc fits torch."""

from collections.abc import Sequence

import pytest

from dstrain.doctor.compilers import Tools, ask_tools, judge_tools
from dstrain.doctor.finding import ok
from dstrain.doctor.programs import Done, run

ALL = Tools("1.13.0", "12.2.0", "12.2.0", "12.9", has_headers=True)
SAID = {
    "ninja": "1.13.0.git.kitware.jobserver-pipe-1\n",
    "gcc": "gcc (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation, Inc.\n",
    "g++": "g++ (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0\nCopyright (C) 2023\n",
    "nvcc": "nvcc: NVIDIA (R) Cuda compiler driver\nCopyright (c) 2005-2025\nCuda compilation tools, release 12.9, V12.9.41\n",
    "cc": "Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu\n",
}


def tools_that_say(said: dict[str, str]) -> Tools:
    def answer(command: Sequence[str]) -> Done | None:
        name = command[0].rpartition("/")[2]
        return Done(0, said[name]) if name in said else None

    return ask_tools(answer)


def test_versions_are_read_from_what_the_tools_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")
    found = tools_that_say(SAID)
    assert (found.ninja, found.gcc, found.gxx, found.nvcc) == ("1.13.0", "12.2.0", "13.3.0", "12.9")


def test_another_c_compiler_will_do_and_a_tool_that_fails_is_none() -> None:
    assert tools_that_say({"cc": SAID["cc"]}).gcc == "14.0.6"
    failing = ask_tools(lambda command: Done(1, "12.2.0"))
    assert (failing.ninja, failing.gcc, failing.gxx, failing.nvcc) == (None, None, None, None)


def test_the_tools_of_this_machine_can_be_asked() -> None:
    assert list(judge_tools(ask_tools(run), build="CPU"))


def test_all_that_is_needed_is_ok() -> None:
    named = ok("compilers", "ninja 1.13.0, gcc 12.2.0, g++ 12.2.0")
    assert list(judge_tools(ALL, build="CPU")) == [named]
    assert list(judge_tools(ALL, build="CUDA 12.9")) == [named, ok("nvcc", "CUDA 12.9")]


def test_what_is_missing_is_noted_with_what_needs_it() -> None:
    missing, rest = judge_tools(Tools("1.13.0", None, None, None, has_headers=False), build=None)
    assert missing.level == "note"
    assert missing.text.startswith("missing: gcc, g++, the headers of Python (python3-dev); needed by machine.compile")
    assert rest == ok("compilers", "ninja 1.13.0")


@pytest.mark.parametrize(("nvcc", "level"), [("12.4", "ok"), ("11.8", "note"), (None, "note")])
def test_an_nvcc_of_another_cuda_is_noted(nvcc: str | None, level: str) -> None:
    _, finding = judge_tools(Tools("1.13.0", "12.2.0", "12.2.0", nvcc, has_headers=True), build="CUDA 12.9")
    assert (finding.topic, finding.level) == ("nvcc", level)
