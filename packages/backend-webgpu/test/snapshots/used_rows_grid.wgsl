// uses: report

struct Params {
  capacity: u32,
  threads_per_row: u32,
  slot: u32,
}

const MOST = 65535u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> count: array<i32>;
@group(0) @binding(2) var<storage, read_write> grid: array<u32>;
@group(0) @binding(3) var<storage, read_write> errors: array<atomic<u32>>;

@compute @workgroup_size(1)
fn main() {
  if (count[0] < 0 || u32(count[0]) > params.capacity) {
    report(params.slot, 0u, bitcast<u32>(count[0]));
  }
  let threads = min(u32(max(count[0], 0)), params.capacity) * params.threads_per_row;
  let workgroups = threads / 256u + select(0u, 1u, threads % 256u > 0u);
  let y = max((workgroups + MOST - 1u) / MOST, 1u);
  grid[0] = (workgroups + y - 1u) / y;
  grid[1] = y;
  grid[2] = 1u;
}

fn report(slot: u32, place: u32, value: u32) {
  loop {
    let claim = atomicCompareExchangeWeak(&errors[4u * slot], 0u, place + 1u);
    if (claim.exchanged) {
      atomicStore(&errors[4u * slot + 1u], value);
      break;
    }
    if (claim.old_value != 0u) {
      break;
    }
  }
}
