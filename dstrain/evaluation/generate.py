"""Evaluation batches to hypotheses. Owns which rows form a batch, which rank computes it and how tokens are generated; does
not know what a score is.

Batches are planned over all rows before any is dealt to a rank. So the same rows are padded together, and the results are the
same, on any number of ranks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig, PreTrainedModel

from dstrain.config.evaluation import Evaluation
from dstrain.data.collate import MicroBatch, collate
from dstrain.data.plan import deal
from dstrain.data.tokens import TokenSet
from dstrain.data.vocabulary import IGNORED, WHOLE, Vocabulary
from dstrain.evaluation.beam import beam_search, search_beams
from dstrain.evaluation.decode import Decoder, greedy_search, read_rules, shared_attention, unserved
from dstrain.models.families import KEPT_GENERATION_FIELDS, SUPPRESSION_FIELDS, encoder_arguments

MIN_CAP_MARGIN = 8
"""Tokens by which a hypothesis may exceed the longest reference; a tenth of it where that is more."""

MIN_ROW_TOKENS = 16
"""A row counts as at least this long in the budget of a batch: short sources need memory for hypotheses and logits too."""

MIN_PART_ROWS = 8
"""A part of a batch has at least this many rows, whatever their padding."""

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(source_ids, source_mask, decoder_ids, labels) -> sum of token cross-entropies."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are padded and decoded together."""

    index: int
    rows: tuple[int, ...]
    target_language: str | None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What was generated for one row."""

    row: int
    token_ids: tuple[int, ...]
    """Without the decoder's start token, up to and including the end token: comparable with the ids of a reference."""
    num_tokens: int
    """Tokens of the generated sequence that are not padding, a start token included."""
    was_cut: bool
    """Whether the length cap ended it, so that it has no end token."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a rank returns for one batch; plain numbers, no tensors."""

    index: int
    loss_sum: float | None
    """None if the recipe switches the loss off."""
    num_target_tokens: int
    """Those of the loss: for which the model has a row."""
    hypotheses: tuple[Hypothesis, ...]


@dataclass(frozen=True, slots=True)
class Cap:
    """Maximum length of a hypothesis in tokens, and where it comes from."""

    max_new_tokens: int
    reason: str


