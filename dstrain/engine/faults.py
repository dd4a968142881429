"""Finds the rows that cause the fault of a refused step.

Searches in a plain copy of the model, so that the run's weights, optimizer and hooks stay untouched. Knows nothing of files,
nor of what is done with the rows.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.data.collate import MicroBatch
from dstrain.data.loader import StepBatch
from dstrain.data.vocabulary import IGNORED
from dstrain.engine.engine import Engine, Fault, micro_batch_seed, total_norm
from dstrain.models.families import set_dropout
from dstrain.models.load import enable_activation_checkpointing
from dstrain.models.loss import Seq2SeqLoss


@dataclass(frozen=True, slots=True)
class FaultCause:
    """The cause of a fault, found over all ranks. All empty if the search could not reproduce the fault."""

    rows: Mapping[int, float] = field(default_factory=dict)
    """Rows that cause the fault each on its own, with their loss per target token."""
    suspects: tuple[int, ...] = ()
    """If there are no such rows: the rows of the smallest groups that cause it together."""
    micro_batches: tuple[int, ...] = ()
    """The micro-batches that contain the suspects."""
    parameters: tuple[str, ...] = ()
    """Weights that are not finite, which makes every row bad."""


@dataclass(frozen=True, slots=True)
class _RankResult:
    """What one rank found."""

    losses: Mapping[int, tuple[float, int]] = field(default_factory=dict)
    """Bad row to its loss sum and its target tokens."""
    suspects: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """(micro-batch, its suspect rows)."""
    parameters: tuple[str, ...] = ()


def find_bad_rows(
    engine: Engine, batch: StepBatch, *, fault: Fault, step: int, config: RunConfig, ranks: Ranks
) -> FaultCause:
    """The rows of the step that cause its fault, the same on every rank; a collective call of all ranks.

    Each rank searches its own micro-batches without dropout, down to single rows where a micro-batch is bad. If it finds
    none, it computes them again with the dropout of the step; then only whole micro-batches can be suspected.
    """
    with engine.gathered() as model:
        result = _RankResult(parameters=nonfinite_parameters(model))
        weights = {} if result.parameters else clone_tensors(model)
    if not result.parameters:  # no collective operation in here, because ranks have different amounts of work
        search = _Search(model, weights, fault=fault, batch=batch, config=config, ranks=ranks)
        result = search.run(batch.micro_batches, step=step)
    results = ranks.gather(result, _RankResult)
    merged = None if results is None else _merge(results, fault=fault, batch=batch)
    cause: FaultCause = ranks.broadcast(merged, FaultCause)
    return cause


def nonfinite_parameters(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters with an infinite or undefined element."""
    return tuple(name for name, parameter in model.named_parameters() if not bool(parameter.isfinite().all()))


