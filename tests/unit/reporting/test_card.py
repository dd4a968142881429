"""The card: everything that the seeds' cards name, what they lack, and nothing that a name can break."""

import math
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt
from markdown_it.token import Token
from sacrebleu.metrics import BLEU, CHRF

from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.reporting.card import build_card, write_card
from dstrain.run_folder.record import RunRecord, build_record, write_run_info
from dstrain.run_folder.rows import EventRow, Row, append_row
from tests.unit.reporting.reporting_cases import (
    BLEU_SIGNATURE,
    CHRF_SIGNATURE,
    FRONT_MATTER,
    PARSING_COLUMNS,
    PARSING_HYPERPARAMETERS,
    PARSING_RESULTS,
    SECTIONS,
    TRANSLATION_COLUMNS,
    TRANSLATION_HYPERPARAMETERS,
    TRANSLATION_RESULTS,
    parsing_config,
    parsing_record,
    parsing_row,
    run_info,
    train_row,
    translation_config,
    translation_record,
    translation_row,
)

SCRATCH = {"architecture": "m2m100"}


def load(card: str, *, folder: Path) -> Any:
    path = folder / "README.md"
    path.write_text(card, encoding="utf-8", newline="\n")
    return ModelCard.load(path)


def rebuild(data: dict[str, Any]) -> Any:
    """The metadata after a way through the Hub's own class."""
    card_data: Any = ModelCardData(**data)
    return card_data.to_dict()


def parse(card: str) -> list[Token]:
    """The card without its front matter as CommonMark with tables; rich brings the parser."""
    return MarkdownIt("commonmark").enable("table").parse(card.split("\n---\n", 1)[1])


def headings(card: str) -> list[str]:
    tokens = parse(card)
    return [text.content for mark, text in pairwise(tokens) if mark.type == "heading_open"]


def listed(card: str, *, under: str) -> dict[str, str]:
    section = card.split(f"# {under}\n", 1)[1].split("\n#", 1)[0]
    return dict(re.findall(r"^- (.+?): (.+)$", section, flags=re.MULTILINE))


def tables(card: str) -> list[list[list[str]]]:
    """Header and rows of every table."""
    found: list[list[list[str]]] = []
    for mark, text in pairwise(parse(card)):
        if mark.type == "table_open":
            found.append([])
        elif mark.type == "tr_open":
            found[-1].append([])
        elif mark.type in ("th_open", "td_open"):
            found[-1][-1].append(text.content)
    return found


def inline_parts(card: str, *, kind: str) -> list[Token]:
    """All tokens of a kind, within text as well."""
    tokens = parse(card)
    return [token for outer in tokens for token in [outer, *(outer.children or [])] if token.type == kind]


def results_table(card: str) -> list[list[str]]:
    return next(table for table in tables(card) if table[0][0] == "Training Loss")


@pytest.mark.parametrize("record", [translation_record(), parsing_record()], ids=["translation", "parsing"])
def test_every_section_and_front_matter_key_of_the_seeds_is_there_in_order(record: RunRecord, tmp_path: Path) -> None:
    card = build_card(record)
    assert [heading for heading in headings(card) if heading in SECTIONS] == list(SECTIONS)
    assert headings(card)[0] == record.config.name
    loaded = load(card, folder=tmp_path)
    assert set(FRONT_MATTER) <= loaded.data.to_dict().keys()
    assert "More information needed" not in card


