"""Licence identifiers of the Hub: those that it knows, and what is meant by others."""

import pytest

from dstrain.config.licenses import LICENSES, license_problem


@pytest.mark.parametrize("name", ["mit", "apache-2.0", "cc-by-nc-sa-4.0", "openrail++", "llama3.3", "other", "unknown"])
def test_a_licence_of_the_hub_is_taken(name: str) -> None:
    assert license_problem(name) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Apache 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("cc-by-4", "cc-by-4.0"),
        ("GPL-3", "gpl-3.0"),
        ("apache2", "apache-2.0"),
    ],
)
def test_what_is_nearly_one_is_suggested(name: str, meant: str) -> None:
    problem = license_problem(name)
    assert problem is not None
    assert problem.endswith(f"did you mean `{meant}`?")


def test_anything_else_leads_to_other() -> None:
    assert "take `other` with license_name" in str(license_problem("ours, all rights reserved"))


def test_the_identifiers_are_written_as_the_hub_reads_them() -> None:
    assert len(LICENSES) > 70
    assert all(name == name.lower().strip() for name in LICENSES)
