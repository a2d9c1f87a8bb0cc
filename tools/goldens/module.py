"""The layer of flash-moe in plain torch.nn, written from its formulas and made to be read beside them.

Symbols: T tokens, H hidden size, I intermediate size, X by Y keys, N experts, k experts per token.

    n    = norm_hidden(x)                          only router_norm "hidden"
    l    = n Wr^T                                  [T, X+Y]; the x keys first; lx and ly are its halves
    l    = norm_logits(l)                          only router_norm "logits"
    s_ij = (lx[i] - max lx) + (ly[j] - max ly)     the k best pairs are kept; expert id = i*Y + j
    w    = exp(log_softmax(lx)[i] + log_softmax(ly)[j])      norm_topk_prob: divided by their sum
    e    = sum_k act(x . down[id_k]) w_k up[id_k]
    m    = (act(x Wg^T) * (x Wu^T)) Wd^T
    y    = m + e

Everything runs in the dtype of the parameters (float64 for goldens), except the selection, which is
defined on the logits rounded to float32. Gradients are autograd's; none flows through the selection.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {
    "silu": F.silu,
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}

FLOAT32_MAX = np.finfo(np.float32).max


@dataclass(frozen=True)
class Config:
    """One layer. `variant` decides the parameter names, `router_norm` where the BatchNorm stands."""

    hidden_size: int
    intermediate_size: int
    hidden_act: str
    num_experts: int
    top_k: int
    norm_topk_prob: bool = False
    variant: str = "flash"
    router_norm: str = "hidden"
    num_keys: tuple[int, int] | None = None

    @property
    def keys(self) -> tuple[int, int]:
        """X and Y. Without num_keys both are floor(sqrt(N)), and the rows beyond X*Y are never chosen."""
        if self.num_keys is not None:
            return self.num_keys
        side = math.isqrt(self.num_experts)
        return side, side

    def checkpoint_keys(self) -> dict:
        """The configuration as a checkpoint spells it; omni-moe names the top-k differently."""
        top_k = "num_experts_per_token" if self.variant == "omni" else "num_experts_per_tok"
        keys = {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "hidden_act": self.hidden_act,
            "num_experts": self.num_experts,
            top_k: self.top_k,
            "norm_topk_prob": self.norm_topk_prob,
            "variant": self.variant,
            "router_norm": self.router_norm,
        }
        if self.num_keys is not None:
            keys["num_keys"] = list(self.num_keys)
        return keys


class Output(NamedTuple):
    hidden_states: torch.Tensor
    """[T, H]"""
    router_logits: torch.Tensor
    """[T, X+Y], after the BatchNorm where there is one on the logits"""
    indices: torch.Tensor
    """[T, k] int64"""
    routing_weights: torch.Tensor
    """[T, k]"""


def selection_logits(logits: np.ndarray) -> np.ndarray:
    """float32 logits as the selection sees them: NaN as the lowest finite value, infinities clamped."""
    lowest = np.where(np.isnan(logits), -FLOAT32_MAX, logits)
    return np.clip(lowest, -FLOAT32_MAX, FLOAT32_MAX).astype(np.float32)


def key_ranks(logits: np.ndarray) -> np.ndarray:
    """Rank of every key of one axis when sorted by (logit descending, index ascending). [K] -> [K]"""
    order = sorted(range(len(logits)), key=lambda key: (-logits[key], key))
    ranks = np.empty(len(logits), dtype=np.int64)
    ranks[order] = np.arange(len(logits))
    return ranks


def pair_order(logits_x: np.ndarray, logits_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All X*Y pairs of one token, best first: expert ids and their float32 sums, by brute force.

    The order is (sum descending, rank of i ascending, rank of j ascending). Each of the two
    subtractions and the addition is one float32 operation.
    """
    lx, ly = selection_logits(logits_x), selection_logits(logits_y)
    with np.errstate(over="ignore"):
        sums = (lx - lx.max())[:, None] + (ly - ly.max())[None, :]
    rank_x = np.broadcast_to(key_ranks(lx)[:, None], sums.shape)
    rank_y = np.broadcast_to(key_ranks(ly)[None, :], sums.shape)
    ids = np.lexsort((rank_y.ravel(), rank_x.ravel(), -sums.ravel()))
    return ids, sums.ravel()[ids]


