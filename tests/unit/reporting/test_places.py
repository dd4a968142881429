"""Short names of files: the end of each path, as long as it must be."""

from dstrain.reporting.places import name_places, shorten_places, shorten_row
from tests.unit.run_folder.audit_cases import build_audit


def test_a_file_has_its_last_part_and_folders_only_where_two_would_be_the_same() -> None:
    places = ["/data/ko/train.tsv", "/data/ja/train.tsv", "/data/ko/dev.tsv", "demo:copy"]
    assert list(shorten_places(places).values()) == ["ko/train.tsv", "ja/train.tsv", "dev.tsv", "demo:copy"]
    assert shorten_places(["/a/x/t.tsv", "/b/x/t.tsv"]) == {"/a/x/t.tsv": "a/x/t.tsv", "/b/x/t.tsv": "b/x/t.tsv"}
    assert shorten_places(["/x/t.tsv", "t.tsv"]) == {"/x/t.tsv": "x/t.tsv", "t.tsv": "t.tsv"}
    assert shorten_places([]) == {}


def test_rows_have_the_names_of_their_files() -> None:
    assert name_places(build_audit()) == {"train.tsv": "train.tsv", "eval.tsv": "eval.tsv"}
    assert shorten_row("/data/a.tsv:3", {"/data/a.tsv": "a.tsv"}) == "a.tsv:3"
    assert shorten_row("other", {}) == "other"
