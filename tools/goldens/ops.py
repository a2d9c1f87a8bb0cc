"""Goldens of the router and the experts alone, on logits, ids and weights that come from outside."""

import json

import numpy as np
import torch

from container import encode
from module import ACTIVATIONS, FLOAT32_MAX, mix_experts, route, select

SEED = 20_260_101


def router_logits(rng: np.random.Generator) -> dict[str, tuple[np.ndarray, int, int, bool]]:
    """name -> (logits [T, X+Y], X, k, normalize). Names that begin with "select" have logits that are
    not finite, or that are so far apart that only the choice is defined, not the weights."""

    def normal(tokens: int, keys: int) -> np.ndarray:
        return rng.standard_normal((tokens, keys))

    uneven = normal(4, 20)
    uneven[:, 9:] = 1e6 * np.round(uneven[:, 9:])
    infinite = normal(5, 16)
    infinite[0, [1, 4, 11]] = np.inf
    infinite[1, [0, 2, 9]] = -np.inf
    infinite[2, [3, 12]], infinite[2, [5, 13]] = np.inf, -np.inf
    infinite[3, :8] = -np.inf
    infinite[4] = -np.inf
    nan = normal(4, 16)
    nan[0, [0, 7, 8]] = np.nan
    nan[1, :8] = np.nan
    nan[2] = np.nan
    nan[3, [1, 9]], nan[3, [2, 10]], nan[3, [3, 11]] = np.nan, -np.inf, np.inf
    extreme = rng.choice([-FLOAT32_MAX, FLOAT32_MAX, -1e38, 3e38, -3e38, 0.0, 1.0], (5, 13))
    return {
        "random-7x11": (normal(5, 18), 7, 13, False),
        "random-11x7-normalized": (3 * normal(5, 18), 11, 20, True),
        "coarse-40x60": (np.round(4 * normal(4, 100)) / 4, 40, 100, False),
        "coarse-16x16-all-pairs": (np.round(2 * normal(3, 32)) / 2, 16, 256, True),
        "all-equal-5x6": (np.full((2, 11), 0.7), 5, 30, False),
        "signed-zeros-6x6": (rng.choice([-0.0, 0.0, -1.0], (4, 12)), 6, 17, False),
        "one-pair-1x1": (normal(3, 2), 1, 1, False),
        "one-row-1x300": (normal(3, 301), 1, 64, True),
        "wide-9x9": (100 * normal(4, 18), 9, 20, True),
        "offset-12x12": (1e6 + normal(4, 24), 12, 40, False),
        "sums-round-to-ties-9x11": (uneven, 9, 50, True),
        "select-infinite-8x8": (infinite, 8, 20, False),
        "select-nan-8x8": (nan, 8, 20, False),
        "select-extreme-6x7": (extreme, 6, 42, False),
    }


def make_router_golden() -> bytes:
    rng = np.random.Generator(np.random.PCG64(SEED))
    cases, tensors = [], {}
    for name, (values, num_x, k, normalize) in router_logits(rng).items():
        logits = torch.from_numpy(values.astype(np.float32))
        selects_only = name.startswith("select")
        cases.append({
            "name": name, "num_keys": [num_x, logits.shape[1] - num_x], "top_k": k,
            "norm_topk_prob": normalize, "indices_only": selects_only,
        })
        tensors[f"{name}.router_logits"] = logits
        if selects_only:
            indices = select(logits[:, :num_x], logits[:, num_x:], k)
        else:
            leaf = logits.double().requires_grad_(True)
            indices, weights = route(leaf[:, :num_x], leaf[:, num_x:], k, normalize)
            gradient = torch.from_numpy(rng.standard_normal(weights.shape)).float()
            weights.backward(gradient.double())
            tensors[f"{name}.grad_routing_weights"] = gradient
            tensors[f"expected.{name}.routing_weights"] = weights
            tensors[f"expected.{name}.grad.router_logits"] = leaf.grad
        tensors[f"expected.{name}.indices"] = indices.to(torch.int32)
    return encode(tensors, {"kind": "router", "cases": json.dumps(cases), "seed": str(SEED)})


def make_experts_golden() -> bytes:
    """External ids with repetitions inside one token's list, weights of both signs, every activation;
    and one expert that 300 pairs share."""
    rng = np.random.Generator(np.random.PCG64(SEED + 1))

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).float()

    cases, tensors = [], {}
    shapes = {act: (act, 6, 10, 7, 5) for act in ("silu", "gelu", "gelu_tanh", "relu")}
    shapes["one-hot-expert"] = ("silu", 20, 8, 5, 15)
    for name, (act, tokens, hidden, experts, k) in shapes.items():
        indices = rng.integers(0, experts, (tokens, k))
        indices[0] = experts - 1
        if name == "one-hot-expert":
            indices[:] = 3
        inputs = {
            "hidden_states": normal(tokens, hidden),
            "down": 0.5 * normal(experts, hidden),
            "up": normal(experts, hidden),
            "routing_weights": normal(tokens, k),
        }
        gradient = normal(tokens, hidden)
        ids = torch.from_numpy(indices)
        leaves = {key: value.double().requires_grad_(True) for key, value in inputs.items()}
        x, down, up, weights = leaves.values()
        output = mix_experts(x, down, up, ids, weights, ACTIVATIONS[act])
        output.backward(gradient.double())
        if act == "relu" and (x[:, None] * down[ids]).sum(-1).abs().min() < 1e-4:
            raise ValueError("an argument of relu is too near 0: change the seed")
        cases.append({"name": name, "hidden_act": act})
        tensors[f"{name}.indices"] = ids.to(torch.int32)
        tensors[f"{name}.grad_output"] = gradient
        tensors[f"expected.{name}.hidden_states"] = output
        for key in inputs:
            tensors[f"{name}.{key}"] = inputs[key]
            tensors[f"expected.{name}.grad.{key}"] = leaves[key].grad
    return encode(tensors, {"kind": "experts", "cases": json.dumps(cases), "seed": str(SEED + 1)})
