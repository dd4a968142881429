"""A run's model is left with what the run trains, and the rest has a hash."""

from pathlib import Path

import torch

from dstrain.config.recipe import Model
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.models.load import load_model
from dstrain.models.partial import count_trained
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run.part import leave_part
from tests.system.bases import write_base
from tests.unit.run.run_cases import build_config


def test_new_tokens_are_trained_under_the_numbers_of_their_rows(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_base(base, architecture="m2m100")
    tokenizer = load_tokenizer(str(base), added_tokens=["[IN:ONE", "[IN:TWO"])
    new = [tokenizer.tokenizer.get_vocab()[token] for token in ("[IN:ONE", "[IN:TWO")]
    config = build_config(model={"name": str(base), "freeze": ["encoder", "decoder", "embeddings"]})

    def build(vocabulary: Vocabulary) -> tuple[torch.nn.Module, str | None]:
        model = load_model(config.model, tokenizer=tokenizer, seed=1)
        before = model.get_input_embeddings().weight.detach().clone()
        found = leave_part(model, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
        embedding = model.get_input_embeddings()
        kept = before if vocabulary.kept is None else before[list(vocabulary.kept)]
        assert torch.equal(embedding.weight, kept)
        rows = [
            vocabulary.row(token_id) for token_id in new if vocabulary.is_whole or token_id in (vocabulary.kept or ())
        ]
        assert list(embedding.ids) == rows
        assert torch.equal(embedding.rows, kept[rows])
        assert count_trained(model) == embedding.rows.numel()
        return model, found

    _, whole = build(WHOLE)
    _, again = build(WHOLE)
    _, seen = build(Vocabulary(kept=(*range(40), new[1])))
    assert whole == again
    assert whole != seen


def test_a_model_that_is_trained_whole_has_no_hash(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_base(base, architecture="mt5")
    tokenizer = load_tokenizer(str(base))
    config = build_config(model={"name": str(base)})
    model = load_model(Model(name=str(base)), tokenizer=tokenizer, seed=1)
    assert leave_part(model, config=config, tokenizer=tokenizer, vocabulary=WHOLE) is None
