"""`dstrain drill`: its options, refusals and exit codes."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.config.schema import RunConfig
from dstrain.drill.scenarios import plan_scenarios


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: neither a file nor a shipped recipe"),
        (["debug", "sead=1"], "did you mean `seed`?"),
        (["debug", "--scenarios", "step,sted"], "--scenarios: unknown on"),
        (["debug", "--steps", "5"], "--steps"),
        (["debug", "--ranks", "0"], "--ranks"),
        (["debug", "--output", "{folder}"], "not from a drill"),
    ],
)
def test_a_drill_that_cannot_start_exits_with_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "thesis.tex").touch()
    result = CliRunner().invoke(app, ["drill", *(argument.format(folder=tmp_path) for argument in arguments)])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("nothing_lost", "code"), [(True, 0), (False, 1)])
def test_the_drill_folder_is_beside_the_run_folder(
    monkeypatch: pytest.MonkeyPatch, nothing_lost: bool, code: int
) -> None:
    seen: dict[str, Any] = {}

    def fake(config: RunConfig, **arguments: Any) -> bool:
        seen.update(arguments, config=config)
        return nothing_lost

    monkeypatch.setattr("dstrain.cli.drill.run_drill", fake)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    result = CliRunner().invoke(app, ["drill", "debug", "output_dir=/big/disk/", "--launch-minutes", "5"])
    assert result.exit_code == code
    assert (seen["folder"], seen["steps"], seen["launch_minutes"]) == (Path("/big/disk-drill"), 12, 5.0)
    assert seen["scenarios"] == plan_scenarios(num_ranks=3, steps=12, has_rehearsal=True)


def test_an_interrupted_drill_exits_with_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(config: RunConfig, **arguments: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("dstrain.cli.drill.run_drill", fake)
    assert CliRunner().invoke(app, ["drill", "debug"]).exit_code == 130
