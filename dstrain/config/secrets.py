"""Keys, tokens and passwords: what looks like one is refused in a recipe, and masked in what is printed or published. Pure."""

import re
from typing import Any

MASK = "***"
WAY_OUT = (
    "a recipe is copied to the run folder and the card: set the environment variable of whoever asks for it, such as "
    "HF_TOKEN"
)

_NAME = re.compile(
    r"(?:^|(?<!unknown)[._-])(?:(?:api|access|auth|private|secret|experiment|encryption)[._-]?key|password|passwd|passphrase|pwd|secret|"
    r"credentials?|(?:api|auth|access|bearer|refresh|session|hf|hub|wandb|github)[._-]?token|token|apikey)$",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bgh[oprsu]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{22,}|\bglpat-[\w-]{20,}|\bsk-(?:\w+-)?[A-Za-z0-9]{32,}|"
    r"\bAKIA[0-9A-Z]{16}\b|\bxox[abeprs]-[\w-]{10,}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+|\bwandb_v\d+_\w{20,}|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""Tokens of the Hugging Face Hub, GitHub, GitLab, OpenAI and the like, AWS, Slack, Weights & Biases, JSON web tokens, and private
keys."""
_LOGIN = re.compile(r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)")
"""The user and password of an address."""
_SET = re.compile(
    r"((?:api|access|auth|private|secret|experiment)[_-]?key|password|passwd|passphrase|(?:hf|access|auth|api|tracking)_token)"
    r"([\"'`]?\s*[:=]\s*[\"'`]?)([^\s\"'`,;|}\])]+)",
    re.IGNORECASE,
)


def names_secret(key: object) -> bool:
    """Whether a key of this name has a secret as its value; no key of the vocabulary has."""
    return isinstance(key, str) and _NAME.search(key) is not None


def holds_secret(text: str) -> bool:
    """Whether a text has a token of a well-known form, or an address with a password."""
    return holds_token(text) or _LOGIN.search(text) is not None


def holds_token(text: str) -> bool:
    """Whether a text has a token or private key of a well-known form, whatever stands around it."""
    return _TOKEN.search(text) is not None


def sets_secret(text: str) -> bool:
    """Whether a text gives a key or password a value, other than MASK and what stands for none."""
    return any(match[3].lower() not in (MASK, "null", "none", "true", "false") for match in _SET.finditer(text))


def mask(text: str) -> str:
    """The text with MASK in the place of tokens, and of what is set as a key or password."""
    return _SET.sub(rf"\1\2{MASK}", _LOGIN.sub(MASK, _TOKEN.sub(MASK, text)))


def mask_override(override: str) -> str:
    """`KEY=VALUE` for a message, with MASK as the value if it holds a secret."""
    key, sign, value = override.partition("=")
    words = re.split(r"[\s{}\[\],:=\"']+", override)
    return f"{key}{sign}{MASK}" if holds_secret(value) or any(map(names_secret, words)) else override


def mask_value(value: Any, *, key: object = None) -> Any:
    """A value of a document, for a message: MASK for every secret in it, by the name of its key or by its form."""
    if names_secret(key):
        return MASK
    if isinstance(value, dict):
        return {name: mask_value(child, key=name) for name, child in value.items()}
    if isinstance(value, list):
        return [mask_value(child) for child in value]
    return mask(value) if isinstance(value, str) else value
