// Calls of ops as they come from JavaScript: their fields as numbers, one after the other, in the order of
// src/encode-calls.ts, which writes them. Change both together; test/call-block.test.ts compares them field by field.
//
// `visit_fields` walks through a call in that order; a visitor reads the fields (CallReader) or shows them under the
// names that JavaScript has for them (the test's).
#pragma once

#include <cstdint>
#include <type_traits>

#include "ops/calls.h"

namespace flash_moe {

// Numbers that any call fits in.
constexpr int call_block_length = 64;

// Fills a call from the block.
class CallReader {
 public:
  explicit CallReader(const double* block) : at_(block) {}

  void operator()(const char*, int64_t& field) { field = static_cast<int64_t>(*at_++); }
  void operator()(const char*, double& field) { field = *at_++; }
  void operator()(const char*, bool& field) { field = *at_++ != 0; }
  void operator()(const char*, Activation& field) { field = static_cast<Activation>(integer()); }
  void operator()(const char*, TableLayout& field) { field = static_cast<TableLayout>(integer()); }

  // The dtype counted from 1, or 0 where the buffer is absent; then its address.
  void operator()(const char*, Buffer& field) {
    const int code = integer();
    const double address = *at_++;
    field.present = code != 0;
    field.dtype = field.present ? static_cast<DType>(code - 1) : DType::f32;
    field.data = reinterpret_cast<void*>(static_cast<uintptr_t>(address));
  }

 private:
  int integer() { return static_cast<int>(*at_++); }

