"""The house rules, as data: who may import whom, what stays free of torch, and how large things may grow."""

import ast
import graphlib
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dstrain"

ROOMS: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "config": frozenset({"errors"}),
    "cluster": frozenset({"errors"}),
    "run_folder": frozenset({"config", "cluster"}),
    "tasks": frozenset({"config"}),
    "data": frozenset({"config", "run_folder", "tasks"}),
    "models": frozenset({"config", "run_folder"}),
    "draft": frozenset({"config", "run_folder", "tasks", "data"}),
    "attempt": frozenset({"config", "cluster", "run_folder"}),
    "reporting": frozenset({"config", "run_folder", "tasks"}),
    "tracking": frozenset({"config", "cluster", "run_folder"}),
    "engine": frozenset({"config", "cluster", "data", "models"}),
    "evaluation": frozenset({"config", "cluster", "run_folder", "data", "models", "tasks"}),
    "checkpoint": frozenset({"config", "cluster", "run_folder", "engine"}),
    "training": frozenset({"config", "cluster", "run_folder", "data", "engine", "evaluation", "checkpoint"}),
    "forecast": frozenset({"config", "cluster", "run_folder", "data", "models", "engine", "checkpoint"}),
    "drill": frozenset({"config", "cluster", "run_folder", "attempt", "reporting", "checkpoint", "forecast"}),
    "slurm": frozenset({"config", "cluster", "run_folder", "attempt", "checkpoint"}),
    "html_report": frozenset({"config", "cluster", "run_folder", "tasks", "reporting", "checkpoint"}),
    "status": frozenset({"config", "cluster", "run_folder", "attempt", "reporting", "checkpoint", "slurm"}),
    "sweep": frozenset({"config", "cluster", "run_folder", "reporting", "status"}),
    "doctor": frozenset({"config", "cluster"}),
    "sharing": frozenset({"config", "cluster", "run_folder", "reporting"}),
    "serving": frozenset({"config", "cluster", "run_folder", "data", "models", "evaluation"}),
    "run": frozenset(
        "config cluster run_folder tasks data models attempt reporting engine evaluation checkpoint training serving "
        "forecast html_report tracking".split()
    ),
    "evaluate": frozenset({"config", "cluster", "run_folder", "checkpoint", "run"}),
    "predict": frozenset({"config", "cluster", "run"}),
    "train": frozenset({"config", "cluster", "run_folder", "attempt", "tracking", "run"}),
    "cli": frozenset(
        "config cluster run_folder draft reporting sharing sweep checkpoint drill slurm status run evaluate predict train "
        "forecast doctor tracking".split()
    ),
    "__main__": frozenset({"cli"}),
}
"""Room or program to the rooms it may import, besides itself and `errors`."""

TORCH_FREE = (
    "dstrain.__main__",
    "dstrain.errors",
    "dstrain.config",
    "dstrain.cluster",
    "dstrain.run.base_check",
    "dstrain.run.cache",
    "dstrain.run.differences",
    "dstrain.run.evaluation_request",
    "dstrain.run.launch",
    "dstrain.run.position_check",
    "dstrain.run.predict_request",
    "dstrain.run.recipe_check",
    "dstrain.run.task_settings",
    "dstrain.run.report",
    "dstrain.run_folder",
    "dstrain.attempt",
    "dstrain.tasks",
    "dstrain.reporting",
    "dstrain.checkpoint.changes",
    "dstrain.checkpoint.manifest",
    "dstrain.checkpoint.pending",
    "dstrain.checkpoint.store",
    "dstrain.checkpoint.verify",
    "dstrain.data.arrays",
    "dstrain.data.buckets",
    "dstrain.data.cuts",
    "dstrain.data.epoch_rows",
    "dstrain.data.epoch_steps",
    "dstrain.data.permutation",
    "dstrain.data.plan",
    "dstrain.data.tokens",
    "dstrain.engine.ds_config",
    "dstrain.evaluation.language",
    "dstrain.evaluation.significance",
    "dstrain.engine.schedule",
    "dstrain.models.layer_names",
    "dstrain.cli",
    "dstrain.doctor",
    "dstrain.draft",
    "dstrain.drill",
    "dstrain.forecast",
    "dstrain.html_report",
    "dstrain.evaluate",
    "dstrain.predict",
    "dstrain.sharing",
    "dstrain.slurm",
    "dstrain.status",
    "dstrain.sweep",
    "dstrain.tracking",
    "dstrain.train",
)
"""Packages and modules that a login node imports, or that decide without acting; nothing behind them imports torch."""

