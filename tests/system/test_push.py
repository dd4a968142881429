"""A run that was trained here, sent to a stand-in of the Hub by the command; killed on the way, and sent again."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, ModelCard

from dstrain.config.local_paths import find_local_paths
from dstrain.run_folder.layout import RunFolder
from tests.system.runs import build_run, train
from tests.unit.sharing.hub_stand_in import TOKEN, Hub, serve_hub
from tests.unit.sharing.sharing_cases import snapshot

CARD = {"license": "cc-by-4.0", "tags": ["korean"], "intended_use": "To test.\n\nFor nothing else."}
SECONDS = 120


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with an average."""
    keeps = {"checkpoint__every_steps": 2, "checkpoint__keep_weights_every_steps": 2, "evaluation__average_last": 3}
    config = build_run(tmp_path_factory.mktemp("run"), card=CARD, **keeps)
    assert train(config) == [0]
    return Path(config.run_dir)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


def command(run: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "dstrain", "push", str(run), "me/tiny", *options]


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Xet is off, because its servers are others than the Hub's and the stand-in has none."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}
    return {**kept, **own, "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def push(run: Path, *options: str, hub: Hub, home: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(run, *options),
        env=environment(hub, home),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def expected(folder: Path, *, name: str = "me/tiny") -> dict[str, bytes]:
    """What a model folder is on the Hub."""
    files = {
        file: content
        for file, content in snapshot(folder).items()
        if file.split("/")[0] not in ("scores", "hypotheses")
    }
    return {
        **files,
        "README.md": files["README.md"].replace(b"from_pretrained('.')", f"from_pretrained('{name}')".encode()),
    }


def test_the_best_model_of_a_run_arrives_in_one_commit(run: Path, hub: Hub, tmp_path: Path) -> None:
    before = snapshot(run)
    result = push(run, hub=hub, home=tmp_path)
    assert result.returncode == 0, result.stderr
    repository = hub.repositories["me/tiny"]
    assert repository.branches["main"] == expected(run / "best")
    assert len(repository.commits) == 2
    assert not repository.private
    assert snapshot(run) == before
    sizes = {name: len(content) for name, content in repository.branches["main"].items()}
    for name, size in sizes.items():
        assert re.search(rf"^ +{size:,}  {re.escape(name)}$", result.stdout, flags=re.MULTILINE)
    assert f"{len(sizes)} files, {sum(sizes.values()):,} bytes" in result.stdout
    assert result.stdout.splitlines()[-1] == f"{hub.url}/me/tiny/commit/{repository.commits[-1]}"
    assert TOKEN not in result.stdout + result.stderr


@pytest.mark.parametrize("model", ["best", "final", "average"])
def test_a_model_folder_is_ready_to_be_shared(model: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run / model
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert {"dstrain", "korean"} <= {*card.data.tags}
    assert (card.data.language, card.data.pipeline_tag, card.data.library_name) == (
        ["ko", "en"],
        "translation",
        "transformers",
    )
    assert card.data.eval_results
    assert "To test.\n\nFor nothing else.\n" in card.text
    images = re.findall(r"!\[.+?\]\((.+?)\)", card.text)
    assert len(images) == 2
    assert all((folder / image).is_file() for image in images)
    assert find_local_paths((folder / "README.md").read_text()) == []
    (block,) = re.findall(r"^```python\n(.*?)^```$", card.text, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block, {})
    assert re.fullmatch(r"\[(['\"]).*\1\]\n", printed.getvalue())


def test_the_average_goes_up_without_rows_of_the_evaluation_data(run: Path, hub: Hub, tmp_path: Path) -> None:
    result = push(run, "--average", "--private", hub=hub, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert hub.repositories["me/tiny"].branches["main"] == expected(RunFolder(run).average.path)
    assert hub.repositories["me/tiny"].private
    assert "stays here: hypotheses/ (rows of the evaluation data)" in result.stdout


def test_the_model_of_a_checkpoint_goes_up_with_the_card_of_its_step(run: Path, hub: Hub, tmp_path: Path) -> None:
    before = snapshot(run)
    result = push(run, "--step", "10", hub=hub, home=tmp_path)
    assert result.returncode == 0, result.stderr
    files = hub.repositories["me/tiny"].branches["main"]
    assert json.loads(files["training_step.json"])["step"] == 10
    assert "at step 10 (" in files["README.md"].decode()
    assert files["model.safetensors"] != (run / "final" / "model.safetensors").read_bytes()
    assert snapshot(run) == before


def test_a_push_that_was_killed_is_resumed_by_the_same_command(run: Path, hub: Hub, tmp_path: Path) -> None:
    weights = CommitOperationAdd("x", run / "best" / "model.safetensors").upload_info.sha256.hex()
    others = sum(name.endswith((".model", ".png")) for name in snapshot(run / "best"))
    assert others >= 2
    arrived, killed = threading.Event(), threading.Event()

    def wait_for_the_kill(method: str, path: str) -> int | None:
        if path == f"/lfs/{weights}":
            arrived.set()
            killed.wait(SECONDS)
            return 0
        return None

    hub.fail = wait_for_the_kill
    process = subprocess.Popen(
        command(run), env=environment(hub, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert arrived.wait(SECONDS)
    while len(hub.sent) < others:
        assert process.poll() is None
        threading.Event().wait(0.01)
    process.kill()
    process.wait()
    killed.set()
    assert hub.repositories["me/tiny"].branches["main"] == {}
    first = list(hub.sent)
    hub.fail = lambda method, path: None
    result = push(run, hub=hub, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert hub.sent == [*first, weights]
    assert hub.repositories["me/tiny"].branches["main"] == expected(run / "best")
    assert len(hub.repositories["me/tiny"].commits) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", f"a\nexport HF_TOKEN={TOKEN}\n", "notes.txt:2: holds a key, a token or a password"),
        ("config.json", '{"_name_or_path": "/home/ann/models/base"}', "config.json:1: names `/home/ann/models/base`"),
        ("link.txt", None, "link.txt: is a link, and none is followed"),
    ],
    ids=["secret", "path", "link"],
)
def test_what_must_stay_here_is_refused_before_any_request(
    name: str, content: str | None, said: str, run: Path, hub: Hub, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    if content is None:
        (copy / "best" / name).symlink_to("/etc/hostname")
    else:
        (copy / "best" / name).write_text(content)
    result = push(copy, hub=hub, home=tmp_path)
    assert result.returncode == 1
    assert f"{copy}/best/{said}" in result.stderr
    assert TOKEN not in result.stdout + result.stderr
    assert hub.asked == []


def test_a_token_that_may_not_write_is_said_and_nothing_changes(run: Path, hub: Hub, tmp_path: Path) -> None:
    before = snapshot(run)
    hub.fail = lambda method, path: 403 if path == "/api/repos/create" else None
    result = push(run, hub=hub, home=tmp_path)
    assert result.returncode == 1
    assert "refuses me/tiny with 403 (the stand-in says 403): the token may not write there" in result.stderr
    assert "Traceback" not in result.stderr
    assert snapshot(run) == before
