#include "runtime/tuning.h"

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <sstream>

#include "runtime/failure.h"

namespace flash_moe {

namespace {

struct Word {
  const char* name;
  std::string Tuning::*member;
  // Each between two spaces.
  const char* accepted;
};
constexpr Word words[] = {
    {"experts", &Tuning::experts, " fused sliced dense "},
    {"experts_backward", &Tuning::experts_backward, " gathered dense "},
    {"tiles", &Tuning::tiles, " of_64 of_128 wgmma_128_by_64 wgmma_128_by_128 wgmma_128_by_256 "},
    {"products", &Tuning::products, " rows tiles "},
    {"router", &Tuning::router, " bisect "},
};

struct Number {
  const char* name;
  double Tuning::*member;
  // A whole number.
  bool is_count;
};
constexpr Number numbers[] = {
    {"dots_slices", &Tuning::dots_slices, true}, {"dots_lanes", &Tuning::dots_lanes, true},
    {"sum_lanes", &Tuning::sum_lanes, true},     {"splits", &Tuning::splits, true},
    {"dense_tile", &Tuning::dense_tile, true},   {"dense_chunk", &Tuning::dense_chunk, true},
    {"pieces", &Tuning::pieces, true},           {"memory", &Tuning::memory, false},
    {"cache", &Tuning::cache, false},            {"cache_share", &Tuning::cache_share, false},
    {"tensor", &Tuning::tensor, false},          {"plain", &Tuning::plain, false},
    {"launch", &Tuning::launch, false},
};

bool set(Tuning& tuning, const std::string& name, const std::string& value) {
  for (const Word& word : words) {
    if (name != word.name) continue;
    tuning.*word.member = value;
    return !value.empty() && std::string(word.accepted).find(" " + value + " ") != std::string::npos;
  }
  for (const Number& number : numbers) {
    if (name != number.name) continue;
    char* end = nullptr;
    tuning.*number.member = std::strtod(value.c_str(), &end);
    const double given = tuning.*number.member;
    if (*end != '\0' || !(given > 0)) return false;
    return !number.is_count || (given <= INT32_MAX && given == std::floor(given));
  }
  return false;
}

}  // namespace

Tuning parse_tuning(const std::string& text) {
  Tuning tuning;
  std::istringstream entries(text);
  std::string entry;
  while (entries >> entry) {
    const size_t equals = entry.find('=');
    if (equals != std::string::npos && set(tuning, entry.substr(0, equals), entry.substr(equals + 1))) continue;
    std::string accepted;
    for (const Word& word : words) accepted += std::string(word.name) + " (" + word.accepted + "), ";
    for (const Number& number : numbers) accepted += std::string(number.name) + ", ";
    throw Failure("INVALID_ARGUMENT", "tuning has \"" + entry + "\"; takes name=value, with " + accepted +
                                          "whose values are numbers above 0, of counts whole ones");
  }
  return tuning;
}

}  // namespace flash_moe
