"""Of sbatch's options a recipe gives size, place and account, and nothing else reaches sbatch."""

import re

import pytest

from dstrain.config.sbatch_options import FLAGS, WITH_VALUE, sbatch_conflicts


def problem(option: str) -> str | None:
    found = [(keys, message) for keys, message in sbatch_conflicts(["--time=60", option], key="evaluation_job")]
    if not found:
        return None
    ((keys, message),) = found
    assert keys == ("evaluation_job.1",)
    assert message.endswith(f"; found {option!r}")
    return message


@pytest.mark.parametrize(
    "option",
    ["--gpus-per-node=1", "--time=1-00:00:00", "--mem=8G", "--gres=gpu:a100:2,shard:1", "--partition=small one",
     "--account=lab", "--qos=high", "--constraint=[a|b]&c", "--exclude=gpu[01-03]", "--exclusive", "--exclusive=user",
     "--no-requeue", "--comment=nightly; of ours", "--licenses=tool@server:2"],
)  # fmt: skip
def test_size_place_and_account_are_passed_on(option: str) -> None:
    assert problem(option) is None


@pytest.mark.parametrize(
    "option",
    ["--wrap=id", "--output=/home/me/.bashrc", "--error=x", "--open-mode=truncate", "--chdir=/tmp/evil", "--job-name=x",
     "--export=ALL,BASH_ENV=/tmp/evil.sh", "--export-file=x", "--get-user-env=x", "--dependency=afterany:1", "--array=1-1000",
     "--uid=0", "--bbf=x", "--container=x", "--input=x", "--test-only", "--parsable", "--clusters=all", "--part=x", "--wr=id",
     "--propagate=ALL", "--signal=B:9", "--kill-on-invalid-dep=no", "--acctg-freq=1", "--profile=All", "--mail-user=a@b.org"],
)  # fmt: skip
def test_every_other_option_is_refused_with_the_list(option: str) -> None:
    message = problem(option) or ""
    assert message.startswith(
        f"`{option.partition('=')[0]}` is not passed on, because a recipe decides only size, place and"
    )
    assert set(re.findall(r"[a-z-]+", message)) >= WITH_VALUE | FLAGS


@pytest.mark.parametrize(
    "option",
    ["", "recipes/evil.sh", "-a 1-1000", "-p", "-pgpu", "--", "--time 60", "--time=60\n--wrap=id", "--time=60\x1b[31m",
     "--mem=8G\u2028", " --time=60", "--=x", "--Time=60", "--time=", "---time=60", "--comment=\x00"],
)  # fmt: skip
def test_what_is_no_long_option_in_one_item_is_refused(option: str) -> None:
    assert (problem(option) or "").startswith("must be one of sbatch's long options in one item, such as `--time=60`")


def test_values_are_where_the_option_needs_them() -> None:
    assert "needs a value in the same item: `--time=…`" in (problem("--time") or "")
    assert "takes no value: write `--requeue`" in (problem("--requeue=yes") or "")
    assert "with a slash sbatch would read a file" in (problem("--nodelist=/etc/passwd") or "")