NEEDS_TORCH = frozenset(
    {
        *(f"dstrain.cluster.{module}" for module in ("devices", "device_errors", "meeting", "process_group")),
        "dstrain.attempt.attempt",
    }
)
"""The exceptions inside TORCH_FREE."""

HEAVY = ("torch", "deepspeed", "transformers")

ONLY_IN: dict[str, frozenset[str]] = {
    "deepspeed": frozenset({"engine"}),
    "peft": frozenset({"models"}),
    "ctranslate2": frozenset({"serving"}),
    "datasets": frozenset({"data"}),
    "sacrebleu": frozenset({"evaluation"}),
    "matplotlib": frozenset({"reporting"}),
    "tensorboard": frozenset({"tracking"}),
    "wandb": frozenset({"tracking"}),
    "mlflow": frozenset({"tracking"}),
    "typer": frozenset({"cli"}),
}
"""Library to the only rooms that import it."""

PROGRAMS = frozenset({"cli", "train", "evaluate", "predict", "__main__"})
"""What stands directly under dstrain/ is a program that somebody starts; the rest lies in rooms."""

MAX_FLOORS = 9
"""The longest way of imports from a program down to a room that imports none."""

WRITERS: dict[str, str] = {
    "dstrain.run_folder.atomic": "the writer",
    "dstrain.run_folder.claims": "a claim is created by a hard link, which fails where the name exists",
    "dstrain.run_folder.sealed": "into a folder that is renamed when it is complete",
    "dstrain.run_folder.scores": "into a folder that is renamed when it is complete",
    "dstrain.attempt.hangs": "whichever rank is first creates the file, and nobody replaces it",
    "dstrain.attempt.rank_records": "rewritten in place, in microseconds, through an open descriptor",
    "dstrain.attempt.watchdog": "faulthandler writes stacks into an open descriptor while Python cannot run",
    "dstrain.checkpoint.parts": "tensors in blocks, hashed as they are written; the manifest makes them count",
    "dstrain.checkpoint.store": "renames the directories of checkpoints",
    "dstrain.cluster.rendezvous": "a port for the seconds until the ranks have met; cluster lies below run_folder",
    "dstrain.data.bad_rows": "part of a token set",
    "dstrain.data.merge": "into a folder of the cache that is renamed when it is complete",
    "dstrain.data.shards": "into a folder of the cache that is renamed when it is complete",
    "dstrain.data.tokens": "into a folder of the cache that is renamed when it is complete",
    "dstrain.models.save": "into a folder that is renamed when it is complete",
    "dstrain.run.task_settings": "into a folder that is renamed when it is complete",
    "dstrain.run.base_model": "into a folder that is renamed when it is complete",
    "dstrain.run.convert": "into a folder that is renamed when it is complete",
    "dstrain.models.scratch": "into a folder of the cache that is renamed when it is complete",
    "dstrain.doctor.folders": "a trial in a temporary folder, which is removed",
    "dstrain.drill.drill": "the drill's own folder",
    "dstrain.drill.launch": "the drill's own log",
    "dstrain.run.autotune": "a temporary folder",
    "dstrain.run.encode_together": "a temporary folder",
    "dstrain.run.autotune_probe": "resets the peak memory in /proc",
}
"""The modules that write files other than by run_folder/atomic.py, and why."""

SPEAKERS: dict[str, str] = {
    "dstrain.cluster.console": "the way out to the terminal, which cleans names of strangers",
    "dstrain.engine.probe": "answers its parent process, in JSON",
    "dstrain.run.autotune_probe": "answers its parent process, in JSON",
    "dstrain.run.encode_shards": "answers its parent process, in JSON",
    "dstrain.config.reference": "prints our own reference of the recipe",
}
"""The modules that print by themselves, and why."""

UNTESTED: dict[str, str] = {}
"""Modules without a test file of their own name, and where they are tested."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
UNSAFE_MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"})


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(PACKAGE.rglob("*.py"))
LAUNCHERS = sorted((ROOT / "launch").glob("*.py"))
MODULES = {module_name(path): path for path in FILES}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}

every_module = pytest.mark.parametrize("module", sorted(MODULES))


def imported_modules(module: str) -> Iterator[str]:
    """Full names of everything `module` imports, lazily or not; names of dstrain resolve to modules."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            base = node.module or ""
            submodules = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from submodules or {base}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def own_imports(module: str) -> set[str]:
    return {name for name in imported_modules(module) if name.split(".")[0] == "dstrain"}


