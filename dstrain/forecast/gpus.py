"""GPUs by name: memory and peak rates as their makers publish them, from memory and not checked with data sheets. Pure data.

Rates are dense, without sparsity, in 1e12 operations a second. Memory is in GB as it is sold; a program can have a few per cent
less (`USABLE`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dstrain.errors import UserError

USABLE = 0.97
"""Share of the named memory that a program can have: the driver and error correction keep the rest."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a kind of GPU can do."""

    name: str
    memory_gb: float
    bf16: float | None
    """Peak in 1e12 operations a second; None where the hardware has no such arithmetic."""
    fp16: float | None
    fp32: float
    """Without TF32, which dstrain does not use."""
    gigabytes_per_second: float
    """Of its memory."""
    pattern: str
    """Of the names that torch gives it."""

    def peak(self, precision: str) -> float:
        """Operations a second in a recipe's precision; fp32's where the hardware lacks the precision."""
        rate: float | None = {"bf16": self.bf16, "fp16": self.fp16}.get(precision, self.fp32)
        return (rate or self.fp32) * 1e12


# as in NVIDIA's data sheets: "Tensor Core" rates without sparsity for 16 bits, "FP32" for fp32.
GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("h200", 141, 989, 989, 67, 4800, r"\bH200\b"),
        Gpu("h100", 80, 989, 989, 67, 3350, r"\bH100 80GB HBM3\b"),  # SXM5
        Gpu("h100-pcie", 80, 756, 756, 51, 2000, r"\bH100 PCIe\b"),
        Gpu("h100-nvl", 94, 835, 835, 60, 3900, r"\bH100 NVL\b"),
        Gpu("gh200", 96, 989, 989, 67, 4000, r"\bGH200\b"),
        Gpu("b200", 180, 2250, 2250, 80, 8000, r"\bB200\b"),
        Gpu("a100-80", 80, 312, 312, 19.5, 2039, r"\bA100.*80GB\b"),
        Gpu("a100-40", 40, 312, 312, 19.5, 1555, r"\bA100.*40GB\b"),
        Gpu("a800", 80, 312, 312, 19.5, 2039, r"\bA800\b"),
        Gpu("v100-32", 32, None, 125, 15.7, 900, r"\bV100.*32GB\b"),
        Gpu("v100-16", 16, None, 125, 15.7, 900, r"\bV100.*16GB\b"),
        Gpu("l40s", 48, 362, 362, 91.6, 864, r"\bL40S\b"),
        Gpu("l40", 48, 181, 181, 90.5, 864, r"\bL40\b"),
        Gpu("l4", 24, 121, 121, 30.3, 300, r"\bL4\b"),
        Gpu("a40", 48, 150, 150, 37.4, 696, r"\bA40\b"),
        Gpu("a30", 24, 165, 165, 10.3, 933, r"\bA30\b"),
        Gpu("a10", 24, 125, 125, 31.2, 600, r"\bA10G?\b"),
        Gpu("a6000", 48, 155, 155, 38.7, 768, r"\bRTX A6000\b"),
        Gpu("t4", 16, None, 65, 8.1, 320, r"\bT4\b"),
        Gpu("rtx4090", 24, 165, 165, 82.6, 1008, r"\bRTX 4090\b"),
        Gpu("rtx3090", 24, 71, 71, 35.6, 936, r"\bRTX 3090\b"),
    )
}

DEFAULT_VARIANTS = {"a100": "a100-80", "v100": "v100-16"}
"""Names without their memory, and which of the cards is meant."""


def find_gpu(name: str) -> Gpu:
    """The GPU that a user names, such as `h100` or `A100-40`.

    Raises:
        UserError: it is not in the table; lists those that are.
    """
    key = name.lower().replace(" ", "").removeprefix("nvidia-").removesuffix("gb")
    found = GPUS.get(DEFAULT_VARIANTS.get(key, key))
    if found is None:
        raise UserError(f"--gpu {name}: not known; take one of {', '.join(GPUS)}, or give --gpu-memory, such as 80GB")
    return found


def recognise(device_name: str) -> Gpu | None:
    """The GPU that torch calls by this name; None if it is not in the table."""
    return next((gpu for gpu in GPUS.values() if re.search(gpu.pattern, device_name)), None)


def parse_memory(text: str) -> int:
    """Bytes of a text such as `80GB`, `79.6 GiB` or `16000MB`; without a unit it is GB.

    Raises:
        UserError: it is no such text.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(|[GM]i?B)\s*", text, re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise UserError(f"--gpu-memory {text}: write a size such as 80GB, 79.6GiB or 16000MB")
    units = {"": 1e9, "gb": 1e9, "mb": 1e6, "gib": float(1 << 30), "mib": float(1 << 20)}
    return int(float(match[1]) * units[match[2].lower()])
