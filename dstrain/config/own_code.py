"""What a recipe may name of the user's own code: a class or a function of a Python module. Imports none of it."""

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_OWN_CODE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own_code(text: str) -> bool:
    """Whether the text names code as `my_package.my_module:name`."""
    return _OWN_CODE.fullmatch(text) is not None


def own_name(item: str) -> str:
    """The name of the class or the function: `name` of `my_package.my_module:name`."""
    return item.partition(":")[2]


def _check(text: str) -> str:
    if not is_own_code(text):
        raise PydanticCustomError("own_code", "must be a class of your own as `my_package.my_module:Class`")
    return text


OwnCode = Annotated[str, AfterValidator(_check)]
