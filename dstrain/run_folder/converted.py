"""The record beside a model that was converted for CTranslate2: how it was made, and what was measured. No torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from dstrain.errors import UserError
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import CONVERTED
from dstrain.run_folder.reading import parse_json, read_bytes, validate

WEIGHTS = "model.bin"
"""File of the weights in a folder that CTranslate2 loads."""
RECORD = "dstrain.json"
"""File of the record beside them."""
PLAIN = "float32"
QUANTIZATIONS = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16")
"""Types in which CTranslate2 can store weights, beside the plain one."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What quantisation does to a score, with the same search by the same engine on the same rows."""

    metric: str
    plain: float
    quantized: float
    num_rows: int
    num_beams: int
    computed_in: str
    """The type in which the engine computed on the device of the measurement."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a model was converted."""

    version: str
    """CTranslate2's."""
    quantization: str
    num_proved: int
    """Evaluation rows whose greedy hypotheses, before quantisation, were those of the model, token for token."""
    cost: Cost | None = None
    """None without quantisation, and where no metric could be computed."""


_RECORD = TypeAdapter(Conversion)


def find_converted(model: Path) -> Path | None:
    """The converted model in a model folder; None if there is none."""
    folder = model / CONVERTED
    return folder if (folder / WEIGHTS).is_file() else None


def write_conversion(folder: Path, conversion: Conversion) -> None:
    """Write the record of a converted model into its folder."""
    write_file(folder / RECORD, json.dumps(asdict(conversion), indent=2) + "\n")


def read_conversion(folder: Path) -> Conversion:
    """The record of a converted model.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / RECORD
    try:
        content = read_bytes(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): make the folder with `dstrain export RUN FOLDER --to {CONVERTED}`"
        ) from error
    found: Conversion = validate(_RECORD, value=parse_json(content, where=str(path)), where=str(path))
    return found
