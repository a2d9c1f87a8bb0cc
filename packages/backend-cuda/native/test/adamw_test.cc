// AdamW against a loop in double precision: dense and compact, with and without a master, ids and counts that are none.
#include <algorithm>

#include "ops/ops.h"
#include "test/test_context.h"

namespace flash_moe {
namespace {

using namespace test;

struct Variant {
  int64_t rows, columns;
  DType dtype;
  bool master;
};

std::string name_of(const Variant& v) {
  return std::to_string(v.rows) + " x " + std::to_string(v.columns) + ", dtype " +
         std::to_string(static_cast<int>(v.dtype)) + (v.master ? ", master" : "");
}

constexpr int64_t step = 7;
constexpr double learning_rate = 1e-2, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.1,
                 gradient_scale = 0.5;

void update(double& p, double& m, double& v, double gradient) {
  const double g = gradient_scale * gradient;
  p -= learning_rate * weight_decay * p;
  m = beta1 * m + (1 - beta1) * g;
  v = beta2 * v + (1 - beta2) * g * g;
  p -= learning_rate / (1 - std::pow(beta1, step)) * m / (std::sqrt(v / (1 - std::pow(beta2, step))) + epsilon);
}

// `ids`: the rows of a compact gradient; `claimed`: what its count says.
void test(TestContext& context, const Variant& v, const std::vector<double>* ids, int64_t claimed,
          uint32_t errors) {
  std::mt19937_64 random(5);
  const int64_t size = v.rows * v.columns, capacity = ids ? static_cast<int64_t>(ids->size()) : v.rows;
  const auto gradients = normal(random, DType::f32, capacity * v.columns);
  auto p = normal(random, v.dtype, size), m = normal(random, DType::f32, size, 0.1),
       squares = normal(random, DType::f32, size, 0.1);
  auto own = p;
  if (v.master) own = normal(random, DType::f32, size);
  for (double& value : squares) value = std::fabs(value);
  const Tensor parameter(v.dtype, p), master(DType::f32, own), first(DType::f32, m), second(DType::f32, squares),
      gradient(DType::f32, gradients), row_ids(DType::i32, ids ? *ids : std::vector<double>{}),
      count(DType::i32, std::vector<double>{static_cast<double>(claimed)});
  AdamwCall call{v.rows,  v.columns, parameter,     v.master ? Buffer(master) : Buffer(), first,   second, gradient,
                 ids != nullptr, capacity, row_ids, count, step, learning_rate, beta1, beta2, epsilon, weight_decay,
                 gradient_scale};
  adamw(context, call);
  expect(context.take_id_errors() == errors, name_of(v) + ": what is none is counted");
  const int64_t used = ids ? std::max<int64_t>(0, std::min(claimed, capacity)) : v.rows;
  for (int64_t r = 0; r < used; r++) {
    const int64_t row = ids ? static_cast<int64_t>((*ids)[r]) : r;
    if (row < 0 || row >= v.rows) continue;
    for (int64_t c = 0; c < v.columns; c++) {
      const int64_t at = row * v.columns + c;
      update(own[at], m[at], squares[at], gradients[r * v.columns + c]);
      p[at] = own[at];
    }
  }
  expect_close(name_of(v) + ": first moment", first.values(), m, 1e-7, 1e-6);
  expect_close(name_of(v) + ": second moment", second.values(), squares, 1e-9, 1e-6);
  if (v.master) expect_close(name_of(v) + ": master", master.values(), own, 1e-6, 1e-6);
  const double rounding = v.dtype == DType::bf16 ? 1.0 / 256 : v.dtype == DType::f16 ? 1.0 / 2048 : 0;
  expect_close(name_of(v) + ": parameter", parameter.values(), p, 1e-6, rounding + 1e-6);
}

void run() {
  TestContext context;
  context.change_limits().multiprocessors = 1;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const bool master : {false, true}) {
      for (const int64_t columns : {1, 3, 8, 37, 64, 1000}) {
        const Variant v{23, columns, dtype, master};
        test(context, v, nullptr, 0, 0);
        const std::vector<double> ids = {0, 1, 5, 6, 7, 21, 22};
        test(context, v, &ids, 7, 0);
        test(context, v, &ids, 4, 0);
        test(context, v, &ids, 0, 0);
        test(context, v, &ids, -1, 1);
        test(context, v, &ids, 8, 1);
        const std::vector<double> outside = {-1, 0, 22, 23, -2147483648.0};
        test(context, v, &outside, 5, 3);
        test(context, v, &outside, 3, 1);
      }
    }
  }
}

}  // namespace
}  // namespace flash_moe

int main() {
  flash_moe::run();
  std::puts("adamw: as expected");
}
