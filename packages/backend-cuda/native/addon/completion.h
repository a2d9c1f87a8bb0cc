// A promise that the device's waiting thread settles, through the event loop.
#pragma once

#include <string>
#include <vector>

#include "addon/node_api.h"
#include "runtime/device.h"

namespace flash_moe {

// What a promise of the device is waiting for. Made, settled and deleted on the thread of JavaScript.
struct Completion {
  Completion(Napi::Env env, Napi::Value target) : deferred(env) {
    if (!target.IsEmpty()) kept = Napi::Persistent(target.As<Napi::Object>());
  }

  // On the waiting thread.
  void note(const Outcome& outcome) {
    id_errors = outcome.id_errors;
    if (outcome.failure == nullptr) return;
    code = outcome.failure->code;
    message = outcome.failure->what();
  }

  Napi::Promise::Deferred deferred;
  // The memory that the device writes into stays.
  Napi::ObjectReference kept;
  const char* code = nullptr;
  std::string message;
  uint32_t id_errors = 0;
  bool timed = false;
  std::vector<KernelTime> times;
  // Milliseconds between two marks, or none.
  double elapsed = -1;
};

}  // namespace flash_moe
