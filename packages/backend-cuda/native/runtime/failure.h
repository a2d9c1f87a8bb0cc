// An error that becomes a FlashMoeError in JavaScript.
#pragma once

#include <stdexcept>
#include <string>

namespace flash_moe {

// `code` is one of the codes of FlashMoeError.
struct Failure : std::runtime_error {
  Failure(const char* code, const std::string& message) : std::runtime_error(message), code(code) {}
  const char* code;
};

}  // namespace flash_moe
