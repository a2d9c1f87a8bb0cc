// The runtime on the shim: what a device is opened for, memory and its limit, transfers, order, graphs, times, and
// every way in which CUDA can fail.
#include <future>
#include <thread>

#include "runtime/architectures.h"
#include "runtime/device.h"
#include "runtime/memory_pool.h"
#include "shim/faults.h"
#include "test/test_context.h"

namespace flash_moe {
namespace {

using namespace test;

__global__ void add(float* values, float amount, int64_t count) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i < count) values[i] += amount;
}

__global__ void count_errors(uint32_t* errors) {
  if (threadIdx.x < 3) atomicAdd(errors, 1u);
}

void add_to(Context& context, float* values, float amount, int64_t count) {
  launch(context, "add", add, ceil_div(count, 256), 256, 0, values, amount, count);
}

// What was read or waited for: the code of the failure, or "" and the ids out of range.
struct Ended {
  std::string code, message;
  uint32_t id_errors = 0;
};

Done notify(std::shared_ptr<std::promise<Ended>> promise) {
  return [promise](const Outcome& outcome) {
    if (outcome.failure) {
      promise->set_value({outcome.failure->code, outcome.failure->what(), 0});
    } else {
      promise->set_value({"", "", outcome.id_errors});
    }
  };
}

Ended wait(Device& device) {
  auto promise = std::make_shared<std::promise<Ended>>();
  device.sync(notify(promise));
  return promise->get_future().get();
}

std::vector<float> read(Device& device, const void* from, size_t count) {
  std::vector<float> values(count);
  auto promise = std::make_shared<std::promise<Ended>>();
  device.read(from, values.data(), count * sizeof(float), notify(promise));
  const Ended ended = promise->get_future().get();
  expect(ended.code.empty(), "a read ends well, not with " + ended.message);
  return values;
}

std::unique_ptr<Device> open(size_t limit = 0, bool graphs = true) {
  OpenOptions options;
  options.memory_limit = limit;
  options.graphs = graphs;
  return Device::open(options);
}

void test_survey() {
  const Survey found = survey();
  expect(found.refusal.empty() && found.devices.size() == 1, "the shim has one device");
  expect(found.devices[0].refusal.empty() && found.devices[0].compute_capability == 90, "it is a Hopper");
  expect(code_for(75, 13000) == DeviceCode::too_old, "Turing is too old");
  expect(code_for(87, 12000) == DeviceCode::present, "8.7 runs the machine code of 8.6");
  expect(code_for(110, 12080) == DeviceCode::driver_cannot_translate, "PTX needs a driver as new as the compiler");
  expect(code_for(110, 13000) == DeviceCode::present, "PTX runs where there is no machine code");

  shim::fail_later(shim::FaultPoint::device, 0, cudaErrorSystemDriverMismatch);
  expect(survey().refusal.find("(803)") != std::string::npos, "another error of the driver is told with its number");
  OpenOptions second;
  second.device = 1;
  expect(code_of([&] { Device::open(second); }, "no CUDA device 1: there are 1") == "UNAVAILABLE", "no second device");
}

