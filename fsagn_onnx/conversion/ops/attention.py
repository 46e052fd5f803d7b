"""Attention (opset 23 and later), as torch's exporter writes `scaled_dot_product_attention`."""

from __future__ import annotations

import torch
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import converted, given

__all__ = ["Attention"]


class Attention(nn.Module):
    """q, k, v, mask -> softmax(q k' scale + mask) v.

    q, k, v are (N, heads, length, width), or (N, length, heads width); fewer heads of k and v are repeated.

    Attributes:
        heads: of q and of k and v, for three axes.
        scale: 1 / sqrt(width) where None.
        causal: a place sees none behind it.
    """

    def __init__(self, heads: tuple[int, int], scale: float | None, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.scale, self.causal = heads, scale, causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend."""
        flat = q.dim() == 3
        if flat:
            counts = (self.heads[0], self.heads[1], self.heads[1])
            q, k, v = (x.reshape(*x.shape[:2], n, -1).transpose(1, 2) for x, n in zip((q, k, v), counts, strict=True))
        if k.shape[1] != q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        scores = (q * scale**0.5) @ (k * scale**0.5).transpose(-1, -2)
        if self.causal:
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(ahead, -torch.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        made: Tensor = scores.softmax(-1) @ v
        return made.transpose(1, 2).flatten(2) if flat else made


@register("Attention", 23, 24, 25)
def _attention(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    del graph
    found = node.attributes
    if any(given(node, index) for index in range(4, 7)) or any(node.output_values[1:]):
        raise NotImplementedError("Attention with a cache or more than one output")
    if found.get("softcap", 0.0) or found.get("qk_matmul_output_mode", 0):
        raise NotImplementedError("softcap or qk_matmul_output_mode of Attention")
    heads = (found.get("q_num_heads", 0), found.get("kv_num_heads", 0))
    return converted(Attention(heads, found.get("scale"), causal=bool(found.get("is_causal", 0))), node, 4)
