// The experts by every strategy, and their gradients, against loops in double precision.
#include <map>
#include <set>

#include "ops/experts_backward.h"
#include "ops/experts_forward.h"
#include "ops/expert_dense.h"
#include "ops/ops.h"
#include "test/test_context.h"

namespace flash_moe {
namespace {

using namespace test;

// How ids are drawn.
enum class Ids { uniform, duplicates, hot, out_of_range, all };

struct Size {
  int64_t tokens, hidden, experts, top_k;
  Ids ids = Ids::uniform;
  double weight_scale = 1, state_scale = 1;
};

const char* const dtype_names[] = {"f32", "f16", "bf16"};
const char* const strategy_names[] = {"fused", "sliced", "dense"};
const char* const backward_names[] = {"gathered", "as products"};
using Backward = ExpertsBackwardStrategy;

std::string name_of(const Size& s, DType dtype) {
  return std::string(dtype_names[static_cast<int>(dtype)]) + ", T " + std::to_string(s.tokens) + ", H " +
         std::to_string(s.hidden) + ", N " + std::to_string(s.experts) + ", k " + std::to_string(s.top_k) + ", ids " +
         std::to_string(static_cast<int>(s.ids));
}

double activated(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x * std::sqrt(0.5));
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::relu:
      return x > 0 ? x : 0;
    default:
      return x / (1 + std::exp(-x));
  }
}

double slope(Activation kind, double x) {
  if (kind == Activation::relu) return x > 0 ? 1 : 0;
  const double step = 1e-5;
  // At infinity too.
  if (std::fabs(x) > 30) return x < 0 ? 0 : 1;
  return (activated(kind, x + step) - activated(kind, x - step)) / (2 * step);
}

struct Problem {
  Size size;
  DType dtype;
  Activation activation;
  std::vector<double> x, down, up, weights, addend, d;
  std::vector<int64_t> ids;
  uint32_t errors = 0;

  Problem(std::mt19937_64& random, const Size& s, DType dtype, Activation activation)
      : size(s), dtype(dtype), activation(activation) {
    const double scale = 1 / std::sqrt(static_cast<double>(s.hidden));
    x = normal(random, dtype, s.tokens * s.hidden, s.state_scale);
    down = normal(random, dtype, s.experts * s.hidden, scale);
    up = normal(random, dtype, s.experts * s.hidden, scale);
    weights = normal(random, DType::f32, s.tokens * s.top_k, s.weight_scale);
    addend = normal(random, DType::f32, s.tokens * s.hidden);
    d = normal(random, dtype, s.tokens * s.hidden);
    for (int64_t p = 0; p < s.tokens * s.top_k; p++) {
      int64_t id = static_cast<int64_t>(random() % static_cast<uint64_t>(s.experts));
      if (s.ids == Ids::duplicates) id = id % 3 * (s.experts - 1) / 2;
      if (s.ids == Ids::hot && random() % 8 != 0) id = s.experts / 2;
      if (s.ids == Ids::all) id = (p * 7 + p / s.top_k) % s.experts;
      if (s.ids == Ids::out_of_range && random() % 3 == 0) {
        const int64_t bad[] = {-1, s.experts, INT32_MIN, INT32_MAX};
        id = bad[random() % 4];
        errors++;
      }
      ids.push_back(id);
    }
  }

  bool present(int64_t p) const { return ids[p] >= 0 && ids[p] < size.experts; }
  double dot(const std::vector<double>& states, const std::vector<double>& table, int64_t p) const {
    double sum = 0;
    const int64_t token = p / size.top_k;
    for (int64_t h = 0; h < size.hidden; h++) sum += states[token * size.hidden + h] * table[ids[p] * size.hidden + h];
    return sum;
  }

  std::vector<double> output(bool with_addend) const {
    std::vector<double> sum(static_cast<size_t>(size.tokens * size.hidden), 0.0);
    if (with_addend) sum = addend;
    for (int64_t p = 0; p < size.tokens * size.top_k; p++) {
      if (!present(p)) continue;
      const double c = activated(activation, dot(x, down, p)) * weights[p];
      for (int64_t h = 0; h < size.hidden; h++)
        sum[p / size.top_k * size.hidden + h] += c * up[ids[p] * size.hidden + h];
    }
    return sum;
  }
};

