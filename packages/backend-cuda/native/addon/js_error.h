// Failures as JavaScript errors with a `code`.
#pragma once

#include "addon/node_api.h"
#include "runtime/failure.h"

namespace flash_moe {

inline Napi::Error to_js_error(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", code);
  return error;
}

// Runs what may throw a Failure on its way to JavaScript.
template <typename Work>
auto guarded(Napi::Env env, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const Failure& failure) {
    throw to_js_error(env, failure.code, failure.what());
  } catch (const std::bad_alloc&) {
    throw to_js_error(env, "OUT_OF_MEMORY", "the host has no memory left");
  }
}

}  // namespace flash_moe
