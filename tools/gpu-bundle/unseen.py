"""Goldens that nobody has seen: python3 unseen.py GOLDENS OUT [COUNT]

The layers of GOLDENS/cases.py with other numbers: GOLDENS is tools/goldens of the repository. Needs torch and numpy,
and safetensors as GOLDENS does.
"""

import dataclasses
import secrets
import sys
from pathlib import Path

sys.dont_write_bytecode = True
goldens, out = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(goldens))

from cases import CASES  # noqa: E402
from layers import make_layer_golden  # noqa: E402

count = int(sys.argv[3]) if len(sys.argv) > 3 else len(CASES)
out.mkdir(parents=True, exist_ok=True)
# The seed is made from the name.
tag = secrets.token_hex(4)
for case in CASES[:count]:
    _, contents = make_layer_golden(dataclasses.replace(case, name=f"{case.name}-{tag}"))
    (out / f"layer-{case.name}-{tag}.safetensors").write_bytes(contents)
print(f"{count} layers")
