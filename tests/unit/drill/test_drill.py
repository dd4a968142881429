"""The folder of a drill and the flow over all scenarios, with launches that write what a run would."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.load import dump_config, load_config
from dstrain.drill import drill
from dstrain.drill.compare import (
    Exit,
)
from dstrain.drill.drill import MARKER, DrillRun, hash_weights, prepare_folder
from dstrain.drill.scenarios import (
    RankLaunch,
    shorten,
)
from dstrain.errors import UserError
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import EvalRow, EventRow, TrainRow, append_row
from tests.unit.drill.drill_cases import (
    CONFIG,
    EXITS,
    KILLED,
    STEPS,
    STRAIGHT,
    rows_of,
)


def test_the_folder_of_an_earlier_drill_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "drill"
    prepare_folder(folder)
    (folder / "straight").mkdir()
    (folder / "straight" / "metrics.jsonl").touch()
    prepare_folder(folder)
    assert [path.name for path in folder.iterdir()] == [MARKER]


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(
        ValueError, match=r"contains files that are not from a drill; choose another folder with --output"
    ):
        prepare_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_folder_of_a_running_drill_is_refused_until_it_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dstrain.drill.drill import prepare_folder\n"
        f"prepare_folder(Path({str(tmp_path)!r})); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdin
        other.stdout.readline()
        with pytest.raises(ValueError, match=f"in use by a running drill .process {other.pid} on"):
            prepare_folder(tmp_path)
        other.stdin.close()
    prepare_folder(tmp_path)


def test_the_hash_depends_on_every_byte_of_every_weights_file(tmp_path: Path) -> None:
    assert hash_weights(tmp_path) == ""
    (tmp_path / "model-00001.safetensors").write_bytes(b"abc")
    (tmp_path / "model-00002.safetensors").write_bytes(b"def")
    whole = hash_weights(tmp_path)
    (tmp_path / "config.json").touch()
    assert hash_weights(tmp_path) == whole
    (tmp_path / "model-00002.safetensors").write_bytes(b"deg")
    assert hash_weights(tmp_path) != whole


def write_launch(launch: RankLaunch, *, run_dir: Path, change: float = 0.0) -> Exit:
    """What a launch of the scenario KILLED, or of a straight one, leaves in its run folder."""
    if launch.drill:
        return EXITS["manifest"][0]
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(dump_config(CONFIG))
    write_run_info(run_dir, {})
    for row in rows_of(resumed_at=0 if run_dir.name == "straight" else 4, change=change):
        kind = {TrainRow: "train", EvalRow: "eval", EventRow: "event"}[type(row)]
        values = {name: getattr(row, name) for name in type(row).__dataclass_fields__}
        append_row(run_dir / "metrics.jsonl", values | {"kind": kind})
    for name in ("checkpoints", "best", "final"):
        (run_dir / name).mkdir()
        (run_dir / name / "model.safetensors").write_bytes(b"weights")
    return Exit((0,) * launch.num_ranks)


def contents(run_dir: Path) -> set[str]:
    return {path.name for path in run_dir.iterdir() if path.is_dir()}


@pytest.mark.parametrize("change", [0.0, 1e-3])
def test_weights_of_a_scenario_are_deleted_if_it_passes_and_kept_if_not(tmp_path: Path, change: float) -> None:
    def fake(launch: RankLaunch, *, config: Path, run_dir: Path, log: Path) -> Exit:
        assert load_config(str(config)) == shorten(CONFIG, steps=STEPS, folder=run_dir)
        return write_launch(launch, run_dir=run_dir, change=0.0 if run_dir.name == "straight" else change)

    drill_run = DrillRun(CONFIG, tmp_path, STEPS, fake)
    assert drill_run.run_scenario(STRAIGHT).fault is None
    assert contents(tmp_path / "straight") == {"final"}
    result = drill_run.run_scenario(KILLED)
    assert (result.fault is None) == (change == 0.0)
    assert contents(tmp_path / "killed-manifest") == (set() if change == 0.0 else {"checkpoints", "best", "final"})
    assert result.resumed_from == 4


@pytest.mark.parametrize("change", [0.0, 1e-3])
def test_the_drill_prints_and_writes_its_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: float
) -> None:
    def fake(launch: RankLaunch, *, run_dir: Path, log: Path, **other: Any) -> Exit:
        log.write_text("the ranks' last words\n")
        return write_launch(launch, run_dir=run_dir, change=0.0 if run_dir.name == "straight" else change)

    monkeypatch.setattr(drill, "launch_ranks", fake)
    folder, said = tmp_path / "drill", list[str]()
    found = drill.run_drill(
        CONFIG,
        scenarios=[STRAIGHT, KILLED],
        steps=STEPS,
        folder=folder,
        launch_minutes=1.0,
        environment={},
        say=said.append,
    )
    assert found == (change == 0.0)
    printed = "\n".join(said)
    assert re.search(
        r"\nscenario .* verdict\nstraight run .* reference\nkilled before the manifest .* -9 85, then 0 0", printed
    )
    written = json.loads((folder / "drill.json").read_text())
    assert [written["ok"], *(scenario["ok"] for scenario in written["stories"])] == [found, True, found]
    assert "killed before the manifest" in (folder / "drill.md").read_text()
    named = f"{folder / 'killed-manifest.log'} ends with:\n  the ranks' last words"
    assert (named in printed) == (not found)
    assert contents(folder / "straight") == (set() if found else {"final"})


def test_if_the_straight_run_fails_no_other_scenario_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[RankLaunch] = []

    def fake(launch: RankLaunch, **other: Any) -> Exit:
        launches.append(launch)
        return Exit((1, 1))

    monkeypatch.setattr(drill, "launch_ranks", fake)
    arguments: dict[str, Any] = {"steps": STEPS, "launch_minutes": 1.0, "environment": {}, "say": lambda text: None}
    assert not drill.run_drill(CONFIG, scenarios=[STRAIGHT, KILLED], folder=tmp_path / "drill", **arguments)
    assert launches == [RankLaunch(2)]


def test_a_folder_that_is_a_link_is_not_emptied(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "drill")
    (tmp_path / "link").symlink_to(tmp_path / "drill")
    with pytest.raises(UserError, match="link is a link, and a drill empties its folder"):
        prepare_folder(tmp_path / "link")
