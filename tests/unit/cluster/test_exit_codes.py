"""Exit codes: the table in the module's docstring is complete, and each code has one name."""

import re

from dstrain.cluster import exit_codes


def test_the_table_names_every_code_once_with_its_number() -> None:
    rows = re.findall(r"^\| (\d+) \| (EXIT_\w+) \|", exit_codes.__doc__ or "", re.MULTILINE)
    constants = {name: value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
    assert {name: int(code) for code, name in rows} == constants
    assert len(set(constants.values())) == len(constants)
