"""What is said of drafts: counts, questions with their lines, guesses with their evidence, and the commands that follow."""

from pathlib import Path

from dstrain.draft.card import read_card
from dstrain.draft.from_card import draft_from_card
from dstrain.draft.from_data import draft_from_data
from dstrain.draft.machine import Machine
from dstrain.draft.report import next_commands, questions, report_on_card, report_on_data
from dstrain.draft.sections import Request
from tests.unit.draft.card_texts import POINTER


def test_the_questions_of_a_card_are_listed_with_their_lines() -> None:
    draft = draft_from_card(read_card(POINTER))
    said = report_on_card(draft, path=Path("r.yaml"))
    assert said.startswith("r.yaml: 14 as in the card, 8 defaults of its trainer")
    found = questions(draft.text)
    assert len(found) == 4
    for line, question in found:
        assert f"  r.yaml:{line}: {question}" in said.splitlines()
        assert question.split()[0] in draft.text.splitlines()[line - 1]
    assert "known harm in the card's own settings:" in said


def test_every_guess_about_data_is_said_with_its_evidence(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text("".join(f"가나다 {n}\tthe text {n}\n" for n in range(50)))
    draft = draft_from_data(Request(files=(str(file),)), machine=Machine(0, 2, None), path=tmp_path / "r.yaml")
    lines = report_on_data(draft, path=tmp_path / "r.yaml").splitlines()
    assert lines[0] == "50 training rows, of which some are set apart for evaluation; no GPU, 2 CPU cores"
    assert "only 40 training rows: enough to try the way, and too few for a model of any use" in lines
    assert "  task.source_language: ko (100 % of the letters are Hangul)" in lines
    assert "  evaluation.every_steps: 20 (15 evaluations)" in lines


def test_three_commands_follow() -> None:
    lines = next_commands(Path("my recipe.yaml")).splitlines()
    assert [line.partition("  #")[0].strip() for line in lines[1:]] == [
        "dstrain check 'my recipe.yaml'",
        "dstrain train --debug --config 'my recipe.yaml'",
        "deepspeed --quiet --module dstrain.train --config 'my recipe.yaml'",
    ]
