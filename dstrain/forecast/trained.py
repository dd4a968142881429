"""What a recipe trains of a model's parameters: rows of the vocabulary, frozen parts, an adapter, a compact embedding. Pure.

Follows what `run/part.py` and `run/compact.py` do to the real model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from dstrain.config.recipe import Adapter, Model
from dstrain.forecast.weights import Weight
from dstrain.models.layer_names import TARGETS

LARGEST_SHARE = 0.5
"""Share of the rows up to which `machine.compact_embedding` null is on."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The parameters that a run trains, and those that only lie beside them."""

    weights: tuple[Weight, ...]
    """All that are parameters in training, frozen ones among them."""
    num_buffers: int = 0
    """Elements that are no parameters: sines, biases of logits, the rows that a compact embedding leaves."""
    num_exported: int = 0
    """Parameters of an exported model: with all rows of the vocabulary, without adapter."""

    @property
    def num_all(self) -> int:
        """Elements of all parameters."""
        return sum(weight.numel for weight in self.weights)

    @property
    def num_trained(self) -> int:
        """Elements of those that are trained."""
        return sum(weight.numel for weight in self.weights if weight.is_trained)

    @property
    def num_frozen(self) -> int:
        return self.num_all - self.num_trained

    @property
    def largest(self) -> int:
        """Elements of the largest parameter that is trained."""
        return max((weight.numel for weight in self.weights if weight.is_trained), default=0)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the vocabulary, as far as they are known before a run."""

    num_kept: int | None = None
    """Those that `model.vocabulary: seen` keeps; None if all, or unknown."""
    num_read: int | None = None
    """Those that training reads out of the input embedding; None if that is unknown."""
    num_new: int = 0
    """Tokens and languages that the model lacked."""


def find_trained(
    weights: Sequence[Weight], *, model: Model, kind: str, rows: Rows, num_buffers: int, compacts: bool | None
) -> Trained:
    """What is trained of the parameters of a model of this `model_type`, which have the rows that training has.

    `compacts` is `machine.compact_embedding`; None leaves out rows where at most half of them are read. Whatever else keeps an
    embedding whole must have made it False.
    """
    num_exported = sum(weight.numel for weight in weights)
    found = [*_freeze(weights, names=model.freeze or ())]
    if model.adapter is not None:
        found = [*_adapt(found, section=model.adapter, kind=kind)]
    if model.trains_part and rows.num_new:
        found = [*_with_new_rows(found, num_new=rows.num_new)]
    num_left = 0
    if _is_compact(found, rows=rows, wanted=compacts):
        assert rows.num_read is not None
        whole = next(weight for weight in found if weight.part == "embedding")
        found[found.index(whole)] = replace(whole, shape=(rows.num_read, whole.shape[1]))
        # the embedding as it was found is kept beside the rows that are trained, and a number for each of its rows
        num_left = whole.numel
    return Trained(tuple(found), num_buffers + num_left, num_exported)


def _freeze(weights: Sequence[Weight], *, names: Sequence[str]) -> Iterator[Weight]:
    for weight in weights:
        is_frozen = any(_is_of(weight, name=name) for name in names)
        yield replace(weight, is_trained=weight.is_trained and not is_frozen)


def _is_of(weight: Weight, *, name: str) -> bool:
    """Whether a parameter is of a part or matches a pattern of `model.freeze`."""
    if name == "embeddings":
        return weight.part == "embedding"
    if name in ("encoder", "decoder"):
        return weight.name.removeprefix("model.").startswith(f"{name}.")
    return fnmatchcase(weight.name, name)


def _adapt(weights: Sequence[Weight], *, section: Adapter, kind: str) -> Iterator[Weight]:
    if isinstance(section.targets, str):
        known = TARGETS.get(kind, {})
        names = {*known.get("attention", ()), *(known.get("feed-forward", ()) if section.targets == "all" else ())}
    else:
        names = set(section.targets)
    for weight in weights:
        yield replace(weight, is_trained=False)
        layer = weight.name.removesuffix(".weight")
        if weight.is_matrix and layer.rpartition(".")[2] in names:
            width, inputs = weight.shape
            yield Weight(f"{layer}.lora_A.weight", "adapter", (section.rank, inputs))
            yield Weight(f"{layer}.lora_B.weight", "adapter", (width, section.rank))


def _with_new_rows(weights: Sequence[Weight], *, num_new: int) -> Iterator[Weight]:
    for weight in weights:
        yield weight
        if weight.part in ("embedding", "head") and not weight.is_trained:
            yield Weight(f"{weight.name}.rows", weight.part, (num_new, weight.shape[1]))


def _is_compact(weights: Sequence[Weight], *, rows: Rows, wanted: bool | None) -> bool:
    """Whether rows of the input embedding are left out, as far as the sizes decide."""
    embedding = next((weight for weight in weights if weight.part == "embedding"), None)
    has_own_head = any(weight.part == "head" for weight in weights)
    if wanted is False or embedding is None or not embedding.is_trained or not has_own_head or rows.num_read is None:
        return False
    return wanted is True or rows.num_read <= LARGEST_SHARE * embedding.shape[0]
