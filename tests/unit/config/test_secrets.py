"""What looks like a secret is refused and never printed; ordinary words of recipes are left alone."""

from pathlib import Path

import pytest

from dstrain.config.secrets import holds_secret, holds_token, mask, mask_value, names_secret, sets_secret
from dstrain.config.vocabulary import all_keys
from tests.unit.config.config_cases import faults

TOKENS = [
    "hf_" + "a1B2" * 8,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2_" * 8,
    "glpat-" + "a1B2" * 5,
    "sk-proj-" + "a1B2" * 10,
    "AKIA" + "A1B2" * 4,
    "xoxb-1234567890-abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc-_123",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "wandb_v1_" + "a1B2" * 8,
]
ORDINARY = [
    "facebook/m2m100_418M", "Helsinki-NLP/opus-mt-ko-en", "runs/sk-experiment-with-a-long-name-and-more-of-it", "sk-SK",
    "0123456789abcdef0123456789abcdef01234567", "machine.micro_batch_tokens=8192", "data.rules.unknown_token=keep",
    "task.max_source_tokens: 256", "batch_unit=target_tokens", "https://huggingface.co/a/b@main", "s3://bucket/key:x",
    "translate Korean to English: ", "token accuracy", "the secret garden", "hf_models/x", "user@host:/data",
]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_refused_wherever_it_stands_and_not_shown(token: str, good: Path) -> None:
    assert holds_secret(token)
    for override in (
        f"model.name={token}",
        f"task.source_prefix='a {token}'",
        f"machine.evaluation_job=['--comment={token}']",
    ):
        lines = faults(good, override)
        key = override.split("=")[0]
        assert any(line.startswith(f"override `{key}") or f"{key}" in line for line in lines)
        assert any("holds a token or password; found " in line and "such as HF_TOKEN" in line for line in lines)
        assert token not in "\n".join(lines)


def test_the_password_of_an_address_is_refused_and_not_shown(good: Path) -> None:
    lines = faults(good, "model.name=https://me:geheim@host/model")
    assert any('holds a token or password; found "https://***@host/model"' in line for line in lines), lines
    assert "geheim" not in "\n".join(lines)


@pytest.mark.parametrize(
    "override",
    ["HF_TOKEN=geheim1", "model.token=geheim1", "machine.api_key=geheim1", "password=geheim1", "wandb={api_key: geheim1}",
     "machine.deepspeed={comet: {api_key: geheim1}}", "machine.deepspeed={comet_api_key: geheim1}",
     "machine.deepspeed={zero_optimization: {secret: geheim1}}", "data.train.0.password=geheim1", "logging.wandb_api_key=geheim1",
     "AWS_SECRET_ACCESS_KEY=geheim1", "nothing={deep: [{password: geheim1}]}"],
)  # fmt: skip
def test_what_is_named_like_a_secret_is_refused_and_not_shown(override: str, good: Path) -> None:
    lines = faults(good, override)
    assert lines
    assert "geheim1" not in "\n".join(lines)


def test_the_way_out_is_an_environment_variable(good: Path) -> None:
    (line,) = faults(good, "model.token=x")
    assert (
        'model.token: is no place for a secret; found "***"; a recipe is copied to the run folder and the card: '
        in line
    )


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_values_are_left_alone(text: str) -> None:
    assert not holds_secret(text)
    assert mask(text) == text


def test_no_key_of_the_vocabulary_reads_like_a_secret() -> None:
    assert {".".join(map(str, path)) for path in all_keys() if names_secret(path[-1])} == set()


def test_what_is_set_as_a_key_or_password_is_masked_in_text() -> None:
    text = (
        '`{"comet": {"api_key": "abc", "project": "p"}}` api_key=abc, password: abc HF_TOKEN=abc experiment_key: `abc`'
    )
    assert mask(text) == (
        '`{"comet": {"api_key": "***", "project": "p"}}` api_key=***, password: *** HF_TOKEN=*** experiment_key: `***`'
    )
    assert mask_value({"a": [{"api_key": {"x": 1}}], "b": 2}) == {"a": [{"api_key": "***"}], "b": 2}


@pytest.mark.parametrize(
    "text", ["api_key: abc", '"password": "abc"', "WANDB_API_KEY=abc", "mlflow_tracking_token=abc"]
)
def test_what_gives_a_secret_a_value_is_told_from_what_masks_it(text: str) -> None:
    assert sets_secret(text)
    assert not sets_secret(mask(text))


@pytest.mark.parametrize(
    "text", ["use_auth_token: null", '"pad_token": "<pad>"', "api_key=none", "the password is long", *ORDINARY]
)
def test_what_gives_none_a_value_is_no_secret(text: str) -> None:
    assert not sets_secret(text)


def test_an_address_with_a_password_holds_no_token_of_a_known_form() -> None:
    address = "https://me:geheim@host/x"
    assert (holds_secret(address), holds_token(address)) == (True, False)
