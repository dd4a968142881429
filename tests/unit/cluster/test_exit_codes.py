"""The exit codes that scripts and schedulers rely on."""

from dstrain.cluster.exit_codes import EXIT_INTERRUPTED, EXIT_PREEMPTED, EXIT_USAGE


def test_the_codes_are_those_that_the_batch_scripts_and_the_documentation_name() -> None:
    assert (EXIT_USAGE, EXIT_PREEMPTED, EXIT_INTERRUPTED) == (2, 85, 130)


def test_no_code_can_be_taken_for_success_or_for_a_failure_of_the_program() -> None:
    assert not {EXIT_USAGE, EXIT_PREEMPTED, EXIT_INTERRUPTED} & {0, 1}
