// Purpose: a host write that begins or ends in the middle of a word.
// Equation: words[at] = (words[at] & ~mask) | bits.
// Shapes: words: a buffer of 16-bit elements.
// Parallelisation: none, it is one word.
// Why: copies to a buffer are in whole words, and the other half must keep its bits.
// uses:

struct Params {
  at: u32,
  mask: u32,
  bits: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(1)
fn main() {
  words[params.at] = (words[params.at] & ~params.mask) | params.bits;
}
