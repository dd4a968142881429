"""The card: everything that the two published cards state, what they lack, and no markup from names."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from dstrain.config.load import dump_config
from dstrain.config.local_paths import find_local_paths
from dstrain.config.schema import RunConfig
from dstrain.reporting.card import build_card, build_notice, write_card
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.record import RunRecord, build_record, write_run_info
from dstrain.run_folder.rows import EventRow, Row, append_row
from tests.unit.reporting.card_cases import headings, inline_parts, listed, load, rebuild, results_table, tables
from tests.unit.reporting.reporting_cases import (
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
    run_info,
    translation_config,
    translation_record,
    translation_row,
)


@pytest.mark.parametrize("record", [translation_record(), parsing_record()], ids=["translation", "parsing"])
def test_every_section_and_front_matter_key_of_the_published_cards_is_there_in_order(
    record: RunRecord, tmp_path: Path
) -> None:
    card = build_card(record)
    assert [heading for heading in headings(card) if heading in SECTIONS] == list(SECTIONS)
    assert headings(card)[0] == record.config.name
    loaded = load(card, folder=tmp_path)
    assert set(FRONT_MATTER) <= loaded.data.to_dict().keys()
    assert "More information needed" not in card


def test_the_translation_card_states_what_the_published_one_states() -> None:
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


def test_the_parsing_card_states_what_the_published_one_states() -> None:
    card = build_card(parsing_record())
    base = "[google/mt5-small](https://huggingface.co/google/mt5-small)"
    assert f"This model is a fine-tuned version of {base} on the mtop (en) dataset.\n" in card
    assert PARSING_HYPERPARAMETERS.items() <= listed(card, under="Training hyperparameters").items()
    header, *rows = results_table(card)
    assert tuple(header[: len(PARSING_COLUMNS)]) == PARSING_COLUMNS
    assert rows[1][:5] == ["0.0724", "40.00", "1200", "0.1202", "0.5365"]
    assert list(listed(card, under="t5-small-pointer-mtop"))[:2] == list(PARSING_RESULTS)


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


@pytest.mark.parametrize(("fingerprint", "is_warned"), [("5f3a9c", True), ("e7710b", False), (None, False)])
def test_a_run_evaluated_on_its_training_rows_says_what_its_scores_measure(
    fingerprint: str | None, is_warned: bool
) -> None:
    data = {"train": {"fingerprint": "5f3a9c"}, "eval": {"fingerprint": fingerprint}}
    notice = build_notice(translation_record(info=run_info(data=data)))
    assert (notice is not None) == is_warned
    if notice:
        assert notice.endswith("the scores measure memorisation, not generalisation.")


def test_a_run_that_only_started_has_a_card() -> None:
    card = build_card(build_record(parsing_config(), info=run_info(**EMPTY), rows=[]))
    assert [heading for heading in headings(card) if heading in SECTIONS] == list(SECTIONS)
    assert "No evaluation has been run yet." in card
    assert "- Transformers not recorded\n" in card
    assert "plots/" not in card


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
                "train": [{"hub": "some/set", "subset": HOSTILE, "split": HOSTILE, "source_column": HOSTILE}],
                "eval": [{"path": HOSTILE, "group_column": HOSTILE}, {"hub": "old"}],
            },
            "training": {"batch_size": 8, "max_steps": 10, "learning_rate": 1e-3},
            "machine": {"deepspeed": {"comms_logger": {"prof_ops": [HOSTILE.replace("\udc80", "")]}}},
        }
    )
    report = {"rows_read": 1, "rows": 0, "skipped": {HOSTILE: 1}, "fingerprint": HOSTILE}
    info = run_info(
        versions={HOSTILE: HOSTILE},
        command=("python", "launch/train.py", HOSTILE, "precision=fp32", "```\n# not a heading"),
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
    assert [row[1:] for row in groups[1:]] == [["no value", "1.0000"], ["1.0000", "no value"]]


def test_hostile_names_become_no_html_no_links_and_no_control_characters() -> None:
    card = build_card(hostile_record())
    assert [token.content[:20] for token in inline_parts(card, kind="html_block")] == ["<!-- Generated by ds"]
    assert inline_parts(card, kind="html_inline") == []
    assert inline_parts(card, kind="link_open") == []
    assert len(inline_parts(card, kind="fence")) == 2
    assert len(inline_parts(card, kind="hr")) == 0
    assert all(char.isprintable() or char == "\n" for char in card)


def test_secrets_of_a_record_are_masked_and_the_card_says_that_it_names_paths() -> None:
    token = "hf_" + "a" * 34
    command = f"python launch/train.py 'machine.deepspeed={{comet: {{api_key: geheim}}}}' model.name={token}"
    card = build_card(build_record(parsing_config(), info=run_info(**EMPTY | {"command": command}), rows=[]))
    assert "geheim" not in card
    assert token not in card
    assert "api_key: ***" in card
    assert "This card names folders and files: read it before you publish it." in card


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


@pytest.mark.parametrize(
    ("attempt", "notice"),
    [
        (2, "its last attempt was killed at step 50 of 95000: last seen after step 57"),
        (3, "its last attempt was killed at step 50 of 95000: last seen after step 57"),
        (1, "it is still running or was killed."),
    ],
)
def test_the_notice_says_how_the_last_attempt_ended(attempt: int, notice: str) -> None:
    rows: list[Row] = [EventRow("start", 0, lease=1), EventRow("resume", 50, lease=2)]
    ends = {attempt: RunOutcome("killed", None, "last seen after step 57", attempt=attempt)}
    ends[9] = RunOutcome("refused", 1, "changed", attempt=9)  # the run is as before it
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows, ends=ends))
    assert notice in card.replace(",", "")


def make_run(run_dir: Path, *, last: str) -> Path:
    """A run folder with an evaluation at the steps 5 and 10, a best and a final model, and paths of this machine."""
    run_dir.mkdir()
    data = {"train": [{"path": "/home/ann/secret/train.tsv"}], "eval": [{"path": "/srv/share/data/eval.tsv"}]}
    config = translation_config(data=data, output_dir=str(run_dir), card={"license": "mit"})
    (run_dir / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    command = ["python", "launch/train.py", "--config", "/home/ann/x.yaml", f"output_dir={run_dir}"]
    warnings = [f"{run_dir}/metrics.jsonl has no rows"]
    write_run_info(run_dir, {"world_size": 1, "command": command, "warnings": warnings})
    rows: list[dict[str, Any]] = [{"kind": "event", "event": "start", "step": 0}]
    for step, bleu in ((5, 3.0), (10, 2.0)):
        scores = {"loss": 2.1, "bleu": bleu}
        rows.append({"kind": "eval", "step": step, "epoch": 0.1 * step, "train_loss": 2.0, "scores": scores})
    for row in [*rows, {"kind": "event", "event": last, "step": 10}]:
        append_row(run_dir / "metrics.jsonl", row)
    for name, step in (("best", 5), ("final", 10)):
        (run_dir / name).mkdir()
        (run_dir / name / "training_step.json").write_text(f'{{"step": {step}}}')
    return run_dir


def test_each_model_folder_has_a_card_of_its_own_that_nothing_leads_out_of(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", last="finish")
    write_card(run_dir)
    for name, bleu in (("best", 3.0), ("final", 2.0)):
        folder = run_dir / name
        card = ModelCard.load(folder / "README.md")
        assert find_local_paths((folder / "README.md").read_text()) == []
        images = re.findall(r"!\[.+?\]\((.+?)\)", card.text)
        assert images == ["plots/loss.png", "plots/score.png"]
        assert all((folder / image).read_bytes() == (run_dir / image).read_bytes() for image in images)
        assert card.data.license == "mit"
        results = {each.metric_type: each.metric_value for each in card.data.eval_results}
        assert results == {"loss": 2.1, "bleu": bleu}
        assert "from_pretrained('.')" in card.text
        assert "lie in the folder of the run" in card.text
        assert f"`{name}/` holds these weights" not in card.text
    assert "the best of 2 evaluations by `bleu`" in (run_dir / "best" / "README.md").read_text()
    final = (run_dir / "final" / "README.md").read_text()
    assert "at step 10 (epoch 1.00), the evaluation of these weights, and the last evaluation." in final
    assert "The best evaluation by `bleu`, at step 5, has Loss 2.1000, Bleu 3.0000." in final
    assert "/home/ann/secret/train.tsv" in (run_dir / "README.md").read_text()


def test_while_a_run_may_replace_its_models_nothing_is_written_into_their_folders(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", last="resume")
    write_card(run_dir)
    assert [path.name for path in (run_dir / "best").iterdir()] == ["training_step.json"]
    assert (run_dir / "README.md").is_file()


def test_a_card_that_a_user_has_completed_is_not_written_again(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", last="finish")
    write_card(run_dir)
    best, final = (run_dir / name / "README.md" for name in ("best", "final"))
    best.write_text(re.sub(r"<!--.*?-->\n", "", best.read_text(), flags=re.DOTALL) + "My words.\n")
    final.write_text("<!-- Generated by dstrain -->\n")
    write_card(run_dir)
    assert best.read_text().endswith("My words.\n")
    assert "# ko-en-m2m" in final.read_text()


def test_weights_that_were_not_evaluated_have_no_scores_on_their_card(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", last="finish")
    (run_dir / "final" / "training_step.json").write_text('{"step": 12}')
    write_card(run_dir)
    card = ModelCard.load(run_dir / "final" / "README.md")
    assert "It has not been evaluated yet." in card.text
    assert card.data.eval_results is None
