"""dstrain: distributed training of sequence-to-sequence models. One recipe, any machine."""

__version__ = "0.1.0"