struct Device {
  Tensor x, down, up, ids, weights, d;

  explicit Device(const Problem& p)
      : x(p.dtype, p.x), down(p.dtype, p.down), up(p.dtype, p.up),
        ids(DType::i32, std::vector<double>(p.ids.begin(), p.ids.end())), weights(DType::f32, p.weights),
        d(p.dtype, p.d) {}

  void describe(ExpertsShape& call, const Problem& p) const {
    call.tokens = p.size.tokens;
    call.hidden_size = p.size.hidden;
    call.num_experts = p.size.experts;
    call.top_k = p.size.top_k;
    call.activation = p.activation;
    call.hidden_states = x;
    call.down = down;
    call.up = up;
    call.ids = ids;
    call.weights = weights;
  }
};

// Relative to the largest expected value that is finite, for sums whose terms cancel.
void expect_near(const std::string& what, const std::vector<double>& actual, const std::vector<double>& expected,
                 double relative) {
  double largest = 1e-30;
  for (double value : expected)
    if (std::isfinite(value)) largest = std::max(largest, std::fabs(value));
  expect_close(what, actual, expected, relative * largest, relative);
}

double rounding(DType dtype) { return dtype == DType::f32 ? 4e-6 : dtype == DType::f16 ? 2e-3 : 1.2e-2; }

void test_forward(TestContext& context, const Problem& p, ExpertsStrategy strategy, DType output_dtype,
                  bool with_addend) {
  if (!taken(7)) return;
  const Device device(p);
  const int64_t elements = p.size.tokens * p.size.hidden;
  const Tensor addend(output_dtype == DType::f32 ? p.dtype : DType::f32, p.addend);
  ExpertsForwardCall call{};
  device.describe(call, p);
  if (with_addend) call.addend = addend;
  const std::string name = name_of(p.size, p.dtype) + ", " + strategy_names[static_cast<int>(strategy)] +
                           (with_addend ? ", addend" : "") + ", output " +
                           dtype_names[static_cast<int>(output_dtype)];
  Problem problem = p;
  if (with_addend) problem.addend = addend.values();
  const auto expected = problem.output(with_addend);
  std::vector<unsigned char> first;
  for (int run = 0; run < 2; run++) {
    const Tensor output(output_dtype, elements);
    call.output = output;
    TestContext own;
    own.change_limits() = context.limits();
    experts_forward_by(own, call, strategy);
    expect(own.take_id_errors() == p.errors, name + ": ids out of range are counted once");
    expect(own.peak_scratch_bytes() == experts_forward_scratch_bytes(own.limits(), call, strategy),
           name + ": scratch is as announced");
    expect_near(name, output.values(), expected, rounding(output_dtype));
    if (run == 0) {
      first = output.bytes();
    } else {
      expect(first == output.bytes(), name + ": the same bits again");
    }
  }
}

// The op itself chooses a way by the sizes.
void test_op(TestContext& context, std::mt19937_64& random) {
  for (const Size& size : {Size{0, 16, 10, 2}, Size{4, 16, 10, 2}, Size{3, 15, 10, 8}, Size{40, 64, 64, 64}}) {
    const Problem p(random, size, DType::bf16, Activation::relu);
    const Device device(p);
    const Tensor output(DType::f32, size.tokens * size.hidden);
    ExpertsForwardCall call{};
    device.describe(call, p);
    call.output = output;
    experts_forward(context, call);
    context.synchronize();
    expect_near(name_of(size, p.dtype) + ", the op", output.values(), p.output(false), rounding(DType::f32));
  }
}

struct BackwardCase {
  TableLayout layout;
  bool accumulate;
  bool down, up, hidden, weights;
};