def where(module: str, node: ast.AST) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def test_every_room_has_its_line_in_the_table() -> None:
    found = {room_of(module) for module in MODULES} - {""}
    assert found == ROOMS.keys()


def test_the_table_itself_has_no_cycle() -> None:
    graphlib.TopologicalSorter(ROOMS).prepare()


def test_directly_under_the_package_are_programs_and_the_errors_that_all_rooms_share() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules | {"cli"} == PROGRAMS | {"errors"}
    assert packages == ROOMS.keys() - modules


def test_the_house_has_few_floors() -> None:
    def floor(room: str) -> int:
        return 1 + max((floor(other) for other in ROOMS[room] - {"errors"}), default=0)

    assert max(map(floor, ROOMS.keys() - {"__main__"})) <= MAX_FLOORS


@every_module
def test_imports_follow_the_table(module: str) -> None:
    room = room_of(module)
    allowed = {room, "", "errors"} | ROOMS.get(room, frozenset())
    assert {name for name in own_imports(module) if room_of(name) not in allowed} == set()


@every_module
def test_own_imports_exist(module: str) -> None:
    assert own_imports(module) <= MODULES.keys()


def test_modules_do_not_import_in_circles() -> None:
    graphlib.TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()


@every_module
def test_libraries_stay_in_their_rooms(module: str) -> None:
    libraries = {name.split(".")[0] for name in imported_modules(module)}
    assert {name for name in libraries & ONLY_IN.keys() if room_of(module) not in ONLY_IN[name]} == set()


def test_the_torch_free_modules_import_nothing_heavy() -> None:
    wanted = [
        module
        for module in sorted(MODULES)
        if module not in NEEDS_TORCH and any(module == name or module.startswith(f"{name}.") for name in TORCH_FREE)
    ]
    assert libraries_brought(wanted, among=HEAVY) == {}


def test_a_start_waits_for_no_library_of_plots() -> None:
    assert libraries_brought(["dstrain.run.training", "dstrain.run.scoring"], among=("matplotlib",)) == {}


def test_the_engine_and_the_search_need_no_library_of_data_files_or_plots() -> None:
    wanted = ["dstrain.engine.build", "dstrain.evaluation.beam", "dstrain.data.loader", "dstrain.checkpoint.saver"]
    assert libraries_brought(wanted, among=("pyarrow", "datasets", "matplotlib")) == {}


