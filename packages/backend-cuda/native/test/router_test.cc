// The router against a sort of all X * Y pairs, and its gradient against a loop in double precision.
#include <algorithm>
#include <limits>
#include <numeric>

#include "device/block_sort.h"
#include "ops/ops.h"
#include "test/test_context.h"

namespace flash_moe {
namespace {

using namespace test;

enum class Logits { normal, coarse, equal, special, ascending };

struct Variant {
  int64_t tokens, keys_x, keys_y, top_k;
  Logits logits = Logits::normal;
};

std::string name_of(const Variant& v) {
  return std::to_string(v.tokens) + " tokens, " + std::to_string(v.keys_x) + " x " + std::to_string(v.keys_y) +
         " keys, k " + std::to_string(v.top_k) + ", logits " + std::to_string(static_cast<int>(v.logits));
}

std::vector<double> make_logits(std::mt19937_64& random, const Variant& v) {
  auto values = normal(random, DType::f32, v.tokens * (v.keys_x + v.keys_y), 2);
  const double infinity = std::numeric_limits<double>::infinity(), largest = std::numeric_limits<float>::max();
  const double special[] = {infinity, -infinity, NAN, largest, -largest, 0.0, -0.0};
  for (size_t n = 0; n < values.size(); n++) {
    if (v.logits == Logits::coarse) values[n] = std::round(values[n] * 2) / 2;
    if (v.logits == Logits::equal) values[n] = -1.5;
    if (v.logits == Logits::ascending) values[n] = static_cast<double>(n) / 64;
    if (v.logits == Logits::special && random() % 3 == 0) values[n] = special[random() % 7];
    // A token of its own kind.
    if (v.logits == Logits::special && n < static_cast<size_t>(v.keys_x)) values[n] = -infinity;
  }
  return values;
}

float clamped(float logit) {
  const float largest = std::numeric_limits<float>::max();
  return logit > -largest ? std::min(logit, largest) : -largest;
}

// Ranks of an axis: indices by (logit descending, index ascending).
std::vector<int> ranked(const float* logits, int64_t keys) {
  std::vector<int> order(static_cast<size_t>(keys));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return clamped(logits[a]) > clamped(logits[b]); });
  return order;
}

std::vector<int64_t> brute_force(const float* logits, const Variant& v) {
  const auto x = ranked(logits, v.keys_x), y = ranked(logits + v.keys_x, v.keys_y);
  struct Pair {
    float sum;
    int64_t id;
  };
  // In the order of ranks, so that a stable sort by the sum breaks ties by them.
  std::vector<Pair> pairs;
  for (const int i : x) {
    for (const int j : y) {
      const float dx = clamped(logits[i]) - clamped(logits[x[0]]);
      const float dy = clamped(logits[v.keys_x + j]) - clamped(logits[v.keys_x + y[0]]);
      pairs.push_back({dx + dy, i * v.keys_y + j});
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.sum > b.sum; });
  std::vector<int64_t> ids;
  for (int64_t n = 0; n < v.top_k; n++) ids.push_back(pairs[n].id);
  return ids;
}

std::vector<double> log_softmax(const float* logits, int64_t keys) {
  double best = -INFINITY, sum = 0;
  for (int64_t n = 0; n < keys; n++) best = logits[n] > best ? logits[n] : best;
  for (int64_t n = 0; n < keys; n++) sum += std::exp(logits[n] - best);
  std::vector<double> logs;
  for (int64_t n = 0; n < keys; n++) logs.push_back(logits[n] - best - std::log(sum));
  return logs;
}

// Of a token's ids; an id outside has weight 0.
std::vector<double> weights_of(const float* logits, const Variant& v, const std::vector<int64_t>& ids, bool normalize) {
  const auto x = log_softmax(logits, v.keys_x), y = log_softmax(logits + v.keys_x, v.keys_y);
  std::vector<double> weights;
  double best = -INFINITY, sum = 0;
  for (const int64_t id : ids) {
    const bool inside = id >= 0 && id < v.keys_x * v.keys_y;
    weights.push_back(inside ? x[id / v.keys_y] + y[id % v.keys_y] : -INFINITY);
    if (weights.back() > best) best = weights.back();
  }
  for (double& weight : weights) {
    weight = std::exp(weight - (normalize ? best : 0));
    sum += weight;
  }
  if (normalize) {
    for (double& weight : weights) weight /= sum;
  }
  return weights;
}

