"""Exported models: complete or not replaced, loadable by the ordinary classes, and compared with the live model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from dstrain.config.local_paths import find_local_paths
from dstrain.config.recipe import Model
from dstrain.models import save
from dstrain.models.families import generation_arguments, is_head_tied
from dstrain.models.languages import default_language
from dstrain.models.load import load_model
from dstrain.models.save import Directions, ExportError, check_export, export_again, export_model
from dstrain.models.scratch import build_scratch_model
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run_folder.atomic import recover_folder
from dstrain.run_folder.layout import EXPORTED_STEP
from dstrain.run_folder.reading import read_exported_pairs, read_exported_step
from tests.unit.models.tiny_models import LANGUAGES, Tiny, tiny_scratch

GENERATION = {"num_beams": 1, "max_new_tokens": 5}


@pytest.fixture
def model(tokenizer_folder: Callable[[str], Path]) -> Tiny:
    tokenizer = load_tokenizer(str(tokenizer_folder("t5")))
    return Tiny(
        "t5", tokenizer, build_scratch_model(tiny_scratch("t5"), tokenizer=tokenizer, seed=0).eval(), (None, None)
    )


def export(model: Tiny, folder: Path, *, step: int = 7, sources: Sequence[Sequence[int]] = ()) -> None:
    export_model(
        model.model, tokenizer=model.tokenizer, folder=folder, generation=GENERATION, step=step, sources=sources
    )


def check(model: Tiny, folder: Path) -> None:
    source_language, target_language = model.languages
    sources, _ = model.tokenizer.encode(
        ["yes", "커피 두 잔"], ["", ""], source_language=source_language, target_language=target_language
    )
    check_export(folder, model=model.model, sources=sources, tokenizer=model.tokenizer)


def test_an_exported_model_equals_the_live_one_and_names_its_step(model: Tiny, tmp_path: Path) -> None:
    before = model.model.generation_config
    export(model, tmp_path / "best")
    check(model, tmp_path / "best")
    assert read_exported_step(tmp_path / "best") == 7
    assert model.model.generation_config is before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best"]
    (tmp_path / "mine").touch()
    modes = {path.stat().st_mode for path in (*(tmp_path / "best").iterdir(), tmp_path / "mine")}
    assert len(modes) == 1, "others may not read the model"
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "best")
    assert (loaded.generation_config.num_beams, loaded.generation_config.max_new_tokens) == (1, 5)


def test_a_folder_that_differs_does_not_take_the_place_of_the_old_one(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(model, tmp_path / "best")
    saved = type(model.model).save_pretrained

    def damage(model: Any, folder: Path, **given: Any) -> None:
        with torch.no_grad():
            model.shared.weight[3] += 1
        saved(model, folder, **given)
        with torch.no_grad():
            model.shared.weight[3] -= 1

    monkeypatch.setattr(type(model.model), "save_pretrained", damage)
    with pytest.raises(ExportError, match=r"tensor shared\.weight"):
        export(model, tmp_path / "best", step=8, sources=[[3, 4, 1]])
    assert read_exported_step(tmp_path / "best") == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best"]


def test_a_changed_weight_is_found_by_its_name(model: Tiny, tmp_path: Path) -> None:
    export(model, tmp_path / "best")
    with torch.no_grad():
        model.model.encoder.final_layer_norm.weight.add_(1.0)
    with pytest.raises(ExportError, match=r"tensor encoder\.final_layer_norm\.weight"):
        check(model, tmp_path / "best")


def test_another_configuration_is_found_by_its_hypotheses(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(model, tmp_path / "best")
    copy = save._fresh_copy

    def copy_otherwise(live: nn.Module) -> Any:
        copied = copy(live)
        generate = copied.generate
        copied.generate = lambda **given: generate(**given)[:, :-1]
        return copied

    monkeypatch.setattr(save, "_fresh_copy", copy_otherwise)
    with pytest.raises(ExportError, match="generates other hypotheses"):
        check(model, tmp_path / "best")


def test_hypotheses_are_compared_in_memory_that_is_laid_out_alike(model: Tiny) -> None:
    weights = torch.cat([torch.zeros(1), *(p.detach().flatten() for p in model.model.parameters())])
    offset = 1
    for parameter in model.model.parameters():  # views into one buffer, as those of a DeepSpeed engine
        parameter.data = weights[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()
    copied = save._fresh_copy(model.model)
    state = model.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in copied.state_dict().items())
    assert all(parameter.data_ptr() % 64 == 0 for parameter in copied.parameters())
    assert not all(parameter.data_ptr() % 64 == 0 for parameter in model.model.parameters())


def test_a_newer_export_replaces_the_older_one(model: Tiny, tmp_path: Path) -> None:
    export(model, tmp_path / "best", step=1)
    (tmp_path / "best" / "left_over").touch()
    export(model, tmp_path / "best", step=2)
    assert read_exported_step(tmp_path / "best") == 2
    assert not (tmp_path / "best" / "left_over").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best"]


def test_an_export_that_fails_leaves_the_older_one(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(model, tmp_path / "best", step=1)

    def fail(folder: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(model.tokenizer.tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        export(model, tmp_path / "best", step=2)
    assert read_exported_step(tmp_path / "best") == 1
    check(model, tmp_path / "best")


def test_a_full_disk_is_an_error_of_the_system_as_elsewhere(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(type(model.model), "save_pretrained", fail)
    with pytest.raises(OSError, match="No space left on device"):
        export(model, tmp_path / "best")


def test_an_interrupted_replacement_is_undone(tmp_path: Path) -> None:
    older = tmp_path / "best.old"
    older.mkdir()
    (older / EXPORTED_STEP).write_text('{"step": 3}\n')
    recover_folder(tmp_path / "best")
    assert read_exported_step(tmp_path / "best") == 3
    assert not older.exists()
    older.mkdir()  # if the replacement was complete, the older folder is only left over
    recover_folder(tmp_path / "best")
    assert read_exported_step(tmp_path / "best") == 3


@pytest.mark.parametrize("has_own_head", [False, True])
def test_the_config_says_tied_only_where_every_version_then_ties_and_scales_alike(
    tiny: Tiny, tmp_path: Path, has_own_head: bool
) -> None:
    if has_own_head:
        head = tiny.model.get_output_embeddings()
        head.weight = nn.Parameter(torch.randn_like(head.weight))
    export(tiny, tmp_path / "best")
    said = json.loads((tmp_path / "best" / "config.json").read_text())["tie_word_embeddings"]
    # transformers 4 would scale the hidden states of an mT5 whose config says tied; version 5 does not
    assert said is not (has_own_head or tiny.family == "mt5")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "best").state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in tiny.model.state_dict().items())

    check(tiny, tmp_path / "best")

    sentences: list[str] = []
    section = Model(name=str(tmp_path / "best"))
    trained = load_model(section, tokenizer=tiny.tokenizer, seed=0, report=sentences.append)
    check(tiny._replace(model=trained), tmp_path / "best")
    assert sentences == []
    assert is_head_tied(trained) is not has_own_head
    assert len(list(trained.parameters())) == len(list(tiny.model.parameters()))  # as many are shared as before


def test_special_tokens_have_the_name_that_every_version_reads(tiny: Tiny, tmp_path: Path) -> None:
    export(tiny, tmp_path / "best")
    config = json.loads((tmp_path / "best" / "tokenizer_config.json").read_text())
    assert "extra_special_tokens" not in config  # a list under this name ends transformers 4 with an AttributeError
    again = AutoTokenizer.from_pretrained(tmp_path / "best")
    assert again.all_special_tokens == tiny.tokenizer.tokenizer.all_special_tokens
    assert load_tokenizer(str(tmp_path / "best")).fingerprint == tiny.tokenizer.fingerprint


def test_paths_that_a_published_tokenizer_brings_along_are_left_out(tiny: Tiny, tmp_path: Path) -> None:
    given = tiny.tokenizer.tokenizer.init_kwargs
    given["sentencepiece_source"] = "/home/ann/.cache/torch/transformers/685ac0ca.f76030"
    try:
        export(tiny, tmp_path / "best")
    finally:
        del given["sentencepiece_source"]
    for path in (tmp_path / "best").glob("*config.json"):
        assert find_local_paths(path.read_text()) == [], path
    assert load_tokenizer(str(tmp_path / "best")).fingerprint == tiny.tokenizer.fingerprint


@pytest.mark.parametrize("family", ["m2m100", "nllb", "mbart", "mbart50"])
@pytest.mark.parametrize("damage", [None, "default", "target", "reading"])
def test_a_folder_that_translates_another_pair_than_its_rows_is_refused(
    family: str,
    damage: str | None,
    tokenizer_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder(family)))
    model = build_scratch_model(tiny_scratch(family), tokenizer=tokenizer, seed=0).eval()
    there = LANGUAGES[family]
    back = (there[1], there[0])
    text = "커피 two cups"
    (ids,), _ = tokenizer.encode([text], [""], source_language=there[0], target_language=there[1])
    target = back[1] if damage == "target" else there[1]
    if damage == "default":
        monkeypatch.setattr(
            type(tokenizer), "save", lambda self, folder, **given: self.tokenizer.save_pretrained(folder)
        )
    if damage == "reading":
        monkeypatch.setattr(tokenizer, "encode", lambda *texts, **given: ([[*ids, 5]], [[]]))

    def write() -> None:
        tokenizer._set_languages(*back)
        export_model(
            model,
            tokenizer=tokenizer,
            folder=tmp_path / "best",
            generation=GENERATION | generation_arguments(model, tokenizer, target_language=target),
            step=1,
            sources=[ids],
            directions=Directions([there, back], [(text, *there), (text, *back)]),
        )

    if damage is None:
        write()
        assert read_exported_pairs(tmp_path / "best") == [there, back]
        assert default_language(AutoTokenizer.from_pretrained(tmp_path / "best")) == there[0]
        return
    with pytest.raises(
        ExportError, match={"default": "reads sources", "target": "has", "reading": "otherwise"}[damage]
    ):
        write()


def again(model: Tiny, folder: Path, *, like: Path, **generation: Any) -> None:
    given = {"sources": [[3, 4, 1]], "tokenizer": model.tokenizer}
    export_again(model.model, like=like, folder=folder, generation=GENERATION | generation, **given)


def test_a_second_folder_of_a_model_shares_its_weights_and_has_files_of_its_own(model: Tiny, tmp_path: Path) -> None:
    best, final = tmp_path / "best", tmp_path / "final"
    export(model, best)
    files = {path.name for path in best.iterdir()}
    (best / "README.md").write_text("the card of the best model")
    (best / "plots").mkdir()
    again(model, final, like=best, num_beams=3)
    assert {path.name for path in final.iterdir()} == files
    shared = {name for name in files if (best / name).samefile(final / name)}
    assert shared == {"model.safetensors"}
    check(model, final)
    assert read_exported_step(final) == 7
    beams = [json.loads((folder / "generation_config.json").read_text())["num_beams"] for folder in (best, final)]
    assert beams == [1, 3]
    export(model, best, step=8)  # the new one is another file
    assert not (best / "model.safetensors").samefile(final / "model.safetensors")


def test_a_folder_of_another_model_is_not_taken_for_it(model: Tiny, tmp_path: Path) -> None:
    export(model, tmp_path / "best")
    export(model, tmp_path / "final", step=3)
    with torch.no_grad():
        model.model.shared.weight[3] += 1
    with pytest.raises(ExportError, match=r"tensor shared\.weight"):
        again(model, tmp_path / "final", like=tmp_path / "best")
    assert read_exported_step(tmp_path / "final") == 3


def test_without_links_the_weights_are_copied(model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(1, "Operation not permitted")

    export(model, tmp_path / "best")
    monkeypatch.setattr(save.os, "link", refuse)
    again(model, tmp_path / "final", like=tmp_path / "best")
    check(model, tmp_path / "final")
    assert not (tmp_path / "best" / "model.safetensors").samefile(tmp_path / "final" / "model.safetensors")