def libraries_brought(modules: Sequence[str], *, among: Sequence[str]) -> dict[str, list[str]]:
    """Which of some libraries each module imports first, in a process that imports one module after the other."""
    code = """
import importlib, json, sys
among, brought = json.loads(sys.argv[1]), {}
for module in sys.argv[2:]:
    before = {name for name in among if name in sys.modules}
    importlib.import_module(module)
    new = [name for name in among if name in sys.modules and name not in before]
    if new:
        brought[module] = new
print(json.dumps(brought))
"""
    command = [sys.executable, "-c", code, json.dumps(among), *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_folder_names() -> frozenset[str]:
    """File and folder names that `RunFolder` owns, as far as they are not made of a step or a name."""
    layout = TREES["dstrain.run_folder.layout"]
    divisions = (node for node in ast.walk(layout) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
    named = (node.right.value for node in divisions if isinstance(node.right, ast.Constant))
    constants = {"best", "final", "training_step.json", "task_settings.json"}
    return frozenset(name for name in named if isinstance(name, str)) | constants


def literal_names(module: str) -> Iterator[tuple[ast.AST, str]]:
    """Names in a module's code: `path / "name"`, and any text that is a file name with its suffix."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            yield node, str(node.right.value).split("/")[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            yield node, node.value


@every_module
def test_names_of_a_run_folder_come_from_its_layout(module: str) -> None:
    if module != "dstrain.run_folder.layout":
        found = [(where(module, node), name) for node, name in literal_names(module) if name in run_folder_names()]
        assert found == []


def test_the_layout_owns_names_that_the_search_would_find() -> None:
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "lease", "best"} <= run_folder_names()


def writes(module: str) -> Iterator[str]:
    """Calls that create, replace or rename a file."""
    for call in ast.walk(TREES[module]):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        name, first = call.func.attr, call.args[0] if call.args else None
        mode = first.value if isinstance(first, ast.Constant) else ""
        if (
            name in ("write_text", "write_bytes", "rename", "link", "copyfile", "copytree", "move", "ftruncate")
            or (name == "open" and isinstance(mode, str) and set(mode) & set("wax+"))
            or (name == "replace" and len(call.args) == 1 and not call.keywords)
        ):
            yield f"{where(module, call)}: {ast.unparse(call.func)}"


@every_module
def test_files_are_written_by_the_writer_of_run_folder(module: str) -> None:
    assert module in WRITERS or list(writes(module)) == []


def test_every_exception_among_the_writers_writes() -> None:
    assert [module for module in WRITERS if not list(writes(module))] == []


def prints(module: str) -> Iterator[str]:
    """Calls that write to standard output or standard error."""
    for call in ast.walk(TREES[module]):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in (
            "print",
            "typer.echo",
            "sys.stdout.write",
            "sys.stderr.write",
        ):
            yield f"{where(module, call)}: {ast.unparse(call.func)}"


@every_module
def test_what_is_printed_passes_the_console(module: str) -> None:
    assert module in SPEAKERS or list(prints(module)) == []


def test_every_exception_among_the_speakers_prints() -> None:
    assert [module for module in SPEAKERS if not list(prints(module))] == []


@every_module
def test_every_module_has_a_test_of_its_own_name(module: str) -> None:
    path = MODULES[module].relative_to(PACKAGE)
    if path.name in ("__init__.py", "__main__.py"):
        return
    test = ROOT / "tests" / "unit" / path.parent / f"test_{path.name}"
    assert test.exists() != (module in UNTESTED), f"{test.relative_to(ROOT)} or a reason in UNTESTED"


@every_module
def test_a_module_opens_with_what_it_owns(module: str) -> None:
    path = MODULES[module]
    if path.name == "__init__.py" and path.parent != PACKAGE:
        assert path.read_text() == "", "a room's __init__.py exports nothing"
    else:
        assert ast.get_docstring(TREES[module])


def test_the_package_itself_holds_its_docstring_and_version_only() -> None:
    docstring, version = TREES["dstrain"].body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(version, ast.Assign)
    assert ast.unparse(version.targets[0]) == "__version__"


@every_module
def test_files_and_functions_stay_small(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    too_long = [
        f"{where(module, node)}: {node.name}"
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert too_long == []


@every_module
def test_nothing_is_imported_by_star(module: str) -> None:
    stars = [
        where(module, node)
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]
    assert stars == []


@pytest.mark.parametrize("path", [*FILES, *LAUNCHERS], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_work_is_left_as_a_note(path: Path) -> None:
    with path.open("rb") as file:
        comments = [token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    assert [comment for comment in comments if re.search(r"\b(?:TODO|FIXME|XXX|HACK)\b", comment)] == []


def keywords_of(call: ast.Call) -> dict[str | None, object]:
    return {key.arg: key.value.value for key in call.keywords if isinstance(key.value, ast.Constant)}


def unsafe_calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Calls that run what they read: a shell, remote code, YAML objects, pickles."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name, given = ast.unparse(call.func), keywords_of(call)
        if given.get("shell") is True or name in ("os.system", "os.popen"):
            yield call, "runs a shell"
        elif given.get("trust_remote_code") is True:
            yield call, "runs code of strangers"
        elif name in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
            yield call, "makes objects from YAML"
        elif name == "torch.load" and given.get("weights_only") is not True:
            yield call, "reads a pickle"
        elif re.search(r"(gather|broadcast|scatter|send|recv)_object(_list)?$", name):  # of torch.distributed
            yield call, "reads a pickle of a peer"
        elif name in ("eval", "exec"):
            yield call, "runs text"


@every_module
def test_nothing_runs_what_it_reads(module: str) -> None:
    assert UNSAFE_MODULES & set(imported_modules(module)) == set()
    assert [f"{where(module, call)} {reason}" for call, reason in unsafe_calls(TREES[module])] == []


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run('x', shell=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "yaml.load(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "os.system('x')",
        "dist.gather_object(x, y)",
        "broadcast_object_list(x)",
    ],
)
def test_the_search_for_unsafe_calls_finds_them(line: str) -> None:
    assert len(list(unsafe_calls(ast.parse(line)))) == 1


@pytest.mark.parametrize("line", ["subprocess.run(['x'])", "yaml.safe_load(x)", "torch.load(x, weights_only=True)"])
def test_the_search_for_unsafe_calls_leaves_others_alone(line: str) -> None:
    assert list(unsafe_calls(ast.parse(line))) == []
