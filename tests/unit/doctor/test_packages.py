"""Requirements are followed with their markers and extras; what dstrain itself needs is a problem, the rest a note."""

import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from dstrain.doctor.finding import note, ok, problem
from dstrain.doctor.packages import Misfit, Package, examine_packages, find_misfits, judge_packages, read_packages

WHOLE = {
    "dstrain": Package("0.1.0", ("torch>=2.11", "deepspeed<0.20,>=0.19.8", 'peft<0.22,>=0.21; extra == "lora"')),
    "torch": Package("2.13.0+cpu", ("sympy>=1.13",)),
    "deepspeed": Package("0.19.8", ("torch", "hjson")),
    "sympy": Package("1.14", ()),
    "hjson": Package("3.1.0", ()),
}


def test_packages_that_fit_are_one_finding() -> None:
    assert list(judge_packages(WHOLE)) == [ok("packages", "dstrain 0.1.0 and all that it needs fit each other")]


def test_a_version_out_of_range_and_a_missing_package_of_our_own_are_problems() -> None:
    packages = {name: package for name, package in WHOLE.items() if name != "torch"} | {
        "deepspeed": Package("0.20.1", ())
    }
    ours = "deepspeed<0.20,>=0.19.8"
    assert list(judge_packages(packages)) == [
        problem("packages", "dstrain needs torch>=2.11; it is not installed", way_out="pip install 'torch>=2.11'"),
        problem("packages", f"dstrain needs {ours}; found 0.20.1", way_out=f"pip install '{ours}'"),
    ]


def test_what_others_need_is_noted() -> None:
    assert list(judge_packages(WHOLE | {"sympy": Package("1.12", ())})) == [
        note("packages", "torch needs sympy>=1.13; found 1.12", way_out="pip install 'sympy>=1.13'")
    ]


def test_markers_and_extras_decide_what_is_needed() -> None:
    packages = {
        "dstrain": Package("0.1", ("a[fast]", 'b; python_version < "3"', "c")),
        "a": Package("1", ('d>=2; extra == "fast"', 'e; extra == "slow"')),
        "c": Package("1", ("a",)),
        "d": Package("1", ()),
    }
    assert find_misfits(packages) == [Misfit("a", "d>=2", "1")]


def test_names_have_a_normal_form_circles_end_and_what_cannot_be_compared_is_left_out() -> None:
    packages = {
        "dstrain": Package("0.1", ("Some_Package>=1",)),
        "some-package": Package("1.5.dev1", ("dstrain", "not a requirement!", "old>=1")),
        "old": Package("2004d", ()),
    }
    assert find_misfits(packages) == []


def test_a_dstrain_that_is_not_installed_is_a_problem() -> None:
    (finding,) = judge_packages({})
    assert finding.level == "problem"
    assert "not installed" in finding.text


def test_of_two_versions_the_one_that_is_imported_counts(tmp_path: Path) -> None:
    for folder, version in (("first", "1.0"), ("second", "2.0")):
        info = tmp_path / folder / f"Some_Thing-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: Some_Thing\nVersion: {version}\nRequires-Dist: other>=1\n"
        )
    (tmp_path / "first" / "broken-1.dist-info").mkdir()
    paths = [str(tmp_path / folder) for folder in ("first", "second")]
    assert read_packages(Distribution.discover(path=paths)) == {"some-thing": Package("1.0", ("other>=1",))}


def test_this_environment_can_be_examined() -> None:
    findings = list(examine_packages())
    assert findings
    assert all(finding.topic == "packages" for finding in findings)


def test_without_the_library_that_compares_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "packaging"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "packaging", None)
    (finding,) = examine_packages()
    assert (finding.level, finding.way_out) == ("problem", "pip install packaging")
