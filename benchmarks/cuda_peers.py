"""One of the others at the sizes of cuda.mjs, on the same tensors, in the same way: PyTorch, or upstream's Triton kernels.

    python3 cuda_peers.py --out FOLDER --implementation NAME [--directory DIRECTORY] [--row NAME ...] [--seconds S]
                          [--rates] [--from N]

cuda-peers.mjs runs it for each of them. FOLDER is what cuda.mjs wrote; DIRECTORY is a clone of upstream's repository.
Everything is compared first: with PyTorch in float64 on some tokens, and with what ours computed on all. What comes out
wrong is not measured.

Its parts are loading the implementation and then each row; it does those from number N on, with a line of JSON before
and after each, as tools/lib/run-parts.mjs wants it. Needs torch, and triton for upstream; nothing else.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import types
from pathlib import Path

import torch
from torch.nn import functional as F

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "I32": torch.int32}
CHECKED_TOKENS = 64

# The largest difference by the largest value beyond which it is another function, not another rounding: upstream adds up
# thousands of experts in bf16.
WRONG = {"bf16": 0.05, "f32": 1e-3}
WRONG_EXPERTS = 0.3
# Of tokens that chose other experts: those whose last scores are as good as equal.
WRONG_IDS = 0.02


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


def norm_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference by the norm."""
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).norm() / expected.norm().clamp_min(1e-300)).item()


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


EAGER = {"experts": eager_experts, "mlp": eager_mlp, "select": eager_select, "linear": F.linear}


def compiled(_directory):
    import torch._functorch.config

    # The backward is measured again and again over one forward.
    torch._functorch.config.donated_buffer = False
    return {name: torch.compile(part, dynamic=False) for name, part in EAGER.items()}


IMPLEMENTATIONS = {"eager": lambda _: EAGER, "compile": compiled, "flash-moe": upstream_flash, "omni-moe": upstream_omni}