def select(logits_x: torch.Tensor, logits_y: torch.Tensor, k: int) -> torch.Tensor:
    """Expert ids of the k best pairs per token: [T, X], [T, Y] -> [T, k] int64."""
    lx = logits_x.detach().to(torch.float32).numpy()
    ly = logits_y.detach().to(torch.float32).numpy()
    return torch.from_numpy(np.stack([pair_order(x, y)[0][:k] for x, y in zip(lx, ly)]))


def route(logits_x: torch.Tensor, logits_y: torch.Tensor, k: int, normalize: bool):
    """The router behind its logits: [T, X], [T, Y] -> indices [T, k], routing weights [T, k]."""
    indices = select(logits_x, logits_y, k)
    num_y = logits_y.shape[1]
    log_px = F.log_softmax(logits_x, dim=-1).gather(1, indices // num_y)
    log_py = F.log_softmax(logits_y, dim=-1).gather(1, indices % num_y)
    weights = torch.exp(log_px + log_py)
    if normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return indices, weights


def mix_experts(x, first, second, indices, weights, act):
    """sum_k act(x . first[id_k]) w_k second[id_k]: [T, H], [N, H], [N, H], [T, k], [T, k] -> [T, H]."""
    scores = torch.einsum("th,tkh->tk", x, first[indices])
    return torch.einsum("tk,tkh->th", act(scores) * weights, second[indices])


class FlashMoE(nn.Module):
    """The layer under the state_dict names of its checkpoints.

    The flash variant projects with `down_embed` first and `up_embed` second; the omni variant stores
    the same two tables under exchanged names.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        hidden, inner = config.hidden_size, config.intermediate_size
        num_x, num_y = config.keys
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)
        self.down_embed = nn.Embedding(config.num_experts, hidden)
        self.up_embed = nn.Embedding(config.num_experts, hidden)
        if config.variant == "omni":
            if config.router_norm != "logits":
                raise ValueError("the omni names carry the BatchNorm of the logits")
            self.router_gate_x = nn.Linear(hidden, num_x, bias=False)
            self.router_gate_y = nn.Linear(hidden, num_y, bias=False)
            self.router_norm_x = nn.BatchNorm1d(num_x, affine=False)
            self.router_norm_y = nn.BatchNorm1d(num_y, affine=False)
        else:
            if config.router_norm not in ("hidden", "none"):
                raise ValueError("the flash names carry the BatchNorm of the hidden states, or none")
            self.router_gate = nn.Linear(hidden, num_x + num_y, bias=False)
            if config.router_norm == "hidden":
                self.router_norm = nn.BatchNorm1d(hidden, affine=False)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """[T, H] -> [T, X+Y]"""
        if self.config.router_norm == "logits":
            x_keys = self.router_norm_x(self.router_gate_x(x))
            y_keys = self.router_norm_y(self.router_gate_y(x))
            return torch.cat([x_keys, y_keys], dim=1)
        if self.config.router_norm == "hidden":
            x = self.router_norm(x)
        return self.router_gate(x)

    def forward(self, x: torch.Tensor) -> Output:
        """[T, H] -> Output"""
        config = self.config
        act = ACTIVATIONS[config.hidden_act]
        logits = self.logits(x)
        logits_x, logits_y = logits.split(config.keys, dim=1)
        indices, weights = route(logits_x, logits_y, config.top_k, config.norm_topk_prob)
        first, second = self.down_embed.weight, self.up_embed.weight
        if config.variant == "omni":
            first, second = second, first
        experts = mix_experts(x, first, second, indices, weights, act)
        mlp = self.down_proj(act(self.gate_proj(x)) * self.up_proj(x))
        return Output(mlp + experts, logits, indices, weights)
