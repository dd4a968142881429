"""LoRA in every family: what is trained, the merged model, and peft's format, which loads elsewhere and computes the same."""

import builtins
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from dstrain.config.recipe import Adapter, Model
from dstrain.errors import UserError
from dstrain.models import adapters
from dstrain.models.adapters import add_adapter, check_peft, find_targets, save_adapter
from dstrain.models.families import output_head
from dstrain.models.partial import count_trained, make_plain, plain_model, train_part
from tests.unit.models.test_new_rows import loss_of
from tests.unit.models.tiny_models import Tiny, build_batch

RANK = 3


def section(**values: Any) -> Model:
    return Model(name="x", adapter=Adapter(rank=RANK, alpha=6.0, **values))


def with_adapter(tiny: Tiny, *, new_ids: list[int] | None = None, **values: Any) -> PreTrainedModel:
    """A copy with an adapter whose matrices are as after training: not zero."""
    model = copy.deepcopy(tiny.model)
    train_part(model, section=section(**values), new_ids=new_ids or [], seed=3)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def linear_layers(model: nn.Module) -> set[str]:
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("lm_head")
    }


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_the_table_of_targets_names_the_layers_of_every_family(tiny: Tiny, targets: Any) -> None:
    layers = linear_layers(tiny.model)
    is_attention = {name for name in layers if "attn" in name or "Attention" in name}
    wanted = layers if targets == "all" else is_attention
    train_part(tiny.model, section=section(targets=targets), new_ids=[], seed=3)
    found = {name.partition(".lora_")[0] for name, each in tiny.model.named_parameters() if each.requires_grad}
    assert found == wanted
    assert all(".lora_" in name for name, each in tiny.model.named_parameters() if each.requires_grad)


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_families_that_are_fine_tuned_only_have_their_layers_in_the_table_or_all_of_them(
    stock_tiny: Any, targets: Any
) -> None:
    layers = linear_layers(stock_tiny.model)
    is_attention = {name for name in layers if "attn" in name or "Attention" in name}
    if targets == "attention" and stock_tiny.family in ("led", "bigbird_pegasus"):
        with pytest.raises(
            UserError, match=f"which layers of `{stock_tiny.model.config.model_type}` are its attention"
        ):
            find_targets(stock_tiny.model, Adapter(targets="attention"))
        return
    train_part(stock_tiny.model, section=section(targets=targets), new_ids=[], seed=3)
    found = {name.partition(".lora_")[0] for name, each in stock_tiny.model.named_parameters() if each.requires_grad}
    assert found == (layers if targets == "all" else is_attention)


def test_an_adapter_changes_nothing_at_first_and_is_the_same_for_the_same_seed(tiny: Tiny) -> None:
    batch = build_batch(tiny, num_rows=3)
    before = loss_of(tiny.model, batch)
    pair = [copy.deepcopy(tiny.model) for _ in "ab"]
    for number, model in enumerate(pair):
        torch.manual_seed(number)
        add_adapter(model, Adapter(rank=RANK), seed=3)
        torch.testing.assert_close(loss_of(model, batch), before, rtol=1e-6, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(pair[0].parameters(), pair[1].parameters(), strict=True))


def test_every_trained_parameter_has_a_gradient_and_no_other(tiny: Tiny) -> None:
    model = with_adapter(tiny, targets="all", new_ids=[9, 11])
    loss_of(model, build_batch(tiny, num_rows=5)).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_the_merged_model_is_ordinary_and_computes_the_same_and_everything_comes_back(tiny: Tiny) -> None:
    model, batch = with_adapter(tiny, targets="all", new_ids=[9, 11]), build_batch(tiny, num_rows=5)
    live, modules = loss_of(model, batch), list(model.modules())
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    assert abs((live - loss_of(tiny.model, batch)).item()) > 1e-3
    with plain_model(model):
        assert model.state_dict().keys() == tiny.model.state_dict().keys()
        torch.testing.assert_close(loss_of(model, batch), live, rtol=1e-5, atol=0)
    assert list(model.modules()) == modules
    assert [name for name, each in model.named_parameters() if not torch.equal(each, before[name])] == []
    make_plain(model)
    torch.testing.assert_close(loss_of(model, batch), live, rtol=1e-5, atol=0)


def test_in_bf16_the_update_is_added_in_fp32_and_rounded_once(tiny: Tiny) -> None:
    model = with_adapter(tiny).to(torch.bfloat16)
    name, layer = next((name, each) for name, each in model.named_modules() if hasattr(each, "lora_A"))
    base, first, second = (
        each.weight.detach().double() for each in (layer.base_layer, layer.lora_A["default"], layer.lora_B["default"])
    )
    make_plain(model)
    merged = model.get_submodule(name).weight
    assert merged.dtype == torch.bfloat16
    exact = base + 6.0 / RANK * (second @ first)
    assert (merged.double() - exact).abs().max() <= exact.abs().max() * 2**-8


@pytest.mark.parametrize("has_rows", [False, True])
def test_peft_loads_the_adapter_onto_the_base_and_computes_the_same(tiny: Tiny, tmp_path: Path, has_rows: bool) -> None:
    tiny.model.eval().save_pretrained(tmp_path / "base")
    model = with_adapter(tiny, targets="all", new_ids=[9, 11] if has_rows else [])
    make_plain(model)
    whole = model.eval()
    save_adapter(tmp_path / "adapter", model=model, whole=whole, section=section(targets="all"), has_rows=has_rows)
    base = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    if hasattr(base, "final_logits_bias"):
        base.final_logits_bias = tiny.model.final_logits_bias
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    batch = build_batch(tiny, num_rows=5)
    inputs = {"input_ids": batch.source_ids, "attention_mask": batch.source_mask}
    decoder_ids = batch.labels.clamp(min=3)
    with torch.no_grad():
        found, expected = (each(**inputs, decoder_input_ids=decoder_ids).logits for each in (loaded, whole))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert loaded.peft_config["default"].base_model_name_or_path == "x"


def test_an_adapter_of_a_local_model_names_no_path(tiny: Tiny, tmp_path: Path) -> None:
    model = with_adapter(tiny, targets="all")
    make_plain(model)
    local = section(targets="all").model_copy(update={"name": str(tmp_path)})
    save_adapter(tmp_path / "adapter", model=model, whole=model, section=local, has_rows=False)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert config["r"] == RANK


@pytest.mark.parametrize("tiny", ["m2m100", "mt5"], indirect=True)
def test_a_target_that_the_model_lacks_is_refused_with_one_that_is_near(tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"model\.adapter\.targets: `q_prj` is no linear layer of this model; it has"):
        find_targets(tiny.model, Adapter(targets=("q_prj",)))
    with pytest.raises(UserError, match="`lm_head` is no linear layer"):
        find_targets(tiny.model, Adapter(targets=("lm_head",)))


@pytest.mark.parametrize("tiny", ["m2m100"], indirect=True)
def test_only_the_named_layers_are_trained(tiny: Tiny) -> None:
    model = with_adapter(tiny, targets=("q_proj",))
    assert count_trained(model) == 6 * RANK * (16 + 16)
    assert not output_head(model).weight.requires_grad


def test_without_peft_the_recipe_is_refused_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    check_peft(None)
    with pytest.raises(UserError, match=r"pip install 'peft>=0\.21,<0\.22'"):
        check_peft(Adapter())


def test_peft_is_imported_only_where_an_adapter_is_wanted(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **options: Any) -> Any:
        assert not name.startswith("peft"), name
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    train_part(tiny.model, section=Model(name="x", freeze=("encoder",)), new_ids=[], seed=0)
    make_plain(tiny.model)
