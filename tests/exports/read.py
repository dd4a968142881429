"""Reads exported folders with transformers alone, of whatever version: `python read.py FOLDER...` prints a line of JSON each."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


def read(folder: Path) -> dict[str, Any]:
    """What a program gets from the folder: token ids, logits, greedy and beam hypotheses of the folder's `texts.json`."""
    texts = json.loads((folder.parent / "texts.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        labels = tokenizer(text_target=text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).logits
        greedy = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        beams = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            num_beams=3,
            output_scores=True,
            return_dict_in_generate=True,
        )
        found.append(
            {
                "source": inputs["input_ids"][0].tolist(),
                "labels": labels[0].tolist(),
                "logits": logits.flatten().tolist(),
                "greedy": greedy[0].tolist(),
                "beams": beams.sequences[0].tolist(),
                "beam_score": beams.sequences_scores[0].item(),
                "text": tokenizer.decode(greedy[0], skip_special_tokens=True),
            }
        )
    return {"transformers": transformers.__version__, "tied": model.config.tie_word_embeddings, "rows": found}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    for name in sys.argv[1:]:
        print(json.dumps(read(Path(name))))
