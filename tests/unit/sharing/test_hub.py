"""A model sent to a stand-in of the Hub by the requests of huggingface_hub itself, and every way in which that fails."""

from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from dstrain.errors import UserError
from dstrain.reporting.card import write_card
from dstrain.sharing.hub import check_access, explain, send
from dstrain.sharing.push import plan_push
from tests.unit.sharing.hub_stand_in import TOKEN, Hub, Repository, serve_hub
from tests.unit.sharing.sharing_cases import make_shared_run, snapshot


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A stand-in that huggingface_hub takes for the Hub, without Xet, whose servers it has not."""
    with serve_hub() as hub:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for name, value in (("ENDPOINT", hub.url), ("HF_HUB_DISABLE_XET", True), ("HF_HUB_OFFLINE", False)):
            monkeypatch.setattr(constants, name, value)
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = make_shared_run(tmp_path / "run", "card.license=mit")
    write_card(run)
    return run


def push(run: Path, **given: object) -> tuple[str, list[str]]:
    """The address of the commit, and what was said."""
    said: list[str] = []
    return send(plan_push(run, repo="me/model", **given), report=said.append), said  # type: ignore[arg-type]


def test_the_folder_arrives_byte_for_byte_in_one_commit_and_stays_as_it_is(hub: Hub, run: Path) -> None:
    before = snapshot(run)
    url, said = push(run)
    repository = hub.repositories["me/model"]
    assert said == ["me/model is new, and public"]
    assert url == f"{hub.url}/me/model/commit/{repository.commits[-1]}"
    assert (len(repository.commits), repository.messages) == (2, ["Upload best, step 10, trained with dstrain"])
    card = before["best/README.md"].replace(b"from_pretrained('.')", b"from_pretrained('me/model')")
    sent = {name.removeprefix("best/"): content for name, content in before.items() if name.startswith("best/")}
    assert repository.branches["main"] == {**sent, "README.md": card}
    assert snapshot(run) == before


def test_a_second_push_sends_nothing_and_says_so(hub: Hub, run: Path) -> None:
    push(run)
    sent = list(hub.sent)
    _, said = push(run)
    assert said == [
        "me/model exists already, and is public",
        "nothing has changed since the last push: there is no new commit",
    ]
    assert hub.sent == sent
    assert hub.number("POST", "/commit/") == 1


def test_a_private_model_is_created_private(hub: Hub, run: Path) -> None:
    _, said = push(run, private=True)
    assert said == ["me/model is new, and private"]
    assert hub.repositories["me/model"].private


def test_what_is_public_already_is_no_place_for_a_private_push(hub: Hub, run: Path) -> None:
    hub.repositories["me/model"] = Repository(private=False)
    with pytest.raises(UserError, match="me/model exists already and is public: make it private in its settings"):
        push(run, private=True)
    assert hub.repositories["me/model"].branches["main"] == {}


def test_a_branch_is_made_and_the_main_one_stays(hub: Hub, run: Path) -> None:
    push(run, branch="v2")
    branches = hub.repositories["me/model"].branches
    assert branches["main"] == {}
    assert {"README.md", "model.safetensors"} <= branches["v2"].keys()
    push(run, branch="v2")
    assert hub.number("POST", "/commit/") == 1


def test_large_files_that_have_arrived_are_not_sent_again(hub: Hub, run: Path) -> None:
    weights = plan_push(run, repo="me/model").contents.files["model.safetensors"]
    assert isinstance(weights, Path)
    oid = huggingface_hub.CommitOperationAdd("x", weights).upload_info.sha256.hex()
    hub.fail = lambda method, path: 403 if path == f"/lfs/{oid}" else None
    with pytest.raises(UserError, match="refuses me/model with 403"):
        push(run)
    first = list(hub.sent)
    assert oid not in first
    assert hub.number("POST", "/commit/") == 0
    hub.fail = lambda method, path: None
    push(run)
    # those that were on their way when the first push failed may have come or not, but none came twice
    assert {*first, oid} <= {*hub.sent}
    assert len(hub.sent) == len({*hub.sent})
    assert hub.repositories["me/model"].branches["main"]["model.safetensors"] == weights.read_bytes()


@pytest.mark.parametrize("status", [500, 0], ids=["error", "closed connection"])
def test_one_failure_on_the_way_is_repeated_by_the_library(status: int, hub: Hub, run: Path) -> None:
    failed: list[str] = []

    def fail(method: str, path: str) -> int | None:
        if method == "PUT" and not failed:
            failed.append(path)
            return status
        return None

    hub.fail = fail
    push(run)
    assert failed
    assert len(hub.repositories["me/model"].commits) == 2


@pytest.mark.parametrize(
    ("status", "way_out"),
    [
        (401, "the token is missing, wrong or expired: `hf auth login`, or set HF_TOKEN"),
        (403, "the token may not write there: take one with write access"),
        (404, "it has no such repository or branch that the token may see"),
        (409, "somebody else changed it at the same time, or the name is taken: push again"),
        (413, "a file or the commit is too large for it"),
        (429, "too many requests: wait some minutes and push again"),
        (500, "push again later: what has arrived is not sent again"),
        (503, "push again later: what has arrived is not sent again"),
        (0, "or the way to it broke off"),
    ],
)
def test_an_error_of_the_hub_is_one_line_with_the_way_out(status: int, way_out: str, hub: Hub, run: Path) -> None:
    before = snapshot(run)
    hub.fail = lambda method, path: status if "/commit/" in path else None
    with pytest.raises(UserError) as found:
        push(run)
    assert way_out in str(found.value)
    assert "\n" not in str(found.value)
    if status:
        assert str(status) in str(found.value)
        assert f"(the stand-in says {status})" in str(found.value)
    assert snapshot(run) == before


def test_a_wrong_token_is_said(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="the token is missing, wrong or expired") as found:
        push(run)
    assert "hf_wrong" not in str(found.value)


def test_a_hub_that_is_not_there_is_said(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port of a service that nobody runs
    with pytest.raises(UserError, match="the Hub cannot be reached, or the way to it broke off"):
        push(run)


def test_a_model_that_the_run_replaces_meanwhile_is_not_made_visible(hub: Hub, run: Path) -> None:
    def replace(method: str, path: str) -> None:
        if method == "PUT":
            (run / "best" / "training_step.json").write_text('{"step": 20}')

    hub.fail = replace
    with pytest.raises(UserError, match="best was replaced while it was sent, and nothing is visible on the Hub yet"):
        push(run)
    assert hub.number("POST", "/commit/") == 0


def test_without_network_or_token_nothing_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE=1 forbids the network: unset it; --dry-run shows"):
        check_access()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("dstrain.sharing.hub.get_token", lambda: None)
    with pytest.raises(UserError, match="there is no token for the Hub: `hf auth login`, or set HF_TOKEN"):
        check_access()
    monkeypatch.setattr("dstrain.sharing.hub.get_token", lambda: TOKEN)
    check_access()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ValueError("Invalid metadata in README.md.\n- license is wrong"),
            "refuses me/x (Invalid metadata in README.md. - lic",
        ),
        (
            JSONDecodeError("Expecting value", "<html>", 0),
            "the Hub cannot be reached, or the way to it broke off (Expecting",
        ),
        (ConnectionResetError(), "broke off (ConnectionResetError): push again later"),
    ],
)
def test_other_errors_are_one_line_too(error: Exception, said: str) -> None:
    explained = explain(error, repo="me/x")
    assert said in explained
    assert "\n" not in explained