void test_memory() {
  const size_t before = shim::allocated_bytes();
  {
    auto device = open(10000);
    void* first = device->alloc(4000, true, "first");
    expect(read(*device, first, 1000) == std::vector<float>(1000, 0.0f), "memory is zeroed");
    expect(device->alloc(0, true, "empty") == nullptr, "no bytes, no address");
    expect(code_of([&] { device->alloc(6001, false, "second"); }, "second needs 6001 bytes; 6000 bytes are left of the "
                                                                  "budget of 10000") == "OUT_OF_MEMORY",
           "the budget holds");
    void* second = device->alloc(6000, false, "second");
    expect(device->memory().live_bytes == 10000 && device->memory().peak_bytes == 10000, "the bytes are counted");
    device->free(second, 6000);
    device->free(first, 4000);
    expect(device->memory().live_bytes == 0 && device->memory().cached_bytes > 0, "small blocks are kept");
    const size_t kept = device->memory().cached_bytes;
    void* again = device->alloc(4000, false, "again");
    expect(again == first && device->memory().cached_bytes < kept, "and handed out again");

    device->run("op", nullptr, 0, [&](Context& context) {
      const Scratch scratch(context, 3000, "scratch");
      expect(device->memory().scratch_bytes == 3000, "scratch is counted while it is held");
      expect(code_of([&] { Scratch(context, 3001, "too much"); }) == "OUT_OF_MEMORY", "scratch counts in the budget");
    });
    expect(device->memory().scratch_bytes == 0, "scratch is given back");

    // Every size is rounded up by at most a quarter, to an aligned address.
    MemoryPool pool(0, device->stream(), SIZE_MAX);
    for (size_t bytes = 1; bytes < (3u << 19); bytes += 1 + bytes / 3) {
      void* data = pool.take(bytes, MemoryUseKind::live, "any");
      expect(reinterpret_cast<uintptr_t>(data) % 256 == 0, "addresses are aligned");
      std::memset(data, 1, bytes);
      const size_t cached = pool.cached();
      pool.give(data, bytes, MemoryUseKind::live);
      const size_t rounded = pool.cached() - cached;
      expect(bytes > (1u << 20) ? rounded == 0 : rounded >= bytes && (bytes < 256 || rounded <= bytes * 5 / 4 + 1),
             "blocks are little larger than asked for");
    }
  }
  expect(shim::allocated_bytes() == before, "closing gives everything back");
}

void test_exhausted_memory() {
  auto device = open();
  void* small = device->alloc(1000, false, "small");
  device->free(small, 1000);
  // Once: what is kept is given up, and the second try succeeds.
  shim::fail_later(shim::FaultPoint::allocation, 0, cudaErrorMemoryAllocation);
  void* data = device->alloc(size_t{2} << 20, true, "large");
  expect(data && device->memory().cached_bytes == 0, "what is kept gives way");
  // More than the made-up device has, though within a limit that knows no better.
  auto greedy = open(SIZE_MAX);
  expect(code_of([&] { greedy->alloc(size_t{1} << 40, false, "table"); }, "cudaErrorMemoryAllocation") ==
             "OUT_OF_MEMORY",
         "CUDA's own exhaustion is told");
  expect(cudaGetLastError() == cudaSuccess, "and leaves no error behind");
  expect(greedy->memory().live_bytes == 0, "and nothing counted");
  expect(wait(*greedy).code.empty() && greedy->loss().empty(), "and the device usable");
  shim::fail_later(shim::FaultPoint::pinned_allocation, 0, cudaErrorMemoryAllocation);
  const float value = 1;
  expect(code_of([&] { greedy->write(data, &value, sizeof value); }, "page-locked") == "OUT_OF_MEMORY",
         "page-locked memory can run out too");
  greedy->write(data, &value, sizeof value);
}

void test_transfers() {
  auto device = open();
  // Several pieces, none of them whole.
  const size_t count = 2'500'001;
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i++) values[i] = static_cast<float>(i % 10007);
  void* a = device->alloc(count * sizeof(float), false, "a");
  void* b = device->alloc(count * sizeof(float), false, "b");
  std::vector<float> gone = values;
  device->write(a, gone.data(), count * sizeof(float));
  gone.assign(count, -1);
  device->copy(b, a, count * sizeof(float));
  device->zero(a, count * sizeof(float));
  expect(read(*device, b, count) == values, "what was written, copied and read is the same");
  expect(read(*device, a, 5) == std::vector<float>(5, 0.0f), "cleared memory is zero");

  // A read is of the moment at which it was asked for.
  std::vector<float> early(4), late(4);
  auto first = std::make_shared<std::promise<Ended>>(), second = std::make_shared<std::promise<Ended>>();
  device->read(a, early.data(), 16, notify(first));
  device->run("add", nullptr, 0, [&](Context& context) { add_to(context, static_cast<float*>(a), 2, 4); });
  device->read(a, late.data(), 16, notify(second));
  first->get_future().wait();
  second->get_future().wait();
  expect(early == std::vector<float>(4, 0.0f) && late == std::vector<float>(4, 2.0f), "reads keep their place");

  // More than the staging memory holds, without anybody waiting in between.
  std::vector<std::vector<float>> many(3000, std::vector<float>(100));
  std::vector<std::shared_ptr<std::promise<Ended>>> promises;
  for (auto& target : many) {
    promises.push_back(std::make_shared<std::promise<Ended>>());
    device->read(b, target.data(), 400, notify(promises.back()));
  }
  for (auto& promise : promises) promise->get_future().wait();
  expect(many.back() == std::vector<float>(values.begin(), values.begin() + 100), "many reads at once");
}

