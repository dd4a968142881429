"""Whether the installed packages fit each other, by the requirements in their metadata. Imports none of them but `packaging`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING

from dstrain.doctor.finding import Finding, note, ok, problem

if TYPE_CHECKING:  # it may be missing
    from packaging.requirements import Requirement

OURS = "dstrain"


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package."""

    version: str
    requires: tuple[str, ...]
    """Its requirements, such as `torch>=2.11; python_version > "3.10"`."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A requirement that is not met."""

    package: str
    """The one that requires."""
    requirement: str
    found: str | None
    """The version that is installed; None if none is."""


def read_packages(installed: Iterator[Distribution] | None = None) -> dict[str, Package]:
    """The packages of this interpreter by their normalised names; of two with one name the one that is imported."""
    from packaging.utils import canonicalize_name

    found: dict[str, Package] = {}
    for each in distributions() if installed is None else installed:
        name = each.metadata["Name"]
        if name:  # a half-removed package has none
            found.setdefault(canonicalize_name(name), Package(each.version, tuple(each.requires or ())))
    return found


def find_misfits(packages: Mapping[str, Package], *, root: str = OURS) -> list[Misfit]:
    """The requirements that are not met, of `root` and of what it needs."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    misfits: dict[Misfit, None] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset())]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop(0)
        for text in packages[name].requires:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            needed = canonicalize_name(requirement.name)
            package = packages.get(needed)
            if package is None or not _fits(package, requirement=requirement):
                plain = f"{requirement.name}{requirement.specifier}"
                misfits[Misfit(name, plain, package.version if package else None)] = None
            following = (needed, frozenset(requirement.extras))
            if package is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return list(misfits)


def _fits(package: Package, *, requirement: "Requirement") -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return requirement.specifier.contains(Version(package.version), prereleases=True)
    except InvalidVersion:  # a version of a form that is no longer allowed cannot be compared
        return True


def examine_packages() -> Iterator[Finding]:
    """What is missing or does not fit."""
    try:
        packages = read_packages()
    except ImportError:
        yield problem(
            "packages", "packaging is not installed, so that nothing can be compared", way_out="pip install packaging"
        )
        return
    yield from judge_packages(packages)


def judge_packages(packages: Mapping[str, Package]) -> Iterator[Finding]:
    """What is missing or does not fit: a problem where dstrain itself needs it, else a note."""
    if OURS not in packages:
        text = "dstrain is imported from a folder and not installed, so that it has no version"
        way_out = "install it in this environment, with pip install --no-deps --no-build-isolation -e . in a clone"
        yield problem("packages", text, way_out=way_out)
        return
    misfits = find_misfits(packages)
    for misfit in misfits:
        found = f"found {misfit.found}" if misfit.found else "it is not installed"
        text = f"{misfit.package} needs {misfit.requirement}; {found}"
        way_out = f"pip install '{misfit.requirement}'"
        if misfit.package == OURS:
            yield problem("packages", text, way_out=way_out)
        else:
            yield note("packages", text, way_out=way_out)
    if not misfits:
        yield ok("packages", f"dstrain {packages[OURS].version} and all that it needs fit each other")
