"""Tokens out of an encoder-decoder, step by step. Owns which settings the built-in search supports, the decoder with its
caches, and greedy search; does not know rows, batches and scores.

The search returns the hypotheses of transformers' `generate()` with less work: rows that have ended leave the batch, and the
beams of a source share its keys and values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    Cache,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from dstrain.models.families import hidden_scale, is_searched, output_head

SERVED_FIELDS = frozenset(
    {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "decoder_start_token_id",
        "forced_bos_token_id",
        "bad_words_ids",
        "suppress_tokens",
        "renormalize_logits",
        "do_sample",
        "num_beams",
        "length_penalty",
        "early_stopping",
        "max_new_tokens",
        "transformers_version",
        "_from_model_config",
    }
)
"""Fields of a generation config that the search follows or that have no effect on it; with any other, `generate()` is used."""

FIRST_ROOM = 16
"""Initial capacity of the caches in tokens; it doubles when they are full."""

SHARED_ATTENTION = "dstrain_shared_source"
"""Name under which transformers finds `attend`. No mask function is registered under it, so transformers makes no masks: a
single query needs none for the past, and the source's mask is passed in."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of a search."""

    start_id: int
    forced_first_id: int | None
    end_ids: tuple[int, ...]
    forbidden_ids: tuple[int, ...]
    pad_id: int
    max_new_tokens: int
    num_beams: int
    length_penalty: float
    renormalizes: bool
    """Whether the probabilities of the tokens that are not forbidden add up to 1."""


def read_rules(generation: GenerationConfig) -> Rules:
    """The rules of a generation config that the search supports (`unserved` returns None for it)."""
    end_ids = _as_ids(generation.eos_token_id)
    words = generation.bad_words_ids or ()
    return Rules(
        start_id=int(generation.decoder_start_token_id),
        forced_first_id=generation.forced_bos_token_id,
        end_ids=end_ids,
        # as generate(), which never forbids an end token
        forbidden_ids=(*(word[0] for word in words if word[0] not in end_ids), *(generation.suppress_tokens or ())),
        pad_id=int(generation.pad_token_id),
        max_new_tokens=int(generation.max_new_tokens),
        num_beams=generation.num_beams or 1,
        length_penalty=1.0 if generation.length_penalty is None else float(generation.length_penalty),
        renormalizes=bool(generation.renormalize_logits),
    )


def unserved(model: PreTrainedModel, *, generation: GenerationConfig) -> str | None:
    """What the built-in search does not support here, so that `generate()` is used; None if it supports everything."""
    if not is_searched(model.config):
        return f"architecture `{model.config.model_type}`"
    attention = model.get_decoder().config._attn_implementation
    if attention != "sdpa":
        return f"attention implementation `{attention}`"
    foreign = sorted(generation.to_diff_dict().keys() - SERVED_FIELDS)
    if foreign:
        return f"generation setting `{foreign[0]}`"
    if generation.do_sample or generation.early_stopping:
        return "sampling or early stopping"
    needed = ("decoder_start_token_id", "eos_token_id", "pad_token_id", "max_new_tokens")
    missing = [field for field in needed if getattr(generation, field) is None]
    if missing:
        return f"a generation config without {missing[0]}"
    if any(len(word) != 1 for word in generation.bad_words_ids or ()):
        return "forbidden words of several tokens"
    ends = _as_ids(generation.eos_token_id)
    first = generation.forced_bos_token_id
    if first is not None and (first in ends or generation.max_new_tokens == 1):
        return "a forced first token that ends the hypothesis"
    if num_candidates(generation.num_beams or 1, num_ends=len(ends)) > model.config.vocab_size:
        return f"a vocabulary of {model.config.vocab_size} for {generation.num_beams} beams"
    return None


def num_candidates(num_beams: int, *, num_ends: int) -> int:
    """Continuations considered per source and step: enough that at least num_beams of them do not end."""
    return max(2, 1 + num_ends) * num_beams


