"""Code of the user's own: where it is looked for, and what is said of it."""

from importlib import metadata
from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.tasks.own_code import code_file, code_signature, file_hash, load_code
from tests.unit.tasks.own_module import write_module


def test_code_of_the_current_folder_is_found_and_its_file_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_module(tmp_path, "def double(number):\n    return 2 * number\n", monkeypatch=monkeypatch)
    assert load_code(f"{name}:double", key="task.kind")(4) == 8
    assert code_file(f"{name}:double") == tmp_path / f"{name}.py"
    assert code_signature(f"{name}:double") == f"{name}:double|sha256:{file_hash(f'{name}:double')[:16]}"


def test_code_of_a_distribution_has_its_version_as_signature() -> None:
    load_code("regex:match", key="x")
    assert code_signature("regex:match") == f"regex:match|regex:{metadata.version('regex')}"


@pytest.mark.parametrize(
    ("module", "item", "why"),
    [
        ("x = 1", "{name}:missing", "has no function or class `missing`: correct the name"),
        ("x = 1", "{name}:x", "has no function or class `x`"),
        ("import no_such_module_anywhere", "{name}:x", "cannot be imported .ModuleNotFoundError: .*no_such_module"),
        ("x = 1", "{name}_not:x", "start from the folder that holds it; this is "),
        ("raise SystemExit('on import')", "{name}:x", "SystemExit: on import"),
    ],
)
def test_what_is_not_there_is_refused_with_the_key_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, item: str, why: str
) -> None:
    item = item.format(name=write_module(tmp_path, module, monkeypatch=monkeypatch))
    with pytest.raises(UserError, match=rf"task\.kind `{item}`: .*{why}"):
        load_code(item, key="task.kind")