def test_the_translation_card_names_what_its_seed_names() -> None:
    card = build_card(translation_record())
    base = "[facebook/m2m100_418M](https://huggingface.co/facebook/m2m100_418M)"
    assert f"This model is a fine-tuned version of {base} on the tatoeba/train.tsv dataset.\n" in card
    results = "- Loss: 0.4282\n- Bleu: 25.8137\n- Gen Len: 10.9556\n"
    assert f"It achieves the following results on the evaluation set:\n{results}" in card
    hyperparameters = listed(card, under="Training hyperparameters")
    assert TRANSLATION_HYPERPARAMETERS.items() <= hyperparameters.items()
    assert hyperparameters["mixed_precision_training"] == "fp16 (DeepSpeed, dynamic loss scaling)"
    header, *rows = results_table(card)
    assert tuple(header[: len(TRANSLATION_COLUMNS)]) == TRANSLATION_COLUMNS
    assert rows[-1][:6] == ["0.5020", "5.74", "95000", "0.4282", "25.8137", "10.9556"]
    assert list(listed(card, under="ko-en-m2m"))[:3] == list(TRANSLATION_RESULTS)


def test_the_parsing_card_names_what_its_seed_names() -> None:
    card = build_card(parsing_record())
    base = "[google/mt5-small](https://huggingface.co/google/mt5-small)"
    assert f"This model is a fine-tuned version of {base} on the mtop (en) dataset.\n" in card
    assert PARSING_HYPERPARAMETERS.items() <= listed(card, under="Training hyperparameters").items()
    header, *rows = results_table(card)
    assert tuple(header[: len(PARSING_COLUMNS)]) == PARSING_COLUMNS
    assert rows[1][:5] == ["0.0724", "40.00", "1200", "0.1202", "0.5365"]
    assert list(listed(card, under="t5-small-pointer-mtop"))[:2] == list(PARSING_RESULTS)


@pytest.mark.parametrize("name", ["Transformers 5.23.0", "Pytorch 2.13.0", "Datasets 5.2.0", "Tokenizers 0.23.0"])
def test_framework_versions_are_written_as_in_the_seeds(name: str) -> None:
    section = build_card(parsing_record()).split("### Framework versions\n")[1]
    assert f"\n- {name}\n" in section
    assert {"- DeepSpeed 0.19.8", "- dstrain 0.1.0", "- Python 3.11.2"} <= set(section.splitlines())


@pytest.mark.parametrize("record", [translation_record(), parsing_record()], ids=["translation", "parsing"])
def test_metadata_round_trips_and_the_model_index_holds_the_headline(record: RunRecord, tmp_path: Path) -> None:
    loaded = load(build_card(record), folder=tmp_path)
    data = loaded.data.to_dict()
    assert rebuild(data) == data
    assert data["tags"] == ["generated_from_trainer", "dstrain"]
    assert "license" not in data
    assert record.best is not None
    assert loaded.data.eval_results is not None
    values = {result.metric_type: result.metric_value for result in loaded.data.eval_results}
    assert values == {name: round(value, 4) for name, value in record.best.scores.items()}


def test_the_front_matter_states_languages_base_model_and_hub_data(tmp_path: Path) -> None:
    parsing = load(build_card(parsing_record()), folder=tmp_path).data
    assert (parsing.language, parsing.base_model, parsing.datasets) == (["en"], "google/mt5-small", ["mtop"])
    assert parsing.eval_results is not None
    result = parsing.eval_results[0]
    assert (result.dataset_type, result.dataset_config, result.dataset_split) == ("mtop", "en", "validation")
    translation = load(build_card(translation_record()), folder=tmp_path).data
    assert (translation.language, translation.datasets) == (["ko", "en"], None)
    assert translation.eval_results is not None
    assert {result.metric_args["signature"] for result in translation.eval_results if result.metric_args} == {
        BLEU_SIGNATURE,
        CHRF_SIGNATURE,
    }


def test_codes_of_model_families_become_iso_codes_and_norwegian_stays_a_string(tmp_path: Path) -> None:
    task = {"kind": "translation", "source_language": "kor_Hang", "target_language": "no"}
    data = load(build_card(translation_record(translation_config(task=task))), folder=tmp_path).data
    assert data.language == ["kor", "no"]


