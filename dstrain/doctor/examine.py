"""The whole examination: everything that a run needs of this machine, in the order in which a start needs it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dstrain.doctor.compilers import ask_tools, judge_tools
from dstrain.doctor.environment import judge_environment
from dstrain.doctor.finding import Finding, ok, problem
from dstrain.doctor.folders import judge_folder, look_at_folder, standard_places
from dstrain.doctor.gpus import ask_gpus, judge_use
from dstrain.doctor.host import judge_host, look_at_host
from dstrain.doctor.libraries import Wish, ask_libraries, judge_libraries
from dstrain.doctor.network import judge_network, look_at_network
from dstrain.doctor.packages import examine_packages
from dstrain.doctor.programs import Run, run
from dstrain.doctor.scheduler import examine_slurm
from dstrain.doctor.versions import list_versions, torch_build


@dataclass(frozen=True, slots=True)
class Plan:
    """What is meant to run here."""

    output: Path
    """The run folder, or the folder of run folders."""
    cache: Path
    wish: Wish = field(default_factory=Wish)


def examine(plan: Plan, *, run: Run = run) -> Iterator[Finding]:
    """All findings."""
    yield from (ok("versions", line) for line in list_versions())
    yield from examine_packages()
    answers, done = ask_libraries(run)
    yield from judge_libraries(answers, done=done, wish=plan.wish)
    gpus, smi = ask_gpus(run)
    yield from judge_use(gpus, done=smi)
    yield from judge_tools(ask_tools(run), build=torch_build())
    yield from judge_host(look_at_host())
    for place in standard_places(os.environ, output=plan.output, cache=plan.cache):
        try:
            folder = look_at_folder(place.path)
        except OSError as error:
            way_out = f"choose another folder with {place.setting}"
            yield problem(place.topic, f"{place.path}: {error.strerror}", way_out=way_out)
        else:
            yield from judge_folder(place, folder)
    yield from judge_network(look_at_network())
    yield from judge_environment(os.environ)
    yield from examine_slurm(run, environment=os.environ)
