// The launch of a kernel. Included by runtime/context.h.
#pragma once

#include <tuple>
#include <utility>

#include "device/cuda.h"
#include "runtime/context.h"
#include "runtime/cuda_error.h"

namespace flash_moe {

// Allows the kernel that much dynamic shared memory on the current device, once.
void allow_shared_memory(const void* kernel, size_t bytes);

[[noreturn]] void launch_failed(cudaError_t error, const char* name, int64_t blocks, int threads,
                                size_t shared_bytes);

#ifdef FLASH_MOE_SHIM

template <typename... Parameters>
struct ShimArguments {
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> values;

  static void run(void* self) {
    auto& arguments = *static_cast<ShimArguments*>(self);
    std::apply(arguments.kernel, arguments.values);
  }
  static void* clone(const void* self) { return new ShimArguments(*static_cast<const ShimArguments*>(self)); }
  static void drop(void* self) { delete static_cast<ShimArguments*>(self); }
};

#endif

template <typename... Parameters, typename... Arguments>
void launch(Context& context, const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads,
            size_t shared_bytes, Arguments... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "the kernel has another number of parameters");
  if (blocks == 0) return;
  if (blocks < 0 || blocks > INT32_MAX) {
    launch_failed(cudaErrorInvalidConfiguration, name, blocks, threads, shared_bytes);
  }
  if (context.rehearses()) return;
  const void* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 0) allow_shared_memory(function, shared_bytes);
  context.launching(name);
#ifdef FLASH_MOE_SHIM
  using Values = ShimArguments<Parameters...>;
  const Values values{kernel, std::tuple<Parameters...>(static_cast<Parameters>(arguments)...)};
  const cudaError_t error = shim::launch({name, function, Values::run, Values::clone, Values::drop}, blocks, threads,
                                         shared_bytes, context.stream(), &values);
#else
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  const cudaError_t error = std::apply(
      [&](auto&... value) {
        void* pointers[sizeof...(Parameters) + 1] = {
            const_cast<void*>(static_cast<const volatile void*>(&value))..., nullptr};
        return cudaLaunchKernel(function, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)),
                                pointers, shared_bytes, context.stream());
      },
      values);
#endif
  if (error != cudaSuccess) launch_failed(error, name, blocks, threads, shared_bytes);
  context.launched();
}

}  // namespace flash_moe
