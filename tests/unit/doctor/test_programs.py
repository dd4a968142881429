"""A program is run for a limited time; what it said until then is kept."""

import sys
from pathlib import Path

import pytest

from dstrain.doctor.programs import Done, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_a_program_says_and_its_code_come_back() -> None:
    done = run(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"))
    assert done == Done(3, "out\n", "err\n")
    assert done.last_error == "err"


def test_a_program_that_hangs_is_ended_with_its_children_and_what_it_said_is_kept(tmp_path: Path) -> None:
    # the child holds the output open: whoever waited for the end of a pipe would wait for it
    code = "import os, time\nprint('begun', flush=True)\nos.fork()\ntime.sleep(600)"
    done = run(python(code), seconds=2.0)
    assert done is not None
    assert (done.code, done.out) == (None, "begun\n")


def test_a_crash_is_a_negative_code() -> None:
    done = run(python("import os; os.kill(os.getpid(), 11)"))
    assert done is not None
    assert done.code == -11
    assert done.last_error == "exit code -11"


def test_what_cannot_be_started_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    assert run(["no-such-program-here"]) is None
    file = tmp_path / "file"
    file.write_text("text")
    assert run([str(file)]) == Done(126, err="Permission denied")


@pytest.mark.parametrize("variable", ["GIVEN", "PATH"])
def test_the_environment_is_the_one_that_is_given(variable: str) -> None:
    done = run(python(f"import os; print(os.environ.get({variable!r}))"), environment={"GIVEN": "yes"})
    assert done is not None
    assert done.out == f"{'yes' if variable == 'GIVEN' else None}\n"


def test_bytes_that_are_no_text_are_replaced() -> None:
    done = run(python(r"import sys; sys.stdout.buffer.write(b'\xff\n')"))
    assert done is not None
    assert done.out == "\ufffd\n"
