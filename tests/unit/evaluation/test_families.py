"""Every family with its own tokenizer and token sets and, where a score is claimed, a model that learned its rows."""

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from dstrain.config.schema import RunConfig
from dstrain.data.collate import collate
from dstrain.data.encoding import ReadingRules
from dstrain.data.examples import build_examples
from dstrain.data.sources import Row
from dstrain.data.tokens import TokenSet, load_token_set, prepare_token_set
from dstrain.evaluation.generate import Cap, build_generation_config, read_sequence
from dstrain.evaluation.result import EvaluationResult
from dstrain.evaluation.scoring import find_warnings, read_rows, score_rows
from dstrain.models.families import decoder_start_id, generation_arguments
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.scratch import build_scratch_model, train_tokenizer
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.tasks.parsing import task_tokens
from tests.unit.evaluation.evaluation_cases import run_evaluation

CODES = {"m2m100": ("ko", "en"), "nllb": ("kor_Hang", "eng_Latn"), "mbart": ("ko_KR", "en_XX")}
FAMILIES = ["m2m100", "nllb", "mbart", "marian", "t5", "mt5"]
TRANSLATIONS = [
    ("커피 두 잔", "two cups of coffee"),
    ("오후 세 시 반", "half past three in the afternoon"),
    ("삼백이십일", "three hundred twenty-one"),
    ("차 세 잔", "three cups of tea"),
    ("오전 열 시", "ten in the morning"),
    ("물 한 병 주세요", "a bottle of water, please"),
    ("백", "one hundred"),
]
PARSES = [
    ("wake me at seven tomorrow", "[IN:CREATE_ALARM [SL:DATE_TIME at seven tomorrow ] ]"),
    ("call Ann", "[IN:CREATE_CALL [SL:CONTACT Ann ] ]"),
    ("message Ann now", "[IN:SEND_MESSAGE [SL:RECIPIENT Ann ] ]"),
    ("remind me to call Bob", "[IN:CREATE_REMINDER [SL:TODO [IN:CREATE_CALL [SL:CONTACT Bob ] ] ] ]"),
    ("play jazz", "[IN:PLAY_MUSIC [SL:GENRE jazz ] ]"),
    ("weather", "[IN:GET_WEATHER ]"),
]


class Case(NamedTuple):
    config: RunConfig
    tokenizer: Seq2SeqTokenizer
    tokens: TokenSet
    model: PreTrainedModel

    def evaluate(self, **options: Any) -> EvaluationResult:
        given = {"config": self.config, "tokenizer": self.tokenizer}
        return run_evaluation(self.model, self.tokens, **(given | options))  # type: ignore[arg-type]


def build_case(folder: Path, *, family: str, rows: list[tuple[str, str]], task: dict[str, Any]) -> Case:
    file = folder / "eval.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in rows), encoding="utf-8")
    languages = CODES.get(family, ()) if task["kind"] == "translation" else ()
    if languages:
        task = task | dict(zip(("source_language", "target_language"), languages, strict=True))
    sizes = {"vocabulary_size": 400, "hidden_size": 64, "feed_forward_size": 128, "num_layers": 1, "max_positions": 24}
    config = RunConfig.model_validate(
        {
            "name": "test",
            "model": {"scratch": {"architecture": family, **sizes}},
            "task": task | {"max_source_tokens": 24, "max_target_tokens": 24},
            "data": {
                "train": [{"path": str(file)}],
                "eval": [{"path": str(file)}],
                "rules": {"unknown_token": "error"},
            },
            "training": {"batch_size": 4, "max_steps": 1, "learning_rate": 1e-3},
            "evaluation": {"batch_size": 3},
        }
    )
    scratch = config.model.scratch
    assert scratch is not None
    added = []
    if task["kind"] == "parsing":
        read = [Row(source, target, None, None, None, "eval.tsv:1") for source, target in rows]
        examples = build_examples(read, task=config.task, rules=config.data.rules, on_bad=print)
        added = task_tokens(example.target for example in examples)
    texts = [text for row in rows for text in row]
    train_tokenizer(scratch, texts=texts, languages=languages, task_tokens=added, folder=folder / "tokenizer")
    tokenizer = load_tokenizer(str(folder / "tokenizer"), added_tokens=added)
    reading = ReadingRules(config.task, config.data.rules, tokenizer, split="eval")
    tokens = prepare_token_set(config.data.eval, reading=reading, cache_dir=folder / "cache")
    model = build_scratch_model(scratch, tokenizer=tokenizer, seed=1, dropout=0.0)
    return Case(config, tokenizer, load_token_set(tokens), model)


def learn(case: Case, *, max_loss: float = 0.005, max_steps: int = 1000) -> None:
    """Fits the model to its rows, all of them in every step, until the loss per target token is small."""
    rows = range(case.tokens.num_rows)
    batch = collate(
        [case.tokens.source(row) for row in rows],
        [case.tokens.target(row) for row in rows],
        pad_id=case.tokenizer.pad_token_id,
        decoder_start_id=decoder_start_id(case.model),
    )
    loss_module = Seq2SeqLoss(case.model)
    optimizer = torch.optim.Adam(case.model.parameters(), lr=5e-3)
    for _ in range(max_steps):
        optimizer.zero_grad()
        summed = loss_module(batch.source_ids, batch.source_mask, batch.decoder_ids, batch.labels)
        loss = summed / int(case.tokens.target_lengths.sum())
        loss.backward()
        if float(loss) < max_loss:  # the number of steps depends on the rounding of the processor
            return
        optimizer.step()
    raise AssertionError(f"the loss is still {float(loss)} after {max_steps} steps")


