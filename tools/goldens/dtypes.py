"""Goldens of the conversions between float32 and the two half precisions, as bit patterns."""

import numpy as np
import torch

from container import encode

SEED = 20_260_103


def float32_patterns(rng: np.random.Generator) -> np.ndarray:
    """uint32 bit patterns around every place where a rounding can go wrong."""
    signs = np.array([0, 0x8000_0000], dtype=np.uint32)
    near = np.arange(-1, 2)

    def around(patterns) -> np.ndarray:
        return (np.asarray(patterns, dtype=np.int64)[:, None] + near).ravel()

    exponents = np.arange(0, 256) << 23
    # Halfway between two neighbours, below an even and an odd one, and next to a carry into the exponent.
    bfloat16_ties = around(np.concatenate([exponents + m for m in (0, 0x8000, 0x1_8000, 0x7F_8000)]))
    float16_range = np.arange(127 - 26, 127 + 17) << 23
    float16_ties = around(np.concatenate([float16_range + m for m in (0x1000, 0x3000, 0x7F_F000)]))
    # Subnormal float16: multiples of half the smallest, 2^-25, exact in float32.
    subnormal = np.ldexp(np.arange(0, 130), -25).astype(np.float32).view(np.uint32)
    largest_subnormals = np.ldexp(np.arange(2040, 2056), -25).astype(np.float32).view(np.uint32)
    limits = np.array([65504, 65519, 65520, 65521, 65535, 65536, 3.4e38], dtype=np.float32).view(np.uint32)
    last_finite = [0x7F7F_7FFF, 0x7F7F_8000, 0x7F7F_FFFF, 0x7F80_0000]
    not_a_number = [0x7F80_0001, 0x7F80_8000, 0x7FBF_FFFF, 0x7FC0_0000, 0x7FC0_1234, 0x7FFF_FFFF]
    chosen = [bfloat16_ties, float16_ties, around(subnormal), around(largest_subnormals), around(limits)]
    patterns = np.concatenate([*chosen, last_finite, not_a_number, rng.integers(0, 2**31, 600)])
    patterns = np.unique(patterns[(patterns >= 0) & (patterns < 2**31)]).astype(np.uint32)
    return (patterns[:, None] | signs).ravel()


def float16_patterns() -> np.ndarray:
    """Every exponent and sign with a few mantissas, as uint16."""
    mantissas = [0, 1, 2, 0x155, 0x200, 0x2AA, 0x3FE, 0x3FF]
    grid = [sign | exponent << 10 | m for sign in (0, 0x8000) for exponent in range(32) for m in mantissas]
    return np.array(grid, dtype=np.uint16)


def as_int32(patterns: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(patterns.astype(np.uint32).view(np.int32).copy())


def make_dtypes_golden() -> bytes:
    """Where the result is NaN the golden holds the quiet NaN 7e00 or 7fc0: sign and payload are free."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    patterns = float32_patterns(rng)
    values = torch.from_numpy(patterns.view(np.float32).copy())
    tensors = {"float32": as_int32(patterns)}
    for name, dtype, quiet in (("float16", torch.float16, 0x7E00), ("bfloat16", torch.bfloat16, 0x7FC0)):
        bits = values.to(dtype).view(torch.int16).to(torch.int32) & 0xFFFF
        tensors[f"expected.{name}"] = torch.where(values.isnan(), quiet, bits).to(torch.int32)
    halves = float16_patterns()
    widened = torch.from_numpy(halves.view(np.int16).copy()).view(torch.float16).to(torch.float32)
    widened_bits = torch.where(widened.isnan(), 0x7FC0_0000, widened.view(torch.int32))
    tensors["float16"] = as_int32(halves)
    tensors["expected.float16_as_float32"] = widened_bits.to(torch.int32)
    return encode(tensors, {"kind": "dtypes", "seed": str(SEED)})
