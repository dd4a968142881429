"""Keys that earlier versions did not have."""

from dstrain.config.earlier import EARLIER, fill_earlier, lacks_keys
from dstrain.config.load import dump_config, load_config
from dstrain.config.yaml_source import read_document


def test_a_missing_key_is_written_out_and_a_given_one_is_kept() -> None:
    old = {"name": "x", "task": {"kind": "parsing"}}
    assert fill_earlier(old) == {"name": "x", "task": {"kind": "parsing", "segmentation": "published"}}
    assert old == {"name": "x", "task": {"kind": "parsing"}}
    new = {"task": {"segmentation": "words"}}
    assert fill_earlier(new) == new
    assert (lacks_keys(old), lacks_keys(new)) == (True, False)


def test_a_section_that_is_missing_or_no_section_stays_as_it_is() -> None:
    for recipe in ({}, {"task": None}, {"task": "parsing"}):
        assert fill_earlier(recipe) == recipe


def test_a_configuration_of_this_version_lacks_nothing() -> None:
    written = read_document(dump_config(load_config("demo_parsing")), file="config.yaml").value
    assert not lacks_keys(written)
    assert all(key in written[section] for section, keys in EARLIER.items() for key in keys)
