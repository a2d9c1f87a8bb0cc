// Numbers that JavaScript and the addon share: the call that is to run, and how much memory is in use.
#pragma once

#include "addon/decode_calls.h"
#include "addon/node_api.h"
#include "runtime/device.h"

namespace flash_moe {

class CallBlock {
 public:
  // How many numbers of memory there are, in the order of src/addon.ts.
  static constexpr int memory_length = 4;

  explicit CallBlock(Napi::Env env) {
    Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, sizeof(double) * (call_block_length + memory_length));
    data_ = static_cast<double*>(buffer.Data());
    call_ = Napi::Persistent(Napi::Float64Array::New(env, call_block_length, buffer, 0));
    memory_ = Napi::Persistent(
        Napi::Float64Array::New(env, memory_length, buffer, sizeof(double) * call_block_length));
  }

  const double* call() const { return data_; }

  void set_memory(const MemoryUse& use) {
    double* memory = data_ + call_block_length;
    memory[0] = static_cast<double>(use.live_bytes);
    memory[1] = static_cast<double>(use.scratch_bytes);
    memory[2] = static_cast<double>(use.peak_bytes);
    memory[3] = static_cast<double>(use.limit_bytes);
  }

  Napi::Value call_array() const { return call_.Value(); }
  Napi::Value memory_array() const { return memory_.Value(); }

 private:
  double* data_;
  // They keep the memory.
  Napi::Reference<Napi::Float64Array> call_, memory_;
};

}  // namespace flash_moe
