"""What only a GPU can show, in ten minutes: `make check-gpu`.

`python -m tests.gpu [--tiny] [--only NAME,NAME] [--json FILE]` runs the checks of checks.py in order of worth, each in a process
of its own with a time limit, and prints a line of JSON after each. A check that fails or takes too long does not stop the others.
`--tiny` runs anywhere: it only shows that the checks work. The exit code is 1 if a check failed.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.gpu.checks import CHECKS

ROOT = Path(__file__).resolve().parents[2]
TOTAL_SECONDS = 600.0
"""No check is started after this; one that runs then may take its own limit."""
MARK = "RESULT "


def run(name: str, *, is_tiny: bool, limit_seconds: float) -> dict[str, Any]:
    """What a check found, or how it failed."""
    command = [sys.executable, "-m", "tests.gpu", "--child", name, *(["--tiny"] if is_tiny else [])]
    started = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"check": name, "ok": False, "found": f"took longer than {limit_seconds:.0f} s"}
    answers = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    lost = {"ok": False, "found": f"ended with {done.returncode}: {done.stderr[-800:]}"}
    answer: dict[str, Any] = json.loads(answers[-1]) if answers else lost
    return {"check": name, **answer, "seconds": round(time.monotonic() - started, 1)}


def answer(name: str, *, is_tiny: bool) -> None:
    """In a process of its own: print what a check found."""
    try:
        result = {"ok": True, "found": CHECKS[name].run(is_tiny)}
    except Exception:
        result = {"ok": False, "found": traceback.format_exc()[-1200:]}
    print(f"{MARK}{json.dumps(result, default=str)}", flush=True)


def main() -> int:
    """Run all checks, or one as a child."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", default=",".join(CHECKS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        answer(given.child, is_tiny=given.tiny)
        return 0
    results, began = [], time.monotonic()
    for name in given.only.split(","):
        if time.monotonic() - began > TOTAL_SECONDS:
            results.append({"check": name, "ok": False, "found": "not started: ten minutes are over"})
        else:
            limit = CHECKS[name].limit_seconds * (4 if given.tiny else 1)
            results.append(run(name, is_tiny=given.tiny, limit_seconds=limit))
        print(json.dumps(results[-1]), flush=True)
        if given.json:
            given.json.write_text("\n".join(map(json.dumps, results)) + "\n")
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
