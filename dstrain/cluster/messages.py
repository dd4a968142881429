"""What ranks tell each other outside the training step: JSON, read as a form that the receiver names. Imports no torch.

No rank proves which one it is, so nothing that is received may run: a pickle would.
"""

from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dstrain.errors import UserError


def encode(value: Any, form: Any) -> bytes:
    """`value` as JSON.

    Args:
        form: its type: dataclasses, sections of the configuration, paths, and containers and unions of them, as in annotations.
    """
    return _adapter(form).dump_json((value,), warnings="error")


def decode(message: bytes, form: Any, *, sender: int) -> Any:
    """The value of that form which rank `sender` encoded.

    Raises:
        UserError: the message is nothing of that form.
    """
    try:
        (value,) = _adapter(form).validate_json(message, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"][1:]))
        raise UserError(
            f"rank {sender} sent something else than was expected here ({place or 'as a whole'}: {first['msg']}): start all "
            "ranks with the same version of dstrain, and let no other program reach their ports"
        ) from error
    return value


@cache
def _adapter(form: Any) -> TypeAdapter[tuple[Any]]:
    # in a tuple, because the setting cannot be given to a dataclass; losses may be NaN or infinite
    return TypeAdapter(tuple[form], config=ConfigDict(ser_json_inf_nan="constants"))
