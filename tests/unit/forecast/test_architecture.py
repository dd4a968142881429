"""Sizes are read from the configs of known families; values that old configs lack have their default."""

import pytest

from dstrain.config.recipe import Scratch
from dstrain.forecast.architecture import read_architecture, scratch_architecture

# as published by t5-small and mt5-small
T5_SMALL = {
    "model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128,
    "relative_attention_num_buckets": 32, "dropout_rate": 0.1,
}  # fmt: skip
MT5_SMALL = {
    "model_type": "mt5", "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6,
    "vocab_size": 250112, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "dropout_rate": 0.1,
}  # fmt: skip


def test_t5_small_and_mt5_small_as_published() -> None:
    t5, mt5 = read_architecture(T5_SMALL), read_architecture(MT5_SMALL)
    assert t5 is not None
    assert mt5 is not None
    assert (t5.decoder.num_layers, t5.is_gated, t5.has_own_head, t5.activation) == (6, False, False, "relu")
    assert (mt5.encoder.inner, mt5.is_gated, mt5.has_own_head, mt5.activation) == (384, True, True, "gelu_new")
    assert mt5.num_layers == 16


def test_the_files_decide_about_the_head_and_the_recipe_about_dropout() -> None:
    read = read_architecture(MT5_SMALL, has_own_head=False, dropout=0.3)
    assert read is not None
    assert (read.has_own_head, read.dropout, read.attention_dropout) == (False, 0.3, 0.3)


@pytest.mark.parametrize(
    "broken", [{}, {"model_type": "bart"}, T5_SMALL | {"d_model": "wide"}, T5_SMALL | {"num_heads": None}]
)
def test_a_config_without_sizes_is_not_known(broken: dict[str, object]) -> None:
    assert read_architecture(broken) is None


def test_the_default_dropout_of_a_scratch_model_is_its_familys() -> None:
    scratch = Scratch(architecture="m2m100")
    assert scratch_architecture(scratch, vocabulary=9).attention_dropout == 0.1
    assert scratch_architecture(scratch, vocabulary=9, dropout=0.0).attention_dropout == 0.0
