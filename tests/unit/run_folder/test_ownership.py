"""Which folders a start takes, which of them `--debug` empties, and that no sub-folder leads outside."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dstrain.cluster.processes import this_process
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.claims import Claim, create_claim
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.ownership import empty_run_folder, make_run_folder, refuse_linked_folders


def recipe(folder: Path) -> RunConfig:
    return load_config("debug", overrides=[f"output_dir={folder}"])


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def write(path: Path, content: str = "mine") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def claim(folder: Path) -> None:
    RunFolder(folder).claims.mkdir(parents=True, exist_ok=True)
    create_claim(folder, claim=Claim(number=1, holder=this_process()))


def test_a_run_folder_that_cannot_be_created_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"output_dir: .*file/run cannot be made"):
        make_run_folder(recipe(tmp_path / "file" / "run"))


def test_a_link_to_nothing_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"link cannot be made \(it is a link to nothing\)"):
        make_run_folder(recipe(tmp_path / "link"))


@pytest.mark.parametrize("empties", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ["src/main.c"],
        ["README.md"],
        ["README.md", "config.yaml", "best/mine.txt"],
        ["config.yaml", "run.json", "metrics.jsonl"],
        ["lease/contract.pdf", "README.md"],
        ["failures/notes.txt"],
        ["outcome.json", "report.pdf"],
        ["checkpoints/model.pt"],
        [".git/config"],
        ["train.log", "data.tsv"],
    ],
)
def test_a_folder_without_a_mark_of_dstrain_is_refused_and_left_as_it_is(
    names: list[str], empties: bool, tmp_path: Path
) -> None:
    for name in names:
        write(tmp_path / "mine" / name)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"output_dir: .*/mine holds .*override output_dir=…|Override output_dir=…"):
        make_run_folder(recipe(tmp_path / "mine"), empties=empties)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "fill",
    [
        lambda folder: folder.mkdir(),
        lambda folder: write(folder / "slurm-12.out"),  # sbatch --output=FOLDER/slurm-%j.out
        lambda folder: write(folder / "lease" / "half.tmp"),  # another rank is just beginning
        lambda folder: write(folder / "rendezvous" / "slurm-1-0-0.json"),
        claim,
        lambda folder: write(folder / "slurm.jsonl"),  # the batch script was here first
        lambda folder: write(folder / "failures" / "rank-0.txt"),  # before the lease
        lambda folder: write(
            folder / "outcome.json", '{"outcome": "lost", "exit_code": 85}'
        ),  # a peer was lost before it
        lambda folder: write(folder / "checkpoints" / "step-00000010.lease-1" / "manifest.json"),  # restored
    ],
)
def test_a_new_folder_and_one_with_a_mark_of_dstrain_are_taken(fill: Callable[[Path], None], tmp_path: Path) -> None:
    fill(tmp_path / "run")
    before = tree(tmp_path)
    assert make_run_folder(recipe(tmp_path / "run")).path == tmp_path / "run"
    assert tree(tmp_path) == before


def test_a_linked_run_folder_is_taken_but_never_emptied(tmp_path: Path) -> None:
    make_run_folder(recipe(tmp_path / "run"), empties=True)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    make_run_folder(recipe(tmp_path / "link"))
    with pytest.raises(UserError, match=r"link is a link, and --debug and --overfit empty their folder"):
        make_run_folder(recipe(tmp_path / "link"), empties=True)


def test_debug_takes_its_own_folder_again_but_not_that_of_a_real_run(tmp_path: Path) -> None:
    for _ in range(2):
        folder = make_run_folder(recipe(tmp_path / "new"), empties=True)
        claim(folder.path)
    claim(tmp_path / "real")
    with pytest.raises(UserError, match="holds lease and was not made by --debug or --overfit"):
        make_run_folder(recipe(tmp_path / "real"), empties=True)
    write(tmp_path / "forged" / "file")
    RunFolder(tmp_path / "forged").debug_mark.symlink_to(tmp_path / "forged" / "file")
    with pytest.raises(UserError, match="was not made by --debug"):
        make_run_folder(recipe(tmp_path / "forged"), empties=True)


def test_an_emptied_folder_keeps_what_this_attempt_has_written_and_what_dstrain_never_writes(tmp_path: Path) -> None:
    folder = make_run_folder(recipe(tmp_path / "run"), empties=True)
    for path in (folder.claims, folder.rank_records, folder.checkpoints, folder.model("best"), folder.path / "src"):
        write(path / "file")
    for path in (folder.outcome, folder.metrics, folder.config, folder.path / "notes.txt"):
        write(path)
    write(tmp_path / "outside" / "file")
    folder.plots.symlink_to(tmp_path / "outside")
    for name in ("config.yaml.tmp-0f", "best.tmp", "best.old", "best.mine"):
        write(folder.path / name)
    empty_run_folder(folder, keep=(folder.claims, folder.rank_records, folder.outcome))
    kept = {"lease", "ranks", "outcome.json", "src", "notes.txt", ".dstrain-debug", "best.mine"}
    assert {path.name for path in folder.path.iterdir()} == kept
    assert (folder.claims / "file").exists()
    assert (tmp_path / "outside" / "file").exists(), "a link is removed, not what it points to"


@pytest.mark.parametrize("top", [path.name for path in RunFolder(Path()).folders])
def test_a_sub_folder_that_is_a_link_is_refused_by_name(top: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write(folder.slurm_history)
    (tmp_path / "outside").mkdir()
    (folder.path / top).symlink_to(tmp_path / "outside")
    message = f"run/{top} is a link, and dstrain writes nothing outside of a run folder"
    with pytest.raises(UserError, match=message):
        make_run_folder(recipe(folder.path))
    with pytest.raises(UserError, match=message):
        refuse_linked_folders(folder)


@pytest.mark.parametrize("name", ["hypotheses/step-00000010", "test_sets/wmt", "test_sets/wmt/scores", "hangs/3"])
def test_a_folder_below_them_is_refused_as_well(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match=f"{name} is a link"):
        refuse_linked_folders(RunFolder(tmp_path / "run"))


def test_a_checkpoint_that_was_moved_elsewhere_and_links_of_other_names_are_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "step-00000010.lease-1").symlink_to(tmp_path)
    (tmp_path / "data").symlink_to(tmp_path)
    refuse_linked_folders(folder)
