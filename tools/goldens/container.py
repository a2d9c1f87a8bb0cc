"""A safetensors writer whose bytes depend on the contents alone.

The safetensors library keeps metadata in a hash map, so the order of its header changes between runs.
"""

import json
import struct

import torch

NAMES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


def encode(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Widest elements first, then by name, so that every tensor is aligned to its own element size."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    payload = bytearray()
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        tensor = tensors[name].detach().contiguous()
        start = len(payload)
        if tensor.numel() > 0:
            payload += tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, len(payload)],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(payload)