@pytest.mark.parametrize(
    ("model", "origin", "sentence"),
    [
        ({"scratch": SCRATCH}, None, "was trained from scratch (`m2m100` architecture, random initial weights) on"),
        ({"name": "/models/tiny"}, None, "is a fine-tuned version of `/models/tiny` (a local folder) on"),
        ({"name": "models/tiny"}, "folder", "is a fine-tuned version of `models/tiny` (a local folder) on"),
    ],
)
def test_a_model_that_is_not_from_the_hub_links_nowhere(
    model: dict[str, Any], origin: str | None, sentence: str, tmp_path: Path
) -> None:
    card = build_card(translation_record(translation_config(model=model), info=run_info(model={"origin": origin})))
    assert f"This model {sentence} the" in card
    assert "huggingface.co" not in card
    assert load(card, folder=tmp_path).data.base_model is None


def test_the_headline_names_its_step_its_reason_and_the_last_evaluation() -> None:
    card = build_card(parsing_record())
    assert "scores at step 2,400 (epoch 80.00), the best of 4 evaluations by `exact_match`" in card
    assert "All 2,235 rows of the evaluation set were scored." in card
    assert "The folder `best/` holds these weights." in card
    assert "The last evaluation, at step 3,000, has Loss 0.1505, Exact Match 0.5512." in card


def test_a_headline_chosen_by_loss_says_where_the_score_was_higher() -> None:
    card = build_card(parsing_record(parsing_config(evaluation={"best_metric": "loss"})))
    assert "- Loss: 0.1202\n- Exact Match: 0.5365\n" in card
    assert (
        "Exact Match was higher at another step: 0.5539 at step 2,400; the recipe selects the best checkpoint by `loss`."
        in card
    )


def test_a_best_evaluation_that_is_also_the_last_says_so() -> None:
    assert "checkpoint, and also the last evaluation. All" in build_card(translation_record())


def test_scores_of_a_part_of_the_evaluation_set_are_called_that() -> None:
    card = build_card(parsing_record(parsing_config(evaluation={"max_rows": 2235})))
    assert "Only the first 2,235 rows of the evaluation set were scored." in card
    assert "- only the first 2,235 evaluation rows were scored" in card


@pytest.mark.parametrize(
    ("machine", "world_size", "size", "accumulation"),
    [
        ({"micro_batch_size": 16}, 1, "16", "32"),
        ({"micro_batch_size": 16}, 4, "16", "8"),
        (
            {"micro_batch_size": 100},
            1,
            "at most 100 sequences per micro-batch (pinned; the step does not divide evenly)",
            None,
        ),
        (
            {"micro_batch_size": 16},
            3,
            "at most 16 sequences per micro-batch (pinned; the step does not divide evenly)",
            None,
        ),
        (
            {"micro_batch_size": 256, "min_micro_batches": 4},
            1,
            "at most 256 sequences per micro-batch (pinned; the step does not divide evenly)",
            None,
        ),
        (
            {},
            2,
            "at most 48 sequences per micro-batch (varies: steps are split under a budget of 8192 tokens, padding included)",
            None,
        ),
    ],
)
def test_batch_sizes_are_exact_only_where_every_micro_batch_is_equally_large(
    machine: dict[str, int], world_size: int, size: str, accumulation: str | None
) -> None:
    cut = {"min": 30, "max": 36, "mean": 32.5, "largest_rows": 48}
    info = run_info(world_size=world_size, micro_batches=cut)
    lines = listed(
        build_card(parsing_record(parsing_config(machine=machine), info=info)), under="Training hyperparameters"
    )
    ranks = "1 rank" if world_size == 1 else f"{world_size} ranks"
    varying = f"30 to 36 micro-batches per step over all ranks (mean 32.50), distributed to {ranks}"
    assert lines["train_batch_size"] == size
    assert lines["gradient_accumulation_steps"] == (accumulation or varying)
    assert lines["total_train_batch_size"] == "512"