// Both ways have to meet one tolerance: that of sums in f32.
void test_backward(TestContext& context, const Problem& p, const BackwardCase& which, Backward strategy) {
  if (!taken(5)) return;
  const Size& s = p.size;
  const int64_t pairs = s.tokens * s.top_k, states = s.tokens * s.hidden;
  const bool compact = which.layout == TableLayout::compact, tables = which.layout != TableLayout::none;
  const int64_t rows = compact ? std::min(pairs, s.experts) : s.experts;
  const Device device(p);
  const std::string name = name_of(s, p.dtype) + (compact ? ", compact" : tables ? ", dense" : ", no tables") +
                           (which.accumulate ? ", accumulated" : "") + ", " +
                           backward_names[static_cast<int>(strategy)];
  std::vector<double> hidden(static_cast<size_t>(states), which.accumulate ? 0.5 : 0.0);
  std::vector<double> weights(static_cast<size_t>(pairs), which.accumulate ? 0.5 : 0.0);
  std::map<int64_t, std::vector<double>> down, up;
  for (int64_t i = 0; i < pairs; i++) {
    if (!p.present(i)) continue;
    const double a = p.dot(p.x, p.down, i), q = p.dot(p.d, p.up, i);
    const double c = p.weights[i] * slope(p.activation, a) * q, e = activated(p.activation, a) * p.weights[i];
    weights[i] += activated(p.activation, a) * q;
    auto& down_row = down[p.ids[i]];
    auto& up_row = up[p.ids[i]];
    down_row.resize(static_cast<size_t>(s.hidden));
    up_row.resize(static_cast<size_t>(s.hidden));
    for (int64_t h = 0; h < s.hidden; h++) {
      const int64_t at = i / s.top_k * s.hidden + h;
      hidden[at] += c * p.down[p.ids[i] * s.hidden + h];
      down_row[h] += c * p.x[at];
      up_row[h] += e * p.d[at];
    }
  }
  const bool add_tables = which.accumulate && !compact;
  const auto expected_table = [&](const std::map<int64_t, std::vector<double>>& used) {
    std::vector<double> all;
    if (compact) {
      for (const auto& row : used) all.insert(all.end(), row.second.begin(), row.second.end());
      return all;
    }
    all.assign(static_cast<size_t>(s.experts * s.hidden), add_tables ? 0.5 : 0.0);
    for (const auto& row : used)
      for (int64_t h = 0; h < s.hidden; h++) all[row.first * s.hidden + h] += row.second[h];
    return all;
  };

  std::vector<unsigned char> first;
  for (int run = 0; run < 2; run++) {
    Tensor grad_hidden(DType::f32, states), grad_weights(DType::f32, pairs);
    Tensor grad_down(DType::f32, rows * s.hidden), grad_up(DType::f32, rows * s.hidden);
    const Tensor used_ids(DType::i32, rows), used_count(DType::i32, 1);
    const auto fill = [&](Tensor& tensor, bool add) {
      for (int64_t n = 0; add && n < tensor.length(); n++) tensor.set(n, 0.5);
    };
    fill(grad_hidden, which.accumulate);
    fill(grad_weights, which.accumulate);
    fill(grad_down, add_tables);
    fill(grad_up, add_tables);
    ExpertsBackwardCall call{};
    device.describe(call, p);
    call.grad_output = device.d;
    if (which.hidden) call.grad_hidden_states = grad_hidden;
    if (which.weights) call.grad_weights = grad_weights;
    call.layout = which.layout;
    if (tables && which.down) call.grad_down = grad_down;
    if (tables && which.up) call.grad_up = grad_up;
    if (compact) {
      call.used_ids = used_ids;
      call.used_count = used_count;
    }
    call.accumulate_hidden_states = call.accumulate_weights = which.accumulate;
    call.accumulate_tables = add_tables;
    TestContext own;
    own.change_limits() = context.limits();
    experts_backward_by(own, call, strategy);
    expect(own.take_id_errors() == p.errors, name + ": ids out of range are counted once");
    expect(own.peak_scratch_bytes() == experts_backward_scratch_bytes(own.limits(), call, strategy),
           name + ": scratch is as announced");

    const double relative = 2e-5;
    if (which.hidden) expect_near(name + ": hidden states", grad_hidden.values(), hidden, relative);
    if (which.weights) expect_near(name + ": weights", grad_weights.values(), weights, relative);
    if (compact) {
      expect(used_count.at(0) == static_cast<double>(down.size()), name + ": count");
      int64_t n = 0;
      for (const auto& row : down) expect(used_ids.at(n++) == static_cast<double>(row.first), name + ": used ids");
    }
    std::vector<unsigned char> bits;
    const auto compare = [&](const Tensor& tensor, const std::map<int64_t, std::vector<double>>& used,
                             const std::string& what) {
      const auto expected = expected_table(used);
      auto values = tensor.values();
      values.resize(expected.size());
      expect_near(what, values, expected, relative);
      auto bytes = tensor.bytes();
      bytes.resize(expected.size() * 4);
      bits.insert(bits.end(), bytes.begin(), bytes.end());
    };
    if (tables && which.down) compare(grad_down, down, name + ": down");
    if (tables && which.up) compare(grad_up, up, name + ": up");
    for (const Tensor* tensor : {&grad_hidden, &grad_weights}) {
      const auto bytes = tensor->bytes();
      if (which.hidden && which.weights) bits.insert(bits.end(), bytes.begin(), bytes.end());
    }
    if (run == 0) {
      first = bits;
    } else {
      expect(first == bits, name + ": the same bits again");
    }
  }
}

