// The shared MLP, forward and backward, against float64 loops.
#include "ops/mlp.h"
#include "test/test_context.h"

namespace flash_moe {
namespace {

using namespace test;

struct Case {
  int64_t tokens, hidden, units;
  DType dtype = DType::f32;
  Activation activation = Activation::silu;
  bool accumulate = false;
  // Bits: gradHiddenStates, gradGate, gradUp, gradDown.
  int wanted = 15;
  int64_t scratch_bytes = mlp_scratch_bytes;
};

double act(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu:
      return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::relu:
      return x > 0 ? x : 0;
    default:
      return x / (1 + std::exp(-x));
  }
}

double slope(Activation kind, double x) {
  if (kind == Activation::relu) return x > 0;
  const double step = 1e-5;
  return (act(kind, x + step) - act(kind, x - step)) / (2 * step);
}

using Values = std::vector<double>;

// op(a) op(b) [rows, columns].
Values product(const Values& a, const Values& b, int64_t rows, int64_t inner, int64_t columns, bool ta, bool tb) {
  Values c(static_cast<size_t>(rows * columns));
  for (int64_t m = 0; m < rows; m++)
    for (int64_t n = 0; n < columns; n++)
      for (int64_t k = 0; k < inner; k++)
        c[m * columns + n] += a[ta ? k * rows + m : m * inner + k] * b[tb ? n * inner + k : k * columns + n];
  return c;
}

double largest(const Values& values) {
  double most = 0;
  for (const double v : values) most = std::fmax(most, std::fabs(v));
  return most;
}

// Against the largest value: intermediates are rounded to the storage dtype, so small sums carry errors of large terms.
void compare(const std::string& what, const Tensor& actual, const Values& expected, DType dtype) {
  const double unit = dtype == DType::f32 ? 0x1p-22 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
  expect_close(what, actual.values(), expected, 4 * unit * largest(expected) + 1e-30, unit);
}

void run(TestContext& context, const Case& c) {
  std::mt19937_64 random(static_cast<uint64_t>(c.tokens * 1000003 + c.hidden * 1009 + c.units));
  const Values x = normal(random, c.dtype, c.tokens * c.hidden), d = normal(random, c.dtype, c.tokens * c.hidden);
  const double scale = 1 / std::sqrt(static_cast<double>(c.hidden));
  const Values gate = normal(random, c.dtype, c.units * c.hidden, scale);
  const Values up = normal(random, c.dtype, c.units * c.hidden, scale);
  const Values down = normal(random, c.dtype, c.units * c.hidden, 1 / std::sqrt(static_cast<double>(c.units)));
  const Tensor device_x(c.dtype, x), device_d(c.dtype, d), device_gate(c.dtype, gate), device_up(c.dtype, up),
      device_down(c.dtype, down);
  const std::string name = std::to_string(c.tokens) + " x " + std::to_string(c.hidden) + " x " +
                           std::to_string(c.units) + " dtype " + std::to_string(static_cast<int>(c.dtype)) + " act " +
                           std::to_string(static_cast<int>(c.activation)) + ": ";

  const Values a = product(x, gate, c.tokens, c.hidden, c.units, false, true);
  const Values b = product(x, up, c.tokens, c.hidden, c.units, false, true);
  Values hidden(a.size());
  for (size_t i = 0; i < a.size(); i++) hidden[i] = act(c.activation, a[i]) * b[i];
  const Values output = product(hidden, down, c.tokens, c.units, c.hidden, false, true);

  for (int variant = 0; variant < 3; variant++) {
    // Without an addend, with one in f32 to f32, with one in the storage dtype.
    const DType out_dtype = variant == 1 ? DType::f32 : c.dtype;
    const Values addend = normal(random, out_dtype, c.tokens * c.hidden, 3);
    const Tensor device_addend(out_dtype, addend), device_output(out_dtype, c.tokens * c.hidden);
    MlpForwardCall call{};
    call.tokens = c.tokens;
    call.hidden_size = c.hidden;
    call.intermediate_size = c.units;
    call.activation = c.activation;
    call.hidden_states = device_x;
    call.gate = device_gate;
    call.up = device_up;
    call.down = device_down;
    call.output = device_output;
    if (variant > 0) call.addend = device_addend;
    mlp_forward_in_parts(context, call, c.scratch_bytes);
    context.synchronize();
    Values expected = output;
    for (size_t i = 0; i < expected.size() && variant > 0; i++) expected[i] += addend[i];
    compare(name + "output", device_output, expected, c.dtype);
  }

  const Values dh = product(d, down, c.tokens, c.hidden, c.units, false, false);
  Values da(a.size()), db(a.size());
  for (size_t i = 0; i < a.size(); i++) {
    da[i] = dh[i] * b[i] * slope(c.activation, a[i]);
    db[i] = dh[i] * act(c.activation, a[i]);
  }
  Values grad_x = product(da, gate, c.tokens, c.units, c.hidden, false, false);
  const Values from_up = product(db, up, c.tokens, c.units, c.hidden, false, false);
  for (size_t i = 0; i < grad_x.size(); i++) grad_x[i] += from_up[i];
  Values expected[4] = {grad_x, product(da, x, c.units, c.tokens, c.hidden, true, false),
                        product(db, x, c.units, c.tokens, c.hidden, true, false),
                        product(d, hidden, c.hidden, c.tokens, c.units, true, false)};
  const int64_t lengths[4] = {c.tokens * c.hidden, c.units * c.hidden, c.units * c.hidden, c.units * c.hidden};
  std::vector<Tensor> gradients;
  for (int g = 0; g < 4; g++) {
    const Values start = normal(random, DType::f32, lengths[g]);
    gradients.push_back(c.accumulate ? Tensor(DType::f32, start) : Tensor(DType::f32, lengths[g]));
    for (size_t i = 0; i < start.size() && c.accumulate; i++) expected[g][i] += start[i];
  }
  MlpBackwardCall call{};
  call.tokens = c.tokens;
  call.hidden_size = c.hidden;
  call.intermediate_size = c.units;
  call.activation = c.activation;
  call.hidden_states = device_x;
  call.gate = device_gate;
  call.up = device_up;
  call.down = device_down;
  call.grad_output = device_d;
  if (c.wanted & 1) call.grad_hidden_states = gradients[0];
  if (c.wanted & 2) call.grad_gate = gradients[1];
  if (c.wanted & 4) call.grad_up = gradients[2];
  if (c.wanted & 8) call.grad_down = gradients[3];
  call.accumulate_hidden_states = call.accumulate_gate = call.accumulate_up = call.accumulate_down = c.accumulate;
  mlp_backward_in_parts(context, call, c.scratch_bytes);
  context.synchronize();
  const char* const names[4] = {"gradHiddenStates", "gradGate", "gradUp", "gradDown"};
  for (int g = 0; g < 4; g++) {
    if (c.wanted >> g & 1) compare(name + names[g], gradients[g], expected[g], c.dtype);
  }
}

void run_all() {
  TestContext context;
  int count = 0;
  const auto check_case = [&](const Case& c) {
    if (!taken(3)) return;
    run(context, c);
    count++;
  };
  const int64_t sizes[][3] = {{1, 1, 1},    {0, 5, 7},    {19, 35, 41}, {37, 65, 129}, {1, 136, 33},
                              {3, 264, 7},  {16, 40, 64}, {17, 40, 64}, {65, 72, 72},  {70, 7, 33}};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const auto& s : sizes) {
      for (const bool accumulate : {false, true}) {
        Case c{s[0], s[1], s[2], dtype};
        c.accumulate = accumulate;
        check_case(c);
      }
    }
    for (const Activation activation : {Activation::gelu, Activation::gelu_tanh, Activation::relu}) {
      check_case({19, 40, 24, dtype, activation});
      check_case({3, 40, 24, dtype, activation});
    }
    for (int g = 0; g < 4; g++) {
      Case c{19, 35, 41, dtype};
      c.wanted = 1 << g;
      check_case(c);
    }
  }
  // In parts, the last one shorter.
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const bool accumulate : {false, true}) {
      Case c{270, 24, 40, dtype};
      c.accumulate = accumulate;
      c.scratch_bytes = 1;
      check_case(c);
      c = {40, 24, 297, dtype};
      c.accumulate = accumulate;
      c.scratch_bytes = 1;
      check_case(c);
    }
  }
  context.change_limits().multiprocessors = 1;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    check_case({130, 72, 200, dtype});
    check_case({129, 33, 131, dtype});
  }
  context.change_limits().compute_capability = 90;
  context.change_limits().shared_bytes_per_block = 227 << 10;
  for (const char* tiles : {"wgmma_128_by_64", "wgmma_128_by_128", "wgmma_128_by_256"}) {
    context.change_limits().tuning.tiles = tiles;
    check_case({130, 72, 200, DType::bf16});
    check_case({129, 33, 131, DType::f16});
  }
  std::printf("mlp: %d cases\n", count);
}

}  // namespace
}  // namespace flash_moe

int main() { flash_moe::run_all(); }
