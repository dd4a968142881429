"""The self-test of other architectures: it passes where our loss is the stock model's, and refuses with both numbers."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tf

from dstrain.errors import UserError
from dstrain.models import families, self_test
from dstrain.models.families import family_of, is_experiment
from dstrain.models.self_test import check_experiment
from tests.unit.models.stock_families import BART_SIZES, T5_SIZES, build_stock_model

CPU = torch.device("cpu")
SMALL_BLENDERBOT = {**BART_SIZES, "vocab_size": 99, "encoder_layers": 5, "decoder_layers": 4}


def check(config: Any) -> None:
    check_experiment(config, device=CPU)


def test_an_architecture_of_no_family_passes_and_its_numbers_are_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = tf.BlenderbotSmallConfig(**SMALL_BLENDERBOT)
    assert family_of(config) == "blenderbot-small"
    assert is_experiment(config)
    check(config)
    assert "architecture `blenderbot-small` is experimental: self-test passed, loss " in caplog.text
    assert (config.encoder_layers, config.decoder_layers) == (5, 4)


def test_a_family_of_the_table_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "_small_model", lambda *_, **__: pytest.fail("a model was built"))
    check(tf.BartConfig())


@pytest.mark.parametrize("family", ["umt5", "longt5"])
def test_a_scale_that_we_do_not_know_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    config = build_stock_model(family, num_rows=99).config
    monkeypatch.delitem(families.FAMILIES, family)
    with pytest.raises(
        UserError, match=rf"`{family}` .* fails the self-test: loss \d\S+ \(stock \d\S+\), gradient norm"
    ):
        check(config)


def without_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstrain.models.loss.logit_cap", lambda model: None)


def without_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    project = self_test.Seq2SeqLoss

    def forget(model: Any) -> Any:
        loss = project(model)
        loss.projection.bias = None
        return loss

    monkeypatch.setattr(self_test, "Seq2SeqLoss", forget)


@pytest.mark.parametrize(("family", "forget"), [("t5gemma", without_cap), ("bart", without_bias)])
def test_a_cap_or_a_bias_that_we_would_forget_is_found(
    monkeypatch: pytest.MonkeyPatch, family: str, forget: Callable[[pytest.MonkeyPatch], None]
) -> None:
    config = build_stock_model(family, num_rows=99).config
    if family == "t5gemma":
        config.decoder.final_logit_softcapping = 30.0  # as published
    monkeypatch.delitem(families.FAMILIES, family)
    check(config)
    forget(monkeypatch)
    with pytest.raises(UserError, match="fails the self-test"):
        check(config)


def test_a_stock_model_that_fails_is_refused_with_its_error() -> None:
    config = tf.FSMTConfig(**BART_SIZES, src_vocab_size=99, tgt_vocab_size=99, langs=["en", "de"])
    with pytest.raises(UserError, match=r"`fsmt` .* cannot compute its loss \(ValueError: "):
        check(config)


def test_a_head_with_a_bias_is_refused_by_name() -> None:
    sizes = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    bert = tf.BertConfig(**sizes, intermediate_size=32)
    config = tf.EncoderDecoderConfig.from_encoder_decoder_configs(bert, bert)
    with pytest.raises(UserError, match="`encoder-decoder` has an output head with a bias"):
        check(config)


def test_experts_are_refused_before_any_test() -> None:
    with pytest.raises(UserError, match=r"`switch_transformers` is not supported: .* router"):
        family_of(tf.SwitchTransformersConfig(**T5_SIZES))