// Long lists take long, and ThreadSanitizer has seen all there is to see in shorter ones.
bool taken(const Variant& v) { return test::taken(v.top_k > 1000 || v.keys_x + v.keys_y > 1100 ? 11 : 3); }

void test_forward(Context& context, const Variant& v) {
  if (!taken(v)) return;
  std::mt19937_64 random(7);
  const auto values = make_logits(random, v);
  const std::vector<float> single(values.begin(), values.end());
  const Tensor logits(DType::f32, values);
  std::vector<std::vector<int64_t>> best;
  for (int64_t t = 0; t < v.tokens; t++) best.push_back(brute_force(single.data() + t * (v.keys_x + v.keys_y), v));
  for (const bool normalize : {false, true}) {
    const Tensor ids(DType::i32, v.tokens * v.top_k), weights(DType::f32, v.tokens * v.top_k);
    const RouterSelectForwardCall call{{v.tokens, v.keys_x, v.keys_y, v.top_k, normalize}, logits, ids, weights};
    router_select_forward(context, call);
    check(cudaStreamSynchronize(context.stream()), "a kernel failed");
    for (int64_t t = 0; t < v.tokens; t++) {
      const float* own = single.data() + t * (v.keys_x + v.keys_y);
      const auto& expected = best[t];
      for (int64_t n = 0; n < v.top_k; n++) {
        expect(ids.at(t * v.top_k + n) == expected[n], name_of(v) + ": token " + std::to_string(t) + ", slot " +
                                                           std::to_string(n) + " is " + std::to_string(expected[n]));
      }
      std::vector<double> actual;
      for (int64_t n = 0; n < v.top_k; n++) actual.push_back(weights.at(t * v.top_k + n));
      expect_close(name_of(v) + ": weights", actual, weights_of(own, v, expected, normalize), 1e-37, 5e-6);
    }
    const auto first = weights.bytes();
    router_select_forward(context, call);
    check(cudaStreamSynchronize(context.stream()), "a kernel failed");
    expect(weights.bytes() == first, name_of(v) + ": the same bits again");
  }
}

void test_backward(TestContext& context, const Variant& v, bool repeated, bool outside, bool accumulate) {
  if (!taken(v)) return;
  std::mt19937_64 random(8);
  const auto values = make_logits(random, v);
  const std::vector<float> single(values.begin(), values.end());
  const auto gradients = normal(random, DType::f32, v.tokens * v.top_k);
  const auto start = normal(random, DType::f32, v.tokens * (v.keys_x + v.keys_y));
  std::vector<std::vector<int64_t>> ids;
  std::vector<double> flat;
  uint32_t errors = 0;
  for (int64_t t = 0; t < v.tokens; t++) {
    auto own = brute_force(single.data() + t * (v.keys_x + v.keys_y), v);
    if (repeated) {
      for (int64_t& id : own) id = static_cast<int64_t>(random() % static_cast<uint64_t>(v.keys_x * v.keys_y));
    }
    if (outside) {
      own[random() % own.size()] = v.keys_x * v.keys_y;
      own[random() % own.size()] = -1;
      own[random() % own.size()] = std::numeric_limits<int32_t>::min();
    }
    for (const int64_t id : own) {
      flat.push_back(static_cast<double>(id));
      errors += id < 0 || id >= v.keys_x * v.keys_y;
    }
    ids.push_back(own);
  }
  const Tensor logits(DType::f32, values), ids_of(DType::i32, flat), grad_weights(DType::f32, gradients);
  for (const bool normalize : {false, true}) {
    const Tensor grad = accumulate ? Tensor(DType::f32, start) : Tensor(DType::f32, v.tokens * (v.keys_x + v.keys_y));
    router_select_backward(context, {{v.tokens, v.keys_x, v.keys_y, v.top_k, normalize},
                                     logits, ids_of, grad_weights, grad, accumulate});
    expect(context.take_id_errors() == errors, name_of(v) + ": ids outside are counted");
    for (int64_t t = 0; t < v.tokens; t++) {
      const int64_t keys = v.keys_x + v.keys_y;
      const float* own = single.data() + t * keys;
      const auto weights = weights_of(own, v, ids[t], normalize);
      double mean = 0, total = 0;
      for (int64_t n = 0; normalize && n < v.top_k; n++) {
        if (ids[t][n] >= 0 && ids[t][n] < v.keys_x * v.keys_y) mean += weights[n] * gradients[t * v.top_k + n];
      }
      std::vector<double> expected(keys, 0.0);
      if (accumulate) expected.assign(start.begin() + t * keys, start.begin() + (t + 1) * keys);
      for (int64_t n = 0; n < v.top_k; n++) {
        if (ids[t][n] < 0 || ids[t][n] >= v.keys_x * v.keys_y) continue;
        const double d = weights[n] * (gradients[t * v.top_k + n] - mean);
        expected[ids[t][n] / v.keys_y] += d;
        expected[v.keys_x + ids[t][n] % v.keys_y] += d;
        total += d;
      }
      const auto x = log_softmax(own, v.keys_x), y = log_softmax(own + v.keys_x, v.keys_y);
      std::vector<double> actual;
      for (int64_t key = 0; key < keys; key++) {
        expected[key] -= std::exp(key < v.keys_x ? x[key] : y[key - v.keys_x]) * total;
        actual.push_back(grad.at(t * keys + key));
      }
      expect_close(name_of(v) + ": gradient of token " + std::to_string(t), actual, expected, 2e-6, 2e-6);
    }
  }
}