void test_id_errors() {
  auto device = open();
  const auto report = [&](Context& context) {
    launch(context, "count_errors", count_errors, 2, 32, 0, context.id_errors());
  };
  device->run("op", nullptr, 0, report);
  expect(wait(*device).id_errors == 6, "ids out of range are told");
  expect(wait(*device).id_errors == 0, "once");
  device->run("op", nullptr, 0, report);
  std::vector<float> target(1);
  void* data = device->alloc(4, true, "data");
  auto promise = std::make_shared<std::promise<Ended>>();
  device->read(data, target.data(), 4, notify(promise));
  expect(promise->get_future().get().id_errors == 6, "by a read as well");
}

// The calls of a deep model in turns, four times: how often they ran as they are, or into a graph.
int calls_in_turns(Device& device, float* values, int count, size_t bytes) {
  int calls = 0;
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < count; i++) {
      const int64_t own_key[] = {i, static_cast<int64_t>(bytes)};
      device.run("op", own_key, sizeof own_key, [&](Context& context) {
        calls++;
        const Scratch scratch(context, bytes, "scratch");
        add_to(context, scratch.as<float>(), 0, 1);
        add_to(context, values, 0, 1);
      });
    }
  }
  return calls;
}

void test_graphs() {
  auto device = open(size_t{64} << 20);
  auto* values = static_cast<float*>(device->alloc(1000 * sizeof(float), true, "values"));
  int calls = 0;
  const auto op = [&](Context& context) {
    calls++;
    const Scratch scratch(context, 4000, "scratch");
    cudaMemsetAsync(scratch.as<float>(), 0, 4000, context.stream());
    add_to(context, scratch.as<float>(), 1, 1000);
    add_to(context, values, 1, 1000);
  };
  for (int i = 0; i < 10; i++) device->run("op", "key", 3, op);
  expect(read(*device, values, 1000) == std::vector<float>(1000, 10.0f), "a replay does what the call does");
  // Once as it is, once into the graph.
  expect(calls == 2, "a repeated call is replayed");
  expect(device->memory().scratch_bytes == 4096, "a graph's scratch is counted");

  // Calls that differ pass by without pushing it out.
  for (int i = 0; i < 1000; i++) {
    device->run("op", &i, sizeof i, [&](Context& context) { add_to(context, values, 0, 1); });
  }
  device->run("op", "key", 3, op);
  expect(calls == 2, "it is still there");

  // One launch is no graph, no key is no graph, and neither is a device that was asked for none.
  int single = 0, keyless = 0, plain = 0;
  for (int i = 0; i < 5; i++) {
    device->run("op", "one", 3, [&](Context& context) {
      single++;
      add_to(context, values, 0, 1);
    });
    device->run("op", nullptr, 0, [&](Context& context) {
      keyless++;
      add_to(context, values, 0, 1);
      add_to(context, values, 0, 1);
    });
  }
  expect(single == 5 && keyless == 5, "these are not replayed");
  auto without = open(0, false);
  for (int i = 0; i < 5; i++) {
    without->run("op", "key", 3, [&](Context& context) {
      plain++;
      add_to(context, values, 0, 1);
      add_to(context, values, 0, 1);
    });
  }
  expect(plain == 5, "graphs can be switched off");

  expect(calls_in_turns(*device, values, 500, 1000) == 2 * 500, "every call of a round is replayed");
  // More than are kept: the oldest go, with their scratch.
  calls_in_turns(*device, values, 1100, 2000);
  expect(device->memory().scratch_bytes <= 1024 * 2048 + 4096, "the number of graphs is bounded");

  // Their memory gives way to a buffer.
  void* rest = device->alloc((size_t{64} << 20) - 4000, false, "the rest");
  expect(rest && device->memory().scratch_bytes == 0, "graphs give their scratch back where the budget ends");
  device->free(rest, (size_t{64} << 20) - 4000);
  device->run("op", "key", 3, op);
  expect(calls == 3, "and the call runs as it is");

  // An op that fails while it is captured is tried as it is, and fails there.
  int attempts = 0;
  const auto failing = [&](Context& context) {
    add_to(context, values, 0, 1);
    add_to(context, values, 0, 1);
    if (++attempts >= 2) throw Failure("BACKEND_FAILED", "the second time");
  };
  device->run("op", "failing", 7, failing);
  expect(code_of([&] { device->run("op", "failing", 7, failing); }, "second") == "BACKEND_FAILED", "the failure is told");
  expect(attempts == 3 && wait(*device).code.empty(), "and the device works on");
}

