"""Predictions by complete runs: those of the evaluation for the same rows, however they are given and on any number of ranks."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dstrain.cluster.environment import ProcessInfo
from dstrain.config.schema import RunConfig
from dstrain.predict import main
from dstrain.run_folder.layout import RunFolder
from dstrain.tasks.parsing import from_pointer
from dstrain.tasks.words import cut_words
from tests.distributed.ranks import start_ranks
from tests.system.bases import write_base
from tests.system.runs import NUM_EVAL, NUM_TRAIN, build_run, first_rows, train


def predict(*arguments: str, world_size: int = 1) -> list[int]:
    """Exit codes of the ranks of a prediction."""
    return start_ranks(_predict, arguments, world_size=world_size)


def _predict(place: ProcessInfo, arguments: Sequence[str]) -> int:
    os.environ.update(place.as_environment() | {"LOCAL_WORLD_SIZE": str(place.local_world_size)})
    return main(list(arguments))


def hypotheses(run: Path, step: int) -> bytes:
    """What the run's evaluation of this step wrote."""
    return next(RunFolder(run).hypotheses(step).glob("hypotheses*")).read_bytes()


def end_of(config: RunConfig) -> Path:
    """The folder of the trained run."""
    assert train(config) == [0]
    return Path(config.run_dir)


@pytest.fixture(scope="module")
def translation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose evaluations search with 4 beams, and that trains part of the vocabulary of a base."""
    folder = tmp_path_factory.mktemp("translation")
    write_base(folder / "base", architecture="m2m100")
    changes: dict[str, Any] = {
        "model": {"name": str(folder / "base"), "vocabulary": "seen"},
        "training__max_steps": 150,
        "training__learning_rate": 5e-3,
        "evaluation": {"every_steps": 50, "num_beams": 4, "length_penalty": 1.5},
        "machine__evaluation_tokens": 200,  # several batches
        "checkpoint__every_steps": 50,
        "checkpoint__keep_last": 4,
    }
    return end_of(build_run(folder, **changes))


@pytest.fixture(scope="module")
def parsing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in the pointer form with greedy search."""
    folder = tmp_path_factory.mktemp("parsing")
    files = []
    every = first_rows("parsing", split="train", number=NUM_TRAIN)
    for split, rows in (("train", every), ("eval", every[-NUM_EVAL:])):  # without labels that training lacks
        files.append(folder / f"{split}.jsonl")
        lines = [json.dumps({"id": n, "text": {"en": row.source}, "parse": row.target}) for n, row in enumerate(rows)]
        files[-1].write_text("".join(f"{line}\n" for line in lines))
    columns = {"source_column": "text.en", "target_column": "parse"}
    changes: dict[str, Any] = {
        "model__scratch__architecture": "mt5",
        "task": {"kind": "parsing", "source_prefix": "parse: "},
        "data": {
            "train": [{"path": str(files[0]), **columns}],
            "eval": [{"path": str(files[1]), **columns}],
        },
        "training__max_steps": 60,
        "training__learning_rate": 5e-3,
        "evaluation": {"every_steps": 30},
    }
    return end_of(build_run(folder, **changes))


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("step", [None, 100])
def test_the_rows_of_an_evaluation_get_its_hypotheses_byte_for_byte(
    translation: Path, tmp_path: Path, step: int | None, world_size: int
) -> None:
    rows = translation.parent / "eval.tsv"
    (tmp_path / "sources.txt").write_text("".join(line.split("\t")[0] + "\n" for line in rows.read_text().splitlines()))
    output = tmp_path / "out.txt"
    files = ["--input", str(tmp_path / "sources.txt"), "--output", str(output)]
    chosen = ["--step", str(step)] if step else []
    assert predict(str(translation), *chosen, *files, world_size=world_size) == [0] * world_size
    best = json.loads((translation / "best" / "training_step.json").read_text())["step"]
    assert output.read_bytes() == hypotheses(translation, step or best)
    assert len(set(output.read_text().splitlines())) > 1, "the model says the same of every row: nothing is shown"


def test_another_number_of_beams_gives_the_hypotheses_of_an_evaluation_with_them(
    translation: Path, tmp_path: Path
) -> None:
    from dstrain.evaluate import main as evaluate

    scored = ["evaluation.num_beams=1", "machine.evaluation_tokens=null"]
    assert evaluate([str(translation), *scored, "--output", str(tmp_path / "scores")]) == 0
    output = tmp_path / "out.tsv"
    rows = translation.parent / "eval.tsv"
    assert predict(str(translation), "--beams", "1", "--input", str(rows), "--output", str(output)) == [0]
    best = json.loads((translation / "best" / "training_step.json").read_text())["step"]
    expected = hypotheses(tmp_path / "scores", best).decode().splitlines()
    lines = rows.read_text().splitlines()
    assert output.read_text() == "".join(f"{row}\t{text}\n" for row, text in zip(lines, expected, strict=True))