void run() {
  TestContext context;
  const std::vector<Variant> variants = {
      {3, 1, 1, 1},
      {9, 19, 23, 1},
      {37, 37, 19, 13},
      {5, 64, 64, 32},
      {5, 1, 129, 17},
      {5, 129, 1, 17},
      {5, 33, 65, 64},
      {3, 256, 256, 32},
      {3, 320, 320, 16},
      {2, 512, 200, 64},
      {2, 3, 700, 33},
      {2, 700, 3, 64},
      {1, 600, 513, 20},
      {1, 5000, 20, 64},
      {1, 20, 9000, 31},
      {2, 3, 700, 65},
      {5, 7, 9, 63},
      {3, 16, 16, 129},
      {2, 37, 41, 1517},
      {2, 320, 320, 512},
      {1, 600, 500, 70},
      {1, 320, 320, 4096},
      {1, 120, 110, 12500},
  };
  const Logits kinds[] = {Logits::normal, Logits::coarse, Logits::equal, Logits::special, Logits::ascending};
  for (Variant v : variants) {
    for (const Logits kind : kinds) {
      v.logits = kind;
      test_forward(context, v);
    }
  }
  // The longest axes, by which ranks use all of their 16 bits.
  for (const Variant& v : {Variant{1, 65536, 1, 65536, Logits::coarse}, Variant{1, 1, 65536, 65536}, Variant{1, 65536, 3, 70},
                           Variant{1, 3, 65536, 20}}) {
    test_forward(context, v);
  }
  // Places in the list of as many pairs as there can be.
  for (const uint32_t n : {15u, 16u, 2021161081u, 2147483646u}) {
    expect(gapped(n) == gapped(int64_t{n}), "place " + std::to_string(n) + " fits 32 bits");
  }
  RouterSelectForwardCall most{};
  most.tokens = most.keys_x = most.keys_y = 1;
  most.top_k = INT32_MAX;
  RouterSelectBackwardCall backward{};
  static_cast<RouterShape&>(backward) = most;
  for (const std::string& code : {code_of([&] { router_select_forward(context, most); }, "topK is 2147483647"),
                                  code_of([&] { router_select_backward(context, backward); }, "topK is 2147483647")}) {
    expect(code == "INVALID_ARGUMENT", "no more pairs than can be counted");
  }
  // A block without room for the lists.
  context.change_limits().shared_bytes_per_block = 4096;
  for (Variant v : {Variant{7, 30, 41, 100}, Variant{2, 37, 41, 1517}}) {
    for (const Logits kind : kinds) {
      v.logits = kind;
      test_forward(context, v);
    }
  }
  for (const Variant& v : {Variant{3, 1, 1, 1}, Variant{37, 37, 19, 13}, Variant{5, 1, 129, 64},
                           Variant{5, 16, 16, 129, Logits::coarse}, Variant{2, 320, 320, 512},
                           Variant{2, 700, 400, 20}, Variant{1, 10300, 3, 40}, Variant{1, 5000, 100, 300},
                           Variant{1, 2, 65536, 200}}) {
    test_backward(context, v, false, false, false);
    test_backward(context, v, true, false, true);
    if (v.top_k > 4) test_backward(context, v, true, true, false);
    if (v.top_k > 4) test_backward(context, v, false, true, true);
  }
}

}  // namespace
}  // namespace flash_moe

int main() {
  flash_moe::run();
  std::puts("router: as expected");
}
