"""Checks of the module that makes the goldens, against mathematics and against a second computation."""

import numpy as np
import safetensors.torch
import torch
from torch.func import functional_call

import adamw
import dtypes
from cases import CASES, Case, flash, omni, plain
from layers import build_layer, draw, run
from module import FlashMoE, pair_order

GRADCHECKED = [
    Case("gradcheck-flash-train", flash("silu", 5, 4, 9, 3), 4, True),
    Case("gradcheck-flash-eval", flash("gelu", 5, 4, 6, 3, keys=(2, 3), normalize=True), 3, False),
    Case("gradcheck-flash-two-tokens", flash("gelu_tanh", 5, 4, 9, 2), 2, True),
    Case("gradcheck-omni-train", omni("silu", 5, 4, 12, 5, keys=(4, 3), normalize=True), 4, True),
    Case("gradcheck-omni-eval", omni("gelu_tanh", 5, 4, 9, 9), 3, False),
    Case("gradcheck-none", plain("relu", 5, 4, 9, 2, normalize=True), 3, False),
]


def gradcheck(case: Case) -> None:
    """torch.autograd.gradcheck over hidden states and every parameter, outputs and router together."""
    parameters, inputs = draw(case, seed=1)
    layer = build_layer(case, parameters)
    names = [name for name, _ in layer.named_parameters()]
    buffers = {name: value.clone() for name, value in layer.named_buffers()}

    def function(x, *values):
        state = {**dict(zip(names, values)), **{name: value.clone() for name, value in buffers.items()}}
        output = functional_call(layer, state, (x,))
        return output.hidden_states, output.router_logits, output.routing_weights

    leaves = [inputs["hidden_states"].double(), *(p.detach().clone() for p in layer.parameters())]
    torch.autograd.gradcheck(function, [leaf.requires_grad_(True) for leaf in leaves], atol=1e-7, rtol=1e-5)


def check_pruning(rng: np.random.Generator) -> None:
    """The order is one that the bound i*j <= k on ranks (from 1) may prune, ties included."""
    for _ in range(300):
        num_x, num_y = rng.integers(1, 12, 2)
        grid = rng.choice([0.5, 1.0, 4.0])
        lx = (np.round(rng.standard_normal(num_x) / grid) * grid).astype(np.float32)
        ly = (np.round(rng.standard_normal(num_y) / grid) * grid).astype(np.float32)
        ids, sums = pair_order(lx, ly)
        assert sorted(ids) == list(range(num_x * num_y)) and (np.diff(sums) <= 0).all()
        rank_x = {key: rank for rank, key in enumerate(np.lexsort((np.arange(num_x), -lx)), start=1)}
        rank_y = {key: rank for rank, key in enumerate(np.lexsort((np.arange(num_y), -ly)), start=1)}
        for place, expert in enumerate(ids, start=1):
            assert rank_x[expert // num_y] * rank_y[expert % num_y] <= place


def check_float32(case: Case, parameters, inputs, expected) -> None:
    """The same layer in float32 chooses the same experts, in order, and comes out near the golden."""
    layer = FlashMoE(case.config)
    layer.load_state_dict({name: value.float() for name, value in parameters.items()}, strict=False)
    layer.train(case.training)
    output = layer(inputs["hidden_states"].float())
    assert torch.equal(output.indices.int(), expected["indices"]), case.name
    reference = expected["hidden_states"]
    error = ((output.hidden_states - reference).abs().max() / reference.abs().max()).item()
    limit = 2e-5 if case.inputs == "far" else 2e-6
    assert error < limit, (case.name, error)


def check_sparse_adam() -> None:
    """The row form is torch.optim.SparseAdam up to what that lacks: decay, and the place of eps."""
    generator = torch.Generator().manual_seed(7)
    start = torch.randn(adamw.SHAPE, generator=generator)
    rows = [used for used in adamw.USED_ROWS if used]
    gradients = [torch.randn((len(used), adamw.SHAPE[1]), generator=generator) for used in rows]
    parameter = torch.nn.Parameter(start.double())
    optimizer = torch.optim.SparseAdam([parameter], lr=0.02, betas=(0.9, 0.99), eps=1e-30)
    history = adamw.follow(start, gradients, rows, adamw.settings(0.02, 0.9, 0.99, 1e-30, 0.0, 1.0))
    for used, gradient, (expected, _, _) in zip(rows, gradients, history):
        parameter.grad = torch.sparse_coo_tensor(
            torch.tensor([used]), gradient.double(), adamw.SHAPE, check_invariants=True
        )
        optimizer.step()
        assert torch.allclose(parameter, expected, rtol=1e-12, atol=1e-14)


def check_dense_adamw() -> None:
    """Stepping from given moments is one uninterrupted torch.optim.AdamW."""
    run = adamw.settings(0.01, 0.9, 0.99, 1e-8, 0.1, 1.0)
    generator = torch.Generator().manual_seed(8)
    start = torch.randn(adamw.SHAPE, generator=generator).double()
    gradients = [torch.randn(adamw.SHAPE, generator=generator).double() for _ in range(5)]
    parameter = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([parameter], lr=0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    for gradient, (expected, _, _) in zip(gradients, adamw.follow(start, gradients, None, run)):
        parameter.grad = gradient
        optimizer.step()
        assert torch.allclose(parameter, expected, rtol=1e-14, atol=0)


def check_dtypes() -> None:
    """torch's roundings against numpy's float16 and integer arithmetic for bfloat16."""
    patterns = dtypes.float32_patterns(np.random.Generator(np.random.PCG64(9)))
    values = patterns.view(np.float32)
    finite = ~np.isnan(values)
    tensor = torch.from_numpy(values.copy())
    half = tensor.half().view(torch.int16).numpy().view(np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):
        assert (half == values.astype(np.float16).view(np.uint16))[finite].all()
    wide = patterns.astype(np.uint64)
    rounded = (wide + 0x7FFF + (wide >> 16 & 1)) >> 16
    brain = tensor.bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert (brain == rounded)[finite].all()


def check_readable(files: dict[str, bytes]) -> None:
    """The safetensors library reads every file."""
    for name, contents in files.items():
        assert len(safetensors.torch.load(contents)) > 0, name


def run_self_checks(files: dict[str, bytes], seeds: dict[str, int]) -> None:
    for case in GRADCHECKED:
        gradcheck(case)
    check_pruning(np.random.Generator(np.random.PCG64(5)))
    for case in CASES:
        parameters, inputs = draw(case, seeds[case.name])
        check_float32(case, parameters, inputs, run(case, parameters, inputs)[2])
    check_sparse_adam()
    check_dense_adamw()
    check_dtypes()
    check_readable(files)
