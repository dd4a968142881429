"""Scores written by other jobs: which checkpoint they belong to, where they are shown, and when they count."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.evaluation.text_metrics import Corpus, reference_columns, text_scores
from dstrain.reporting.card import build_card
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.record import RunRecord, build_record, read_deferred_scores
from dstrain.run_folder.rows import DeferredRow, EvalRow, EventRow, Row
from dstrain.run_folder.scores import (
    GROUPS,
    ScoredTexts,
    ScoreFile,
    Scores,
    read_groups,
    read_test_sets,
    sacrebleu_command,
    write_scores,
)
from tests.unit.reporting.reporting_cases import RunInfo, translation_config
from tests.unit.run_folder.scores_cases import run_sacrebleu, score, write

CONFIG = translation_config()


def write_file(folder: Path, *, step: int, **values: Any) -> None:
    path = RunFolder(folder).score_file(step)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"step": step, "scores": {"loss": 2.0, "bleu": float(step)}, "command": None} | values))


def record_of(run_dir: Path, rows: list[Row]) -> RunRecord:
    return build_record(
        CONFIG,
        info=RunInfo(),
        rows=rows,
        find_scores=lambda row: read_deferred_scores(RunFolder(run_dir), row=row),
        test_sets=read_test_sets(RunFolder(run_dir)),
    )


def test_scores_of_another_job_are_in_the_table_at_their_step_with_the_values_of_the_run(tmp_path: Path) -> None:
    write_file(tmp_path, step=20, lease=1, hypotheses="hypotheses/step-00000020", seconds=3.0)
    rows: list[Row] = [
        EventRow("start", 0, lease=1),
        EvalRow(step=10, epoch=0.5, scores={"bleu": 30.0}, lease=1),
        DeferredRow(20, 1.0, train_loss=1.5, lease=1),
        EvalRow(step=30, epoch=1.5, scores={"bleu": 12.0}, lease=1),
        DeferredRow(40, 2.0, lease=1),
    ]
    record = record_of(tmp_path, rows)
    assert [row.step for row in record.eval_rows] == [10, 20, 30]
    merged = record.eval_rows[1]
    assert (merged.epoch, merged.train_loss, merged.scores["bleu"], merged.seconds) == (1.0, 1.5, 20.0, 3.0)
    assert record.pending_rows == (DeferredRow(40, 2.0, lease=1),)
    assert "evaluations deferred to other jobs have no scores yet: step 40" in build_card(record)


def test_scores_of_a_superseded_checkpoint_do_not_count(tmp_path: Path) -> None:
    write_file(tmp_path, step=20, lease=1)
    rows: list[Row] = [
        EventRow("start", 0, lease=1),
        DeferredRow(20, 1.0, lease=1),
        EventRow("resume", 15, lease=2),
    ]
    assert record_of(tmp_path, rows).eval_rows == ()
    assert record_of(tmp_path, rows).pending_rows == ()
    again: list[Row] = [*rows, DeferredRow(20, 1.0, lease=2)]
    assert [row.step for row in record_of(tmp_path, again).pending_rows] == [20]
    write_file(tmp_path, step=20, lease=2)
    assert [row.step for row in record_of(tmp_path, again).eval_rows] == [20]


def test_a_run_that_resumes_from_a_checkpoint_keeps_its_pending_evaluation(tmp_path: Path) -> None:
    rows: list[Row] = [EventRow("start", 0, lease=1), DeferredRow(20, 1.0, lease=1), EventRow("resume", 20, lease=2)]
    assert [row.step for row in record_of(tmp_path, rows).pending_rows] == [20]


@pytest.mark.parametrize("content", ["", "{", '{"step": 20}', '{"step": 21, "lease": 1, "scores": {}}'])
def test_a_broken_score_file_does_not_count_as_scores(content: str, tmp_path: Path) -> None:
    path = RunFolder(tmp_path).score_file(20)
    path.parent.mkdir()
    path.write_text(content)
    assert read_deferred_scores(RunFolder(tmp_path), row=DeferredRow(20, 1.0, lease=1)) is None


def test_other_test_sets_are_on_the_card_by_name_and_step(tmp_path: Path) -> None:
    data = {"places": ["flores.tsv", "demo:parsing"], "fingerprint": "a"}
    for name, step in (("flores", 40), ("flores", 5), ("news", 40)):
        folder = RunFolder(tmp_path).test_set(name).path
        write_file(folder, step=step, num_rows=9, data=data, hypotheses=f"hypotheses/{step}")
    record = record_of(tmp_path, [EvalRow(step=40, epoch=2.0, scores={"bleu": 30.0})])
    assert {name: [scores.step for scores in found] for name, found in record.test_sets.items()} == {
        "flores": [5, 40],
        "news": [40],
    }
    lines = [line for line in build_card(record).splitlines() if line.startswith("| flores")]
    assert [[cell.strip() for cell in line.split("|")[2:7]] for line in lines] == [
        ["`flores.tsv`, `demo:parsing`", "5", "9", "2.0000", "5.0000"],
        ["`flores.tsv`, `demo:parsing`", "40", "9", "2.0000", "40.0000"],
    ]
    assert "`test_sets/flores/hypotheses/40`" in lines[1]
    assert isinstance(record.test_sets["news"][0], ScoreFile)


def test_rows_of_a_test_set_that_were_not_scored_or_were_cut_are_counted_on_the_card(tmp_path: Path) -> None:
    reported = {"full": (9, {}, 0), "blanks": (12, {"empty": 2, "undecodable": 1}, 0), "cut": (9, {}, 4)}
    for name, (rows_read, skipped, truncated) in reported.items():
        data = {"places": ["f"], "fingerprint": "a", "rows_read": rows_read, "skipped": skipped, "truncated": truncated}
        write_file(RunFolder(tmp_path).test_set(name).path, step=5, num_rows=9, data=data, hypotheses="h")
    card = build_card(record_of(tmp_path, [EvalRow(step=5, epoch=2.0, scores={"bleu": 30.0})]))
    rows = {
        line.split("|")[1].strip(): line.split("|")[4].strip() for line in card.splitlines() if "test_sets/" in line
    }
    assert rows == {"blanks": "9 of 12 (2 empty, 1 undecodable)", "cut": "9 of 9 (4 truncated)", "full": "9"}


def test_a_broken_file_of_a_test_set_is_named(tmp_path: Path) -> None:
    write_file(RunFolder(tmp_path).test_set("flores").path, step=5, scores="none")
    with pytest.raises(RunFolderError, match=r"flores/scores/step-00000005\.json.*score it again"):
        read_test_sets(RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        (
            "en",
            [
                "two cups\nof coffee, please.",
                " half past three \r\n",
                "a\u2028line\x85break",
                "",
                "the end .",
                "x\ty z",
            ],
        ),
        ("zho_Hans", ["我 喝两杯咖啡\n。", "三点半", " 明天见", "", "再 见 。", "一\t二"]),
        ("jpn_Jpan", ["コーヒーを二杯\n。", "三時半", " また明日", "", "さようなら 。", "一\t二"]),
    ],
)
def test_the_sacrebleu_command_computes_the_same_scores_from_the_files(
    language: str, texts: list[str], tmp_path: Path
) -> None:
    hypotheses = [texts[0][:-1], texts[1], texts[2] + " more", "\n", texts[4], texts[5]]
    scores, compared = score(hypotheses, texts, target_language=language)
    folder = tmp_path / write_scores(scores, compared, folder=RunFolder(tmp_path), step=5)
    record = json.loads((tmp_path / "scores" / "step-00000005.json").read_text(encoding="utf-8"))
    printed = run_sacrebleu(folder, record["command"])
    assert {score["name"]: score["score"] for score in printed} == {
        "BLEU": round(scores.scores["bleu"], 4),
        "chrF2": round(scores.scores["chrf"], 4),
    }
    assert 0 < scores.scores["bleu"] < 100


def test_the_sacrebleu_command_reads_every_reference(tmp_path: Path) -> None:
    hypotheses, references = ["a b c d e", "f g h i j"], [["a b c d x", "a b c d e"], ["f g h i y"]]
    found = text_scores(Corpus(hypotheses, references), wanted=["bleu", "chrf"])
    scores = Scores(
        scores={each.name: each.value for each in found}, signatures={each.name: str(each.signature) for each in found}
    )
    texts = ScoredTexts(hypotheses, reference_columns(references), hypotheses, ["f:1", "f:2"])
    folder = tmp_path / write_scores(scores, texts, folder=RunFolder(tmp_path), step=5)
    assert (folder / "references.1.txt").read_text() == "a b c d e\nf g h i y\n"
    printed = run_sacrebleu(folder, sacrebleu_command(scores))
    assert [score["score"] for score in printed] == [round(found[0].value, 4), round(found[1].value, 4)]


def test_the_sacrebleu_command_computes_those_of_its_metrics_that_were_scored(tmp_path: Path) -> None:
    hypotheses, references = ["a b c d e", "f G h i j"], [["a b c d x"], ["f g h i y"]]
    found = text_scores(Corpus(hypotheses, references), wanted=["ter", "rouge"])
    signatures = {each.name: str(each.signature) for each in found}
    scores = Scores(scores={each.name: each.value for each in found}, signatures=signatures)
    texts = ScoredTexts(hypotheses, reference_columns(references), hypotheses, ["f:1", "f:2"])
    folder = tmp_path / write_scores(scores, texts, folder=RunFolder(tmp_path), step=5)
    command = sacrebleu_command(scores)
    assert command == "sacrebleu references.txt -i hypotheses.txt -m ter -w 4"
    assert run_sacrebleu(folder, command)["score"] == round(found[0].value, 4)
    assert sacrebleu_command(Scores(scores={}, signatures={"rouge_l": "f1"})) is None


def test_evaluating_a_step_again_replaces_its_files_and_leaves_no_temporary_files(tmp_path: Path) -> None:
    write(tmp_path, ["a b c d"], ["a b c d"], step=3)
    (tmp_path / "hypotheses" / "step-00000003.tmp").mkdir()  # a kill left it
    folder = write(tmp_path, ["e f g h", "i"], ["a b c d", "i"], step=3)
    assert (folder / "hypotheses.txt").read_text() == "e f g h\ni\n"
    assert (folder / "index.txt").read_text() == "eval.tsv:1\neval.tsv:2\n"
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        *(f"hypotheses/step-00000003/{name}.txt" for name in ("hypotheses", "index", "references", "sources")),
        "scores/step-00000003.json",
    ]


@pytest.mark.parametrize("moment", ["rename", "replace"])
def test_a_kill_while_writing_never_leaves_a_score_with_the_hypotheses_of_another(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, ["a b"], ["a b"], step=3)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, moment, die)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, ["c d"], ["a b"], step=3)
    assert not (tmp_path / "scores" / "step-00000003.json").exists()


def test_a_parsing_result_has_no_sacrebleu_command() -> None:
    scores, _ = score(["a"], ["a"])
    assert sacrebleu_command(replace(scores, signatures={})) is None
    mecab = {"bleu": "nrefs:1|case:mixed|eff:no|tok:ja-mecab-0.996-IPA|smooth:exp|version:2.6.0"}
    assert re.search(r"-tok ja-mecab$", str(sacrebleu_command(replace(scores, signatures=mecab))))


@pytest.mark.parametrize("number", ["x", "-1", "", "1000000000000", "١"])
def test_a_signature_with_no_number_of_references_has_no_sacrebleu_command(number: str) -> None:
    assert sacrebleu_command(replace(score(["a"], ["a"])[0], signatures={"bleu": f"nrefs:{number}|tok:13a"})) is None


def test_the_signature_of_a_set_is_its_own_or_that_of_all_rows() -> None:
    scores = Scores(scores={}, signatures={"bleu": "tok:char", "bleu (news)": "tok:13a", "chrf": "nc:6"})
    assert scores.signature_of("bleu") == "tok:char"
    assert scores.signature_of("news/bleu") == "tok:13a"
    assert scores.signature_of("talks/bleu") == "tok:char"
    assert scores.signature_of("news/chrf") == "nc:6"
    assert scores.signature_of("loss") is None


def test_the_groups_of_each_row_come_back_as_they_were_written(tmp_path: Path) -> None:
    scores, texts = score(["a b", "c d"], ["a b", "c d"])
    assert read_groups(tmp_path / write_scores(scores, texts, folder=RunFolder(tmp_path), step=1)) == []
    groups = [["flores", "a\tb"], []]
    folder = tmp_path / write_scores(scores, replace(texts, groups=groups), folder=RunFolder(tmp_path), step=2)
    assert read_groups(folder) == groups
    (folder / GROUPS).write_text('["a"]\n{"b": 1}\n')
    with pytest.raises(RunFolderError, match=r"groups\.jsonl:2"):
        read_groups(folder)
