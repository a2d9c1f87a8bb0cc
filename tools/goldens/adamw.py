"""Goldens of AdamW, from torch.optim.AdamW in float64: whole tensors, and only the rows that were used."""

import json

import numpy as np
import torch

from container import encode

SEED = 20_260_102

RUNS = {
    "dense": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "grad_scale": 1.0},
    "dense-no-decay": {"lr": 0.05, "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.0, "grad_scale": 1.0},
    "dense-grad-scale": {"lr": 0.01, "betas": [0.9, 0.95], "eps": 1e-3, "weight_decay": 0.1, "grad_scale": 0.375},
    "rows": {"lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1, "grad_scale": 1.0},
    "rows-grad-scale": {"lr": 0.03, "betas": [0.7, 0.9], "eps": 1e-4, "weight_decay": 0.02, "grad_scale": 0.25},
}
"""Runs whose name begins with "rows" give the gradient of some rows, others of the whole tensor."""

SHAPE = (12, 5)
USED_ROWS = [[0, 3, 4, 11], [3], [], list(range(12)), [1, 3, 5, 7], [0, 11]]
"""Per step, ascending. Row 3 is used often, rows 2 and 8 once, and at the third step none is."""


def torch_step(parameter, first, second, gradient, step: int, settings: dict):
    """One step of torch.optim.AdamW from given moments: the new parameter and moments."""
    leaf = torch.nn.Parameter(parameter.clone())
    optimizer = torch.optim.AdamW(
        [leaf], lr=settings["lr"], betas=tuple(settings["betas"]), eps=settings["eps"],
        weight_decay=settings["weight_decay"], foreach=False,
    )
    optimizer.state[leaf] = {
        "step": torch.tensor(float(step - 1)),
        "exp_avg": first.clone(),
        "exp_avg_sq": second.clone(),
    }
    leaf.grad = gradient * settings["grad_scale"]
    optimizer.step()
    state = optimizer.state[leaf]
    return leaf.detach(), state["exp_avg"], state["exp_avg_sq"]


def follow(parameter: torch.Tensor, gradients: list[torch.Tensor], rows: list[list[int]] | None, settings: dict):
    """(parameter, exp_avg, exp_avg_sq) after every step, float64. With `rows` a step sees those alone:
    the others keep parameter and moments, and the bias correction counts every step."""
    state = [parameter.double(), torch.zeros(SHAPE).double(), torch.zeros(SHAPE).double()]
    history = []
    for step, gradient in enumerate(gradients, start=1):
        used = list(range(SHAPE[0])) if rows is None else rows[step - 1]
        if used:
            index = torch.tensor(used)
            moved = torch_step(*(part[index] for part in state), gradient.double(), step, settings)
            state = [part.index_copy(0, index, new) for part, new in zip(state, moved)]
        history.append(tuple(state))
    return history


def make_adamw_golden() -> bytes:
    rng = np.random.Generator(np.random.PCG64(SEED))
    runs, tensors = [], {}
    for name, settings in RUNS.items():
        rows = USED_ROWS if name.startswith("rows") else None
        steps = len(USED_ROWS) if rows else 5
        shapes = [(len(used), SHAPE[1]) for used in rows] if rows else [SHAPE] * steps
        parameter = torch.from_numpy(rng.standard_normal(SHAPE)).float()
        gradients = [torch.from_numpy(rng.standard_normal(shape)).float() for shape in shapes]
        if rows is None:
            gradients[1][4] = 0.0
        runs.append({"name": name, "steps": steps, "rows": rows is not None, **settings})
        tensors[f"{name}.param"] = parameter
        history = follow(parameter, gradients, rows, settings)
        for step, (gradient, after) in enumerate(zip(gradients, history), start=1):
            tensors[f"{name}.{step}.grad"] = gradient
            if rows:
                tensors[f"{name}.{step}.ids"] = torch.tensor(rows[step - 1], dtype=torch.int32)
            for part, value in zip(("param", "exp_avg", "exp_avg_sq"), after):
                tensors[f"expected.{name}.{step}.{part}"] = value
    return encode(tensors, {"kind": "adamw", "runs": json.dumps(runs), "seed": str(SEED)})
