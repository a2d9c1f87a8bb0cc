"""Goldens of AdamW, from torch.optim.AdamW in float64: whole tensors, and only the rows that were used."""

import json

import numpy as np
import torch

from container import encode

SEED = 20_260_102


def settings(lr, beta1, beta2, eps, weight_decay, grad_scale) -> dict:
    return {
        "lr": lr, "betas": [beta1, beta2], "eps": eps, "weight_decay": weight_decay, "grad_scale": grad_scale,
    }


RUNS = {
    "dense": settings(1e-3, 0.9, 0.999, 1e-8, 0.01, 1.0),
    "dense-no-decay": settings(0.05, 0.8, 0.95, 1e-6, 0.0, 1.0),
    "dense-grad-scale": settings(0.01, 0.9, 0.95, 1e-3, 0.1, 0.375),
    "rows": settings(1e-2, 0.9, 0.999, 1e-8, 0.1, 1.0),
    "rows-grad-scale": settings(0.03, 0.7, 0.9, 1e-4, 0.02, 0.25),
}
"""Runs whose name begins with "rows" give the gradient of some rows, others of the whole tensor."""

SHAPE = (12, 5)
USED_ROWS = [[0, 3, 4, 11], [3], [], list(range(12)), [1, 3, 5, 7], [0, 11]]
"""Per step, ascending. Row 3 is used often, rows 2 and 8 once, and at the third step none is."""


def torch_step(parameter, first, second, gradient, step: int, run: dict):
    """One step of torch.optim.AdamW from given moments: the new parameter and moments."""
    leaf = torch.nn.Parameter(parameter.clone())
    optimizer = torch.optim.AdamW(
        [leaf], lr=run["lr"], betas=tuple(run["betas"]), eps=run["eps"],
        weight_decay=run["weight_decay"], foreach=False,
    )
    optimizer.state[leaf] = {
        "step": torch.tensor(float(step - 1)),
        "exp_avg": first.clone(),
        "exp_avg_sq": second.clone(),
    }
    leaf.grad = gradient * run["grad_scale"]
    optimizer.step()
    state = optimizer.state[leaf]
    return leaf.detach(), state["exp_avg"], state["exp_avg_sq"]


def follow(parameter: torch.Tensor, gradients: list[torch.Tensor], rows: list[list[int]] | None, run: dict):
    """(parameter, exp_avg, exp_avg_sq) after every step, float64. With `rows` a step sees those alone:
    the others keep parameter and moments, and the bias correction counts every step."""
    state = [parameter.double(), torch.zeros(SHAPE).double(), torch.zeros(SHAPE).double()]
    history = []
    for step, gradient in enumerate(gradients, start=1):
        used = list(range(SHAPE[0])) if rows is None else rows[step - 1]
        if used:
            index = torch.tensor(used)
            moved = torch_step(*(part[index] for part in state), gradient.double(), step, run)
            state = [part.index_copy(0, index, new) for part, new in zip(state, moved)]
        history.append(tuple(state))
    return history


def make_adamw_golden() -> bytes:
    rng = np.random.Generator(np.random.PCG64(SEED))
    runs, tensors = [], {}
    for name, run in RUNS.items():
        rows = USED_ROWS if name.startswith("rows") else None
        steps = len(USED_ROWS) if rows else 5
        shapes = [(len(used), SHAPE[1]) for used in rows] if rows else [SHAPE] * steps
        parameter = torch.from_numpy(rng.standard_normal(SHAPE)).float()
        gradients = [torch.from_numpy(rng.standard_normal(shape)).float() for shape in shapes]
        if rows is None:
            gradients[1][4] = 0.0
        runs.append({"name": name, "steps": steps, "rows": rows is not None, **run})
        tensors[f"{name}.param"] = parameter
        history = follow(parameter, gradients, rows, run)
        for step, (gradient, after) in enumerate(zip(gradients, history), start=1):
            tensors[f"{name}.{step}.grad"] = gradient
            if rows:
                tensors[f"{name}.{step}.ids"] = torch.tensor(rows[step - 1], dtype=torch.int32)
            for part, value in zip(("param", "exp_avg", "exp_avg_sq"), after):
                tensors[f"expected.{name}.{step}.{part}"] = value
    return encode(tensors, {"kind": "adamw", "runs": json.dumps(runs), "seed": str(SEED)})
