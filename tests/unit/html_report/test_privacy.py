"""What a person who sends a report would not want in it: folders of a machine, the names of users, keys."""

import pytest

from dstrain.html_report.privacy import shown_path, shown_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/anna/data/train.tsv:7: no target", "…/train.tsv:7: no target"),
        ("read '/data/anna/x.tsv' and \"/mnt/y/z\"", "read '…/x.tsv' and \"…/z\""),
        ("it lies in /home/anna", "it lies in …"),
        ("it lies in /home/anna.", "it lies in …"),
        ("HOME=/Users/anna; (/scratch/u17/run)", "HOME=…; (…/run)"),
        ("[Errno 28] No space left: ~/runs/a and ~anna/b", "[Errno 28] No space left: …/a and …/b"),
        ("https://huggingface.co/google/mt5-small", "https://huggingface.co/google/mt5-small"),
        ("google/mt5-small, data/train.tsv, 1/2, and/or", "google/mt5-small, data/train.tsv, 1/2, and/or"),
        ("a key hf_abcdefghijklmnopqrstuvwxyz0123456789", "a key ***"),
        ("the directory / is full", "the directory / is full"),
    ],
)
def test_a_sentence_names_files_without_their_folders(text: str, shown: str) -> None:
    assert shown_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/anna/my data/train set.tsv", "…/train set.tsv"),
        ("/home/anna/my data/eval.tsv:12", "…/eval.tsv:12"),
        ("/home/anna", "…"),
        ("/home/anna/", "…"),
        ("~/runs/one", "…/one"),
        ("data/train.tsv", "data/train.tsv"),
        ("google/mt5-small", "google/mt5-small"),
    ],
)
def test_a_path_of_a_recipe_is_shown_by_its_last_part_if_it_is_absolute(text: str, shown: str) -> None:
    assert shown_path(text) == shown
