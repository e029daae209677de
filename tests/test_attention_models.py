"""Positions, sinks and QK-norm against the attention modules of transformers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from dynsim import AttentionDynamics, masks  # noqa: E402
from dynsim.engines import make_engine  # noqa: E402
from dynsim.network.attention import NoQKNorm, QKNorm, Softmax  # noqa: E402
from dynsim.network.positions import ALiBi, NoPosition, RoPE  # noqa: E402
from dynsim.network.weights import Layers, LayerWeights  # noqa: E402

D, HEADS, KEYS, WIDTH = 24, 4, 2, 6
COMMON = {
    "vocab_size": 11, "hidden_size": D, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": HEADS, "num_key_value_heads": KEYS, "head_dim": WIDTH,
    "max_position_embeddings": 64,
}  # fmt: skip


class Reached(Exception):
    """No more is needed of the model."""


def llama():
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(**COMMON, rope_theta=50.0)
    return LlamaModel(config), lambda m: m.layers[0].self_attn, {"position": RoPE(50.0)}


def qwen3():
    from transformers import Qwen3Config, Qwen3Model

    model = Qwen3Model(Qwen3Config(**COMMON, rope_theta=50.0))
    return model, lambda m: m.layers[0].self_attn, {"position": RoPE(50.0), "qk_norm": True}


def gpt_oss():
    from transformers import GptOssConfig, GptOssModel

    config = GptOssConfig(
        **COMMON, num_local_experts=2, num_experts_per_tok=1, attention_bias=False,
        layer_types=["full_attention"], rope_scaling=None,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0},
    )  # fmt: skip
    model = GptOssModel(config)
    model.config._attn_implementation = "eager"
    return model, lambda m: m.layers[0].self_attn, {"position": RoPE(50.0), "kind": True}


def mpt():
    from transformers import MptConfig, MptModel

    config = MptConfig(
        vocab_size=11, d_model=D, n_heads=HEADS, n_layers=1, max_seq_len=64, expansion_ratio=1
    )
    return MptModel(config), lambda m: m.blocks[0].attn, {"position": ALiBi()}


def matrices(module, qk_norm):
    """The weights of a module as a layer; of fewer keys than queries each serves several heads."""

    def of(linear):
        return linear.weight.detach().numpy().T

    if hasattr(module, "Wqkv"):
        W_Q, W_K, W_V = np.split(of(module.Wqkv), 3, axis=1)
        W_O = of(module.out_proj)
    else:
        W_Q, W_K, W_V, W_O = map(
            of, (module.q_proj, module.k_proj, module.v_proj, module.o_proj)
        )  # fmt: skip

    def by_head(W):
        heads = W.reshape(D, -1, WIDTH).transpose(1, 0, 2)
        return np.repeat(heads, HEADS // len(heads), axis=0)

    scale = 1.0 if qk_norm else WIDTH**-0.5  # the size of queries counts beside eps
    return LayerWeights(
        scale * by_head(W_Q), np.zeros((HEADS, WIDTH)), by_head(W_K), by_head(W_V),
        W_O.reshape(HEADS, WIDTH, D), np.zeros(D),
    )  # fmt: skip


@pytest.mark.parametrize("make", [llama, qwen3, gpt_oss, mpt])
@pytest.mark.parametrize("n", [1, 9])
def test_the_attention_of_a_model_is_that_of_a_dynamics(make, n):
    torch.manual_seed(0)
    model, find, parts = make()
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    module, seen = find(model), {}

    def keep(_, args, kwargs, out):
        seen["x"] = args[0] if args else kwargs["hidden_states"]
        seen["y"] = out[0]
        raise Reached

    module.register_forward_hook(keep, with_kwargs=True)
    with torch.no_grad(), pytest.raises(Reached):
        model(input_ids=torch.randint(0, 11, (2, n)))
    x, y = (seen[name].double().numpy() for name in ("x", "y"))
    qk_norm, kind = NoQKNorm(), Softmax()
    if "qk_norm" in parts:
        gains = [tuple(norm.weight.tolist()) for norm in (module.q_norm, module.k_norm)]
        qk_norm = QKNorm(gains[0], "rms", gains[1], module.q_norm.variance_epsilon)
    if "kind" in parts:
        kind = Softmax(tuple(module.sinks.tolist()))
    dynamics = AttentionDynamics(
        masks.causal(n), Layers((matrices(module, "qk_norm" in parts),)),
        position=parts.get("position", NoPosition()), kind=kind, qk_norm=qk_norm,
    )  # fmt: skip
    for dtype, rtol in ((np.float64, 1e-6), (np.float32, 1e-4)):  # models take angles in float32
        for engine in ("reference", "torch", "numba"):
            found = make_engine(engine, dynamics, 1).advance(x.astype(dtype), 0, 1)[0]
            assert np.abs(found - y).max() <= rtol * np.abs(y).max()
