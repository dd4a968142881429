"""The licence identifiers of the Hugging Face Hub, and whether a text is one. Pure.

The Hub publishes the list on the page "Licenses" of its documentation; it shows and filters by no others.
"""

from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

OTHER = "other"
"""The identifier of a licence that the Hub does not know, which therefore needs a name."""
LICENSES = frozenset(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0 "
    "artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 "
    "cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 "
    "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 "
    "epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research "
    "intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 "
    "postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 "
    "llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown other".split()
)


def license_problem(name: str) -> str | None:
    """Why this is no licence of the Hub, and what may be meant; None if it is one."""
    if name in LICENSES:
        return None
    close = get_close_matches(name.lower().replace(" ", "-"), sorted(LICENSES), n=1)
    meant = (
        f"did you mean `{close[0]}`?" if close else f"take `{OTHER}` with license_name for any that it does not know"
    )
    return f"must be a licence identifier of the Hub: {meant}"


def _check(name: str) -> str:
    if problem := license_problem(name):
        raise PydanticCustomError("license_problem", "{problem}", {"problem": problem})
    return name


License = Annotated[str, AfterValidator(_check)]
"""A licence in a recipe."""
