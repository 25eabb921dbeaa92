"""The forward pass beside the same architecture written with plain torch operations."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from studbook.models.decoder import Decoder  # noqa: E402
from studbook.models.shape import SlmShape  # noqa: E402
from studbook.models.slm import Slm, parse_slm, write_slm  # noqa: E402
from studbook.models.tokenizers import ByteTokenizer  # noqa: E402

pytestmark = pytest.mark.train


def torch_logits(slm: Slm, ids: np.ndarray) -> np.ndarray:
    shape = slm.shape
    w = {name: torch.tensor(slm.dense(name).copy()) for name in slm.tensors}
    count, tokens = ids.shape
    half = torch.arange(0, shape.head_dim, 2, dtype=torch.float64)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * shape.rope_theta ** (-half / shape.head_dim)
    cos, sin = angles.cos().float()[:, None], angles.sin().float()[:, None]

    def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (shape.hidden_size,), gain, shape.rms_norm_epsilon)

    def rotate(x: torch.Tensor) -> torch.Tensor:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)

    x = w["tok_embeddings.weight"][torch.tensor(ids)]
    for layer in range(shape.layer_count):
        part = {p: w[f"layers.{layer}.{p}.weight"] for p in ("wq", "wk", "wv", "wo", "w1", "w2", "w3")}
        h = norm(x, w[f"layers.{layer}.attn_norm.weight"])
        q, k, v = ((h @ part[p].T).view(count, tokens, -1, shape.head_dim) for p in ("wq", "wk", "wv"))
        group = shape.head_count // shape.kv_head_count
        q, k = rotate(q), rotate(k)
        k, v = (t.repeat_interleave(group, dim=2) for t in (k, v))
        mixed = torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        x = x + mixed.transpose(1, 2).reshape(count, tokens, -1) @ part["wo"].T
        h = norm(x, w[f"layers.{layer}.ffn_norm.weight"])
        x = x + (torch.nn.functional.silu(h @ part["w1"].T) * (h @ part["w3"].T)) @ part["w2"].T
    output = w["tok_embeddings.weight"] if shape.tied else w["output.weight"]
    return (norm(x, w["norm.weight"]) @ output.T).numpy()


@pytest.mark.parametrize(("shared", "tied"), [(4, True), (2, False), (1, True)])
def test_logits_equal_plain_torch(shared: int, tied: bool) -> None:
    shape = SlmShape(260, 64, 3, 4, shared, 16, 192, 64, 10000.0, 1e-5, tied)
    random = np.random.default_rng(shared)
    tensors = {spec.name: (random.standard_normal(spec.dims) / 5).astype(np.float32) for spec in shape.tensors()}
    slm = parse_slm(write_slm(shape, ByteTokenizer(), tensors))
    ids = random.integers(0, 260, (5, 40))
    decoder = Decoder(slm)
    expected = torch_logits(slm, ids).reshape(200, -1)
    assert np.abs(decoder.logits(decoder.run(ids)) - expected).max() < 1e-5 * max(1, np.abs(expected).max())