void test_forwards(TestContext& context, std::mt19937_64& random) {
  const Size sizes[] = {
      {1, 64, 100, 64},
      {3, 1, 5, 4},
      {2, 7, 9, 3},
      {5, 40, 300, 33, Ids::duplicates},
      {2, 1024, 200, 65},
      {1, 2048, 40, 3},
      {1, 2056, 12, 2},
      {4, 264, 150, 20, Ids::out_of_range},
      {3, 48, 70, 70, Ids::all},
      {2, 8, 70000, 40},
      {70, 72, 200, 9, Ids::hot},
      {0, 16, 10, 2},
      {9, 24, 130, 300, Ids::uniform},
  };
  const Activation activations[] = {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu};
  int turn = 0;
  for (const Size& size : sizes) {
    for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const Problem p(random, size, dtype, activations[turn % 4]);
      const bool vectors = size.hidden * (dtype == DType::f32 ? 4 : 2) % 16 == 0;
      const bool fuses = vectors && size.hidden <= (dtype == DType::f32 ? 1024 : 2048);
      const DType output = turn % 2 == 0 ? DType::f32 : dtype;
      const bool with_addend = turn / 2 % 2 == 0;
      if (fuses) test_forward(context, p, ExpertsStrategy::fused, output, with_addend);
      test_forward(context, p, ExpertsStrategy::sliced, output, !with_addend);
      // Products of very many experts take long here; chunks and tiles of fewer are the same.
      if (vectors && size.experts < 1000) test_forward(context, p, ExpertsStrategy::dense, output, with_addend);
      turn++;
    }
  }
}

