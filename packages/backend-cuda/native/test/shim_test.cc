// The shim itself: grids, barriers, warps, shared memory, and that a kernel without its barrier is found out.
#include <sys/wait.h>
#include <unistd.h>

#include "device/async_copy.h"
#include "device/block.h"
#include "device/wgmma.h"
#include "test/test_context.h"

namespace flash_moe {
namespace {

using namespace test;

template <int Threads>
__global__ void sum_rows(const float* input, float* output, int64_t columns) {
  float sum = 0;
  for (int64_t i = threadIdx.x; i < columns; i += Threads) sum += input[blockIdx.x * columns + i];
  sum = block_sum<Threads>(sum);
  if (threadIdx.x == 0) output[blockIdx.x] = sum;
}

__global__ void scan(const int* input, int* output, int* total) {
  int all = 0;
  output[threadIdx.x] = block_exclusive_scan<256>(input[threadIdx.x], all);
  if (threadIdx.x == 255) *total = all;
}

template <bool Barrier>
__global__ void reverse(const float* input, float* output) {
  FM_SHARED float tile[128];
  tile[threadIdx.x] = input[blockIdx.x * 128 + threadIdx.x];
  if (Barrier) __syncthreads();
  output[blockIdx.x * 128 + threadIdx.x] = tile[127 - threadIdx.x];
}

__global__ void dynamic_copy(const float* input, float* output, int count) {
  FM_DYNAMIC_SHARED(float, tile);
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) tile[i] = input[i];
  __syncthreads();
  if (i < count) output[i] = tile[count - 1 - i];
}

__global__ void warp_functions(unsigned* out) {
  const int lane = lane_id();
  unsigned sums = 0;
  sums += __shfl_sync(full_mask, lane, 5) == 5;
  sums += __shfl_sync(full_mask, lane, 3, 8) == lane / 8 * 8 + 3;
  sums += __shfl_xor_sync(full_mask, lane, 16) == (lane ^ 16);
  sums += __shfl_up_sync(full_mask, lane, 4) == (lane < 4 ? lane : lane - 4);
  sums += __shfl_down_sync(full_mask, lane, 4, 16) == (lane % 16 >= 12 ? lane : lane + 4);
  sums += __ballot_sync(full_mask, lane % 3 == 0) == 0x49249249u;
  sums += __any_sync(full_mask, lane == 7) && !__all_sync(full_mask, lane == 7);
  sums += __reduce_add_sync(full_mask, static_cast<unsigned>(lane)) == 496;
  sums += __reduce_max_sync(full_mask, static_cast<unsigned>(lane)) == 31;
  sums += __match_any_sync(full_mask, lane / 4) == 0xfu << (lane / 4 * 4);
  // A part of the warp alone.
  if (lane < 8) sums += __ballot_sync(0xffu, lane & 1) == 0xaau;
  __syncwarp();
  out[threadIdx.x] = sums;
}

__global__ void half_block_waits() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __shfl_sync(full_mask, 1, 0);
    if (threadIdx.x == 40) return;
    __shfl_sync(full_mask, 1, 0);
  }
}

__global__ void two_barriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void copy_16(const float* input, float* output) {
  FM_SHARED float4 tile;
  copy_16_async(&tile, input, 16);
  commit_copies();
  wait_copies<0>();
  *output = tile.x;
}

// Zeros by zeros: tiles of 64 x 64 from `Start` bytes beyond a multiple of 1024 on.
template <bool Published, int Start>
__global__ void product(float* output) {
  FM_DYNAMIC_SHARED(unsigned char, memory);
  unsigned char* const tiles = memory + (-shared_address(memory) & 1023u);
  for (int chunk = static_cast<int>(threadIdx.x); chunk < 1024; chunk += 128) {
    copy_16_async(tiles + 16 * chunk, nullptr, 0);
  }
  commit_copies();
  wait_copies<0>();
  if (Published) publish_shared_memory();
  __syncthreads();
  float sums[8][4] = {};
  const uint32_t address = shared_address(tiles) + Start;
  open_products();
  multiply_add_async<bf16, false, false>(sums, tile_descriptor(address, 8192, 1024),
                                         tile_descriptor(address + 8192, 8192, 1024));
  close_products();
  wait_products<0>();
  output[threadIdx.x] = sums[7][3];
}

