// BatchNorm, forward and backward, against loops in double precision.
#include "ops/ops.h"
#include "test/test_context.h"

namespace flash_moe {
namespace {

using namespace test;

struct Variant {
  int64_t tokens, features;
  DType dtype = DType::f32;
  // Of the input, whose deviation is 1.
  double mean = 0.5;
};

struct Statistics {
  std::vector<double> mean, variance;
};

Statistics statistics_of(const std::vector<double>& x, const Variant& v) {
  Statistics s{std::vector<double>(v.features), std::vector<double>(v.features)};
  for (int64_t n = 0; n < v.tokens * v.features; n++) s.mean[n % v.features] += x[n] / static_cast<double>(v.tokens);
  for (int64_t n = 0; n < v.tokens * v.features; n++) {
    const double difference = x[n] - s.mean[n % v.features];
    s.variance[n % v.features] += difference * difference / static_cast<double>(v.tokens);
  }
  return s;
}

std::vector<double> make_input(std::mt19937_64& random, const Variant& v) {
  auto x = normal(random, DType::f32, v.tokens * v.features);
  for (double& value : x) value = rounded(value + v.mean, v.dtype);
  return x;
}

constexpr double epsilon = 1e-5;

std::string name_of(const Variant& v) {
  return std::to_string(v.tokens) + " x " + std::to_string(v.features) + ", mean " + std::to_string(v.mean);
}

void test_training(Context& context, const Variant& v) {
  std::mt19937_64 random(3);
  const auto x = make_input(random, v);
  const Statistics expected = statistics_of(x, v);
  const auto old_mean = normal(random, DType::f32, v.features);
  const std::vector<double> old_variance(v.features, 0.75);
  const int64_t size = v.tokens * v.features;
  const Tensor input(v.dtype, x), output(DType::f32, size), mean(DType::f32, v.features),
      variance(DType::f32, v.features), running_mean(DType::f32, old_mean), running_variance(DType::f32, old_variance);
  BatchNormForwardCall call{v.tokens, v.features, input, output, epsilon, true, mean, variance, 0.1, running_mean,
                            running_variance};
  batch_norm_forward(context, call);
  check(cudaStreamSynchronize(context.stream()), "a kernel failed");
  const double scale = 1 + std::fabs(v.mean);
  expect_close(name_of(v) + ": mean", mean.values(), expected.mean, 1e-7 * scale, 1e-7);
  expect_close(name_of(v) + ": variance", variance.values(), expected.variance, 1e-9, 2e-6);
  std::vector<double> new_mean, new_variance, normalized;
  for (int64_t f = 0; f < v.features; f++) {
    const double count = static_cast<double>(v.tokens);
    new_mean.push_back(0.9 * old_mean[f] + 0.1 * expected.mean[f]);
    new_variance.push_back(0.9 * old_variance[f] + 0.1 * expected.variance[f] * count / (count - 1));
  }
  for (int64_t n = 0; n < size; n++) {
    normalized.push_back((x[n] - expected.mean[n % v.features]) /
                         std::sqrt(expected.variance[n % v.features] + epsilon));
  }
  expect_close(name_of(v) + ": running mean", running_mean.values(), new_mean, 1e-7 * scale, 1e-7);
  expect_close(name_of(v) + ": running variance", running_variance.values(), new_variance, 0, 1e-6);
  expect_close(name_of(v) + ": output", output.values(), normalized, 1e-6, 3e-6);
}

void test_backward(Context& context, const Variant& v, bool training, bool accumulate) {
  std::mt19937_64 random(4);
  const auto x = make_input(random, v);
  const auto d = normal(random, DType::f32, v.tokens * v.features);
  const auto start = normal(random, DType::f32, v.tokens * v.features);
  Statistics s = statistics_of(x, v);
  const Tensor input(v.dtype, x), mean(DType::f32, s.mean), variance(DType::f32, s.variance),
      gradient(DType::f32, d);
  // In training those of the batch are meant, of which the op gets what f32 holds.
  if (!training) s = {mean.values(), variance.values()};
  const Tensor result = accumulate ? Tensor(DType::f32, start) : Tensor(DType::f32, v.tokens * v.features);
  batch_norm_backward(context, {v.tokens, v.features, training, epsilon, input, mean, variance, gradient, result,
                                accumulate});
  check(cudaStreamSynchronize(context.stream()), "a kernel failed");
  std::vector<double> sums(v.features), products(v.features), expected;
  const auto normalized = [&](int64_t n) {
    return (x[n] - s.mean[n % v.features]) / std::sqrt(s.variance[n % v.features] + epsilon);
  };
  for (int64_t n = 0; training && n < v.tokens * v.features; n++) {
    sums[n % v.features] += d[n] / static_cast<double>(v.tokens);
    products[n % v.features] += d[n] * normalized(n) / static_cast<double>(v.tokens);
  }
  for (int64_t n = 0; n < v.tokens * v.features; n++) {
    const int64_t f = n % v.features;
    const double own = (d[n] - sums[f] - normalized(n) * products[f]) / std::sqrt(s.variance[f] + epsilon);
    expected.push_back(own + (accumulate ? start[n] : 0));
  }
  expect_close(name_of(v) + ": gradient", result.values(), expected, 1e-5, 3e-6);
}

void run() {
  TestContext context;
  for (const Variant& v : {Variant{2, 1}, Variant{2, 130}, Variant{64, 128, DType::f16}, Variant{65, 33, DType::bf16},
                           Variant{63, 300}, Variant{1031, 70}, Variant{2, 130, DType::f32, 300},
                           Variant{130, 140, DType::f32, 300}, Variant{700, 129, DType::f32, 1000},
                           Variant{200, 40, DType::f32, -1e5}}) {
    test_training(context, v);
    for (const bool training : {false, true}) {
      for (const bool accumulate : {false, true}) test_backward(context, v, training, accumulate);
    }
  }
  expect(context.peak_scratch_bytes() > 0, "partial sums are scratch");
}

}  // namespace
}  // namespace flash_moe

int main() {
  flash_moe::run();
  std::puts("batch norm: as expected");
}