def test_numbers_of_micro_batches_name_the_steps_they_were_counted_on() -> None:
    cut = {"min": 1, "max": 4, "mean": 2.1, "largest_rows": 16, "num_steps": 200}
    lines = listed(build_card(translation_record(info=run_info(micro_batches=cut))), under="Training hyperparameters")
    assert lines["train_batch_size"].startswith("at most 16 sequences per micro-batch in the first 200 steps (varies")
    assert "over all ranks in the first 200 steps (mean 2.10)" in lines["gradient_accumulation_steps"]


def test_steps_of_target_tokens_have_no_fixed_number_of_sequences() -> None:
    training = {"batch_size": 4096, "batch_unit": "target_tokens", "max_steps": 10, "learning_rate": 1e-3}
    lines = listed(build_card(parsing_record(parsing_config(training=training))), under="Training hyperparameters")
    assert lines["total_train_batch_size"] == "at most 4096 target tokens (the number of sequences varies)"
    assert lines["train_batch_size"].startswith("at most 16 sequences")


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        (
            {"optimizer": "adamw", "weight_decay": 0.01},
            "AdamW with betas=(0.9,0.999) and epsilon=1e-08 and weight_decay=0.01",
        ),
        ({"optimizer": "sgd", "betas": (0.5, 0.9)}, "SGD with momentum=0.5"),
    ],
)
def test_optimizers_are_named_with_what_decides_them(training: dict[str, Any], expected: str) -> None:
    given = {"batch_size": 8, "max_steps": 10, "learning_rate": 1e-3, "warmup_steps": 3} | training
    lines = listed(build_card(parsing_record(parsing_config(training=given))), under="Training hyperparameters")
    assert (lines["optimizer"], lines["lr_scheduler_warmup_steps"]) == (expected, "3")


def test_a_precision_overridden_on_the_command_line_is_seen_in_three_places() -> None:
    command = "HF_HUB_OFFLINE=1 python launch/train.py --config configs/ko_en_m2m.yaml precision=fp32 model.name=./tiny"
    card = build_card(translation_record(translation_config(precision="fp32"), info=run_info(command=command)))
    precision = listed(card, under="Training hyperparameters")["mixed_precision_training"]
    assert precision == "none (fp32); **set on the command line** (`precision=fp32`) instead of the recipe's value"
    assert "- the precision was overridden on the command line: fp32" in card
    assert "Overrides on the command line: `precision=fp32`, `model.name=./tiny`." in card


def test_skipped_steps_loss_scale_and_restarts_are_told() -> None:
    rows: list[Row] = [
        EventRow("start", 0, "2026-11-23T10:00:00Z"),
        train_row(50, loss_scale=65536.0, skipped_steps=2),
        train_row(100, loss_scale=1024.0, skipped_steps=5, halvings_in_a_row=3),
        train_row(150, loss_scale=4096.0, skipped_steps=5, halvings_in_a_row=3),
        EventRow("stop", 150, "2026-11-23T11:00:00Z", "SIGTERM"),
        EventRow("resume", 150, "2026-11-23T12:00:00Z"),
        EventRow("finish", 150, "2026-11-23T13:00:00Z"),
    ]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows))
    assert (
        "5 of 150 steps skipped (3.3 %, at most 3 in a row); loss scale 65,536 at the first logged step, 4,096 at the last, "
        "never below 1,024" in card
    )
    assert "- Resumed: once\n" in card
    assert "- stop at step 150 (2026-11-23T11:00:00Z: SIGTERM)" in card
    assert "It has not been evaluated yet." in card


def test_zero_0_with_16_bit_is_called_what_it_runs_as() -> None:
    card = build_card(translation_record(translation_config(machine={"zero_stage": 0})))
    assert listed(card, under="Machine")["ZeRO stage"].startswith("1 (0 in the recipe")


