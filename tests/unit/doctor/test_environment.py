"""Variables: those that change training are named with their effect, secrets are not shown, contradictions are problems."""

import pytest

from dstrain.doctor.environment import EFFECTS, MAX_VALUE, judge_environment
from dstrain.doctor.finding import ok

PLAIN = {"PATH": "/usr/bin", "HOME": "/home/me", "CUDA_HOME": "/usr/local/cuda", "HF_TOKEN": "hf_secret", "LANG": "C"}


def texts(**environment: str) -> list[str]:
    findings = list(judge_environment(PLAIN | environment))
    assert all(finding.level == "note" for finding in findings)
    return [finding.text for finding in findings]


def test_variables_that_change_nothing_are_not_listed() -> None:
    assert list(judge_environment(PLAIN)) == [ok("environment", "no variable changes how a run trains")]


@pytest.mark.parametrize("name", sorted(EFFECTS))
def test_a_known_variable_is_listed_with_its_effect(name: str) -> None:
    assert texts(**{name: "1"}) == [f"{name}=1: {EFFECTS[name]}"]


@pytest.mark.parametrize(
    "name", ["NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TORCH_NCCL_BLOCKING_WAIT", "CUBLAS_WORKSPACE_CONFIG"]
)
def test_others_of_such_names_are_listed_with_their_value(name: str) -> None:
    assert texts(**{name: "eth0"}) == [f"{name}=eth0"]


def test_variables_that_keep_from_downloading_are_one_note() -> None:
    assert texts(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="true", HF_DATASETS_OFFLINE="0") == [
        "HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE: models, tokenizers and data come from the cache alone"
    ]


def test_secrets_are_masked_and_long_values_cut() -> None:
    (text,) = texts(HF_ENDPOINT="https://me:password@hub.example")
    assert "password" not in text
    (text,) = texts(LD_LIBRARY_PATH="/lib" * 100)
    assert len(text.partition(": ")[0]) == len("LD_LIBRARY_PATH=") + MAX_VALUE + 1


def test_a_rank_that_is_left_over_from_a_launcher_is_noted() -> None:
    (text,) = texts(RANK="1", WORLD_SIZE="2", LOCAL_RANK="1", MASTER_ADDR="a", MASTER_PORT="29500")
    assert text == "this shell is rank 1 of 2 (RANK and WORLD_SIZE are set)"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "0"}, "RANK is set but not WORLD_SIZE"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "rank 2 of 2"),
        ({"PET_NNODES": "2"}, "PET_NNODES=2"),
    ],
)
def test_variables_of_a_launcher_that_a_start_would_refuse_are_a_problem(
    environment: dict[str, str], said: str
) -> None:
    (finding,) = judge_environment(PLAIN | environment)
    assert finding.level == "problem"
    assert said in finding.text
    assert finding.way_out
