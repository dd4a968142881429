"""The recipes of the two published model cards, run for a few steps on tiny local models: their cards are complete."""

import json
from pathlib import Path

from huggingface_hub import ModelCard
from transformers import PreTrainedModel

from dstrain.config.load import load_config
from dstrain.config.recipe import Scratch
from dstrain.config.schema import RunConfig
from dstrain.draft.card import read_card
from dstrain.draft.from_card import draft_from_card
from dstrain.models.scratch import build_scratch_model, train_tokenizer
from dstrain.models.tokenizer import load_tokenizer
from tests.system.runs import first_rows, train, write_pairs
from tests.unit.draft.card_texts import KO_EN

SECTIONS = [
    "## Model description",
    "## Intended uses & limitations",
    "## Training and evaluation data",
    "## Training procedure",
    "### Training hyperparameters",
    "### Training results",
    "### Framework versions",
]
KO_EN_NAMES = (
    "learning_rate train_batch_size eval_batch_size seed optimizer lr_scheduler_type num_epochs mixed_precision_training"
).split()
MTOP_NAMES = (
    "learning_rate train_batch_size eval_batch_size seed gradient_accumulation_steps total_train_batch_size optimizer "
    "lr_scheduler_type training_steps"
).split()


def build_folder(folder: Path, *, architecture: str, texts: list[str], languages: list[str]) -> str:
    """A random model of a family in the Hugging Face layout, in place of that of the hub."""
    scratch = Scratch.model_validate(
        {
            "architecture": architecture,
            "vocabulary_size": 700,
            "hidden_size": 32,
            "feed_forward_size": 64,
            "num_layers": 1,
        }
    )
    train_tokenizer(scratch, texts=texts, languages=languages, task_tokens=[], folder=folder)
    model: PreTrainedModel = build_scratch_model(scratch, tokenizer=load_tokenizer(str(folder)), seed=1)
    model.save_pretrained(folder)
    return str(folder)


def run_recipe(name: str, *, overrides: list[str], folder: Path) -> str:
    """The card of a recipe run on two ranks."""
    common = [f"output_dir={folder / 'run'}", f"machine.cache_dir={folder / 'cache'}", "logging.tensorboard=false"]
    config: RunConfig = load_config(name, overrides=[*overrides, *common])
    assert train(config, world_size=2) == [0, 0]
    text = (folder / "run" / "README.md").read_text()
    assert ModelCard.load(folder / "run" / "README.md").data.eval_results
    return text


def assert_like_the_seed(card: str, *, names: list[str], columns: list[str]) -> None:
    for section in SECTIONS:
        assert section in card
    for name in names:
        assert f"- {name}: " in card
    header = next(line for line in card.splitlines() if line.startswith("| Training Loss"))
    assert [cell.strip() for cell in header.split("|")[1 : len(columns) + 1]] == columns
    for library in ("Transformers", "Pytorch", "Datasets", "Tokenizers"):
        assert f"- {library} " in card


def test_ko_en_m2m(tmp_path: Path) -> None:
    train_path, eval_path = write_pairs(tmp_path)
    texts = Path(train_path).read_text().splitlines()
    model = build_folder(tmp_path / "model", architecture="m2m100", texts=texts, languages=["ko", "en"])
    overrides = [
        f"model.name={model}",
        "model.revision=null",
        "precision=fp32",
        f"data.train.0.path={train_path}",
        f"data.eval.0.path={eval_path}",
        "training.epochs=0.5",
        "evaluation.every_steps=2",
    ]
    card = run_recipe("ko_en_m2m", overrides=overrides, folder=tmp_path)
    columns = ["Training Loss", "Epoch", "Step", "Validation Loss", "Bleu", "Gen Len"]
    assert_like_the_seed(card, names=KO_EN_NAMES, columns=columns)
    assert "- learning_rate: 0.0003" in card
    assert "- mixed_precision_training: none (fp32)" in card


def test_mt5_pointer_mtop(tmp_path: Path) -> None:
    paths = []
    for split, number in (("train", 600), ("eval", 12)):
        rows = first_rows("parsing", split=split, number=number)
        path = tmp_path / f"{split}.tsv"
        path.write_text("".join(f"{row.source}\t{row.target}\n" for row in rows))
        paths.append(path)
    texts = paths[0].read_text().splitlines() + ["parse: [ ] <>"]
    model = build_folder(tmp_path / "model", architecture="mt5", texts=texts, languages=[])
    overrides = [
        f"model.name={model}",
        "model.revision=null",
        "precision=fp32",
        f"data.train.0.path={paths[0]}",
        f"data.eval.0.path={paths[1]}",
        "training.max_steps=2",
        "evaluation.every_steps=1",
    ]
    card = run_recipe("mt5_pointer_mtop", overrides=overrides, folder=tmp_path)
    columns = ["Training Loss", "Epoch", "Step", "Validation Loss", "Exact Match"]
    assert_like_the_seed(card, names=MTOP_NAMES, columns=columns)
    assert "- total_train_batch_size: 512" in card
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [1, 2]


def test_a_run_of_a_card_ends_with_the_published_table_against_its_own(tmp_path: Path) -> None:
    recipe = tmp_path / "drafted.yaml"
    recipe.write_text(draft_from_card(read_card(KO_EN)).text)
    train_path, eval_path = write_pairs(tmp_path)
    texts = Path(train_path).read_text().splitlines()
    model = build_folder(tmp_path / "model", architecture="m2m100", texts=texts, languages=["ko", "en"])
    overrides = [
        f"model.name={model}",
        "precision=fp32",
        f"data.train.0.path={train_path}",
        f"data.eval.0.path={eval_path}",
        "training.epochs=null",
        "training.max_steps=4",
        "evaluation.every_steps=2",
        "evaluation.max_new_tokens=8",
        # the steps of the card are far away from this short run
        "card.published.steps.0.step=2",
        "card.published.steps.1.step=4",
    ]
    card = run_recipe(str(recipe), overrides=overrides, folder=tmp_path)
    section = card.split("### Published against ours\n")[1].split("\n###")[0]
    assert "2 of its 19 steps have an evaluation here." in section
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert [row[0] for row in table] == ["Step", ":-------:", "2", "4", "opening"]
    assert [row[1] for row in table[2:]] == ["0.7640", "0.7211", "0.4282"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["scores"] for row in rows if row["kind"] == "eval"}
    for step, row in ((2, table[2]), (4, table[3])):
        assert row[2] == f"{scores[step]['loss']:.4f}"
        assert row[5] == f"{scores[step]['bleu']:.4f}"
