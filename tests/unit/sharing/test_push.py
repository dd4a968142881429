"""What a push would do: which model, which card, which files, and what is said first."""

import shutil
from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.reporting.card import write_card
from dstrain.run_folder.layout import RunFolder
from dstrain.sharing.push import check_names, describe_push, plan_push
from tests.unit.sharing.sharing_cases import STEP, make_model, make_shared_run, snapshot


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run that states a licence and has its cards."""
    run = make_shared_run(tmp_path / "run", "card.license=mit")
    write_card(run)
    return run


def described(run: Path, **given: object) -> str:
    push = plan_push(run, repo="me/model", **given)  # type: ignore[arg-type]
    return "\n".join(describe_push(push, endpoint="https://hub.example"))


def test_the_best_model_is_planned_and_described_and_nothing_is_written(run: Path) -> None:
    before = snapshot(run)
    push = plan_push(run, repo="me/model", private=True)
    assert snapshot(run) == before
    assert (push.folder, push.step, push.private, push.notes) == (run / "best", STEP, True, ())
    assert {*push.contents.files} == {*snapshot(run / "best")}
    lines = list(describe_push(push, endpoint="https://hub.example"))
    assert lines[0] == f"{run}/best, step {STEP}, to https://hub.example/me/model, branch main"
    sizes = push.contents.sizes
    for name, size in sizes.items():
        assert any(line.split() == [f"{size:,}", name] for line in lines)
    assert f"{len(sizes)} files, {sum(sizes.values()):,} bytes" in lines


def test_the_card_goes_up_as_it_is_but_for_the_name_in_its_code(run: Path) -> None:
    card = run / "best" / "README.md"
    assert plan_push(run, repo="me/model").contents.files["README.md"] == card.read_bytes().replace(
        b"from_pretrained('.')", b"from_pretrained('me/model')"
    )
    card.write_text(card.read_text().replace("# run", "# My own words"))
    push = plan_push(run, repo="me/model", branch="v2")
    content = push.contents.files["README.md"]
    assert isinstance(content, bytes)
    assert b"# My own words" in content
    assert b"from_pretrained('me/model', revision='v2')" in content
    (note,) = push.notes
    assert note.startswith(
        f"{card} was edited, or is older than the scores of the run. It goes up as it is; for a new one"
    )


def test_a_folder_without_a_card_gets_one_for_the_hub(run: Path) -> None:
    shutil.rmtree(run / "best" / "plots")
    (run / "best" / "README.md").unlink()
    push = plan_push(run, repo="me/model")
    assert {"README.md", "plots/loss.png", "plots/score.png"} <= {*push.contents.files}
    assert not (run / "best" / "README.md").exists()


def test_a_card_whose_plots_are_gone_is_refused(run: Path) -> None:
    shutil.rmtree(run / "best" / "plots")
    with pytest.raises(UserError, match=r"best/README\.md:\d+: the link `plots/loss\.png` leads to nothing"):
        plan_push(run, repo="me/model")


def test_what_is_wrong_with_the_card_and_with_the_other_files_is_said_at_once(run: Path) -> None:
    shutil.rmtree(run / "best" / "plots")
    (run / "best" / "config.json").write_text('{"_name_or_path": "/home/ann/model"}')
    with pytest.raises(UserError, match=r"README\.md:\d+: the link `plots/loss\.png` leads to nothing") as found:
        plan_push(run, repo="me/model")
    assert "config.json:1: names `/home/ann/model`" in str(found.value)


def test_a_card_without_a_licence_goes_up_with_a_note(tmp_path: Path) -> None:
    run = make_shared_run(tmp_path / "run")
    said = described(run)
    assert "note: no licence is stated, and others cannot know whether they may use the model." in said
    assert f"write `card: {{license: …}}` in {run}/config.yaml, and the card again: dstrain card {run}" in said


@pytest.mark.parametrize(("last", "state"), [("stop", "was stopped"), ("resume", "is still running or was killed")])
def test_of_an_unfinished_run_the_best_model_goes_up_and_no_other(last: str, state: str, tmp_path: Path) -> None:
    run = make_shared_run(tmp_path / "run", "card.license=mit", status=last)
    make_model(run / "final", step=40)
    assert f"note: {run} has not finished: it {state}, at step 40 of 40. This is its best model so far" in described(
        run
    )
    content = plan_push(run, repo="me/model").contents.files["README.md"]
    assert isinstance(content, bytes)
    assert b"This run is not finished" in content
    with pytest.raises(UserError, match=r"has not finished, .* leave out --final"):
        plan_push(run, repo="me/model", model="final")


def test_the_card_of_an_earlier_end_is_not_taken_for_a_run_that_trains_on(tmp_path: Path) -> None:
    run = make_shared_run(tmp_path / "run", "card.license=mit", status="resume")
    (run / "best" / "README.md").write_text("an older card")
    assert (
        f"note: {run}/best/README.md is of an earlier end of the run: it stays here, and a new one is made"
        in described(run)
    )


def test_another_model_is_chosen_by_its_name(run: Path) -> None:
    make_model(run / "final", step=40)
    write_card(run)
    push = plan_push(run, repo="me/model", model="final")
    assert (push.folder, push.step) == (run / "final", 40)
    with pytest.raises(UserError, match=r"holds no average/: it has best/, final/"):
        plan_push(run, repo="me/model", model="average")


def test_a_model_that_was_exported_elsewhere_gets_the_card_of_its_step(run: Path, tmp_path: Path) -> None:
    exported = make_model(tmp_path / "exported", step=STEP)
    push = plan_push(run, repo="me/model", exported=exported)
    assert push.folder == exported
    content = push.contents.files["README.md"]
    assert isinstance(content, bytes)
    assert b"- Bleu: 12.0000" in content


def test_a_run_without_a_model_is_refused(run: Path) -> None:
    shutil.rmtree(run / "best")
    with pytest.raises(UserError, match="holds no model yet"):
        plan_push(run, repo="me/model")


@pytest.mark.parametrize(
    ("name", "missing"), [("model.safetensors", r"file \*\.safetensors"), ("config.json", "config.json")]
)
def test_a_folder_that_is_no_model_is_refused(name: str, missing: str, run: Path) -> None:
    (run / "best" / name).unlink()
    with pytest.raises(UserError, match=f"best holds no model: there is no {missing} in it"):
        plan_push(run, repo="me/model")


@pytest.mark.parametrize(
    "repo",
    ["model", "a/b/c", "/home/me/model", "me/", "me/-x", "me/a--b", "me/a..b", "me/x.git", "me/ü", "me/" + "x" * 99],
)
def test_a_name_that_the_hub_cannot_have_is_refused(repo: str) -> None:
    with pytest.raises(UserError, match="must be owner/name"):
        check_names(repo, branch=None)


@pytest.mark.parametrize("branch", ["", "refs/pr/1", "a..b", "-x", "a b", "x" * 300])
def test_a_branch_that_cannot_be_is_refused(branch: str) -> None:
    with pytest.raises(UserError, match="--revision must be the name of a branch"):
        check_names("me/model", branch=branch)


@pytest.mark.parametrize(
    ("repo", "branch"), [("me/model", None), ("My-Org/t5_small.v1-x", "v1.0"), ("a/b", "feature/x")]
)
def test_other_names_are_taken(repo: str, branch: str | None) -> None:
    check_names(repo, branch=branch)


def test_a_model_that_was_replaced_meanwhile_is_noticed(run: Path) -> None:
    push = plan_push(run, repo="me/model")
    assert push.is_unchanged()
    (RunFolder(run).model("best") / "training_step.json").write_text('{"step": 20}')
    assert not push.is_unchanged()