def clone_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers by name; tied ones share one copy."""
    copies: dict[int, Tensor] = {}
    for _, tensor in _named_tensors(model):
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    return {name: copies[id(tensor)] for name, tensor in _named_tensors(model)}


def build_plain_model(
    kind: type[PreTrainedModel], *, model_config: PreTrainedConfig, tensors: Mapping[str, Tensor]
) -> PreTrainedModel:
    """A model of this class around `tensors`, which are not copied and stay tied as they are.

    It has none of the hooks and flags of the model that the tensors come from.
    """
    with torch.device("meta"):
        model = kind(model_config)
    parameters: dict[int, nn.Parameter] = {}
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        if name in names:
            # one by one, not as a state dict: mT5's config may call its untied head tied, and loading would overwrite it
            parameter = parameters.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=tensor.requires_grad))
            model.get_submodule(owner).register_parameter(leaf, parameter)
        else:
            model.get_submodule(owner).register_buffer(leaf, tensor, persistent=False)
    return model


def bisect(micro_batch: MicroBatch, *, is_bad: Callable[[MicroBatch], bool]) -> list[MicroBatch]:
    """The smallest bad parts: single rows, or groups of rows whose halves are both good."""
    if not is_bad(micro_batch):
        return []
    size = len(micro_batch.rows)
    if size == 1:
        return [micro_batch]
    halves = (micro_batch.part(slice(0, size // 2)), micro_batch.part(slice(size // 2, size)))
    return [part for half in halves for part in bisect(half, is_bad=is_bad)] or [micro_batch]


class _Search:
    """One rank's search: holds the copied weights, and decides whether a part is bad."""

    def __init__(
        self,
        model: PreTrainedModel,
        weights: Mapping[str, Tensor],
        *,
        fault: Fault,
        batch: StepBatch,
        config: RunConfig,
        ranks: Ranks,
    ) -> None:
        self._model = model
        self._weights = weights
        self._fault = fault
        self._config = config
        self._device = ranks.device
        self._scale = fault.loss_scale * ranks.world_size / batch.target_tokens
        """The factor on loss sums in the step, loss scale included: whether fp16 overflows depends on it."""

    def run(self, micro_batches: Sequence[MicroBatch], *, step: int) -> _RankResult:
        """The bad rows in these micro-batches, and the groups of rows that are bad only together."""
        parts = [micro_batch.to(self._device) for micro_batch in micro_batches]
        loss = self._build_loss(dropout=0.0)
        bad = [found for part in parts for found in self._bad_parts(loss, part)]
        if not bad:
            del loss
            loss = self._build_loss(dropout=None)
            bad = [part for part in parts if self._is_bad_with_dropout(loss, part, step=step)]
            return _RankResult(suspects=tuple((part.index, tuple(part.rows.tolist())) for part in bad))
        rows = {int(part.rows[0]): self._loss_and_tokens(loss, part) for part in bad if len(part.rows) == 1}
        return _RankResult(rows, tuple((part.index, tuple(part.rows.tolist())) for part in bad if len(part.rows) > 1))

    def _bad_parts(self, loss: Seq2SeqLoss, micro_batch: MicroBatch) -> list[MicroBatch]:
        if self._fault.kind != "spike":
            return bisect(micro_batch, is_bad=lambda part: self._is_nonfinite(loss, part))
        # a mean under the limit may hide a row over it, so that bisecting would miss rows: each is tested
        rows = [micro_batch.part(slice(row, row + 1)) for row in range(len(micro_batch.rows))]
        return [row for row in rows if self._is_over_limit(loss, row)]

    def _is_bad_with_dropout(self, loss: Seq2SeqLoss, part: MicroBatch, *, step: int) -> bool:
        torch.manual_seed(micro_batch_seed(self._config.seed, step=step, index=part.index))
        is_bad = self._is_over_limit if self._fault.kind == "spike" else self._is_nonfinite
        return is_bad(loss, part)

    def _is_over_limit(self, loss: Seq2SeqLoss, part: MicroBatch) -> bool:
        loss_sum, num_tokens = self._loss_and_tokens(loss, part)
        return not loss_sum <= self._fault.loss_limit * num_tokens  # an undefined loss is over any limit

    def _is_nonfinite(self, loss: Seq2SeqLoss, part: MicroBatch) -> bool:
        loss_sum = _forward(loss, part)
        if not bool(loss_sum.isfinite()):
            return True
        trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss_sum * self._scale, trained, allow_unused=True)
        return not bool(total_norm(gradients).isfinite())

    @torch.no_grad()
    def _loss_and_tokens(self, loss: Seq2SeqLoss, part: MicroBatch) -> tuple[float, int]:
        return float(_forward(loss, part)), int((part.labels != IGNORED).sum())

    def _build_loss(self, *, dropout: float | None) -> Seq2SeqLoss:
        model_config = copy.deepcopy(self._model.config)
        if dropout is not None:
            set_dropout(model_config, dropout=dropout)
        model = build_plain_model(type(self._model), model_config=model_config, tensors=self._weights)
        if self._config.machine.activation_checkpointing:
            enable_activation_checkpointing(model)
        loss = Seq2SeqLoss(model, label_smoothing=self._config.training.label_smoothing)
        return loss.train()  # as in training: with label smoothing and activation checkpointing


def _merge(results: Sequence[_RankResult], *, fault: Fault, batch: StepBatch) -> FaultCause:
    losses = {row: found for result in results for row, found in result.losses.items()}
    chosen = sorted(losses)
    if fault.kind == "spike":
        chosen = _choose_spike(losses, fault=fault, num_tokens=batch.target_tokens)
    suspects = [] if chosen else [suspect for result in results for suspect in result.suspects]
    return FaultCause(
        rows={row: losses[row][0] / losses[row][1] for row in chosen},
        suspects=tuple(sorted({row for _, rows in suspects for row in rows})),
        micro_batches=tuple(sorted({number for number, _ in suspects})),
        parameters=tuple(sorted({name for result in results for name in result.parameters})),
    )


def _choose_spike(losses: Mapping[int, tuple[float, int]], *, fault: Fault, num_tokens: int) -> list[int]:
    """The fewest rows without which the step is under the limit, chosen by how much each raises the mean.

    Not all rows over the limit, because harmless rows often are.
    """
    rest_loss, rest_tokens = fault.loss * num_tokens, num_tokens
    chosen = []
    for row, (loss_sum, row_tokens) in sorted(
        losses.items(), key=lambda found: (found[1][1] * fault.loss_limit - found[1][0], found[0])
    ):
        if rest_loss <= fault.loss_limit * rest_tokens:
            break
        chosen.append(row)
        rest_loss, rest_tokens = rest_loss - loss_sum, rest_tokens - row_tokens
    return sorted(chosen)


def _forward(loss: Seq2SeqLoss, part: MicroBatch) -> Tensor:
    loss_sum: Tensor = loss(part.source_ids, part.source_mask, part.decoder_ids, part.labels)
    return loss_sum


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers under every name they have."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