@pytest.mark.parametrize(
    ("last", "notice"),
    [
        (
            EventRow("resume", 50),
            "> **This run is not finished: it is still running or was killed. Last recorded: step 50 of",
        ),
        (
            EventRow("stop", 50, message="SIGTERM"),
            "> **This run is not finished: it was stopped at step 50 of 95,000: SIGTERM**",
        ),
        (EventRow("finish", 50), None),
    ],
)
def test_an_unfinished_run_says_so_under_its_title(last: EventRow, notice: str | None) -> None:
    rows: list[Row] = [EventRow("start", 0), translation_row(50, bleu=1.0, loss=2.0), last]
    record = build_record(translation_config(), info=run_info(), rows=rows, exports={"best": 50})
    card = build_card(record)
    after_title = card.split("# ko-en-m2m\n", 1)[1].strip().splitlines()[0]
    assert after_title.startswith(notice or "This model is a fine-tuned version")
    assert ("not finished" in card) == (notice is not None)
    assert ("`best/` holds these weights" in card) == (notice is None)


def test_a_folder_with_the_weights_of_another_step_is_not_passed_off_as_the_best() -> None:
    rows: list[Row] = [EventRow("start", 0), translation_row(50, bleu=1.0, loss=2.0), EventRow("finish", 50)]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows, exports={"best": 20}))
    assert "holds these weights" not in card
    assert "**The folder `best/` does not hold these weights but those of step 20.**" in card


def test_a_run_that_only_started_has_a_card() -> None:
    card = build_card(build_record(parsing_config(), info=run_info(**EMPTY), rows=[]))
    assert [heading for heading in headings(card) if heading in SECTIONS] == list(SECTIONS)
    assert "No evaluation has been run yet." in card
    assert "- Transformers not recorded\n" in card
    assert "plots/" not in card


EMPTY: dict[str, Any] = {
    "versions": {},
    "command": None,
    "world_size": None,
    "device": None,
    "launcher": None,
    "data": {},
    "model": {},
    "total_steps": None,
    "steps_per_epoch": None,
    "micro_batches": {},
}


def test_data_are_counted_with_their_fingerprints_and_rules() -> None:
    card = build_card(translation_record())
    counts = next(table for table in tables(card) if table[0][1] == "Rows read")
    assert counts[1][:5] == ["training", "110", "100", "7 empty, 3 too_long", "2"]
    assert counts[1][-1] == "`5f3a9c`"
    assert counts[2][3] == "0"
    assert "- 10 training rows were skipped (7 empty, 3 too_long)" in card
    assert "unknown_token: keep" in card


def test_checks_to_come_have_their_place_and_cut_hypotheses_are_warned_of() -> None:
    card = build_card(parsing_record())
    checks = dict(next(table for table in tables(card) if table[0] == ["Check", "Result"]))
    assert checks["Train/evaluation overlap"] == "not checked by this version of dstrain"
    assert checks["Language check of data and hypotheses"] == "not checked by this version of dstrain"
    assert checks["Hypotheses cut at the length limit"].startswith(
        "25.0 % of the hypotheses of the evaluation reported"
    )
    assert (
        "- hypotheses were cut at the length limit: hit_cap_rate 0.2500 in the evaluation reported at the top" in card
    )


def test_numbers_that_are_not_finite_are_never_shown_as_numbers(tmp_path: Path) -> None:
    rows: list[Row] = [
        train_row(50, loss=math.nan, loss_scale=None),
        translation_row(50, bleu=math.nan, loss=math.inf, train_loss=math.nan),
        EventRow("finish", 50),
    ]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows))
    assert "the last evaluation, because no evaluation has a finite `bleu`" in card
    assert results_table(card)[1][:5] == ["not a number (NaN)", "0.00", "50", "infinite", "not a number (NaN)"]
    assert "- non-finite losses and scores (logged training losses: 1; evaluations: 1)" in card
    results = load(card, folder=tmp_path).data.eval_results
    assert results is not None
    assert {result.metric_type for result in results} == {"gen_len", "hit_cap_rate"}
    assert not re.search(r"\bnan\b", card)


def test_an_evaluation_before_the_first_training_loss_says_no_log() -> None:
    rows: list[Row] = [translation_row(0, bleu=1.0, loss=2.0, train_loss=None)]
    assert results_table(build_card(build_record(translation_config(), info=run_info(), rows=rows)))[1][0] == "No log"