def plan_batches(
    source_lengths: Sequence[int] | npt.NDArray[np.int32],
    *,
    languages: Sequence[str | None],
    batch_size: int | None,
    max_tokens: int,
) -> list[Batch]:
    """Every row in exactly one batch: one target language per batch, longest sources first, at most `batch_size` rows.

    Without a batch_size a batch holds as many rows as fit into max_tokens when padded to the longest, and at least one.
    The result does not depend on the number of ranks.
    """
    if len(source_lengths) != len(languages):
        raise ValueError(f"every row needs a language: found {len(source_lengths)} rows and {len(languages)} languages")
    order = sorted(range(len(languages)), key=lambda row: (languages[row] or "", -int(source_lengths[row]), row))
    chunks: list[list[int]] = []
    max_rows = 0
    for row in order:
        if not chunks or len(chunks[-1]) == max_rows or languages[chunks[-1][0]] != languages[row]:
            chunks.append([])
            max_rows = batch_size or max(1, max_tokens // max(MIN_ROW_TOKENS, int(source_lengths[row])))
        chunks[-1].append(row)
    return [Batch(index, tuple(rows), languages[rows[0]]) for index, rows in enumerate(chunks)]


def deal_batches(
    batches: Sequence[Batch], *, source_lengths: npt.NDArray[np.int32], world_size: int
) -> list[list[Batch]]:
    """Each rank's batches, with about the same work per rank. Hypotheses are assumed to be as long as their sources."""
    costs = [len(batch.rows) * max(int(source_lengths[row]) for row in batch.rows) for batch in batches]
    shares = deal(costs, world_size=world_size)
    return [[batches[position] for position in share if position >= 0] for share in shares]


def plan_cap(evaluation: Evaluation, *, longest_reference: int, max_positions: int | None) -> Cap:
    """The maximum length of a hypothesis: the recipe's, or the longest reference plus a margin; at most the model's positions.

    Lengths are in tokens, including end token and language code.
    """
    if evaluation.max_new_tokens is not None:
        cap = Cap(evaluation.max_new_tokens, "evaluation.max_new_tokens")
    else:
        margin = max(MIN_CAP_MARGIN, -(-longest_reference // 10))
        cap = Cap(longest_reference + margin, f"longest reference, {longest_reference} tokens, plus {margin}")
    limit = None if max_positions is None else max_positions - 1  # the start token takes a position as well
    if limit is not None and cap.max_new_tokens > limit:
        return Cap(limit, f"the model's {max_positions} positions, below {cap.max_new_tokens} ({cap.reason})")
    return cap


def build_generation_config(
    model: PreTrainedModel, *, evaluation: Evaluation, max_new_tokens: int, arguments: Mapping[str, Any]
) -> GenerationConfig:
    """The recipe's settings with the token ids that the model's family needs; `arguments` override both.

    `arguments` are the family's for one target language, for example `forced_bos_token_id`. Nothing else of the model's
    own generation config is used: a forced last token, for example, would hide that a hypothesis was cut.
    """
    own = model.generation_config
    fields = (*KEPT_GENERATION_FIELDS, *SUPPRESSION_FIELDS)
    settings = {field: getattr(own, field) for field in fields if getattr(own, field) is not None}
    settings |= {"do_sample": False, "num_beams": evaluation.num_beams, "max_new_tokens": max_new_tokens}
    if evaluation.num_beams > 1:  # transformers warns about both under greedy search
        settings |= {"length_penalty": evaluation.length_penalty, "early_stopping": False}
    return GenerationConfig(**(settings | dict(arguments)))


def search_settings(vocabulary: Vocabulary) -> dict[str, Any]:
    """What a search over part of the vocabulary sets, so that the exported, whole model can search alike.

    There the other ids are forbidden after the probabilities have been computed over all of them.
    """
    return {} if vocabulary.is_whole else {"renormalize_logits": True}


@contextmanager
def evaluation_mode(model: PreTrainedModel, *, loss_module: torch.nn.Module) -> Iterator[None]:
    """Inside, no dropout and no gradients; the modules' modes and the model's generation config are restored afterwards."""
    modes = [(module, module.training) for root in (model, loss_module) for module in root.modules()]
    own = model.generation_config
    model.eval()
    loss_module.eval()
    # generate() fills every unset field from the model's own config; an empty one keeps these out
    model.generation_config = GenerationConfig()
    try:
        with torch.no_grad():  # not inference_mode, whose tensors ZeRO-3 cannot gather into
            yield
    finally:
        model.generation_config = own
        for module, training in modes:
            module.training = training


def evaluate_batch(
    batch: Batch,
    *,
    model: PreTrainedModel,
    loss: Loss | None,
    tokens: TokenSet,
    vocabulary: Vocabulary,
    pad_id: int,
    decoder_start_id: int | None,
    generation: GenerationConfig,
    device: torch.device,
) -> BatchResult:
    """Hypotheses of one batch and, unless `loss` is None, its teacher-forced loss, on the CPU. Call it in `evaluation_mode`.

    Sources are encoded once for both. pad_id and decoder_start_id are the model's rows of these tokens.
    """
    targets = [tokens.target(row) for row in batch.rows]
    micro_batch = collate(
        [tokens.source(row) for row in batch.rows],
        targets,
        pad_id=pad_id,
        decoder_start_id=decoder_start_id,
        weight=1.0,
        index=batch.index,
        vocabulary=vocabulary,
    )
    num_target_tokens = int((micro_batch.labels != IGNORED).sum())
    micro_batch = micro_batch.to(device)
    loss_sum, encoded = None, None
    if loss is not None:
        loss_sum, encoded = sum_losses(micro_batch, [len(target) for target in targets], model=model, loss=loss)
    sequences = generate(
        model,
        source_ids=micro_batch.source_ids,
        source_mask=micro_batch.source_mask,
        encoded=encoded,
        generation=generation,
    )
    rows = sequences.to("cpu", torch.int64).numpy()
    return BatchResult(
        index=batch.index,
        loss_sum=loss_sum,
        num_target_tokens=num_target_tokens,
        hypotheses=tuple(
            read_sequence(sequence, row=row, pad_id=pad_id, generation=generation, vocabulary=vocabulary)
            for row, sequence in zip(batch.rows, rows, strict=True)
        ),
    )


def plan_parts(target_lengths: Sequence[int]) -> list[list[int]]:
    """Groups of rows of a batch whose losses are computed together, as indices into the batch, longest target first.

    Sources of similar length may have targets of very different lengths. Beyond the first MIN_PART_ROWS rows of a part, no
    target has more than a quarter of padding.
    """
    order = sorted(range(len(target_lengths)), key=lambda place: (-target_lengths[place], place))
    parts: list[list[int]] = []
    for place in order:
        is_full = bool(parts) and len(parts[-1]) >= MIN_PART_ROWS
        if not parts or (is_full and target_lengths[place] < 0.75 * target_lengths[parts[-1][0]]):
            parts.append([])
        parts[-1].append(place)
    return parts


def sum_losses(
    batch: MicroBatch, target_lengths: Sequence[int], *, model: PreTrainedModel, loss: Loss
) -> tuple[float, torch.Tensor | None]:
    """The summed loss of a batch's rows, and their encoded sources `[batch, source, hidden]`.

    The encoded sources are taken from the model's encoder while the loss is computed; None if it did not run exactly once
    per part.
    """
    parts = plan_parts(target_lengths)
    states: list[torch.Tensor] = []
    handle = model.get_encoder().register_forward_hook(
        lambda encoder, arguments, output: states.append(output.last_hidden_state)
    )
    sums = []
    try:
        for part in parts:
            places = torch.tensor(part, device=batch.labels.device)
            width = target_lengths[part[0]]
            sources = batch.source_ids[places], batch.source_mask[places]
            sums.append(loss(*sources, batch.decoder_ids[places, :width], batch.labels[places, :width]))
    finally:
        handle.remove()
    total = float(torch.stack(sums).double().sum())
    if len(states) != len(parts):
        return total, None
    order = torch.tensor([place for part in parts for place in part], device=batch.labels.device)
    return total, torch.cat(states)[order.argsort()]


def generate(
    model: PreTrainedModel,
    *,
    source_ids: torch.Tensor,
    source_mask: torch.Tensor,
    encoded: torch.Tensor | None,
    generation: GenerationConfig,
) -> torch.Tensor:
    """Hypotheses `[batch, 1 + generated]`: start token, tokens, end token, filling.

    They are those of transformers' `generate()`, which is called where the built-in search does not support a setting
    (`unserved`). source_ids and source_mask are `[batch, source]`; encoded is `[batch, source, hidden]`, or None if the sources
    are not encoded yet.
    """
    if unserved(model, generation=generation) is not None:
        sequences: torch.Tensor = model.generate(
            input_ids=source_ids,
            attention_mask=source_mask,
            **encoder_arguments(model, source_ids=source_ids),
            generation_config=generation,
            synced_gpus=False,  # the caller has gathered the weights of ZeRO-3: ranks may take different numbers of steps
        )
        return sequences
    if encoded is None:
        encoded = model.get_encoder()(input_ids=source_ids, attention_mask=source_mask).last_hidden_state
    rules = read_rules(generation)
    search = greedy_search if rules.num_beams == 1 else beam_search
    with shared_attention(model):
        decoder = Decoder(model, encoded=encoded, source_mask=source_mask)
        return search(decoder, rules=rules, num_rows=len(source_ids), device=source_ids.device)


def generate_best(
    model: PreTrainedModel,
    *,
    source_ids: torch.Tensor,
    source_mask: torch.Tensor,
    generation: GenerationConfig,
    num_best: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hypotheses of a beam search, best first, `[batch, num_best, 1 + generated]`, and their scores `[batch, num_best]`.

    Arguments are those of `generate`; num_best is at most the number of beams.
    """
    shape = (len(source_ids), num_best)
    if unserved(model, generation=generation) is not None:
        found = model.generate(
            input_ids=source_ids,
            attention_mask=source_mask,
            generation_config=generation,
            synced_gpus=False,
            num_return_sequences=num_best,
            return_dict_in_generate=True,
            output_scores=True,
        )
        return found.sequences.view(*shape, -1), found.sequences_scores.view(shape)
    encoded = model.get_encoder()(input_ids=source_ids, attention_mask=source_mask).last_hidden_state
    rules = read_rules(generation)
    with shared_attention(model):
        decoder = Decoder(model, encoded=encoded, source_mask=source_mask)
        return search_beams(decoder, rules=rules, num_rows=len(source_ids), device=source_ids.device, num_best=num_best)


def read_sequence(
    sequence: npt.NDArray[np.int64],
    *,
    row: int,
    pad_id: int,
    generation: GenerationConfig,
    vocabulary: Vocabulary = WHOLE,
) -> Hypothesis:
    """The hypothesis in one row of what `generate` returns, `[1 + generated]`, as ids of the tokenizer.

    Everything after the end token is dropped: transformers' beam search fills up with end tokens where the padding is
    token 0.
    """
    ends = 1 + np.flatnonzero(np.isin(sequence[1:], generation.eos_token_id))
    if len(ends):
        sequence = sequence[: ends[0] + 1]
    return Hypothesis(
        row=row,
        token_ids=tuple(vocabulary.ids(sequence[1:]).tolist()),
        num_tokens=int(np.count_nonzero(sequence != pad_id)),
        was_cut=not len(ends),
    )