  const double* at_;
};

template <typename Visitor>
void visit_norm(Visitor&& visit, NormStatistics& norm, const char* mean, const char* variance, const char* epsilon) {
  visit(mean, norm.mean);
  visit(variance, norm.variance);
  visit(epsilon, norm.epsilon);
  norm.present = norm.mean.present;
}

template <typename Visitor>
void visit_fields(Visitor&& visit, LinearCall& call) {
  visit("rows", call.rows);
  visit("inner", call.inner);
  visit("columns", call.columns);
  visit("a", call.a);
  visit("b", call.b);
  visit("output", call.output);
  visit("transposeA", call.transpose_a);
  visit("transposeB", call.transpose_b);
  visit("accumulate.output", call.accumulate);
  visit_norm(visit, call.input_norm, "inputNorm.mean", "inputNorm.variance", "inputNorm.epsilon");
  visit_norm(visit, call.output_norm, "outputNorm.mean", "outputNorm.variance", "outputNorm.epsilon");
}

template <typename Visitor>
void visit_fields(Visitor&& visit, BatchNormForwardCall& call) {
  visit("tokens", call.tokens);
  visit("features", call.features);
  visit("input", call.input);
  visit("output", call.output);
  visit("epsilon", call.epsilon);
  visit("training", call.training);
  visit("mean", call.mean);
  visit("variance", call.variance);
  visit("momentum", call.momentum);
  visit("runningMean", call.running_mean);
  visit("runningVariance", call.running_variance);
}

template <typename Visitor>
void visit_fields(Visitor&& visit, BatchNormBackwardCall& call) {
  visit("tokens", call.tokens);
  visit("features", call.features);
  visit("training", call.training);
  visit("epsilon", call.epsilon);
  visit("input", call.input);
  visit("mean", call.mean);
  visit("variance", call.variance);
  visit("gradOutput", call.grad_output);
  visit("gradInput", call.grad_input);
  visit("accumulate.gradInput", call.accumulate);
}

template <typename Visitor>
void visit_shape(Visitor&& visit, RouterShape& call) {
  visit("tokens", call.tokens);
  visit("keysX", call.keys_x);
  visit("keysY", call.keys_y);
  visit("topK", call.top_k);
  visit("normalizeWeights", call.normalize_weights);
}

template <typename Visitor>
void visit_fields(Visitor&& visit, RouterSelectForwardCall& call) {
  visit_shape(visit, call);
  visit("logits", call.logits);
  visit("ids", call.ids);
  visit("weights", call.weights);
}

template <typename Visitor>
void visit_fields(Visitor&& visit, RouterSelectBackwardCall& call) {
  visit_shape(visit, call);
  visit("logits", call.logits);
  visit("ids", call.ids);
  visit("gradWeights", call.grad_weights);
  visit("gradLogits", call.grad_logits);
  visit("accumulate.gradLogits", call.accumulate);
}

template <typename Visitor>
void visit_shape(Visitor&& visit, ExpertsShape& call) {
  visit("tokens", call.tokens);
  visit("hiddenSize", call.hidden_size);
  visit("numExperts", call.num_experts);
  visit("topK", call.top_k);
  visit("activation", call.activation);
  visit("hiddenStates", call.hidden_states);
  visit("down", call.down);
  visit("up", call.up);
  visit("ids", call.ids);
  visit("weights", call.weights);
}

template <typename Visitor>
void visit_fields(Visitor&& visit, ExpertsForwardCall& call) {
  visit_shape(visit, call);
  visit("addend", call.addend);
  visit("output", call.output);
}

template <typename Visitor>
void visit_fields(Visitor&& visit, ExpertsBackwardCall& call) {
  visit_shape(visit, call);
  visit("gradOutput", call.grad_output);
  visit("gradHiddenStates", call.grad_hidden_states);
  visit("gradWeights", call.grad_weights);
  visit("gradTables.layout", call.layout);
  visit("gradTables.down", call.grad_down);
  visit("gradTables.up", call.grad_up);
  visit("gradTables.ids", call.used_ids);
  visit("gradTables.count", call.used_count);
  visit("accumulate.gradHiddenStates", call.accumulate_hidden_states);
  visit("accumulate.gradWeights", call.accumulate_weights);
  visit("accumulate.gradTables", call.accumulate_tables);
}

template <typename Visitor>
void visit_shape(Visitor&& visit, MlpShape& call) {
  visit("tokens", call.tokens);
  visit("hiddenSize", call.hidden_size);
  visit("intermediateSize", call.intermediate_size);
  visit("activation", call.activation);
  visit("hiddenStates", call.hidden_states);
  visit("gate", call.gate);
  visit("up", call.up);
  visit("down", call.down);
}

template <typename Visitor>
void visit_fields(Visitor&& visit, MlpForwardCall& call) {
  visit_shape(visit, call);
  visit("addend", call.addend);
  visit("output", call.output);
}

template <typename Visitor>
void visit_fields(Visitor&& visit, MlpBackwardCall& call) {
  visit_shape(visit, call);
  visit("gradOutput", call.grad_output);
  visit("gradHiddenStates", call.grad_hidden_states);
  visit("gradGate", call.grad_gate);
  visit("gradUp", call.grad_up);
  visit("gradDown", call.grad_down);
  visit("accumulate.gradHiddenStates", call.accumulate_hidden_states);
  visit("accumulate.gradGate", call.accumulate_gate);
  visit("accumulate.gradUp", call.accumulate_up);
  visit("accumulate.gradDown", call.accumulate_down);
}

template <typename Visitor>
void visit_fields(Visitor&& visit, AdamwCall& call) {
  visit("rows", call.rows);
  visit("columns", call.columns);
  visit("parameter", call.parameter);
  visit("master", call.master);
  visit("firstMoment", call.first_moment);
  visit("secondMoment", call.second_moment);
  visit("gradient", call.gradient);
  visit("compact", call.compact);
  visit("compact.capacity", call.capacity);
  visit("compact.ids", call.ids);
  visit("compact.count", call.count);
  visit("step", call.step);
  visit("learningRate", call.learning_rate);
  visit("beta1", call.beta1);
  visit("beta2", call.beta2);
  visit("epsilon", call.epsilon);
  visit("weightDecay", call.weight_decay);
  visit("gradientScale", call.gradient_scale);
}

// Counts the numbers of a call.
class CallMeasure {
 public:
  template <typename Field>
  void operator()(const char*, Field&) {
    length += std::is_same_v<Field, Buffer> ? 2 : 1;
  }

  int length = 0;
};

template <typename Call>
Call read_call(const double* block) {
  Call call{};
  visit_fields(CallReader(block), call);
  return call;
}

}  // namespace flash_moe
