"""Worst-case float32 error of the router, so that a golden's expert ids hold in any order of summation.

A golden is accepted only when every place where two neighbours of the selection could change over is
wider than the sum of both errors, or is a tie that every implementation must see as one.
"""

import numpy as np
import torch
from torch.nn import functional as F

from module import FlashMoE, pair_order

UNIT = 2.0**-24
"""Half the distance from 1 to the next float32: the relative error of one rounding."""

SAFETY = 2.0


def centred_error(values, errors, mean, mean_errors, rstd, rstd_relative):
    """Error of (values - mean) * rstd, given the errors of all three."""
    centred = (values - mean).abs()
    centred_errors = errors + mean_errors + UNIT * centred
    return centred_errors * rstd + centred * rstd * (rstd_relative + 2 * UNIT)


def norm_error(norm, training: bool, values, errors):
    """Error of a BatchNorm1d without affine parameters: [T, C], [T, C] -> [T, C]."""
    tokens = values.shape[0]
    if not training:
        rstd = 1 / torch.sqrt(norm.running_var + norm.eps)
        return centred_error(values, errors, norm.running_mean, 0.0, rstd, 4 * UNIT)
    mean = values.mean(0)
    mean_errors = errors.mean(0) + (tokens + 1) * UNIT * values.abs().mean(0)
    centred = (values - mean).abs()
    centred_errors = errors + mean_errors + UNIT * centred
    variance = centred.square().mean(0)
    variance_errors = (2 * centred * centred_errors + centred_errors.square()).mean(0)
    variance_errors = variance_errors + (tokens + 2) * UNIT * variance
    rstd = 1 / torch.sqrt(variance + norm.eps)
    rstd_relative = 0.5 * variance_errors / (variance + norm.eps) + 4 * UNIT
    return centred_error(values, errors, mean, mean_errors, rstd, rstd_relative)


def product_error(values, errors, weight):
    """Error of values @ weight.T for any order of summation: [T, H], [T, H], [K, H] -> [T, K]."""
    terms = values.shape[1] + 2
    return terms * UNIT * F.linear(values.abs(), weight.abs()) + F.linear(errors, weight.abs())


@torch.no_grad()
def logit_errors(layer: FlashMoE, x: torch.Tensor) -> torch.Tensor:
    """Worst-case float32 error of every router logit, [T, X+Y]. `layer` and `x` are float64."""
    exact = torch.zeros_like(x)
    if layer.config.router_norm == "logits":
        sides = [(layer.router_gate_x, layer.router_norm_x), (layer.router_gate_y, layer.router_norm_y)]
        return torch.cat(
            [norm_error(n, layer.training, g(x), product_error(x, exact, g.weight)) for g, n in sides], dim=1
        )
    if layer.config.router_norm == "hidden":
        norm = layer.router_norm
        errors = norm_error(norm, layer.training, x, exact)
        mean = x.mean(0) if layer.training else norm.running_mean
        variance = x.var(0, unbiased=False) if layer.training else norm.running_var
        return product_error((x - mean) / torch.sqrt(variance + norm.eps), errors, layer.router_gate.weight)
    return product_error(x, exact, layer.router_gate.weight)


def token_is_stable(lx, ly, ex, ey, k: int, exact: bool) -> bool:
    """Whether the first k ids of one token are the same under any logits within the given errors.

    A tie that reaches beyond the first k is followed to its end.
    """
    lx32, ly32 = lx.astype(np.float32), ly.astype(np.float32)
    ids, sums = pair_order(lx32, ly32)
    i, j = ids // len(ly), ids % len(ly)
    dx, dy = lx - lx.max(), ly - ly.max()
    sums = sums.astype(np.float64)
    rounding = 0.0 if exact else 2 * UNIT * (np.abs(dx[i]) + np.abs(dy[j]) + np.abs(sums))
    errors = SAFETY * (ex[i] + ey[j] + rounding)
    worst_before = np.minimum.accumulate(sums - errors)
    best_after = np.maximum.accumulate((sums + errors)[::-1])[::-1]
    tied = False
    for place in range(len(ids) - 1):
        if place >= k and not tied:
            break
        tied = False
        if worst_before[place] > best_after[place + 1]:
            continue
        if sums[place] != sums[place + 1]:
            return False
        (ia, ja), (ib, jb) = (i[place], j[place]), (i[place + 1], j[place + 1])
        same_x = ia == ib or (lx[ia] == lx[ib] and ex[ia] == ex[ib] == 0)
        same_y = ja == jb or (ly[ja] == ly[jb] and ey[ja] == ey[jb] == 0)
        if not exact and not (same_x and same_y):
            return False
        tied = True
    return True


@torch.no_grad()
def selection_is_stable(layer: FlashMoE, x: torch.Tensor, logits: torch.Tensor, exact: bool) -> bool:
    """Whether every float32 implementation finds the ids that these float64 logits give.

    `exact` says that logits and sums are small multiples of a power of two, free of rounding in any
    order; this is verified.
    """
    if exact:
        if not torch.equal(logits * 64, (logits * 64).round()) or logits.abs().max() > 2**10:
            raise ValueError("logits are not exact in float32")
        errors = torch.zeros_like(logits)
    else:
        errors = logit_errors(layer, x)
    num_x = layer.config.keys[0]
    return all(
        token_is_stable(l[:num_x], l[num_x:], e[:num_x], e[num_x:], layer.config.top_k, exact)
        for l, e in zip(logits.numpy(), errors.numpy())
    )


@torch.no_grad()
def relu_is_stable(layer: FlashMoE, x: torch.Tensor, indices: torch.Tensor) -> bool:
    """Whether no argument of relu is so near 0 that float32 could see another sign, hence gradient."""
    first = layer.up_embed.weight if layer.config.variant == "omni" else layer.down_embed.weight
    terms = SAFETY * (x.shape[1] + 2) * UNIT
    experts = torch.einsum("th,tkh->tk", x, first[indices]).abs()
    experts_error = terms * torch.einsum("th,tkh->tk", x.abs(), first[indices].abs())
    gates = layer.gate_proj(x).abs()
    gates_error = terms * F.linear(x.abs(), layer.gate_proj.weight.abs())
    return bool((experts > experts_error).all() and (gates > gates_error).all())