// Tables larger than a tiny L2 cache, so that columns are cut; many multiprocessors or few, so that splits and shares
// differ.
void test_devices(std::mt19937_64& random) {
  for (const size_t l2_bytes : {size_t{1} << 12, size_t{1} << 26}) {
    for (const int multiprocessors : {1, 132}) {
      TestContext context;
      context.change_limits() = {multiprocessors, l2_bytes, 227 << 10, 90};
      for (DType dtype : {DType::f32, DType::bf16}) {
        const Size size{3, 512, 130, 40};
        const Problem p(random, size, dtype, Activation::silu);
        for (ExpertsStrategy strategy : {ExpertsStrategy::fused, ExpertsStrategy::sliced, ExpertsStrategy::dense})
          test_forward(context, p, strategy, dtype, true);
        const BackwardCase all{TableLayout::dense, false, true, true, true, true};
        test_backward(context, p, all, Backward::gathered);
        if (dtype == DType::bf16) test_backward(context, p, all, Backward::dense);
      }
    }
  }
  // One multiprocessor takes the large tiles, of either instruction.
  setenv("FLASH_MOE_WGMMA", "1", 1);
  for (DType dtype : {DType::f16, DType::bf16}) {
    TestContext context;
    context.change_limits() = {1, 1 << 20, 227 << 10, 90};
    const Problem p(random, {130, 136, 150, 12, Ids::duplicates}, dtype, Activation::gelu_tanh);
    test_forward(context, p, ExpertsStrategy::dense, DType::f32, true);
    if (dtype == DType::bf16)
      test_backward(context, p, {TableLayout::dense, true, true, true, true, true}, Backward::dense);
  }
  unsetenv("FLASH_MOE_WGMMA");
  // Several chunks of experts and shares of a chunk, with a last chunk that is shorter than one share.
  TestContext context;
  context.change_limits() = {132, 1 << 12, 227 << 10, 90};
  const auto forwards = [&](const Size& size) {
    for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const Problem p(random, size, dtype, Activation::gelu);
      test_forward(context, p, ExpertsStrategy::dense, DType::f32, true);
    }
  };
  forwards({2, 16, 1100, 64});
  const BackwardCase all{TableLayout::dense, false, true, true, true, true};
  test_backward(context, Problem(random, {3, 16, 2200, 64, Ids::duplicates}, DType::bf16, Activation::gelu), all,
                Backward::dense);
  // Shares that go beyond their chunk, where the experts of the next one begin.
  context.change_limits().l2_bytes = 39600;
  forwards({3, 16, 2200, 64});
  test_backward(context, Problem(random, {3, 16, 2200, 64}, DType::bf16, Activation::gelu), all, Backward::dense);
}

// A weight of a softmax over many experts is below what f16 can hold; activations may be large or small as well.
void test_scales(TestContext& context, std::mt19937_64& random) {
  const double scales[][2] = {{1e-9, 1}, {1e-30, 1}, {1e20, 1}, {1, 0x1p-12}, {1e-9, 0x1p-12}, {1, 0x1p13}};
  for (const auto& [weights, states] : scales) {
    Size size{5, 32, 90, 12};
    size.weight_scale = weights;
    size.state_scale = states;
    const Problem p(random, size, DType::f16, Activation::silu);
    for (ExpertsStrategy strategy : {ExpertsStrategy::fused, ExpertsStrategy::sliced, ExpertsStrategy::dense})
      test_forward(context, p, strategy, DType::f32, false);
  }
}

// What is not finite reaches the tokens that chose it, and no other. Rows of `up` that are not spoil products for all
// tokens, and would hide what those of `down` do.
void test_not_finite(std::mt19937_64& random, size_t l2_bytes, DType dtype, bool in_up) {
  const double infinity = INFINITY, not_a_number = NAN;
  TestContext context;
  context.change_limits() = {132, l2_bytes, 227 << 10, 90};
  // More slots than expert_dense_combine takes at a time; with a small cache several chunks of experts and shares.
  Problem p(random, {7, 48, 1100, 150, Ids::out_of_range}, dtype, Activation::gelu);
  const int64_t hidden = p.size.hidden, top_k = p.size.top_k, last = p.size.experts - 1;
  // The last eight experts are in no list but where a token is said to have them.
  for (int64_t& id : p.ids)
    if (id > last - 8 && id <= last) id -= 8;
  const auto row = [&](std::vector<double>& table, int64_t id) { return &table[id * hidden]; };
  const auto choose = [&](int64_t token, int64_t slot, int64_t id) {
    const int64_t pair = token * top_k + slot;
    if (!p.present(pair)) p.errors--;
    p.ids[pair] = id;
  };
  // Chosen by nobody.
  for (int64_t h = 0; h < hidden; h++) row(p.down, last)[h] = not_a_number;
  row(p.down, last - 1)[5] = -infinity;
  if (in_up) {
    for (int64_t h = 0; h < hidden; h++) row(p.up, last)[h] = not_a_number;
    row(p.up, last - 1)[3] = infinity;
    // Chosen by one token.
    row(p.up, last - 2)[7] = infinity;
    choose(1, 149, last - 2);
  }
  // Chosen by one token, by a weight that is 0, and twice, by weights that cancel.
  row(p.down, last - 3)[0] = not_a_number;
  choose(2, 0, last - 3);
  p.weights[2 * top_k] = dtype == DType::f32 ? 0.0 : -0.0;
  row(p.down, last - 4)[47] = infinity;
  choose(3, 5, last - 4);
  choose(3, 128, last - 4);
  p.weights[3 * top_k + 128] = -p.weights[3 * top_k + 5];
  // A token, a weight and an addend.
  p.x[4 * hidden + 9] = infinity;
  p.weights[5 * top_k + 17] = not_a_number;
  p.addend[6 * hidden + 11] = infinity;
  for (ExpertsStrategy strategy : {ExpertsStrategy::fused, ExpertsStrategy::sliced, ExpertsStrategy::dense}) {
    test_forward(context, p, strategy, DType::f32, true);
    test_forward(context, p, strategy, dtype, false);
  }
  if (!in_up) {
    // Of the gradients, `down` is what spoils products, and so are tokens and what arrives for them.
    p.d[0] = not_a_number;
    p.d[6 * hidden + 47] = -infinity;
  }
  for (const bool accumulate : {false, true}) {
    const BackwardCase which{TableLayout::dense, accumulate, true, true, true, true};
    test_backward(context, p, which, Backward::gathered);
    if (dtype == DType::bf16) test_backward(context, p, which, Backward::dense);
  }
}