@pytest.fixture(scope="module", params=FAMILIES)
def translation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    return build_case(folder, family=request.param, rows=TRANSLATIONS, task={"kind": "translation"})


def test_an_untrained_model_gets_the_same_low_scores_and_stock_loss_on_any_number_of_ranks(translation: Case) -> None:
    result = translation.evaluate()
    assert result == translation.evaluate(world_size=2) == translation.evaluate(world_size=3)
    assert result.texts.references[0] == [target for _, target in TRANSLATIONS]
    assert result.texts.sources == [source for source, _ in TRANSLATIONS]
    assert result.scores.scores["bleu"] < 20
    assert not any("language" in warning for warning in result.scores.warnings)
    model, tokens, sums = translation.model.eval(), translation.tokens, []
    for row in range(tokens.num_rows):
        source, labels = (torch.from_numpy(ids(row).astype(np.int64))[None] for ids in (tokens.source, tokens.target))
        with torch.no_grad():
            sums.append(float(model(input_ids=source, labels=labels).loss) * labels.numel())
    assert result.scores.scores["loss"] == pytest.approx(math.fsum(sums) / int(tokens.target_lengths.sum()), rel=1e-5)


def test_a_model_that_generates_every_reference_has_the_highest_scores(translation: Case) -> None:
    config, tokenizer, tokens, model = translation
    pad_id = tokenizer.pad_token_id
    language = config.task.target_language
    arguments = generation_arguments(model, tokenizer=tokenizer, target_language=language)
    generation = build_generation_config(model, evaluation=config.evaluation, max_new_tokens=60, arguments=arguments)
    hypotheses = []
    for row in range(tokens.num_rows):
        answer = tokens.target(row).tolist()
        if tokenizer.ends_with_language:  # the language is in front of what mBART generates, as its start token
            answer = answer[:-1]
        sequence = np.array([generation.decoder_start_token_id, *answer, pad_id, pad_id])
        hypotheses.append(read_sequence(sequence, row=row, pad_id=pad_id, generation=generation))
    rows = read_rows(hypotheses, tokens=tokens, tokenizer=tokenizer, task=config.task)
    scores = {score.name: score.value for score in score_rows(rows, task=config.task, evaluation=config.evaluation)}
    assert scores["bleu"] == pytest.approx(100.0)
    assert scores["chrf"] == pytest.approx(100.0)
    assert scores["hit_cap_rate"] == 0
    assert [row.content_ids for row in rows] == [row.reference_ids for row in rows]
    warnings = partial(
        find_warnings,
        tokens=tokens,
        tokenizer=tokenizer,
        task=config.task,
        cap=Cap(60, "test"),
        evaluation=config.evaluation,
    )
    assert warnings(rows) == []


@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_translation_model_that_learned_its_rows_reaches_bleu_100(tmp_path: Path, num_beams: int) -> None:
    case = build_case(tmp_path, family="m2m100", rows=TRANSLATIONS, task={"kind": "translation"})
    learn(case)
    config = case.config.model_copy(
        update={"evaluation": case.config.evaluation.model_copy(update={"num_beams": num_beams})}
    )
    result = case.evaluate(config=config, world_size=2)
    assert result.texts.hypotheses == result.texts.references[0]
    assert result.scores.scores["bleu"] == pytest.approx(100.0)
    assert result.scores.scores["loss"] < 0.2
    # start token, language code, words and end token: one more than the reference with its own special tokens
    assert result.scores.scores["gen_len"] == case.tokens.target_lengths.mean() + 1
    assert result.scores.warnings == ()


@pytest.mark.parametrize("form", ["words", "published", "plain"])
def test_a_parser_that_learned_its_rows_matches_every_one_exactly(tmp_path: Path, form: str) -> None:
    task = {"kind": "parsing", "form": "plain", "source_prefix": "parse: "}
    if form != "plain":
        task |= {"form": "pointer", "segmentation": form}
    case = build_case(tmp_path, family="t5", rows=PARSES, task=task)
    before = case.evaluate()
    assert before.scores.scores["exact_match"] == before.scores.scores["exact_match_tokens"] == 0
    learn(case)
    result = case.evaluate(world_size=2)
    matches = ["exact_match", "exact_match_tokens", "valid_brackets"] + ["exact_match_parse"] * (form != "plain")
    matches += ["exact_match_typed"] * (form == "published")  # the references cut no row of these
    assert {name: result.scores.scores[name] for name in matches} == dict.fromkeys(matches, 1.0)
    assert result.scores.scores["exact_match_disagreements"] == result.scores.scores["hit_cap_rate"] == 0
    assert ("exact_match_parse" in result.scores.scores) == (form != "plain")
    assert ("exact_match_typed" in result.scores.scores) == (form == "published")
    # T5 starts with padding, which is not counted
    assert result.scores.scores["gen_len"] == case.tokens.target_lengths.mean()
    assert result.texts.references[0][5] == "[IN:GET_WEATHER ]"
    assert result.texts.hypotheses == result.texts.references[0]
    assert result.scores.signatures == {}
    assert result.scores.warnings == ()


def test_a_length_cap_beyond_the_positions_of_the_model_is_lowered_with_a_warning(tmp_path: Path) -> None:
    case = build_case(tmp_path, family="marian", rows=TRANSLATIONS, task={"kind": "translation"})
    evaluation = case.config.evaluation.model_copy(update={"max_new_tokens": 500})
    result = case.evaluate(config=case.config.model_copy(update={"evaluation": evaluation}))
    assert result.scores.generation["max_new_tokens"] == 23
    assert "limited to 23 tokens by the model's 24 positions, below 500" in " ".join(result.scores.warnings)