template <bool Published, int Start>
void multiply_zeros() {
  TestContext context;
  const Tensor output(DType::f32, 128);
  launch(context, "product", product<Published, Start>, 1, 128, 2 * 8192 + 1024, Buffer(output).as<float>());
  for (int i = 0; i < 128; i++) expect(output.at(i) == 0, "zeros times zeros are zeros");
}

// Runs in a child, which must end by abort, or by what ThreadSanitizer ends with.
void expect_abort(const char* what, void (*run)()) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (!std::freopen("/dev/null", "w", stderr) || !std::freopen("/dev/null", "w", stdout)) _exit(2);
    run();
    std::exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  expect(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0), what);
}

void test_grids() {
  TestContext context;
  std::mt19937_64 random(1);
  const auto values = normal(random, DType::f32, 37 * 1000);
  const Tensor input(DType::f32, values);
  const Tensor output(DType::f32, 37);
  launch(context, "sum_rows", sum_rows<256>, 37, 256, 0, Buffer(input).as<float>(), Buffer(output).as<float>(), 1000);
  std::vector<double> expected(37, 0);
  for (size_t i = 0; i < values.size(); i++) expected[i / 1000] += values[i];
  expect_close("sums of rows", output.values(), expected, 1e-4, 0);

  std::vector<double> ones(256, 1);
  const Tensor counts(DType::i32, ones), before(DType::i32, 256), total(DType::i32, 1);
  launch(context, "scan", scan, 1, 256, 0, Buffer(counts).as<int>(), Buffer(before).as<int>(), Buffer(total).as<int>());
  for (int i = 0; i < 256; i++) expect(before.at(i) == i, "the scan of ones counts");
  expect(total.at(0) == 256, "the scan's total");

  const Tensor found(DType::i32, 64);
  launch(context, "warp_functions", warp_functions, 1, 64, 0, Buffer(found).as<unsigned>());
  for (int i = 0; i < 64; i++) expect(found.at(i) == (i % 32 < 8 ? 11 : 10), "every warp function is right");

  const Tensor copy(DType::f32, 1000);
  launch(context, "dynamic_copy", dynamic_copy, 1, 1024, 1000 * sizeof(float), Buffer(input).as<float>(),
         Buffer(copy).as<float>(), 1000);
  for (int i = 0; i < 1000; i++) expect(copy.at(i) == values[999 - i], "dynamic shared memory holds the values");
  launch(context, "nothing", dynamic_copy, 0, 32, 0, nullptr, nullptr, 0);
}

void reverse_without_barrier() {
  TestContext context;
  const Tensor input(DType::f32, std::vector<double>(128, 1)), output(DType::f32, 128);
  launch(context, "reverse", reverse<false>, 1, 128, 0, Buffer(input).as<float>(), Buffer(output).as<float>());
}

void test_missing_barrier() {
#ifdef FLASH_MOE_SHIM_THREAD_SANITIZER
  expect_abort("ThreadSanitizer sees a missing barrier", reverse_without_barrier);
  return;
#endif
  (void)reverse_without_barrier;
  TestContext context;
  std::mt19937_64 random(2);
  const auto values = normal(random, DType::f32, 10 * 128);
  const Tensor input(DType::f32, values), output(DType::f32, 10 * 128);
  launch(context, "reverse", reverse<true>, 10, 128, 0, Buffer(input).as<float>(), Buffer(output).as<float>());
  for (int i = 0; i < 1280; i++) expect(output.at(i) == values[i / 128 * 128 + 127 - i % 128], "the tile is reversed");
  // In each block, also in those after the first, whose shared memory could still hold values.
  launch(context, "reverse", reverse<false>, 10, 128, 0, Buffer(input).as<float>(), Buffer(output).as<float>());
  for (int block = 0; block < 10; block++) {
    int missing = 0;
    for (int i = 0; i < 128; i++) missing += std::isnan(output.at(block * 128 + i));
    expect(missing > 0, "a missing barrier shows as NaN");
  }
}