// More tokens than go through the chunks at once, so that the tables' gradients are added to.
void test_many_tokens(std::mt19937_64& random) {
  TestContext context;
  context.change_limits().tuning.dense_tile = 64;
  const Problem p(random, {2100, 8, 20, 5, Ids::hot}, DType::bf16, Activation::silu);
  test_backward(context, p, {TableLayout::dense, false, true, true, true, true}, Backward::dense);
}

void test_backwards(TestContext& context, std::mt19937_64& random) {
  const Size sizes[] = {
      {1, 64, 100, 64},
      {3, 1, 5, 4},
      {2, 7, 9, 3},
      {130, 40, 30, 9, Ids::hot},
      {100, 8, 2, 10, Ids::hot},
      {6, 136, 300, 33, Ids::duplicates},
      {40, 264, 15, 30, Ids::out_of_range},
      {3, 48, 70, 70, Ids::all},
      {2, 8, 70000, 40},
      {40, 9, 600, 25},
      {0, 16, 10, 2},
  };
  const BackwardCase cases[] = {
      {TableLayout::dense, false, true, true, true, true},  {TableLayout::dense, true, true, true, true, true},
      {TableLayout::compact, false, true, true, true, true}, {TableLayout::compact, true, false, true, false, true},
      {TableLayout::none, false, false, false, true, true},  {TableLayout::dense, false, true, false, false, false},
      {TableLayout::compact, false, false, false, false, false},
  };
  const Activation activations[] = {Activation::silu, Activation::gelu, Activation::gelu_tanh};
  size_t turn = 0;
  for (const Size& size : sizes) {
    for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const Problem p(random, size, dtype, activations[++turn % 3]);
      // Of the cases every third, in turn; very many rows take long here, so they come once for each layout.
      const bool many = size.experts > 10000;
      for (size_t n = 0; n < std::size(cases); n++) {
        const BackwardCase& which = cases[n];
        if (many ? dtype == DType::bf16 && !which.accumulate && which.weights : (n + turn) % 3 == 0)
          test_backward(context, p, which, Backward::gathered);
        // Products of very many experts take long here; chunks and tiles of fewer are the same.
        if (dtype == DType::bf16 && size.hidden % 8 == 0 && size.experts < 1000)
          test_backward(context, p, which, Backward::dense);
      }
    }
  }
}

