"""Which names of a dataset mean one on the Hugging Face Hub, to the library that loads it. Pure."""

import re

URL = re.compile(r"[a-z0-9]+://", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
BUILDERS = frozenset({
    "arrow", "audiofolder", "cache", "conll", "csv", "eval", "fasta", "fastq", "genbank", "generator", "harbor", "hdf5",
    "iceberg", "imagefolder", "json", "lance", "meshfolder", "mmcif", "niftifolder", "pandas", "parquet", "pdb",
    "pdffolder", "spark", "sql", "text", "tsfile", "videofolder", "vortex", "webdataset", "xml",
})  # fmt: skip
"""Names with which `datasets` reads files of the working directory. A test compares them with the installed release."""


def hub_problem(name: str) -> str | None:
    """Why this is no name of a dataset on the Hub, and the way out; None if it is one."""
    if _NAME.fullmatch(name) is None or name.endswith(".py"):
        return f"must be a dataset on the Hub, `owner/name`; found {name!r}; name local files with `path`"
    if name.lower() in BUILDERS:
        return f"`{name}` would read local files of that format; found {name!r}; name them with `path` and `format`"
    return None