@pytest.mark.parametrize("world_size", [1, 2])
def test_parses_have_words_in_the_place_of_pointers_and_json_keeps_every_key(
    parsing: Path, tmp_path: Path, world_size: int
) -> None:
    rows = parsing.parent / "eval.jsonl"
    files = ["--input", str(rows), "--source-column", "text.en"]
    for name, more in (("words", []), ("pointers", ["--pointers"])):
        given = [*files, "--output", str(tmp_path / f"{name}.jsonl"), *more]
        assert predict(str(parsing / "best"), *given, world_size=world_size) == [0] * world_size
    words, pointers = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("words", "pointers")
    )
    best = json.loads((parsing / "best" / "training_step.json").read_text())["step"]
    assert "".join(row["prediction"] + "\n" for row in pointers).encode() == hypotheses(parsing, best)
    assert any("<pt-" in row["prediction"] for row in pointers), "no pointer was generated: nothing is shown"
    for before, row, pointed in zip(rows.read_text().splitlines(), words, pointers, strict=True):
        utterance = " ".join(cut_words(row["text"]["en"]))
        assert row == json.loads(before) | {"prediction": from_pointer(pointed["prediction"], source=utterance)}


def test_the_best_of_a_beam_come_with_their_scores_in_order(translation: Path, tmp_path: Path) -> None:
    rows, output = tmp_path / "rows.tsv", tmp_path / "out.tsv"
    lines = (translation.parent / "eval.tsv").read_text().splitlines()[:3]
    rows.write_text("".join(["id\tko\ten\n", f"a\t{lines[0]}\n", "\n", f"b\t{lines[1]}\n", "c\t \t \n"]))
    given = ["--source-column", "ko", "--n-best", "3", "--input", str(rows), "--output", str(output)]
    assert predict(str(translation), *given) == [0]
    header, *found = [line.split("\t") for line in output.read_text().splitlines()]
    assert header == ["id", "ko", "en", "prediction", "rank", "score"]
    assert [row[0] for row in found] == ["a", "a", "a", "", "b", "b", "b", "c"]
    assert found[-1] == ["c", " ", " ", "", "", ""]
    for group in (found[:3], found[4:7]):
        assert [row[4] for row in group] == ["1", "2", "3"]
        scores = [float(row[5]) for row in group]
        assert scores == sorted(scores, reverse=True)
        assert all(score < 0 for score in scores)


def test_an_exported_folder_predicts_by_itself_as_it_did_in_its_run(translation: Path, tmp_path: Path) -> None:
    from dstrain.checkpoint.store import find_checkpoint
    from dstrain.run.export import export_checkpoint

    folder = RunFolder(translation)
    export_checkpoint(folder, directory=find_checkpoint(folder.path, step=150), to=tmp_path / "model")
    output = tmp_path / "out.tsv"
    given = ["--input", str(translation.parent / "eval.tsv"), "--output", str(output), "--batch-tokens", "200"]
    assert predict(str(tmp_path / "model"), *given) == [0]
    found = "".join(line.split("\t")[2] + "\n" for line in output.read_text().splitlines())
    assert found.encode() == hypotheses(translation, 150)


def test_a_stream_is_written_to_a_stream_and_rank_0_reads_for_all(translation: Path) -> None:
    lines = (translation.parent / "eval.tsv").read_text().splitlines()[:4]
    sources = "\n".join([lines[0].split("\t")[0], "", lines[1].split("\t")[0]]) + "\n"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    texts = []
    for start in ([sys.executable], launcher):
        command = [*start, "launch/predict.py", str(translation)]
        done = subprocess.run(command, input=sources, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert "3 rows in" in done.stderr
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert texts[0].count("\n") == 3
    assert texts[0].splitlines()[1] == ""


def test_a_reader_that_has_enough_ends_the_program_quietly(translation: Path) -> None:
    command = [sys.executable, "launch/predict.py", str(translation), "--input", str(translation.parent / "eval.tsv")]
    command += ["--format", "lines", "--device", "cpu"]
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does once it has its lines
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_broken_row_is_named_before_anything_is_computed_and_no_file_appears(
    translation: Path, tmp_path: Path, world_size: int, capfd: pytest.CaptureFixture[str]
) -> None:
    rows, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"source": "하나"}\n{"source": 3}\n')
    given = [str(translation), "--input", str(rows), "--output", str(output)]
    if world_size == 1:
        assert main(given) == 1
        assert capfd.readouterr().err == f"{rows}:2: `source` is a value of type `int` instead of text\n"
    else:
        code = "import sys; from dstrain.predict import main; sys.exit(main(sys.argv[1:]))"
        environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611", "WORLD_SIZE": "2"}
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", code, *given],
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        said = [rank.communicate(timeout=300)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [1, 1]
        assert f"{rows}:2: " in said[0]
        assert "rows.jsonl" not in said[1]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_sources_over_the_limit_are_cut_and_counted_with_their_lines(
    translation: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = ["하나", "둘 " * 400, "셋"]
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO("".join(f"{line}\n" for line in lines).encode())))  # type: ignore[arg-type, type-var]
    monkeypatch.setattr(sys, "stdin", stream)
    assert main([str(translation), "--max-source-tokens", "40", "--device", "cpu"]) == 0
    assert capfd.readouterr().out.count("\n") == 3
    assert "1 source was cut to 40 tokens: stdin:2 (--max-source-tokens)" in caplog.messages
