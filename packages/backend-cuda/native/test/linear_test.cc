// `linear` against a float64 loop: every transposition, dtype, epilogue and strategy, at the edges of tiles.
#include "ops/linear.h"
#include "ops/ops.h"
#include "test/test_context.h"

namespace flash_moe {
namespace {

using namespace test;

struct Case {
  int64_t rows, inner, columns;
  DType a = DType::f32, b = DType::f32, output = DType::f32;
  bool transpose_a = false, transpose_b = false, accumulate = false, input_norm = false, output_norm = false;
  // Exponents of `a` from -40 to 40 instead of around 0.
  bool wide = false;
};

const char* name_of(DType dtype) { return dtype == DType::f32 ? "f32" : dtype == DType::f16 ? "f16" : "bf16"; }

double roundoff(DType dtype) { return dtype == DType::f32 ? 0x1p-24 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8; }

struct Norm {
  std::vector<double> mean, variance;
  Tensor device_mean, device_variance;
};

Norm make_norm(std::mt19937_64& random, int64_t features) {
  std::vector<double> mean = normal(random, DType::f32, features), variance = normal(random, DType::f32, features);
  for (double& v : variance) v = rounded(0.1 + v * v, DType::f32);
  return {mean, variance, Tensor(DType::f32, mean), Tensor(DType::f32, variance)};
}

NormStatistics statistics(const Norm& norm) {
  NormStatistics s;
  s.present = true;
  s.mean = norm.device_mean;
  s.variance = norm.device_variance;
  s.epsilon = 1e-5;
  return s;
}

double normalized(double value, const Norm& norm, int64_t feature) {
  return (value - norm.mean[feature]) / std::sqrt(norm.variance[feature] + 1e-5);
}

// Returns the worst error as a share of what f32 arithmetic in any order is allowed.
double run(TestContext& context, const Case& c) {
  std::mt19937_64 random(static_cast<uint64_t>(c.rows * 1000003 + c.inner * 1009 + c.columns));
  auto a = normal(random, c.a, c.rows * c.inner);
  for (size_t i = 0; i < a.size() && c.wide; i++) a[i] = rounded(std::ldexp(a[i], static_cast<int>(random() % 81) - 40), c.a);
  const auto b = normal(random, c.b, c.inner * c.columns);
  const auto start = normal(random, DType::f32, c.rows * c.columns);
  const Norm in = make_norm(random, c.inner), out = make_norm(random, c.columns);
  const Tensor device_a(c.a, a), device_b(c.b, b);
  const Tensor output = c.accumulate ? Tensor(DType::f32, start) : Tensor(c.output, c.rows * c.columns);
  LinearCall call{};
  call.rows = c.rows;
  call.inner = c.inner;
  call.columns = c.columns;
  call.a = device_a;
  call.b = device_b;
  call.output = output;
  call.transpose_a = c.transpose_a;
  call.transpose_b = c.transpose_b;
  call.accumulate = c.accumulate;
  if (c.input_norm) call.input_norm = statistics(in);
  if (c.output_norm) call.output_norm = statistics(out);
  linear(context, call);
  context.synchronize();

  double worst = 0;
  for (int64_t m = 0; m < c.rows; m++) {
    for (int64_t n = 0; n < c.columns; n++) {
      double sum = 0, absolute = 0;
      for (int64_t k = 0; k < c.inner; k++) {
        double x = a[c.transpose_a ? k * c.rows + m : m * c.inner + k];
        if (c.input_norm) x = normalized(x, in, k);
        const double product = x * b[c.transpose_b ? n * c.inner + k : k * c.columns + n];
        sum += product;
        absolute += std::fabs(product);
      }
      const double length = static_cast<double>(c.inner + 1);
      const double share = 0x1p-24 * (std::fmin(length, 4 * std::sqrt(length)) + (c.input_norm ? 8 : 0));
      double allowed = share * absolute, expected = sum;
      if (c.output_norm) {
        expected = normalized(sum, out, n);
        allowed = allowed / std::sqrt(out.variance[n] + 1e-5) + 8 * 0x1p-24 * std::fabs(expected);
      }
      if (c.accumulate) {
        expected += start[m * c.columns + n];
        allowed += share * std::fabs(start[m * c.columns + n]) + 0x1p-24 * std::fabs(expected);
      }
      allowed += roundoff(c.output) * std::fabs(expected) + (c.output == DType::f16 ? 0x1p-25 : 0x1p-126);
      const double actual = output.at(m * c.columns + n);
      const double difference = std::fabs(actual - expected);
      if (!(difference <= allowed)) {
        std::fprintf(stderr, "%lld x %lld x %lld, %s by %s to %s%s%s%s%s%s: [%lld, %lld] is %.9g, expected %.9g +- %.3g\n",
                     (long long)c.rows, (long long)c.inner, (long long)c.columns, name_of(c.a), name_of(c.b),
                     name_of(c.output), c.transpose_a ? ", a transposed" : "", c.transpose_b ? ", b transposed" : "",
                     c.accumulate ? ", accumulated" : "", c.input_norm ? ", input norm" : "",
                     c.output_norm ? ", output norm" : "", (long long)m, (long long)n, actual, expected, allowed);
        std::abort();
      }
      worst = std::fmax(worst, difference / allowed);
    }
  }
  return worst;
}

// What is not finite, and the largest that is, through the parts of an f32.
void run_extremes(TestContext& context) {
  const float largest = 0x1.fffffep127f, tiny = 0x1.8p-126f;
  std::vector<double> a(20 * 8), b(8 * 16, 1);
  a[0] = INFINITY, a[8] = largest, a[16] = NAN, a[24] = -INFINITY, a[32] = tiny;
  const Tensor device_a(DType::f32, a), device_b(DType::bf16, b), output(DType::f32, 20 * 16);
  LinearCall call{};
  call.rows = 20;
  call.inner = 8;
  call.columns = 16;
  call.a = device_a;
  call.b = device_b;
  call.output = output;
  linear(context, call);
  context.synchronize();
  const double expected[] = {INFINITY, largest, NAN, -INFINITY, tiny, 0};
  for (int row = 0; row < 6; row++) {
    expect_close("extremes", {output.at(16 * row + 5)}, {expected[row]}, 0, 0);
  }

  // The parts of a 1 are 1, 0 and 0.
  const Tensor ones(DType::f32, std::vector<double>(20 * 8, 1));
  b[3] = INFINITY, b[16 + 4] = -INFINITY, b[5] = INFINITY, b[16 + 5] = -INFINITY, b[6] = NAN;
  const Tensor spoiled(DType::bf16, b);
  call.a = ones;
  call.b = spoiled;
  linear(context, call);
  context.synchronize();
  const double sums[] = {8, 8, 8, INFINITY, -INFINITY, NAN, NAN, 8};
  for (int column = 0; column < 8; column++) {
    expect_close("extremes of b", {output.at(16 * 19 + column)}, {sums[column]}, 0, 0);
  }
}

// Of a device that has Hopper's instruction, which is asked for.
void test_choice(TestContext& context) {
  context.change_limits().multiprocessors = 132;
  const auto chosen = [&](int64_t rows, int64_t columns) { return choose_tiles(context, rows, columns, true); };
  expect(chosen(4096, 4096) == Tiles::wgmma_128_by_256, "the widest tiles for a large product");
  expect(chosen(1024, 2560) == Tiles::wgmma_128_by_256, "one round of the widest instead of two");
  expect(chosen(1152, 3840) == Tiles::wgmma_128_by_128, "three rounds instead of two of the widest");
  expect(chosen(1024, 2048) == Tiles::wgmma_128_by_128, "one round instead of two of narrow ones");
  expect(chosen(1024, 1024) == Tiles::wgmma_128_by_64, "narrow tiles where there are multiprocessors for them");
  expect(chosen(64, 4096) == Tiles::of_64, "no tile of 128 rows for 64");
  // The driver's translation of older PTX.
  context.change_limits().ptx = 80;
  expect(chosen(1024, 2048) == Tiles::of_128, "no instruction that the code does not have");
  context.change_limits().tuning.tiles = "wgmma_128_by_256";
  expect(code_of([&] { chosen(1024, 2048); }) == "UNSUPPORTED", "nor where it is tuned");
}

void run_all() {
  TestContext context;
  const DType f32 = DType::f32, f16 = DType::f16, bf16 = DType::bf16;
  const DType dtypes[][3] = {{f32, f32, f32},   {bf16, bf16, bf16}, {f16, f16, f16},   {bf16, bf16, f32}, {f32, f32, bf16},
                             {f32, bf16, f32},  {bf16, f32, f32},   {f16, f32, f32},   {f32, f16, f32}};
  const int64_t sizes[][3] = {{37, 33, 65}, {24, 72, 40}, {1, 1, 1}, {20, 7, 9}, {64, 64, 64}, {70, 136, 136}};
  int count = 0;
  double worst = 0;
  const auto check_case = [&](const Case& c) {
    if (!taken(7)) return;
    // A result that is rounded to 16 bits may use all that it is allowed.
    const double error = run(context, c);
    if (c.output == f32) worst = std::fmax(worst, error);
    count++;
  };
  for (const auto& d : dtypes) {
    for (const auto& s : sizes) {
      for (int transposed = 0; transposed < 4; transposed++) {
        Case c{s[0], s[1], s[2], d[0], d[1], d[2]};
        c.transpose_a = transposed & 1;
        c.transpose_b = transposed & 2;
        check_case(c);
        if (d[2] == f32) {
          c.accumulate = true;
          check_case(c);
          c.accumulate = false;
        }
        c.output_norm = true;
        check_case(c);
        c.input_norm = !c.transpose_a;
        check_case(c);
      }
    }
    // Few rows, by which weights are read; odd lengths, and few columns, on which a block works together.
    for (int64_t rows : {1, 2, 4, 5, 16}) {
      for (int64_t inner : {7, 12, 33, 264, 1032, 1036}) {
        for (int norms = 0; norms < 2; norms++) {
          Case c{rows, inner, rows == 2 ? 7 : 9, d[0], d[1], d[2]};
          c.transpose_b = true;
          c.input_norm = norms;
          c.output_norm = norms;
          check_case(c);
          if (d[2] == f32 && !norms) {
            c.accumulate = true;
            check_case(c);
          }
        }
      }
    }
    for (int transposed = 0; transposed < 4; transposed++) {
      Case c{24, 200, 40, d[0], d[1], f32};
      c.transpose_a = transposed & 1;
      c.transpose_b = transposed & 2;
      c.wide = d[0] != f16;
      check_case(c);
    }
    // Nothing to sum, nothing to make.
    check_case({20, 0, 5, d[0], d[1], d[2]});
    check_case({0, 5, 5, d[0], d[1], d[2]});
    check_case({5, 5, 0, d[0], d[1], d[2]});
    // Cut into pieces.
    for (int transposed = 0; transposed < 4; transposed++) {
      Case c{18, 1100, 12, d[0], d[1], d[2]};
      c.transpose_a = transposed & 1;
      c.transpose_b = transposed & 2;
      c.output_norm = true;
      check_case(c);
      c.inner = 1037;
      c.output_norm = false;
      c.accumulate = d[2] == f32;
      check_case(c);
    }
  }
  run_extremes(context);
  // More warps than columns need, so that each makes its own.
  Case wide{3, 264, 4300, bf16, bf16, bf16};
  wide.transpose_b = true;
  check_case(wide);
  // Tiles of 128, made to be chosen by a device of one multiprocessor.
  context.change_limits().multiprocessors = 1;
  for (const auto& d : dtypes) {
    for (int transposed = 0; transposed < 4; transposed++) {
      Case c{130, 72, 136, d[0], d[1], d[2]};
      c.transpose_a = transposed & 1;
      c.transpose_b = transposed & 2;
      c.accumulate = d[2] == f32;
      check_case(c);
      c = {129, 33, 131, d[0], d[1], d[2]};
      c.transpose_a = transposed & 1;
      c.transpose_b = transposed & 2;
      c.output_norm = true;
      check_case(c);
    }
  }
  // Hopper's own instruction, which this emulates down to its descriptors.
  setenv("FLASH_MOE_WGMMA", "1", 1);
  context.change_limits().compute_capability = 90;
  context.change_limits().shared_bytes_per_block = 227 << 10;
  context.change_limits().multiprocessors = 132;
  for (const char* tiles : {"wgmma_128_by_64", "wgmma_128_by_128", "wgmma_128_by_256"}) {
    context.change_limits().tuning.tiles = tiles;
    for (const DType dtype : {bf16, f16}) {
      for (int transposed = 0; transposed < 3; transposed++) {
        // Of each width more than one; an inner sum shorter than the ring of stages, as long, and longer; in pieces; none.
        const int64_t many[][3] = {{130, 72, 136}, {129, 33, 131}, {80, 600, 24}, {70, 8, 264},
                                   {66, 256, 257}, {84, 1100, 12}, {65, 0, 3}};
        for (const auto& s : many) {
          Case c{s[0], s[1], s[2], dtype, dtype, f32};
          c.transpose_a = transposed == 1;
          c.transpose_b = transposed == 2;
          check_case(c);
          c.accumulate = true;
          check_case(c);
        }
      }
    }
  }
  context.change_limits().tuning.tiles.clear();
  test_choice(context);
  std::printf("linear: %d cases, worst error in f32 %.2f of what is allowed\n", count, worst);
}

}  // namespace
}  // namespace flash_moe

int main() { flash_moe::run_all(); }