// What CUDA forbids while a stream is captured makes no graph: the call runs as it is, every time.
void test_refused_captures() {
  auto device = open();
  auto* values = static_cast<float*>(device->alloc(4000, true, "values"));
  const auto forbidden = [&](const char* name, const std::function<cudaError_t(Context&)>& call) {
    std::vector<cudaError_t> answers;
    const auto op = [&](Context& context) {
      add_to(context, values, 1, 1000);
      answers.push_back(call(context));
      add_to(context, values, 1, 1000);
    };
    const float before = read(*device, values, 1)[0];
    for (int i = 0; i < 4; i++) device->run("op", name, std::strlen(name), op);
    expect(read(*device, values, 1)[0] == before + 8, std::string(name) + ": each call has run once");
    expect(answers.size() == 5 && answers[1] == cudaErrorStreamCaptureUnsupported, std::string(name) + " is refused");
    for (const size_t i : {0, 2, 3, 4}) expect(answers[i] == cudaSuccess, std::string(name) + " is well otherwise");
  };
  forbidden("a wait for the stream", [](Context& context) { return cudaStreamSynchronize(context.stream()); });
  forbidden("a wait for the device", [](Context&) { return cudaDeviceSynchronize(); });
  forbidden("an allocation", [](Context&) {
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, 256);
    if (data) cudaFree(data);
    return error;
  });
  float host = 0;
  forbidden("a copy that waits",
            [&](Context&) { return cudaMemcpy(&host, values, sizeof host, cudaMemcpyDeviceToHost); });
  // Nor do they take the places of others.
  expect(calls_in_turns(*device, values, 500, 1000) == 2 * 500, "the calls of a round are replayed as ever");
}

void test_timing() {
  auto device = open();
  auto* values = static_cast<float*>(device->alloc(4000, true, "values"));
  const auto op = [&](Context& context) {
    add_to(context, values, 1, 1000);
    add_to(context, values, 1, 1000);
  };
  for (int i = 0; i < 3; i++) device->run("first", "key", 3, op);
  device->start_timing();
  device->run("first", "key", 3, op);
  device->run("second", nullptr, 0, [&](Context& context) { add_to(context, values, 1, 1000); });
  std::promise<std::vector<KernelTime>> promise;
  device->stop_timing([&](const Outcome&, const std::vector<KernelTime>& times) { promise.set_value(times); });
  const auto times = promise.get_future().get();
  expect(times.size() == 3, "every kernel is timed, a graph's too");
  expect(std::string(times[1].op) == "first" && std::string(times[2].op) == "second", "each under its op");
  expect(std::string(times[0].kernel) == "add" && times[0].nanoseconds >= 0, "and its name");
  expect(read(*device, values, 1)[0] == 9, "timed kernels do their work");
}

