"""What the linear layers of model families are called: the targets of an adapter. No torch."""

from collections.abc import Mapping

BART_TARGETS = {"attention": ("q_proj", "k_proj", "v_proj", "out_proj"), "feed-forward": ("fc1", "fc2")}
T5_TARGETS = {"attention": ("q", "k", "v", "o"), "feed-forward": ("wi", "wi_0", "wi_1", "wo")}
TARGETS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys("m2m_100 mbart marian bart plbart mvp pegasus pegasus_x blenderbot".split(), BART_TARGETS),
    **dict.fromkeys("t5 mt5 umt5 longt5".split(), T5_TARGETS),
    "t5gemma": {
        "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
        "feed-forward": ("gate_proj", "up_proj", "down_proj"),
    },
}
"""`model_type` to the names of its linear layers, those that not every model of the type has among them."""
