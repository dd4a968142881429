"""Properties of each family: names, start tokens, forced languages, precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    BartConfig,
    BertConfig,
    LEDConfig,
    LlamaConfig,
    MarianConfig,
    MT5Config,
    NllbMoeConfig,
    PegasusXConfig,
    ProphetNetConfig,
    T5Config,
    UMT5Config,
)

from dstrain.config.conflicts import T5_ARCHITECTURES
from dstrain.config.positions import Positions
from dstrain.config.recipe import Task
from dstrain.models.families import (
    FAMILIES,
    check_limits,
    check_precision,
    decoder_start_id,
    family_of,
    generation_arguments,
    hidden_scale,
    max_positions,
)
from dstrain.models.load import load_config

FolderOf = Callable[[str], Path]


def test_the_family_is_found_from_a_stored_config(tiny: Any, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    assert family_of(load_config(str(tmp_path))) == ("mbart" if tiny.family == "mbart50" else tiny.family)


@pytest.mark.parametrize("config", [BertConfig(), LlamaConfig()])
def test_other_architectures_are_refused_naming_the_supported(config: Any) -> None:
    with pytest.raises(ValueError, match=r"NLLB, ByT5, M2M100, mBART, Marian, T5, mT5, .*T5Gemma"):
        family_of(config)


@pytest.mark.parametrize(("config", "reason"), [(NllbMoeConfig(), "router"), (ProphetNetConfig(), "several tokens")])
def test_a_loss_of_another_kind_is_refused_by_name(config: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"`{config.model_type}` is not supported: .*{reason}"):
        family_of(config)


def test_every_t5_architecture_that_overflows_fp16_is_a_family() -> None:
    assert set(T5_ARCHITECTURES) <= FAMILIES.keys()
    for kind in T5_ARCHITECTURES:
        assert "t5" in FAMILIES[kind].name


def test_marian_with_two_vocabularies_is_refused() -> None:
    with pytest.raises(ValueError, match="separate source and target vocabularies"):
        family_of(MarianConfig(share_encoder_decoder_embeddings=False))


def test_fp16_is_refused_for_the_t5_family_unless_allowed(tiny: Any) -> None:
    config = tiny.model.config
    check_precision(config, precision="bf16", allow_fp16_t5=False)
    check_precision(config, precision="fp16", allow_fp16_t5=True)
    if tiny.family in ("t5", "mt5"):
        with pytest.raises(ValueError, match="allow_fp16_t5"):
            check_precision(config, precision="fp16", allow_fp16_t5=False)
    else:
        check_precision(config, precision="fp16", allow_fp16_t5=False)


def test_hypotheses_begin_as_references_do(tiny: Any) -> None:
    """The decoder input of generation, as far as it is forced, is the decoder input of training."""
    source, target = tiny.languages
    _, ((*labels,),) = tiny.tokenizer.encode(["네"], ["yes"], source_language=source, target_language=target)
    start = decoder_start_id(tiny.model)
    trained = [labels[-1] if start is None else start, *labels[:-1]]
    arguments = generation_arguments(tiny.model, tiny.tokenizer, target_language=target)
    first = arguments.get("decoder_start_token_id", tiny.model.generation_config.decoder_start_token_id)
    forced = arguments.get("forced_bos_token_id")
    begun = [first] if forced is None else [first, forced]
    assert trained[: len(begun)] == begun
    inputs = tiny.tokenizer.tokenizer("네", return_tensors="pt")
    hypothesis = tiny.model.eval().generate(
        inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=3, do_sample=False, **arguments
    )
    assert hypothesis[0, : len(begun)].tolist() == begun


def test_the_target_language_decides_the_forced_token(tiny: Any) -> None:
    if tiny.languages[0] is None:
        assert generation_arguments(tiny.model, tiny.tokenizer, target_language=None) == {}
        return
    source, target = tiny.languages
    key = "decoder_start_token_id" if tiny.family == "mbart" else "forced_bos_token_id"
    for language in (source, target):
        arguments = generation_arguments(tiny.model, tiny.tokenizer, target_language=language)
        assert arguments[key] == tiny.tokenizer.language_id(language)
    with pytest.raises(ValueError, match="language `xx`"):
        generation_arguments(tiny.model, tiny.tokenizer, target_language="xx")


def test_without_a_language_references_and_hypotheses_use_the_same_default(tiny: Any) -> None:
    if tiny.languages[0] is None:
        pytest.skip("a family without language tokens")
    _, (labels,) = tiny.tokenizer.encode(["네"], ["yes"], source_language=None, target_language=None)
    arguments = generation_arguments(tiny.model, tiny.tokenizer, target_language=None)
    assert tiny.tokenizer.language_id(tiny.tokenizer.default_language) in labels
    assert tiny.tokenizer.language_id(tiny.tokenizer.default_language) in arguments.values()


def test_a_config_without_a_start_token_is_refused(tiny: Any) -> None:
    if tiny.family in ("mbart", "mbart50"):
        assert decoder_start_id(tiny.model) is None
        return
    if tiny.family == "marian":
        pytest.skip("Marian's config class takes no other value than a number")
    tiny.model.config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        decoder_start_id(tiny.model)


def test_only_fixed_position_tables_limit_the_length(tiny: Any) -> None:
    limited = tiny.family in ("mbart", "mbart50", "marian")
    assert max_positions(tiny.model.config) == ((512, 512) if limited else (None, None))


def test_positions_of_sources_and_targets_may_differ() -> None:
    assert max_positions(BartConfig(max_position_embeddings=30)) == (30, 30)
    assert max_positions(PegasusXConfig(max_position_embeddings=30)) == (None, None)
    led = LEDConfig(max_encoder_position_embeddings=30, max_decoder_position_embeddings=20, attention_window=8)
    assert max_positions(led) == (24, 20)  # the encoder pads its sources to whole windows


def test_only_the_original_t5_and_umt5_scale_before_their_head() -> None:
    class Shell:
        def __init__(self, config: Any) -> None:
            self.config = config

    assert hidden_scale(Shell(T5Config(d_model=64))) == 0.125  # type: ignore[arg-type]
    assert hidden_scale(Shell(T5Config(d_model=64, tie_word_embeddings=False))) == 1.0  # type: ignore[arg-type]
    assert hidden_scale(Shell(MT5Config(d_model=64))) == 1.0  # type: ignore[arg-type]
    assert hidden_scale(Shell(UMT5Config(d_model=64))) == 0.125  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "limit"), [("max_source_tokens", 513), ("max_target_tokens", 2000)])
def test_limits_over_the_position_table_are_refused(key: str, limit: int) -> None:
    task = Task(kind="translation", **{key: limit})  # type: ignore[arg-type]
    check_limits(task, positions=Positions())
    check_limits(task, positions=Positions(limit, limit))
    with pytest.raises(ValueError, match=rf"task\.{key} is {limit}, but the model has 512 positions: lower it to 512"):
        check_limits(task, positions=Positions(512, 512))