// An error that the device does not recover from, and one that it does.
void test_errors() {
  auto* none = static_cast<float*>(nullptr);
  const auto op = [&](Context& context) { add_to(context, none, 0, 0); };
  {
    auto device = open();
    auto* values = static_cast<float*>(device->alloc(400, true, "values"));
    const auto work = [&] {
      device->run("op", nullptr, 0, [&](Context& context) { add_to(context, values, 1, 100); });
    };
    shim::fail_later(shim::FaultPoint::launch, 0, cudaErrorInvalidConfiguration);
    expect(code_of(work, "cannot launch add (1 blocks of 256 threads") == "BACKEND_FAILED", "a launch can fail");
    expect(device->loss().empty() && wait(*device).code.empty(), "that does not lose the device");
    work();

    shim::fail_later(shim::FaultPoint::launch, 0, cudaErrorIllegalAddress);
    work();
    std::string code;
    try {
      const Ended ended = wait(*device);
      code = ended.code;
    } catch (const Failure& failure) {
      code = failure.code;
    }
    expect(code == "DEVICE_LOST", "an illegal address loses the device, at the next call that can tell");
    expect(device->loss().find("cudaErrorIllegalAddress (700)") != std::string::npos, "and says so: " + device->loss());
    expect(code_of([&] { device->alloc(4, false, "more"); }) == "DEVICE_LOST", "every later call says the same");
    expect(code_of(work) == "DEVICE_LOST", "an op too");
    device->free(values, 400);
    device->close();
    shim::clear_faults();
  }
  for (const cudaError_t error : {cudaErrorECCUncorrectable, cudaErrorLaunchFailure, cudaErrorDevicesUnavailable}) {
    expect(std::string(error_code(error)) == "DEVICE_LOST", "the device does not come back from " + describe(error));
  }
  {
    auto device = open();
    device->lose("it was asked for");
    expect(code_of([&] { device->run("op", nullptr, 0, op); }, "it was asked for") == "DEVICE_LOST", "lost on demand");
    device->close();
    device->close();
    expect(code_of([&] { device->sync([](const Outcome&) {}); }) == "DISPOSED", "closed is closed");
    device->free(nullptr, 0);
  }
  {
    shim::fail_later(shim::FaultPoint::pinned_allocation, 0, cudaErrorMemoryAllocation);
    const size_t before = shim::allocated_bytes();
    expect(code_of([&] { open(); }) == "OUT_OF_MEMORY", "opening can fail");
    expect(shim::allocated_bytes() == before, "and leaves nothing behind");
  }
}

// Reads that wait when the device is closed or lost, each in a thread of its own.
void test_threads() {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([t] {
      auto device = open();
      auto* values = static_cast<float*>(device->alloc(4000, true, "values"));
      std::vector<float> target(1000);
      std::atomic<int> called{0};
      for (int i = 0; i < 50; i++) {
        device->run("op", "key", 3, [&](Context& context) {
          add_to(context, values, static_cast<float>(t), 1000);
          add_to(context, values, 1, 1000);
        });
      }
      for (int i = 0; i < 20; i++) device->read(values, target.data(), 4000, [&](const Outcome&) { called++; });
      if (t == 3) device->lose("gone");
      device->close();
      expect(called == 20, "every callback is called before the device is closed");
      if (t != 3) expect(target == std::vector<float>(1000, 50.0f * (t + 1)), "devices do not disturb one another");
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace flash_moe

int main() {
  flash_moe::test_survey();
  flash_moe::test_memory();
  flash_moe::test_exhausted_memory();
  flash_moe::test_transfers();
  flash_moe::test_id_errors();
  flash_moe::test_graphs();
  flash_moe::test_refused_captures();
  flash_moe::test_timing();
  flash_moe::test_errors();
  flash_moe::test_threads();
  std::puts("runtime: as expected");
}