def commit_of(directory):
    if directory is None:
        return None
    named = Path(directory) / "COMMIT"
    if named.is_file():
        return named.read_text().strip()
    try:
        done = subprocess.run(["git", "-C", directory, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


# --- upstream's tuning ------------------------------------------------------------------------------------------

MOST_CONFIGURATIONS = 8


def autotuners():
    """Upstream's kernels that choose among configurations: name -> Autotuner."""
    found = {}
    for module in list(sys.modules.values()):
        if not getattr(module, "__name__", "").startswith(("flash_moe.ops.triton", "omni_moe.ops.triton")):
            continue
        for name, value in vars(module).items():
            if isinstance(getattr(value, "configs", None), list):
                found[f"{module.__name__.rpartition('.')[2]}.{name}"] = value
    return found


def reduce_configurations(kernels, originals, inner):
    """Leaves those that compile within seconds, at most eight of a kernel; of an MLP's, those whose one tile covers a row.

    Upstream has up to 64 for a kernel and each size, and a kernel of hundreds of elements a thread compiles for minutes.
    An MLP's tile that is shorter than the row computes a part of it, and so is the fastest.
    """
    told = {}
    for name, kernel in kernels.items():
        configurations = originals[name]
        keep = configurations
        if "mlp" in name:
            keep = [one for one in keep if inner <= tile_size(one)]
        is_split = "split" in name
        if is_split or len(keep) > MOST_CONFIGURATIONS:
            most = 64 if is_split else 128
            keep = [one for one in keep if tile_size(one) <= most * 32 * one.num_warps] or keep[:1]
            stages = min(one.num_stages for one in keep)
            keep = [one for one in keep if one.num_stages == stages]
        if len(keep) > MOST_CONFIGURATIONS:
            step = (len(keep) - 1) / (MOST_CONFIGURATIONS - 1)
            keep = [keep[round(n * step)] for n in range(MOST_CONFIGURATIONS)]
        kernel.configs = keep
        if len(keep) < len(configurations):
            told[name] = f"{len(keep)} of {len(configurations)}"
    return told


def tile_size(configuration):
    return math.prod(value for value in configuration.kwargs.values() if isinstance(value, int))


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
    "linear": {},
}
LEARNT = {
    "experts": ["hidden_states", "weights", "down", "up"],
    "mlp": ["hidden_states", "gate_proj", "up_proj", "down_proj"],
    "router": ["logits"],
    "layer": ["hidden_states", "down", "up", "gate_proj", "up_proj", "down_proj", "router_gate"],
    "linear": [],
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

    def linear(t):
        output = parts["linear"](t["a"], t["b"])
        return output, {"output": output}

    return {"experts": experts, "mlp": mlp, "router": router, "layer": layer, "linear": linear}[kind]


def incoming(kind, tensors):
    return tensors["grad_weights" if kind == "router" else "grad_output"]


def exact_results(kind, row, tensors):
    """In float64, of the first tokens: name -> tensor."""
    count = min(CHECKED_TOKENS, row["tokens"])
    per_token = {"hidden_states", "grad_output", "logits", "grad_weights", "ids", "weights", "a"}
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
        _, outputs = forward_of(kind, row, EAGER | {"experts": by_token})(some)
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
        # A millisecond in which the work is enqueued, so that its time has no waiting for the host in it.
        torch.cuda._sleep(2_000_000)
        start.record()
        work()
        end.record()
        end.synchronize()
        return 1000 * start.elapsed_time(end)

    def measure(self, work):
        work()
        first = self.once(work, False)
        if first < 1e5:
            for _ in range(2):
                work()
            torch.cuda.synchronize()
        count = int(max(3, min(51, 1e6 * self.seconds / (3 * (first + 500)))))
        cold, warm = [], []
        for _ in range(count):
            cold.append(self.once(work, False))
            warm.append(self.once(work, True))
        return {"cold": statistics.median(cold), "warm": statistics.median(warm), "samples": count}


def run_one(kind, row, parts, tensors, exact, ours, timer, partly):
    """Checks the implementation, then measures it where it is right."""
    leaves = {
        name: value.detach().requires_grad_(name in LEARNT[kind] and value.is_floating_point())
        for name, value in tensors.items()
    }
    forward = forward_of(kind, row, parts)
    plain = {name: value.detach() for name, value in leaves.items()}
    # While a kernel is tuned it adds to its output again and again: the call after that is the one that counts.
    with torch.no_grad():
        forward(plain)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        _, outputs = forward(plain)
    torch.cuda.synchronize()
    result = {"peakBytesForward": torch.cuda.max_memory_allocated() - before}
    result["errors"] = {name: relative_error(outputs[name][: len(value)], value) for name, value in exact.items()}
    result["differences"] = differences = {}
    for name, value in outputs.items():
        if name in ours and value.is_floating_point():
            differences[name] = relative_error(ours[name], value)
        elif name in ours:
            same = ours[name].long().sort(-1).values == value.long().sort(-1).values
            differences[name] = 1 - same.all(-1).double().mean().item()
    del outputs
    # Against float64 where that is known; what ours would be wrong in must not be laid to the other.
    result["wrong"] = wrong_ones(row, result["errors"] or differences, kind == "experts")
    result["wrong"] += wrong_ids(differences)
    if result["wrong"]:
        return result
    with torch.no_grad():
        result["microseconds"] = {"forward": timer.measure(lambda: forward(plain))}
    if not LEARNT[kind]:
        return result
    # Should the backward end the process.
    partly(result | {"backward": "it did not come back"})
    try:
        run_backward(kind, row, leaves, forward, tensors, ours, timer, result)
    except Exception as error:  # noqa: BLE001 - the forward's numbers stand
        result["backward"] = describe(error)
    return result


def wrong_ones(row, errors, of_experts):
    limit = WRONG_EXPERTS if of_experts and row["dtype"] == "bf16" else WRONG[row["dtype"]]
    # Negated, so that NaN is wrong.
    return [f"{name} by {error:.1e}" for name, error in errors.items() if name != "ids" and not error <= limit]


def wrong_ids(differences):
    part = differences.get("ids", 0.0)
    return [] if part <= WRONG_IDS else [f"the experts of {100 * part:.0f} % of the tokens"]


def run_backward(kind, row, leaves, forward, tensors, ours, timer, result):
    root, _ = forward(leaves)
    learnt = [leaves[name] for name in LEARNT[kind]]
    gradient = incoming(kind, tensors).to(root.dtype)

    def backward():
        return torch.autograd.grad(root, learnt, gradient, retain_graph=True, allow_unused=True)

    backward()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gradients = dict(zip(LEARNT[kind], backward()))
    torch.cuda.synchronize()
    # Beside what the forward left for it.
    result["peakBytesBackward"] = torch.cuda.max_memory_allocated() - before
    differences = {}
    for name, ours_name in GRADIENTS[kind].items():
        if ours_name in ours and gradients.get(name) is not None:
            differences[ours_name] = relative_error(ours[ours_name], gradients[name])
    del gradients
    result["differences"] |= differences
    wrong = wrong_ones(row, differences, kind in ("experts", "layer"))
    if wrong:
        result["backward"] = f"differs from ours: {', '.join(wrong)}"
        return
    result["microseconds"]["backward"] = timer.measure(backward)


def measure_row(row, folder, parts, device, seconds, partly):
    """By one implementation; `partly` is given what is known before the backward."""
    if "torch._dynamo" in sys.modules:
        # Else it gives up after a few sizes, and runs the rest as they are.
        torch._dynamo.reset()
    kind = row["kind"]
    tensors = read_safetensors(folder / row["tensors"], device)
    if row.get("tables"):
        tensors |= read_safetensors(folder / row["tables"], device)
    ours = read_safetensors(folder / row["ours"], device)
    result = {}
    exact = {}
    try:
        exact = exact_results(kind, row, tensors)
        result["ourErrors"] = {
            name: {"largest": relative_error(ours[name][: len(value)], value), "norm": norm_error(ours[name][: len(value)], value)}
            for name, value in exact.items()
        }
    except Exception as error:  # noqa: BLE001
        result["exact"] = describe(error)
    torch.cuda.empty_cache()
    try:
        timer = Timer(device, seconds)
        result |= run_one(kind, row, parts, tensors, exact, ours, timer, lambda some: partly(result | some))
    except Exception as error:  # noqa: BLE001 - that it cannot run this size is a result
        result["error"] = describe(error)
    # After an illegal access nothing runs in this process.
    told = f"{result.get('error')} {result.get('backward')}"
    return result | {"lost": any(text in told for text in ("CUDA error", "AcceleratorError", "illegal", "launch fail"))}


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
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--implementation", choices=IMPLEMENTATIONS, required=True)
    parser.add_argument("--directory")
    parser.add_argument("--row", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--from", type=int, default=0, dest="first")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("this PyTorch sees no GPU", file=sys.stderr)
        return 3
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda")
    rows = {row["name"]: row for row in json.loads((arguments.out / "cuda.json").read_text())["rows"]}
    if arguments.first == 0:
        say({"begins": "load", "index": 0})
        loaded, parts = load(arguments, device)
        say({"result": loaded, "index": 0})
    else:
        _, parts = load(arguments, device)
    kernels = autotuners()
    originals = {name: kernel.configs for name, kernel in kernels.items()}
    for index, name in enumerate(arguments.row if parts else [], 1):
        if index < arguments.first:
            continue
        say({"begins": name, "index": index})
        tuned = reduce_configurations(kernels, originals, rows[name]["inner"])

        def tell(some, tuned=tuned, index=index):
            say({"result": some | ({"autotuned": tuned} if tuned else {}), "index": index})

        try:
            result = measure_row(rows[name], arguments.out / "tensors", parts, device, arguments.seconds, tell)
        except Exception as error:  # noqa: BLE001
            result = {"error": describe(error)}
        tell(result)
        if result.get("lost"):
            # Not by way of the driver, which may wait for the device.
            os.kill(os.getpid(), signal.SIGKILL)
        torch.cuda.empty_cache()
    say({"done": True})
    return 0


def load(arguments, device):
    """What it is, and its parts; none where it does not load."""
    about = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "commit": commit_of(arguments.directory),
    }
    try:
        parts = IMPLEMENTATIONS[arguments.implementation](arguments.directory)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the others go on
        return about | {"error": describe(error)}, {}
    if arguments.rates and arguments.first == 0:
        about["rates"] = device_rates(device)
    return about, parts


def say(line) -> None:
    print(json.dumps(finite(line)), flush=True)


def finite(value):
    """JSON has no numbers that are none."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