// The strategies are those that the sizes call for, on a device like an H200.
void test_choice() {
  const DeviceLimits limits{132, size_t{60} << 20, 227 << 10, 90};
  const auto chosen = [&](int64_t tokens, int64_t hidden, int64_t experts, int64_t top_k, DType dtype) {
    ExpertsForwardCall call{};
    call.tokens = tokens;
    call.hidden_size = hidden;
    call.num_experts = experts;
    call.top_k = top_k;
    call.hidden_states.dtype = call.down.dtype = call.up.dtype = dtype;
    return choose_experts_strategy(limits, call);
  };
  expect(chosen(1, 1024, 65536, 64, DType::bf16) == ExpertsStrategy::fused, "decoding is fused");
  expect(chosen(1024, 1024, 16384, 32, DType::bf16) == ExpertsStrategy::fused, "tables that fit L2 are fused");
  expect(chosen(4096, 1024, 102400, 512, DType::bf16) == ExpertsStrategy::sliced, "tables larger than L2 are sliced");
  expect(chosen(1024, 1024, 102400, 4096, DType::bf16) == ExpertsStrategy::dense, "many experts per token are dense");
  expect(chosen(16, 1024, 102400, 1250, DType::bf16) == ExpertsStrategy::fused, "few tokens are not dense");
  expect(chosen(1024, 1023, 102400, 4096, DType::bf16) == ExpertsStrategy::sliced, "odd rows are sliced");

  const auto backward = [&](int64_t hidden, int64_t experts, int64_t top_k, DType dtype) {
    ExpertsBackwardCall call{};
    call.tokens = 1024;
    call.hidden_size = hidden;
    call.num_experts = experts;
    call.top_k = top_k;
    call.hidden_states.dtype = call.down.dtype = call.up.dtype = call.grad_output.dtype = dtype;
    call.layout = TableLayout::dense;
    call.grad_hidden_states.present = call.grad_down.present = call.grad_up.present = true;
    return choose_experts_backward_strategy(limits, call);
  };
  expect(backward(1024, 102400, 512, DType::bf16) == Backward::gathered, "few experts per token are gathered");
  expect(backward(1024, 102400, 4096, DType::bf16) == Backward::dense, "many experts per token are products");
  expect(backward(1024, 1024, 32, DType::bf16) == Backward::dense, "and of few experts");
  expect(backward(1023, 102400, 4096, DType::bf16) == Backward::gathered, "odd rows are gathered");
  expect(backward(1024, 102400, 4096, DType::f16) == Backward::gathered, "f16 is gathered");
}

// A counter of 32 bits would go beyond its last value, and on from the lowest.
void test_largest(TestContext& context) {
  ExpertsForwardCall forward{};
  forward.tokens = forward.hidden_size = forward.num_experts = 1;
  forward.top_k = INT32_MAX;
  ExpertsBackwardCall backward{};
  static_cast<ExpertsShape&>(backward) = forward;
  for (const auto strategy : {ExpertsStrategy::fused, ExpertsStrategy::sliced, ExpertsStrategy::dense}) {
    expect(code_of([&] { experts_forward_by(context, forward, strategy); }, "topK is 2147483647") ==
               "INVALID_ARGUMENT",
           "no more experts of a token than can be counted");
  }
  for (const auto strategy : {Backward::gathered, Backward::dense}) {
    expect(code_of([&] { experts_backward_by(context, backward, strategy); }, "topK is 2147483647") ==
               "INVALID_ARGUMENT",
           "nor in the backward");
  }
  forward.top_k = 1;
  forward.hidden_size = INT32_MAX - 510;
  expect(code_of([&] { experts_forward(context, forward); }, "hiddenSize is 2147483137") == "INVALID_ARGUMENT",
         "nor longer rows");
}

}  // namespace
}  // namespace flash_moe

int main() {
  using namespace flash_moe;
  std::mt19937_64 random(7);
  TestContext context;
  test_choice();
  test_largest(context);
  test_forwards(context, random);
  test_op(context, random);
  test_scales(context, random);
  for (const size_t l2_bytes : {size_t{1} << 12, size_t{1} << 26})
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
      for (const bool in_up : {false, true}) test_not_finite(random, l2_bytes, dtype, in_up);
  test_devices(random);
  test_many_tokens(random);
  test_backwards(context, random);
  std::puts("experts: ok");
  return 0;
}
