"""Imported once by the server that test ranks are forked from: importing in every rank would take fifteen seconds."""

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401  every ZeRO engine imports it, and with it torch's compiler
import sacrebleu.tokenizers.tokenizer_13a  # noqa: F401
import torch
import transformers.models.m2m_100.modeling_m2m_100
import transformers.models.mt5.modeling_mt5
import transformers.models.t5.modeling_t5  # noqa: F401

import dstrain.reporting.plots
import dstrain.run.training  # noqa: F401

torch.set_num_threads(1)
