"""Names that the Hub does not have, and no network: one line that names the key and the model, after one request."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dstrain.errors import UserError
from dstrain.run import hub
from dstrain.run.hub import check_hub, check_model_name
from tests.unit.reporting.reporting_cases import translation_config
from tests.unit.training.training_cases import alone

Answer = Callable[..., Any]
RESPONSE: Any = SimpleNamespace(headers={}, request=None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that a Hub was asked for which has everything; online until somebody finds otherwise."""
    names: list[str] = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    _answer(monkeypatch, lambda name, **given: names.append(name))
    return names


def _answer(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    monkeypatch.setattr(hub, "HfApi", lambda: SimpleNamespace(model_info=answer, dataset_info=answer))


def _config(**data: Any) -> Any:
    return translation_config(model={"name": "some/model"}, **data)


def test_model_and_data_sets_are_asked_for_and_folders_are_not(asked: list[str], tmp_path: Path) -> None:
    rows = {"train": [{"hub": "some/data"}, {"path": "a.tsv"}], "eval": [{"hub": "old"}]}
    check_hub(_config(data=rows), ranks=alone())
    check_model_name(str(tmp_path), revision=None, key="MODEL")
    assert asked == ["some/model", "some/data", "old"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            HFValidationError("Repo id must be …\n\nmore"),
            r"is neither a folder here nor a name of the Hub \(Repo id must be …\)",
        ),
        (
            RepositoryNotFoundError("404", response=RESPONSE),
            "the Hub has no `some/model`, and there is no such folder here: ",
        ),
        (GatedRepoError("401", response=RESPONSE), "the Hub gives `some/model` to some users only: ask for access"),
        (
            RevisionNotFoundError("404", response=RESPONSE),
            "the Hub's `some/model` has no revision `v9`: correct the revision",
        ),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_one_line(
    error: Exception, message: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, **given: Any) -> None:
        raise error

    _answer(monkeypatch, refuse)
    with pytest.raises(UserError, match=f"^model.name: .*{message}") as found:
        check_model_name("some/model", revision="v9", key="model.name")
    assert "\n" not in str(found.value)
    assert not constants.is_offline_mode()


def test_without_a_network_one_request_is_made_and_the_cache_decides(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(name: str, **given: Any) -> None:
        asked.append(name)
        raise RuntimeError("Name or service not known\nmore")

    _answer(monkeypatch, fail)
    cached = tmp_path / "config.json"
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *given, **named: str(cached))
    check_hub(_config(data={"train": [{"hub": "some/data"}], "eval": [{"path": "a.tsv"}]}), ranks=alone())
    assert asked == ["some/model"]
    assert constants.is_offline_mode()  # so that no library tries again
    reason = r"the Hub cannot be reached \(Name or service not known\)"
    assert "model.name: `some/model` is taken from the local cache, because " + reason.replace("\\", "") in caplog.text

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *given, **named: None)
    message = (
        rf"^model.name: `some/model` is not a folder here and not in the local cache, and {reason}: correct the name"
    )
    with pytest.raises(UserError, match=message):
        check_hub(_config(), ranks=alone())


class SecondRank:
    """The second of two ranks, as `check_hub` sees it; rank 0 found no network."""

    rank = 1

    def broadcast(self, value: bool, form: type) -> bool:
        return not value


def test_rank_0_asks_for_all_and_the_others_learn_that_there_is_no_network(asked: list[str]) -> None:
    check_hub(_config(), ranks=SecondRank())  # type: ignore[arg-type]
    assert asked == []
    assert constants.is_offline_mode()


def test_a_hub_that_answers_with_an_error_is_not_called_unreachable(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, **given: Any) -> None:
        raise HfHubHTTPError("500 Server Error for url: …", response=RESPONSE)

    _answer(monkeypatch, fail)
    with pytest.raises(UserError, match=r"and the Hub answers with an error \(500 Server Error for url: …\)"):
        check_model_name("some/model", revision=None, key="model.name")


def test_offline_on_purpose_asks_nothing(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"^MODEL: `no/thing` is not a folder here .* HF_HUB_OFFLINE=1 forbids the network"
    ):
        check_model_name("no/thing", revision=None, key="MODEL")
    assert asked == []
