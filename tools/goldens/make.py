"""Makes the goldens: `python make.py` writes them, `python make.py --check` compares with what is there.

Both run the self-checks first. The same versions on the same kind of processor give the same bytes;
`--check` also accepts float64 expectations that differ in their last bits, and then says so.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

# Before torch is loaded: one instruction set and one order of summation on every x86-64 processor.
os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["MKL_CBWR"] = "COMPATIBLE"
sys.dont_write_bytecode = True

import numpy  # noqa: E402
import safetensors  # noqa: E402
import torch  # noqa: E402

from adamw import make_adamw_golden  # noqa: E402
from cases import CASES  # noqa: E402
from dtypes import make_dtypes_golden  # noqa: E402
from layers import make_layer_golden  # noqa: E402
from ops import make_experts_golden, make_router_golden  # noqa: E402
from selfcheck import run_self_checks  # noqa: E402

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
VERSIONS = HERE / "versions.json"
LAST_BITS = 1e-12


def make_all() -> tuple[dict[str, bytes], dict[str, int]]:
    """File name -> contents, and layer name -> seed."""
    files = {
        "router.safetensors": make_router_golden(),
        "experts.safetensors": make_experts_golden(),
        "adamw.safetensors": make_adamw_golden(),
        "dtypes.safetensors": make_dtypes_golden(),
    }
    seeds = {}
    for case in CASES:
        seeds[case.name], files[f"layer-{case.name}.safetensors"] = make_layer_golden(case)
    return files, seeds


def versions(seeds: dict[str, int]) -> str:
    made_with = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "safetensors": safetensors.__version__,
        "machine": platform.machine(),
        "layer_seeds": dict(sorted(seeds.items())),
    }
    return json.dumps(made_with, indent=2) + "\n"


def difference(made: bytes, stored: bytes) -> str | None:
    """What is wrong with a stored file, or None. Float64 tensors may differ by LAST_BITS of their largest."""
    ours, theirs = safetensors.deserialize(made), safetensors.deserialize(stored)
    header = slice(8, 8 + int.from_bytes(made[:8], "little"))
    if made[:8] != stored[:8] or made[header] != stored[header]:
        return "another header"
    by_name = dict(theirs)
    for name, tensor in ours:
        a, b = tensor["data"], by_name[name]["data"]
        if a == b:
            continue
        if tensor["dtype"] != "F64":
            return f"{name} differs"
        x, y = numpy.frombuffer(a, "<f8"), numpy.frombuffer(b, "<f8")
        if not abs(x - y).max() <= LAST_BITS * abs(x).max():
            return f"{name} differs by {abs(x - y).max()}"
    return None


def check(files: dict[str, bytes]) -> int:
    stored = {path.name: path.read_bytes() for path in DATA.iterdir()}
    wrong = [f"{name}: not made by this script" for name in sorted(stored.keys() - files.keys())]
    wrong += [f"{name}: missing" for name in sorted(files.keys() - stored.keys())]
    identical = rounded = 0
    for name in sorted(files.keys() & stored.keys()):
        if files[name] == stored[name]:
            identical += 1
            continue
        problem = difference(files[name], stored[name])
        if problem is None:
            rounded += 1
        else:
            wrong.append(f"{name}: {problem}")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{identical} files identical, {rounded} equal but for last bits, {len(wrong)} wrong")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the stored files, write nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    files, seeds = make_all()
    run_self_checks(files, seeds)
    if arguments.check:
        return check(files)
    DATA.mkdir(exist_ok=True)
    for path in DATA.glob("*.safetensors"):
        path.unlink()
    for name, contents in files.items():
        (DATA / name).write_bytes(contents)
    VERSIONS.write_text(versions(seeds))
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
