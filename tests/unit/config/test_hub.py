"""A `hub` names a dataset on the Hub and nothing else."""

import pytest

from dstrain.config.hub import BUILDERS, hub_problem


@pytest.mark.parametrize("name", ["Helsinki-NLP/opus-100", "mtop", "squad_v2", "a.b/c-d_e.f", "nobody/text", "json2"])
def test_names_of_the_hub_are_taken(name: str) -> None:
    assert hub_problem(name) is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "./a", "../a/b", "/etc", "a/../b", "a/b/c", "a/", "~/a", "hf://datasets/a/b", "https://x.org/y", "a b",
     "a\n", "script.py", "owner/script.py", "s3://a/b", "a\x1b[31m", "a\\b", "@a/b"],
)  # fmt: skip
def test_paths_and_addresses_are_not(name: str) -> None:
    problem = hub_problem(name)
    assert problem is not None
    assert problem.startswith("must be a dataset on the Hub, `owner/name`; found ")


@pytest.mark.parametrize("name", ["text", "csv", "json", "CSV", "imagefolder"])
def test_the_library_s_readers_of_local_files_are_not(name: str) -> None:
    assert "would read local files of that format" in (hub_problem(name) or "")


def test_the_readers_are_those_of_the_installed_library() -> None:
    modules = pytest.importorskip("datasets.packaged_modules")
    assert set(modules._PACKAGED_DATASETS_MODULES) <= BUILDERS