void test_aborts() {
  expect_abort("a block of which a part waits for ever ends the process", [] {
    TestContext context;
    launch(context, "half_block_waits", half_block_waits, 1, 64, 0);
  });
  expect_abort("two barriers in two branches end the process", [] {
    TestContext context;
    launch(context, "two_barriers", two_barriers, 1, 64, 0);
  });
  expect_abort("an asynchronous copy from an address that is no multiple of 16 ends the process", [] {
    TestContext context;
    const Tensor input(DType::f32, std::vector<double>(8, 1)), output(DType::f32, 1);
    launch(context, "copy_16", copy_16, 1, 1, 0, Buffer(input).as<float>() + 1, Buffer(output).as<float>());
  });
}

void test_products() {
  multiply_zeros<true, 0>();
  multiply_zeros<true, 32>();
  expect_abort("a product that may not see its tile ends the process", multiply_zeros<false, 0>);
  expect_abort("a tile that its descriptor puts at another row ends the process", multiply_zeros<true, 128>);
  const auto add = [](float sum, float left, float right, int terms) {
    float a[16] = {}, b[16] = {};
    for (int k = 0; k < terms; k++) a[k] = left, b[k] = right;
    return shim::add_products(sum, a, b);
  };
  expect(add(2, 3, 5, 16) == 242, "what is exact is exact");
  expect(add(0, 0x1p-13f, 0x1p-12f, 16) == 0x1p-21f, "small products add up");
  expect(add(1, 0x1p-13f, 0x1p-12f, 16) == 1, "what is beyond the last place of the largest term is cut off");
  expect(add(-1, -1.5f, 0x1p-23f, 1) == -1 - 0x1p-23f, "towards zero");
  expect(std::isnan(add(INFINITY, -INFINITY, 1, 1)) && add(1, INFINITY, 1, 1) == INFINITY, "infinity stays infinite");
}

// Against every value of the type, and its neighbours' midpoints.
template <typename T>
void test_half(DType dtype) {
  for (unsigned bits = 0; bits < 0x10000u; bits++) {
    const T value{static_cast<uint16_t>(bits)};
    const float wide = to_float(value);
    if (std::isnan(wide)) {
      expect(std::isnan(to_float(from_float<T>(wide))), "NaN stays NaN");
      continue;
    }
    expect(from_float<T>(wide).bits == bits, "every finite value comes back as it was");
    const float next = to_float(T{static_cast<uint16_t>(bits + 1)});
    if (!std::isfinite(wide) || !std::isfinite(next) || (bits & 0x7fffu) == 0x7fffu) continue;
    const float middle = static_cast<float>((static_cast<double>(wide) + next) / 2);
    expect(from_float<T>(middle).bits == (bits & 1 ? bits + 1 : bits), "a tie goes to the even neighbour");
    expect(from_float<T>(std::nextafter(middle, wide)).bits == bits, "below the middle goes down");
    expect(from_float<T>(std::nextafter(middle, next)).bits == bits + 1, "above the middle goes up");
  }
  const double largest = dtype == DType::f16 ? 65520 : 3.3961775e38;
  expect(std::isinf(rounded(largest, dtype)) && std::isinf(rounded(-INFINITY, dtype)), "beyond the range is infinite");
}

}  // namespace
}  // namespace flash_moe

int main() {
  flash_moe::test_grids();
  flash_moe::test_missing_barrier();
  flash_moe::test_aborts();
  flash_moe::test_products();
  flash_moe::test_half<flash_moe::f16>(flash_moe::DType::f16);
  flash_moe::test_half<flash_moe::bf16>(flash_moe::DType::bf16);
  std::puts("shim: as expected");
}
