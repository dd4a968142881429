"""Exit codes: the table in the module's docstring is complete, and each code has one name."""

import re

from dstrain.cluster import exit_codes
from dstrain.cluster.exit_codes import EXIT_INTERRUPTED, EXIT_PREEMPTED, EXIT_USAGE


def test_the_table_names_every_code_once_with_its_number() -> None:
    rows = re.findall(r"^\| (\d+) \| (EXIT_\w+) \|", exit_codes.__doc__ or "", re.MULTILINE)
    constants = {name: value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
    assert {name: int(code) for code, name in rows} == constants
    assert len(set(constants.values())) == len(constants)


def test_the_codes_are_those_that_the_batch_scripts_and_the_documentation_name() -> None:
    assert (EXIT_USAGE, EXIT_PREEMPTED, EXIT_INTERRUPTED) == (2, 85, 130)


def test_no_code_can_be_taken_for_success_or_for_a_failure_of_the_program() -> None:
    assert not {EXIT_USAGE, EXIT_PREEMPTED, EXIT_INTERRUPTED} & {0, 1}
