"""Paths of a machine: found in a text, and shortened to what says nothing of the machine."""

import pytest

from dstrain.config.local_paths import find_local_paths, shorten_paths


@pytest.mark.parametrize(
    ("text", "path", "shortened"),
    [
        ("read /home/ann/data/train.tsv:12", "/home/ann/data/train.tsv", "read …/data/train.tsv:12"),
        ("`/Users/ann/x.tsv`", "/Users/ann/x.tsv", "`…/x.tsv`"),
        ("(/home/ann)", "/home/ann", "(…)"),
        ("/home/ann/", "/home/ann/", "…"),
        ("/root/x", "/root/x", "…/x"),
        ("x=/scratch/ann/x.tsv", "/scratch/ann/x.tsv", "x=…/ann/x.tsv"),
        ("/gpfs/data/project/runs/one", "/gpfs/data/project/runs/one", "…/runs/one"),
        ("host:/a/b/c", "/a/b/c", "host:…/b/c"),
        ("file:///home/ann/x", "/home/ann/x", "file://…/x"),
        ('{"path": "/home/ann/x"}', "/home/ann/x", '{"path": "…/x"}'),
        (r"C:\Users\ann\x.txt", r"C:\Users\ann\x.txt", "…/x.txt"),
        (r'"C:\\Users\\ann\\x"', r"C:\\Users\\ann\\x", '"…/x"'),
        ("/home/앤/x", "/home/앤/x", "…/x"),
    ],
)
def test_a_path_of_a_machine_is_found_and_only_its_end_is_kept(text: str, path: str, shortened: str) -> None:
    assert find_local_paths(text) == [path]
    assert shorten_paths(text) == shortened
    assert find_local_paths(shortened) == []


@pytest.mark.parametrize(
    "text",
    [
        "[x](https://huggingface.co/facebook/m2m100_418M)",
        "data/tatoeba/train.tsv",
        "../data/x/y",
        "./a/b",
        "~/data/x",
        "and/or, km/h, 1/2/3",
        "</s> <pad> /kæt/",
        "tok:13a|smooth:exp|version:2.6.0",
        "a // b",
    ],
)
def test_other_texts_are_left_alone(text: str) -> None:
    assert find_local_paths(text) == []
    assert shorten_paths(text) == text


def test_every_path_of_a_text_is_found_once_and_in_order() -> None:
    text = r"cp C:\Users\ann\x /srv/models/base && ls /home/ann/x /srv/models/base"
    assert find_local_paths(text) == [r"C:\Users\ann\x", "/srv/models/base", "/home/ann/x"]