def test_groups_are_scored_each_and_a_long_list_is_cut_with_a_note() -> None:
    groups = {f"kind {number}": {"exact_match": 0.5, "num_rows": 10.0} for number in range(70)}
    rows: list[Row] = [parsing_row(10, exact_match=0.5, loss=1.0, groups=groups)]
    card = build_card(build_record(parsing_config(), info=run_info(), rows=rows))
    table = next(table for table in tables(card) if table[0][0] == "Group")
    assert table[:2] == [["Group", "Rows", "Exact Match"], ["kind 0", "10", "0.5000"]]
    assert len(table) == 61
    assert "And 10 more groups in `scores/step-00000010.json`." in card


HOSTILE = (
    "a|b\n---\n# no heading <!-- lost --> `code` ``` [x](http://evil) *bold* \\| $1$ &lt; 1. \x1b[31m\udc80 한국어"
)


def hostile_record() -> RunRecord:
    config = RunConfig.model_validate(
        {
            "name": "hostile",
            "model": {"name": HOSTILE, "revision": HOSTILE},
            "task": {
                "kind": "translation",
                "source_language": HOSTILE,
                "target_language": HOSTILE,
                "source_prefix": HOSTILE,
            },
            "data": {
                "train": [{"hub": HOSTILE, "subset": HOSTILE, "split": HOSTILE, "source_column": HOSTILE}],
                "eval": [{"path": HOSTILE, "group_column": HOSTILE}, {"hub": HOSTILE}],
            },
            "training": {"batch_size": 8, "max_steps": 10, "learning_rate": 1e-3},
            "machine": {"deepspeed": {"comms_logger": {"prof_ops": [HOSTILE.replace("\udc80", "")]}}},
        }
    )
    report = {"rows_read": 1, "rows": 0, "skipped": {HOSTILE: 1}, "fingerprint": HOSTILE}
    info = run_info(
        versions={HOSTILE: HOSTILE},
        command=f"python '{HOSTILE}' precision=fp32\n```\n# not a heading",
        device=HOSTILE,
        launcher=HOSTILE,
        data={"train": report},
        model={"architecture": HOSTILE, "base": HOSTILE},
        warnings=(HOSTILE, "---", "- [ ] x", "1. y"),
    )
    row = translation_row(
        10,
        bleu=1.0,
        loss=2.0,
        scores={"loss": 2.0, "bleu": 1.0, HOSTILE: 3.0},
        groups={HOSTILE: {HOSTILE: 1.0}, "": {"bleu": 1.0}},
        signatures={"bleu": HOSTILE, HOSTILE: HOSTILE},
        generation={HOSTILE: HOSTILE},
        hypotheses=HOSTILE,
        warnings=(HOSTILE,),
    )
    return build_record(config, info=info, rows=[row, EventRow("stop", 10, HOSTILE, HOSTILE)])


def test_hostile_names_break_neither_front_matter_nor_headings_nor_tables(tmp_path: Path) -> None:
    card = build_card(hostile_record())
    data = load(card, folder=tmp_path).data.to_dict()
    assert data["model-index"][0]["name"] == "hostile"
    assert rebuild(data) == data
    row = translation_row(10, bleu=1.0, loss=2.0, groups={"a": {"bleu": 1.0}})
    ordinary = build_record(translation_config(name="hostile"), info=run_info(), rows=[row, EventRow("stop", 10)])
    assert headings(card) == headings(build_card(ordinary))
    assert [table[0][0] for table in tables(card)] == [table[0][0] for table in tables(build_card(ordinary))]
    groups = next(table for table in tables(card) if table[0][0] == "Group")
    assert [row[1:] for row in groups[1:]] == [["not recorded", "1.0000"], ["1.0000", "not recorded"]]