def should_compact(num_left: int, *, num_held: int) -> bool:
    """Whether the rows that have ended should leave a batch of num_held rows now.

    Copying the caches costs about as much time as a batch smaller by an eighth saves in a step.
    """
    return num_left <= num_held - max(1, num_held // 8)


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention with one query per hypothesis; the hypotheses of a source share its keys and values.

    query is `[sources x beams, heads, 1, width]`; key and value are `[sources, heads, length, width]`, or
    `[sources x beams, …]` for the hypotheses' own past. Returns `[sources x beams, 1, heads, width]`.
    """
    num_queries, heads, _, width = query.shape
    num_sources = key.shape[0]
    if num_queries != num_sources:
        query = query.view(num_sources, num_queries // num_sources, heads, width).transpose(1, 2)
    # not causal: each query attends to all keys, also where the queries of several beams form one sequence
    output = sdpa_attention_forward(module, query, key, value, attention_mask, **(options | {"is_causal": False}))[0]
    return output.reshape(num_queries, 1, heads, width), None


AttentionInterface.register(SHARED_ATTENTION, attend)


@contextmanager
def shared_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the decoder uses `attend`."""
    config = model.get_decoder().config
    own = config._attn_implementation
    config._attn_implementation = SHARED_ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = own


class PastLayer(DynamicLayer):  # type: ignore[misc]  # transformers does not say its type
    """Keys and values of one layer's self-attention, added in place: transformers' own layer copies all of them per token."""

    def __init__(self) -> None:
        super().__init__()
        self._num_tokens = 0
        self._held: Tensor | None = None
        """`[hypotheses, room for tokens, keys and values, heads, width]`."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add the keys and values of one token, `[hypotheses, heads, 1, width]` each; returns those of all tokens."""
        num_hypotheses, heads, _one, width = key_states.shape
        if self._held is None:
            self._held = key_states.new_empty((num_hypotheses, FIRST_ROOM, 2, heads, width))
        elif self._num_tokens == self._held.shape[1]:
            self._held = torch.cat((self._held, torch.empty_like(self._held)), dim=1)
        self._held[:, self._num_tokens, 0] = key_states[:, :, 0]
        self._held[:, self._num_tokens, 1] = value_states[:, :, 0]
        self._num_tokens += 1
        keys, values = self._held[:, : self._num_tokens].permute(2, 0, 3, 1, 4)
        return keys, values

    def get_seq_length(self) -> int:
        """Number of tokens in the cache."""
        return self._num_tokens

    def select(self, hypotheses: Tensor, *, spare: Tensor | None) -> Tensor:
        """Continue with these hypotheses, each as often as it is listed.

        The memory `spare` is used if it is large enough. Returns the memory that is no longer used.
        """
        held = self._held
        assert held is not None
        if spare is None or len(spare) < len(hypotheses) or spare.shape[1:] != held.shape[1:]:
            spare = held.new_empty((len(hypotheses), *held.shape[1:]))
        self._held = spare[: len(hypotheses)]
        torch.index_select(held[:, : self._num_tokens], 0, hypotheses, out=self._held[:, : self._num_tokens])
        return held


class Decoder:
    """A model's decoder over encoded sources, with the caches of every hypothesis. Use it inside `shared_attention`.

    Hypotheses are in the order of their sources, the same number for each. Weights are used only by calling modules.
    """

    def __init__(self, model: PreTrainedModel, *, encoded: Tensor, source_mask: Tensor) -> None:
        """encoded is `[sources, length, hidden]`, source_mask `[sources, length]`."""
        self._decoder = model.get_decoder()
        self._head = output_head(model)
        self._scale = hidden_scale(model)
        self._bias: Tensor | None = getattr(model, "final_logits_bias", None)
        self._encoded = encoded
        # transformers passes a 4-dimensional mask through unchanged
        self._mask = None if bool(source_mask.all()) else source_mask.bool()[:, None, None, :]
        self._source = DynamicCache(config=self._decoder.config)
        self._past = [PastLayer() for _ in self._source.layers]
        self._spare: Tensor | None = None
        self._cache = EncoderDecoderCache(Cache(layers=self._past), self._source)

    def advance(self, token_ids: Tensor) -> Tensor:
        """Decode the last token of every hypothesis, `[hypotheses]`; returns its hidden state `[hypotheses, hidden]`."""
        output = self._decoder(
            input_ids=token_ids[:, None],
            encoder_hidden_states=self._encoded,
            encoder_attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
        )
        states: Tensor = output.last_hidden_state[:, -1]
        return states

    def logits(self, states: Tensor) -> Tensor:
        """The next token's logits `[hypotheses, vocabulary]` in fp32, as the stock model's head computes them."""
        logits: Tensor = self._head(states if self._scale == 1.0 else states * self._scale)
        if self._bias is not None:
            logits = logits + self._bias
        return logits.float()

    def select(self, hypotheses: Tensor, *, sources: Tensor | None) -> None:
        """Continue with these hypotheses and, unless None, with these sources only; both are indices into the batch so far."""
        for layer in self._past:
            self._spare = layer.select(hypotheses, spare=self._spare)
        if sources is not None:
            self._source.batch_select_indices(sources)
            self._encoded = self._encoded[sources]
            self._mask = None if self._mask is None else self._mask[sources]


def greedy_search(decoder: Decoder, *, rules: Rules, num_rows: int, device: torch.device) -> Tensor:
    """The likeliest token at each step: `[rows, 1 + generated]`, start token, tokens, end token, padding."""
    sequences = torch.full((num_rows, 1 + rules.max_new_tokens), rules.pad_id, device=device)
    sequences[:, 0] = rules.start_id
    ends, forbidden = (
        torch.tensor(ids, dtype=torch.int64, device=device) for ids in (rules.end_ids, rules.forbidden_ids)
    )
    rows = torch.arange(num_rows, device=device)
    has_ended = torch.zeros(num_rows, dtype=torch.bool, device=device)
    tokens = sequences[:, 0]
    for place in range(1, 1 + rules.max_new_tokens):
        states = decoder.advance(tokens)
        if place == 1 and rules.forced_first_id is not None:
            tokens = torch.full_like(rows, rules.forced_first_id)
        else:
            logits = decoder.logits(states)
            logits.index_fill_(1, forbidden, -torch.inf)
            tokens = logits.argmax(dim=-1).masked_fill(has_ended, rules.pad_id)
        sequences[rows, place] = tokens
        has_ended |= torch.isin(tokens, ends)
        num_left = len(rows) - int(has_ended.sum())
        if num_left == 0:
            return sequences[:, : place + 1]
        if should_compact(num_left, num_held=len(rows)):
            left = (~has_ended).nonzero().flatten()
            decoder.select(left, sources=left)
            rows, tokens, has_ended = rows[left], tokens[left], has_ended[left]
    return sequences


def _as_ids(value: int | list[int]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list) else (int(value),)
