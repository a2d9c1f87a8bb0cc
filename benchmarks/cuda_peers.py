"""PyTorch and upstream's Triton kernels at the sizes of cuda.mjs, on the same tensors, in the same way.

    python3 cuda_peers.py --out FOLDER [--flash-moe DIRECTORY] [--omni-moe DIRECTORY] [--only TEXT] [--seconds S]

FOLDER is what cuda.mjs wrote. The directories are clones of upstream's two repositories; without them only PyTorch is
measured. Everything is compared first: with PyTorch in float64 on some tokens, and with what ours computed on all.
Writes peers.json after each case. What torch.compile makes comes last, after all else: it compiles for each size, which
takes most of the time there is. Needs torch, and triton for upstream; nothing else.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import torch
from torch.nn import functional as F

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "I32": torch.int32}
CHECKED_TOKENS = 64
COMPILED = "torch.compile"


def read_safetensors(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """All tensors of a file. Written out here, so that the package safetensors is not needed."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        flat = torch.frombuffer(bytearray(data[8 + length + begin : 8 + length + end]), dtype=DTYPES[info["dtype"]])
        tensors[name] = flat.reshape(info["shape"]).to(device)
    return tensors


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference by the largest value."""
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-300)).item()


# --- what is computed, in plain PyTorch -------------------------------------------------------------------------


def eager_experts(x, down, up, ids, weights):
    ids = ids.long()
    scores = torch.matmul(down[ids], x.unsqueeze(-1)).squeeze(-1)
    scores = (F.silu(scores) * weights).to(up.dtype)
    return torch.matmul(scores.unsqueeze(-2), up[ids]).squeeze(-2)


def eager_mlp(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def eager_select(logits, keys, k):
    """[T, X + Y] -> the k best of all pairs, and their weights."""
    x, y = F.log_softmax(logits.view(-1, 2, keys), dim=-1).unbind(1)
    scores = (x.unsqueeze(-1) + y.unsqueeze(-2)).flatten(1)
    best, ids = scores.topk(k, dim=-1)
    return best.exp(), ids


def eager_layer(t, keys, k, experts, mlp, select):
    x = t["hidden_states"]
    n = F.batch_norm(x, t["running_mean"].to(x.dtype), t["running_var"].to(x.dtype), None, None, False)
    weights, ids = select(F.linear(n, t["router_gate"]), keys, k)
    return mlp(x, t["gate_proj"], t["up_proj"], t["down_proj"]) + experts(x, t["down"], t["up"], ids, weights.to(x.dtype))


# --- the implementations ----------------------------------------------------------------------------------------


def provide_cutile():
    """flash-moe names dtypes of cuda.tile, which few machines have, also where only Triton is used."""
    try:
        import cuda.tile  # noqa: F401
    except ImportError:
        try:
            import cuda
        except ImportError:
            cuda = sys.modules["cuda"] = types.ModuleType("cuda")
        cuda.tile = sys.modules["cuda.tile"] = types.ModuleType("cuda.tile")
        cuda.tile.float32 = cuda.tile.float16 = cuda.tile.bfloat16 = None


def upstream_flash(directory: str):
    provide_cutile()
    sys.path.insert(0, directory)
    from flash_moe.ops.triton.flash_expert import triton_flash_expert_func
    from flash_moe.ops.triton.flash_mlp import triton_flash_mlp_func
    from flash_moe.ops.triton.flash_router import triton_flash_router_func

    def select(logits, keys, k):
        logits = logits.view(-1, 2, keys).transpose(0, 1)
        scores, ids = triton_flash_router_func(F.log_softmax(logits, dim=-1), keys, k)
        return scores.exp(), ids

    def experts(x, down, up, ids, weights):
        return triton_flash_expert_func(x, down, up, ids, weights.to(x.dtype))

    return {"experts": experts, "mlp": triton_flash_mlp_func, "select": select}


def upstream_omni(directory: str):
    sys.path.insert(0, directory)
    from omni_moe.ops.triton.omni_expert import triton_omni_expert_func
    from omni_moe.ops.triton.omni_mlp import triton_omni_mlp_func
    from omni_moe.ops.triton.omni_router import triton_omni_router_func

    def select(logits, keys, k):
        x, y = F.log_softmax(logits.view(-1, 2, keys), dim=-1).unbind(1)
        scores, ids = triton_omni_router_func(x.contiguous(), y.contiguous(), keys, k)
        return scores.exp(), ids

    def experts(x, down, up, ids, weights):
        # Upstream's two names are the other way round.
        return triton_omni_expert_func(x, down, up, weights.to(x.dtype), ids)

    return {"experts": experts, "mlp": triton_omni_mlp_func, "select": select}


def implementations(arguments):
    eager = {"experts": eager_experts, "mlp": eager_mlp, "select": eager_select}
    found = {"PyTorch eager": eager}
    if hasattr(torch, "compile"):
        found[COMPILED] = {name: torch.compile(part, dynamic=False) for name, part in eager.items()}
    problems = {}
    for name, directory, load in [
        ("flash-moe (Triton)", arguments.flash_moe, upstream_flash),
        ("omni-moe (Triton)", arguments.omni_moe, upstream_omni),
    ]:
        if directory is None:
            problems[name] = "its directory was not given"
            continue
        try:
            found[name] = load(directory)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the others go on
            problems[name] = describe(error)
    return found, problems


def describe(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


# --- one case ---------------------------------------------------------------------------------------------------

GRADIENTS = {
    "experts": {"hidden_states": "grad_hidden_states", "weights": "grad_weights", "down": "grad_tables_down", "up": "grad_tables_up"},
    "mlp": {
        "hidden_states": "grad_hidden_states",
        "gate_proj": "grad_gate_proj",
        "up_proj": "grad_up_proj",
        "down_proj": "grad_down_proj",
    },
    "router": {"logits": "grad_logits"},
    "layer": {"hidden_states": "grad_hidden_states"},
}
LEARNT = {
    "experts": ["hidden_states", "weights", "down", "up"],
    "mlp": ["hidden_states", "gate_proj", "up_proj", "down_proj"],
    "router": ["logits"],
    "layer": ["hidden_states", "down", "up", "gate_proj", "up_proj", "down_proj", "router_gate"],
}


def forward_of(kind, row, parts):
    """Tensors -> (what the gradient enters at, all outputs by name)."""
    keys, k = row["keys"], row["topK"]

    def experts(t):
        output = parts["experts"](t["hidden_states"], t["down"], t["up"], t["ids"], t["weights"])
        return output, {"output": output}

    def mlp(t):
        output = parts["mlp"](t["hidden_states"], t["gate_proj"], t["up_proj"], t["down_proj"])
        return output, {"output": output}

    def router(t):
        weights, ids = parts["select"](t["logits"], keys, k)
        return weights, {"weights": weights, "ids": ids}

    def layer(t):
        output = eager_layer(t, keys, k, parts["experts"], parts["mlp"], parts["select"])
        return output, {"output": output}

    return {"experts": experts, "mlp": mlp, "router": router, "layer": layer}[kind]


def incoming(kind, tensors):
    return tensors["grad_weights" if kind == "router" else "grad_output"]


def exact_results(kind, row, tensors):
    """In float64, of the first tokens: name -> tensor."""
    count = min(CHECKED_TOKENS, row["tokens"])
    per_token = {"hidden_states", "grad_output", "logits", "grad_weights", "ids", "weights"}
    some = {name: (value[:count] if name in per_token else value) for name, value in tensors.items()}
    if kind in ("experts", "layer") and row["experts"] * row["hidden"] * 16 > 20e9:
        return {}
    some = {name: (value.double() if value.is_floating_point() else value) for name, value in some.items()}
    with torch.no_grad():
        if kind == "experts":
            # Token by token: gathered rows of all would not fit.
            return {"output": torch.cat([
                eager_experts(some["hidden_states"][t : t + 1], some["down"], some["up"], some["ids"][t : t + 1], some["weights"][t : t + 1])
                for t in range(count)
            ])}
        _, outputs = forward_of(kind, row, {"experts": by_token, "mlp": eager_mlp, "select": eager_select})(some)
    return {name: value for name, value in outputs.items() if value.is_floating_point()}


def by_token(x, down, up, ids, weights):
    return torch.cat([eager_experts(x[t : t + 1], down, up, ids[t : t + 1], weights[t : t + 1]) for t in range(len(x))])


class Timer:
    """Medians by CUDA events, as cuda.mjs takes them: cold, with other things in the caches, and warm."""

    def __init__(self, device, seconds):
        self.seconds = seconds
        self.spare = [torch.empty(2**27, dtype=torch.float32, device=device) for _ in range(2)]

    def flush(self):
        self.spare[1].copy_(self.spare[0])

    def once(self, work, warm):
        self.flush()
        if warm:
            work()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        return 1000 * start.elapsed_time(end)

    def measure(self, work):
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        first = self.once(work, False)
        count = int(max(5, min(51, 1e6 * self.seconds / (3 * (first + 500)))))
        cold, warm = [], []
        for _ in range(count):
            cold.append(self.once(work, False))
            warm.append(self.once(work, True))
        return {"cold": statistics.median(cold), "warm": statistics.median(warm), "samples": count}


def run_one(kind, row, parts, tensors, exact, ours, timer):
    """Checks one implementation, then measures it."""
    leaves = {
        name: value.detach().requires_grad_(name in LEARNT[kind] and value.is_floating_point())
        for name, value in tensors.items()
    }
    forward = forward_of(kind, row, parts)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        _, outputs = forward({name: value.detach() for name, value in leaves.items()})
    torch.cuda.synchronize()
    result = {"peakBytesForward": torch.cuda.max_memory_allocated() - before, "errors": {}, "differences": {}}
    for name, expected in exact.items():
        result["errors"][name] = relative_error(outputs[name][: len(expected)], expected)
    for name, value in outputs.items():
        if name in ours and value.is_floating_point():
            result["differences"][name] = relative_error(ours[name], value)
        elif name in ours:
            same = ours[name].long().sort(-1).values == value.long().sort(-1).values
            result["differences"][name] = 1 - same.all(-1).double().mean().item()
    del outputs
    with torch.no_grad():
        plain = {name: value.detach() for name, value in leaves.items()}
        result["microseconds"] = {"forward": timer.measure(lambda: forward(plain))}
    try:
        run_backward(kind, row, leaves, forward, tensors, ours, timer, result)
    except Exception as error:  # noqa: BLE001 - the forward's numbers stand
        result["backward"] = describe(error)
    return result


def run_backward(kind, row, leaves, forward, tensors, ours, timer, result):
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    root, _ = forward(leaves)
    learnt = [leaves[name] for name in LEARNT[kind]]
    gradient = incoming(kind, tensors).to(root.dtype)

    def backward():
        return torch.autograd.grad(root, learnt, gradient, retain_graph=True, allow_unused=True)

    gradients = dict(zip(LEARNT[kind], backward()))
    torch.cuda.synchronize()
    result["peakBytesBackward"] = torch.cuda.max_memory_allocated() - before
    for name, ours_name in GRADIENTS[kind].items():
        if ours_name in ours and gradients.get(name) is not None:
            result["differences"][ours_name] = relative_error(ours[ours_name], gradients[name])
    del gradients
    result["microseconds"]["backward"] = timer.measure(backward)


def measure_case(row, folder, found, device, seconds):
    """By each of the implementations that are found."""
    if hasattr(torch, "_dynamo"):
        # Else it gives up after a few sizes, and runs the rest as they are.
        torch._dynamo.reset()
    kind = row["kind"]
    tensors = read_safetensors(folder / row["tensors"], device)
    if row.get("tables"):
        tensors |= read_safetensors(folder / row["tables"], device)
    ours = read_safetensors(folder / row["ours"], device)
    entry = {"name": row["name"], "results": {}}
    exact = {}
    try:
        exact = exact_results(kind, row, tensors)
        entry["ourErrors"] = {name: relative_error(ours[name][: len(value)], value) for name, value in exact.items()}
    except Exception as error:  # noqa: BLE001
        entry["exact"] = describe(error)
    timer = Timer(device, seconds)
    for name, parts in found.items():
        try:
            entry["results"][name] = run_one(kind, row, parts, tensors, exact, ours, timer)
        except Exception as error:  # noqa: BLE001 - that it cannot run this size is a result
            entry["results"][name] = {"error": describe(error)}
        torch.cuda.empty_cache()
    return entry


# --- the device -------------------------------------------------------------------------------------------------


def device_rates(device):
    """What PyTorch reaches: copies in bytes/s (read and written), products in operations/s."""

    def best(work, count=15):
        for _ in range(3):
            work()
        times = []
        for _ in range(count):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            # Busy until the work is enqueued, so that its time has no waiting for the host in it.
            torch.cuda._sleep(500_000)
            start.record()
            work()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1000)
        return statistics.median(times)

    rates = {}
    large = [torch.empty(2**28, dtype=torch.float32, device=device) for _ in range(2)]
    rates["copy"] = 2 * 4 * 2**28 / best(lambda: large[1].copy_(large[0]))
    del large
    for megabytes in (4, 8, 16):
        small = [torch.empty(megabytes * 2**18, dtype=torch.float32, device=device) for _ in range(2)]
        rates[f"copy of {megabytes} MiB, cached"] = 20 * 2 * megabytes * 2**20 / best(
            lambda pair=small: [pair[1].copy_(pair[0]) for _ in range(20)]
        )
    matmul = {}
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)):
        a, b = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))
        matmul[name] = 2 * 8192**3 / best(lambda x=a, y=b: x @ y.t())
    rates["matmul"] = matmul
    # cuBLAS at the sizes of the shared MLP: the yardstick of our products.
    products = {}
    for rows, inner, columns in [(1024, 1024, 1024), (1024, 1024, 4096), (1024, 4096, 1024), (4096, 1024, 1024)]:
        a = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
        b = torch.randn(columns, inner, device=device, dtype=torch.bfloat16)
        products[f"{rows}x{inner}x{columns}"] = 1e6 * best(lambda x=a, y=b: F.linear(x, y))
    rates["cublasMicroseconds"] = products
    return rates


def clocks():
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.draw,temperature.gpu"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv"], capture_output=True, text=True, timeout=30
        )
        return done.stdout.strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        return [str(error)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flash-moe")
    parser.add_argument("--omni-moe")
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("this PyTorch sees no GPU", file=sys.stderr)
        return 3
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda")
    found, problems = implementations(arguments)
    rows = json.loads((arguments.out / "cuda.json").read_text())["rows"]
    report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "clocksBefore": clocks(),
        "rates": device_rates(device),
        "absent": problems,
        "cases": [],
    }
    target = arguments.out / "peers.json"
    compiled = {name: parts for name, parts in found.items() if name == COMPILED}
    others = {name: parts for name, parts in found.items() if name != COMPILED}
    entries = {}
    for some in (others, compiled):
        for row in rows:
            if "error" in row or arguments.only not in row["name"] or not some:
                continue
            started = time.monotonic()
            try:
                entry = measure_case(row, arguments.out / "tensors", some, device, arguments.seconds)
            except Exception as error:  # noqa: BLE001
                entry = {"name": row["name"], "error": describe(error), "results": {}}
            torch.cuda.empty_cache()
            if row["name"] in entries:
                entries[row["name"]]["results"] |= entry["results"]
            else:
                entries[row["name"]] = entry
                report["cases"].append(entry)
            report["clocksAfter"] = clocks()
            target.write_text(json.dumps(report, indent=2) + "\n")
            print(f"{row['name']} ({', '.join(some)}): {time.monotonic() - started:.1f} s", file=sys.stderr)
    target.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
