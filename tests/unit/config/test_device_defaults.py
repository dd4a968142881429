"""The tables hold a value for both types of devices."""

from dstrain.config.device_defaults import BATCH_TOKENS, OVERHEADS


def test_both_devices_have_a_value() -> None:
    for table in (BATCH_TOKENS, OVERHEADS):
        assert table.keys() == {"cpu", "cuda"}
        assert table["cpu"] < table["cuda"]