def test_hostile_names_become_no_html_no_links_and_no_control_characters() -> None:
    card = build_card(hostile_record())
    assert [token.content[:20] for token in inline_parts(card, kind="html_block")] == ["<!-- Generated by ds"]
    assert inline_parts(card, kind="html_inline") == []
    assert inline_parts(card, kind="link_open") == []
    assert len(inline_parts(card, kind="fence")) == 2
    assert len(inline_parts(card, kind="hr")) == 0
    assert all(char.isprintable() or char == "\n" for char in card)


def test_the_sacrebleu_command_gives_the_cards_numbers(tmp_path: Path) -> None:
    hypotheses = ["the cat sat on the mat .", "two cups of coffee", "half past three in the afternoon"]
    references = ["the cat sat on a mat .", "two cups of coffee", "half past four in the afternoon"]
    bleu, chrf = BLEU(tokenize="13a"), CHRF()
    scores = {
        "bleu": bleu.corpus_score(hypotheses, [references]).score,
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
    }
    signatures = {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    row = translation_row(10, bleu=0.0, loss=1.0, scores={"loss": 1.0, **scores}, signatures=signatures)
    folder = tmp_path / str(row.hypotheses)
    folder.mkdir(parents=True)
    (folder / "hypotheses.txt").write_text("\n".join(hypotheses) + "\n")
    (folder / "references.txt").write_text("\n".join(references) + "\n")
    card = build_card(build_record(translation_config(), info=run_info(), rows=[row]))
    command = next(line for line in card.splitlines() if line.startswith("sacrebleu "))
    words = [sys.executable, "-m", *shlex.split(command), "-f", "text"]
    printed = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for name in ("bleu", "chrf"):
        assert f"= {scores[name]:.4f}" in printed
        assert f": {scores[name]:.4f}" in card
    assert all(signature in printed for signature in (signatures["bleu"],))


@pytest.mark.parametrize(
    ("signature", "options"),
    [
        (
            "nrefs:1|case:mixed|eff:no|tok:ko-mecab-0.996/ko-0.9.2-KO|smooth:exp|version:2.6.0",
            "-m bleu -w 4 -tok ko-mecab",
        ),
        ("nrefs:1|case:lc|eff:no|tok:zh|smooth:exp|version:2.6.0", "-m bleu -w 4 -tok zh -lc"),
    ],
)
def test_the_sacrebleu_command_follows_the_signature(signature: str, options: str) -> None:
    row = translation_row(10, bleu=1.0, loss=1.0, signatures={"bleu": signature})
    assert f"hypotheses.txt {options}\n" in build_card(build_record(translation_config(), info=run_info(), rows=[row]))


def test_a_parsing_card_has_no_sacrebleu_command() -> None:
    assert "sacrebleu" not in build_card(parsing_record())


def test_the_same_record_gives_the_same_card() -> None:
    assert build_card(parsing_record()) == build_card(parsing_record())


def test_write_card_reads_a_run_folder_and_leaves_card_and_plots(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(dump_config(translation_config()), encoding="utf-8")
    write_run_info(run_dir, {"world_size": 1, "command": "python launch/train.py --config x.yaml"})
    append_row(
        run_dir / "metrics.jsonl", {"kind": "event", "event": "start", "step": 0, "time": "now", "message": None}
    )
    append_row(run_dir / "metrics.jsonl", {"kind": "train", "step": 5, "epoch": 0.1, "loss": 2.0})
    append_row(
        run_dir / "metrics.jsonl",
        {"kind": "eval", "step": 5, "epoch": 0.1, "train_loss": 2.0, "scores": {"loss": 2.1, "bleu": 3.0}},
    )
    path = write_card(run_dir)
    assert path == run_dir / "README.md"
    card = ModelCard.load(path)
    images = re.findall(r"!\[.+?\]\((.+?)\)", card.text)
    assert images == ["plots/loss.png", "plots/score.png"]
    assert all((run_dir / image).is_file() for image in images)
    shutil.rmtree(run_dir / "plots")
    assert write_card(run_dir).read_text() == path.read_text()
