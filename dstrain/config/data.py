"""The data of a recipe: where rows come from, how sources are mixed, what happens to unusable rows. Reads no files."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dstrain.config.hub import URL, hub_problem
from dstrain.config.names import FileName
from dstrain.config.paths import LocalPath
from dstrain.config.section import ConflictError, PositiveInt, Section

Index = Annotated[int, Field(ge=0)]


class Source(Section):
    """One place that rows come from: exactly one of `path`, `hub` and `demo`."""

    name: FileName | None = None
    """Evaluation rows only: name of the set that these rows belong to. Every set has scores of its own beside those of all
    rows, and `evaluation.best_metric` may name one (`flores/bleu`). Sources of the same name are one set."""
    path: LocalPath | None = None
    """Local file. With `target_path`, the source side of two line-aligned text files."""
    target_path: LocalPath | Annotated[tuple[LocalPath, ...], Field(min_length=1, strict=False)] | None = None
    """Target side of two line-aligned text files. For evaluation rows a list of files, each with another reference of every
    row."""
    format: Literal["jsonl", "tsv", "csv", "parquet", "text"] | None = None
    """Format of `path`. Null derives it from the file suffix (before `.gz` or `.zst`); it is `text` if `target_path` is given."""
    quoted: bool | None = None
    """For TSV: true if cells are in quotes where needed, as pandas writes them; false if quotes are text. Null takes quotes for
    text, and refuses rows that look quoted."""
    hub: str | None = None
    """Name of a dataset on the Hugging Face Hub: `owner/name`, or the name alone of an old one. Local files go under `path`."""
    revision: str | None = None
    """Commit, tag or branch of `hub`."""
    subset: str | None = None
    """Configuration name of `hub`, such as `ko-en`."""
    split: str = "train"
    """Split of `hub` or `demo`, such as `train`, `validation` or `eval`."""
    demo: Literal["translation", "parsing", "text"] | None = None
    """Built-in generated data, which need no download."""
    source_column: str | Index = 0
    """Column of the sources. A name may be dotted for nested fields (`translation.ko`); a number counts from 0, for
    files without a header."""
    target_column: str | Index = 1
    """Column of the targets, written like `source_column`. In evaluation rows of JSONL, Parquet and the hub a cell may be a
    list: the row's references. BLEU, chrF and exact match use all of them, the loss the first; blank ones are left out."""
    group_column: str | Index | None = None
    """Column with the name of the group that a row belongs to. Scores are also computed per group."""
    source_language: str | None = None
    """Overrides `task.source_language` for these rows."""
    target_language: str | None = None
    """Overrides `task.target_language` for these rows."""
    source_language_column: str | Index | None = None
    """Column with the language of each row's source, so that one file may hold many directions; written like
    `source_column`. A blank cell means `source_language`."""
    target_language_column: str | Index | None = None
    """Column with the language of each row's target, likewise."""
    source_prefix: str | None = None
    """Overrides `task.source_prefix` for these rows. It is what tells a model without language tokens, such as Marian and T5,
    the target language: `>>fra<< ` or `translate English to French: `. In either of them `{source_language}` and
    `{target_language}` stand for those of the row."""
    repeat: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Times that these rows occur per epoch."""
    weight: Annotated[float, Field(gt=0.0, le=1e9)] | None = None
    """Training rows only: share of these rows in an epoch, against the weights of the other sources, of which each has one
    too. An epoch has as many rows as all sources together."""
    max_rows: PositiveInt | None = None
    """Use only the first rows, at most this many. Null uses all."""

    @property
    def further_columns(self) -> dict[str, str | int]:
        """The columns besides source and target, by key, in the order in which a row's cells are read."""
        keys = ("group_column", "source_language_column", "target_language_column")
        return {key: column for key in keys if (column := getattr(self, key)) is not None}

    @property
    def target_paths(self) -> tuple[str, ...]:
        """The files of the target side."""
        if self.target_path is None or isinstance(self.target_path, tuple):
            return self.target_path or ()
        return (self.target_path,)

    @property
    def place(self) -> str:
        """Where the rows come from, in a word."""
        return self.path or self.hub or f"demo:{self.demo}"

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        places = ("path", "hub", "demo")
        given = [key for key in places if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ConflictError(
                (places, f"give exactly one of `path`, `hub` and `demo`; found {found}; null unsets one")
            )
        for key in places:
            if URL.match(getattr(self, key) or ""):
                way_out = {"hub": "write owner/name, as the Hub names the dataset"}.get(key, "download the file")
                raise ConflictError(((key,), f"`{getattr(self, key)}` is a URL: {way_out}"))
        if self.hub is not None and (problem := hub_problem(self.hub)) is not None:
            raise ConflictError((("hub",), problem))
        if self.target_path is not None and (self.path is None or self.format not in (None, "text")):
            message = "`target_path` goes with `path` and format `text` (two line-aligned files)"
            raise ConflictError((("target_path", "path", "format"), message))
        if self.path in self.target_paths or len({*self.target_paths}) < len(self.target_paths):
            message = "names a file twice: the targets, and each further reference, are a file of their own"
            raise ConflictError((("target_path", "path"), message))
        if not self.target_paths and self.demo is None and self.source_column == self.target_column:
            message = f"is the source_column too, `{self.source_column}`: name the column of the targets"
            raise ConflictError((("target_column", "source_column"), message))
        if self.format == "text" and self.target_path is None:
            message = "format `text` needs `target_path`, the other of two line-aligned files"
            raise ConflictError((("format", "target_path"), message))
        return self


class Rules(Section):
    """What happens to a row that cannot be used as it is. Every such row is counted and listed with file:line."""

    empty: Literal["error", "skip"] = "skip"
    """A row with a side that has nothing visible, or no token but special ones."""
    undecodable: Literal["error", "skip"] = "error"
    """A row with bytes that are not UTF-8, a line that cannot be parsed, or more or fewer cells than the first one."""
    unpointable: Literal["error", "skip"] = "error"
    """A row whose parse contains a word that the utterance does not (segmentation `published` only)."""
    too_long: Literal["error", "skip", "truncate"] = "truncate"
    """A row over `task.max_source_tokens` or `task.max_target_tokens`. Targets of evaluation rows are never truncated,
    because they are the reference."""
    unknown_token: Literal["error", "skip", "keep"] | None = None
    """A row whose target contains a token unknown to the tokenizer. Null is `error` for parsing, because brackets that
    the tokenizer drops from hypothesis and reference would count as a match. Null is `keep` for other tasks, because
    their scores use the reference text itself."""
    overlap: Literal["error", "skip_train", "keep"] = "keep"
    """A training row whose source is that of an evaluation row, but for case, white space and the forms of Unicode (NFKC).
    `skip_train` leaves it out of training, `error` refuses the start; evaluation rows stay in any case."""
    duplicates: Literal["skip", "keep"] = "keep"
    """A training row whose source and target are, letter for letter, those of an earlier one."""


RULES_OF_ROWS = frozenset(Rules.model_fields) - {"overlap", "duplicates"}
"""The rules that look at one row at a time."""


class Data(Section):
    """Training and evaluation rows."""

    train: Annotated[tuple[Source, ...], Field(min_length=1, strict=False, examples=["[{path: file.tsv}]"])]
    """Sources of the training rows, mixed by `repeat`, by `weight` or by `temperature`."""
    eval: Annotated[tuple[Source, ...], Field(min_length=1, strict=False, examples=["[{path: file.tsv}]"])]
    """Sources of the evaluation rows. Their `repeat` must be 1."""
    temperature: Annotated[float, Field(ge=1.0, le=1e9)] | None = None
    """Mixes the training sources so that one with n of N rows has a share of an epoch in proportion to (n/N)^(1/temperature): 1
    leaves the shares as they are, 5 is that of M2M100 and mBART-50, larger values make sources more alike. An epoch has N
    rows."""
    rules: Rules = Rules()
    """What happens to unusable rows."""

    @property
    def is_mixed(self) -> bool:
        """Whether the training sources have other shares of an epoch than their rows."""
        return self.temperature is not None or any(source.weight is not None for source in self.train)

    @property
    def eval_sets(self) -> tuple[str, ...]:
        """Names of the evaluation sets, in the order of their sources."""
        return tuple(dict.fromkeys(source.name for source in self.eval if source.name is not None))

    @model_validator(mode="after")
    def _only_evaluation_rows_are_scored_by_name(self) -> "Data":
        message = "training rows are not scored, so that a name has no effect: remove `name`"
        named = [number for number, source in enumerate(self.train) if source.name is not None]
        if named:
            raise ConflictError(*(((f"train.{number}.name",), message) for number in named))
        return self

    @model_validator(mode="after")
    def _sources_are_mixed_in_one_way(self) -> "Data":
        weighted = [source.weight is not None for source in self.train]
        if self.temperature is not None and any(weighted):
            keys = ("temperature", f"train.{weighted.index(True)}.weight")
            raise ConflictError((keys, "sources are mixed by `temperature` or by `weight`: give one; null unsets one"))
        if any(weighted) and not all(weighted):
            keys = (f"train.{weighted.index(False)}.weight", f"train.{weighted.index(True)}.weight")
            raise ConflictError((keys, "where one source has a weight, each has: give this one too"))
        repeated = [number for number, source in enumerate(self.train) if source.repeat != 1]
        if self.is_mixed and repeated:
            first = f"train.{repeated[0]}"
            raise ConflictError(
                (
                    (f"{first}.repeat", "temperature", f"{first}.weight"),
                    "`repeat` does not go with `weight` or `temperature`: remove it",
                )
            )
        weighed = [number for number, source in enumerate(self.eval) if source.weight is not None]
        if weighed:
            message = "evaluation rows are not weighted: a score counts every row once; remove `weight`"
            raise ConflictError(((f"eval.{weighed[0]}.weight",), message))
        return self

    @model_validator(mode="after")
    def _training_rows_have_one_target(self) -> "Data":
        message = "training rows have one target: name one file, or make a source of each"
        several = [number for number, source in enumerate(self.train) if len(source.target_paths) > 1]
        if several:
            raise ConflictError(*(((f"train.{number}.target_path",), message) for number in several))
        return self

    @model_validator(mode="after")
    def _evaluation_counts_once(self) -> "Data":
        message = "evaluation rows cannot be repeated: a score counts every row once; remove `repeat`"
        repeated = [number for number, source in enumerate(self.eval) if source.repeat != 1]
        if repeated:
            raise ConflictError(*(((f"eval.{number}.repeat",), message) for number in repeated))
        return self
