#include "addon/device_object.h"

#include <algorithm>

#include "addon/js_error.h"
#include "addon/op_table.h"
#include "runtime/cuda_error.h"

namespace flash_moe {
namespace {

// Addresses travel as numbers: those of devices have less than 53 bits.
void* to_pointer(const Napi::Value& value) {
  return reinterpret_cast<void*>(static_cast<uintptr_t>(value.As<Napi::Number>().DoubleValue()));
}

size_t to_bytes(const Napi::Value& value) { return static_cast<size_t>(value.As<Napi::Number>().Int64Value()); }

// What other processes leave; 0 if the device does not tell, and then opening it says why.
size_t free_bytes(int device) {
  size_t free = 0, total = 0;
  const bool told = cudaSetDevice(device) == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess;
  if (!told) cudaGetLastError();
  return told ? free : 0;
}

struct HostBytes {
  void* data;
  size_t length;
};

// The memory of a typed array, also where a SharedArrayBuffer or WebAssembly holds it.
HostBytes bytes_of(const Napi::Value& value) {
  const Napi::TypedArray array = value.As<Napi::TypedArray>();
  void* data = nullptr;
  const napi_status status =
      napi_get_typedarray_info(array.Env(), array, nullptr, nullptr, &data, nullptr, nullptr);
  NAPI_THROW_IF_FAILED(array.Env(), status, HostBytes{});
  return {data, array.ByteLength()};
}

int op_number(const Napi::Value& value) {
  const int op = value.As<Napi::Number>().Int32Value();
  if (op < 0 || op >= op_count) throw Napi::RangeError::New(value.Env(), "there is no such op");
  return op;
}

}  // namespace

Napi::Function DeviceObject::define(Napi::Env env) {
  return DefineClass(env, "CudaDevice",
                     {
                         InstanceMethod<&DeviceObject::run>("run"),
                         InstanceMethod<&DeviceObject::reserve>("reserve"),
                         InstanceMethod<&DeviceObject::alloc>("alloc"),
                         InstanceMethod<&DeviceObject::free>("free"),
                         InstanceMethod<&DeviceObject::write>("write"),
                         InstanceMethod<&DeviceObject::copy>("copy"),
                         InstanceMethod<&DeviceObject::read>("read"),
                         InstanceMethod<&DeviceObject::sync>("sync"),
                         InstanceMethod<&DeviceObject::mark>("mark"),
                         InstanceMethod<&DeviceObject::elapsed>("elapsed"),
                         InstanceMethod<&DeviceObject::start_timing>("startTiming"),
                         InstanceMethod<&DeviceObject::stop_timing>("stopTiming"),
                         InstanceMethod<&DeviceObject::expectations>("expectations"),
                         InstanceMethod<&DeviceObject::tune>("tune"),
                         InstanceMethod<&DeviceObject::reclaim>("reclaim"),
                         InstanceMethod<&DeviceObject::lose>("lose"),
                         InstanceMethod<&DeviceObject::dispose>("dispose"),
                     });
}

// (device, memoryLimitBytes or -1 for what is free, graphs)
DeviceObject::DeviceObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<DeviceObject>(info), env_(info.Env()), block_(info.Env()) {
  OpenOptions options;
  options.device = info[0].As<Napi::Number>().Int32Value();
  const int64_t limit = info[1].As<Napi::Number>().Int64Value();
  // 0 would be all of the device.
  options.memory_limit = limit < 0 ? free_bytes(options.device) : std::max<size_t>(1, limit);
  options.graphs = info[2].As<Napi::Boolean>().Value();
  device_ = guarded(env_, [&] { return Device::open(options); });
  queue_ = Queue::New(env_, "flash-moe device", 0, 1, this);
  // It keeps the process alive only while somebody waits.
  queue_.Unref(env_);
  // After the queue was made, so that it is called before the queue ends: what it finishes still has one.
  napi_add_env_cleanup_hook(env_, clean_up, this);
  Napi::Object self = info.This().As<Napi::Object>();
  self.Set("block", block_.call_array());
  self.Set("memory", block_.memory_array());
  self.Set("multiprocessors", device_->info().multiprocessors);
  self.Set("cacheBytes", static_cast<double>(device_->info().l2_bytes));
  publish_memory();
}

DeviceObject::~DeviceObject() { close(); }

void DeviceObject::clean_up(void* self) {
  auto* object = static_cast<DeviceObject*>(self);
  // The queue ends with the environment.
  object->closed_ = true;
  object->drop_marks();
  object->device_->close();
}

void DeviceObject::close() {
  // Not if the constructor threw.
  if (device_ == nullptr || closed_) return;
  closed_ = true;
  drop_marks();
  device_->close();
  napi_remove_env_cleanup_hook(env_, clean_up, this);
  queue_.Release();
}

Napi::Value DeviceObject::run(const Napi::CallbackInfo& info) {
  const int op = op_number(info[0]);
  const OpEntry& entry = op_table[op];
  guarded(env_, [&] {
    // A call is all that it depends on; the op's number, which tells calls of equal numbers apart, is part of it.
    double key[call_block_length + 1];
    size_t key_bytes = 0;
    if (entry.repeats) {
      const int length = call_length(op);
      key[0] = op;
      std::copy(block_.call(), block_.call() + length, key + 1);
      key_bytes = sizeof(double) * (length + 1);
    }
    device_->run(entry.name, key, key_bytes, [&](Context& context) { entry.run(context, block_.call()); });
  });
  publish_memory();
  return env_.Undefined();
}

// (op)
Napi::Value DeviceObject::reserve(const Napi::CallbackInfo& info) {
  const OpEntry& entry = op_table[op_number(info[0])];
  guarded(env_, [&] {
    device_->reserve(entry.name, [&](Context& context) { entry.run(context, block_.call()); });
  });
  publish_memory();
  return env_.Undefined();
}

// (bytes, zeroed, label)
Napi::Value DeviceObject::alloc(const Napi::CallbackInfo& info) {
  void* data = guarded(env_, [&] {
    return device_->alloc(to_bytes(info[0]), info[1].As<Napi::Boolean>().Value(),
                          info[2].As<Napi::String>().Utf8Value());
  });
  publish_memory();
  return Napi::Number::New(env_, static_cast<double>(reinterpret_cast<uintptr_t>(data)));
}

// (address, bytes)
Napi::Value DeviceObject::free(const Napi::CallbackInfo& info) {
  device_->free(to_pointer(info[0]), to_bytes(info[1]));
  publish_memory();
  return env_.Undefined();
}

// (address, typed array)
Napi::Value DeviceObject::write(const Napi::CallbackInfo& info) {
  const HostBytes from = bytes_of(info[1]);
  guarded(env_, [&] { device_->write(to_pointer(info[0]), from.data, from.length); });
  return env_.Undefined();
}

// (source, target, bytes)
Napi::Value DeviceObject::copy(const Napi::CallbackInfo& info) {
  guarded(env_, [&] { device_->copy(to_pointer(info[1]), to_pointer(info[0]), to_bytes(info[2])); });
  return env_.Undefined();
}

// (address, typed array)
Napi::Value DeviceObject::read(const Napi::CallbackInfo& info) {
  const HostBytes to = bytes_of(info[1]);
  return promise(info, info[1], [&](Completion* completion) {
    device_->read(to_pointer(info[0]), to.data, to.length, [this, completion](const Outcome& outcome) {
      completion->note(outcome);
      finish(completion);
    });
  });
}

Napi::Value DeviceObject::sync(const Napi::CallbackInfo& info) {
  return promise(info, {}, [&](Completion* completion) {
    device_->sync([this, completion](const Outcome& outcome) {
      completion->note(outcome);
      finish(completion);
    });
  });
}

// Returns the number of the mark.
Napi::Value DeviceObject::mark(const Napi::CallbackInfo&) {
  guarded(env_, [&] {
    cudaEvent_t event;
    check(cudaSetDevice(device_->info().index), "choosing the device");
    check(cudaEventCreateWithFlags(&event, cudaEventDefault), "making a mark");
    marks_.push_back(event);
    check(cudaEventRecord(event, device_->stream()), "setting a mark");
  });
  return Napi::Number::New(env_, static_cast<double>(marks_.size() - 1));
}

// (mark, mark): milliseconds between them; all marks end.
Napi::Value DeviceObject::elapsed(const Napi::CallbackInfo& info) {
  const size_t from = to_bytes(info[0]), to = to_bytes(info[1]);
  if (from >= marks_.size() || to >= marks_.size()) throw Napi::RangeError::New(env_, "there is no such mark");
  std::vector<cudaEvent_t> marks;
  marks.swap(marks_);
  return promise(info, {}, [&, marks](Completion* completion) {
    device_->sync([this, completion, marks, from, to](const Outcome& outcome) {
      completion->note(outcome);
      float milliseconds = -1;
      if (outcome.failure == nullptr) cudaEventElapsedTime(&milliseconds, marks[from], marks[to]);
      for (cudaEvent_t mark : marks) cudaEventDestroy(mark);
      completion->elapsed = milliseconds;
      finish(completion);
    });
  });
}

Napi::Value DeviceObject::start_timing(const Napi::CallbackInfo&) {
  guarded(env_, [&] { device_->start_timing(); });
  return env_.Undefined();
}

Napi::Value DeviceObject::stop_timing(const Napi::CallbackInfo& info) {
  return promise(info, {}, [&](Completion* completion) {
    device_->stop_timing([this, completion](const Outcome& outcome, const std::vector<KernelTime>& times) {
      completion->note(outcome);
      completion->timed = true;
      completion->times = times;
      finish(completion);
    });
  });
}

Napi::Value DeviceObject::expectations(const Napi::CallbackInfo&) {
  Napi::Array expected = Napi::Array::New(env_);
  for (const ExpectedTime& time : device_->expectations()) {
    Napi::Object entry = Napi::Object::New(env_);
    entry.Set("op", time.op);
    entry.Set("way", time.way);
    entry.Set("nanoseconds", time.nanoseconds);
    expected.Set(expected.Length(), entry);
  }
  return expected;
}

// (text)
Napi::Value DeviceObject::tune(const Napi::CallbackInfo& info) {
  guarded(env_, [&] { device_->tune(parse_tuning(info[0].As<Napi::String>().Utf8Value())); });
  publish_memory();
  return env_.Undefined();
}

Napi::Value DeviceObject::reclaim(const Napi::CallbackInfo&) {
  guarded(env_, [&] { device_->reclaim(); });
  publish_memory();
  return env_.Undefined();
}

// (reason)
Napi::Value DeviceObject::lose(const Napi::CallbackInfo& info) {
  guarded(env_, [&] { device_->lose(info[0].As<Napi::String>().Utf8Value()); });
  return env_.Undefined();
}

// What is in flight was waited for by then: nothing to wait for on another thread.
Napi::Value DeviceObject::dispose(const Napi::CallbackInfo&) {
  close();
  return env_.Undefined();
}

template <typename Enqueue>
Napi::Value DeviceObject::promise(const Napi::CallbackInfo& info, Napi::Value kept, Enqueue&& enqueue) {
  auto completion = std::make_unique<Completion>(info.Env(), kept);
  const Napi::Promise result = completion->deferred.Promise();
  guarded(env_, [&] { enqueue(completion.get()); });
  completion.release();
  if (pending_++ == 0) {
    queue_.Ref(env_);
    Ref();
  }
  return result;
}

void DeviceObject::finish(Completion* completion) { queue_.NonBlockingCall(completion); }

void DeviceObject::settle(Napi::Env env, Napi::Function, DeviceObject* self, Completion* completion) {
  const std::unique_ptr<Completion> owned(completion);
  if (static_cast<napi_env>(env) == nullptr) {
    // Nobody is left to be told, nor anything that could be told with.
    completion->kept.SuppressDestruct();
    return;
  }
  try {
    self->resolve(env, *completion);
    if (--self->pending_ == 0) {
      self->queue_.Unref(env);
      self->Unref();
    }
  } catch (const Napi::Error&) {
    // The thread is being ended: no JavaScript runs any more, and nobody waits.
  }
}

void DeviceObject::resolve(Napi::Env env, Completion& completion) {
  publish_memory();
  if (completion.code != nullptr) {
    completion.deferred.Reject(to_js_error(env, completion.code, completion.message).Value());
    return;
  }
  Napi::Object outcome = Napi::Object::New(env);
  outcome.Set("idErrors", completion.id_errors);
  if (completion.elapsed >= 0) outcome.Set("milliseconds", completion.elapsed);
  if (completion.timed) {
    Napi::Array times = Napi::Array::New(env, completion.times.size());
    for (size_t i = 0; i < completion.times.size(); i++) {
      Napi::Object time = Napi::Object::New(env);
      time.Set("op", completion.times[i].op);
      time.Set("kernel", completion.times[i].kernel);
      time.Set("nanoseconds", completion.times[i].nanoseconds);
      times.Set(static_cast<uint32_t>(i), time);
    }
    outcome.Set("kernels", times);
  }
  completion.deferred.Resolve(outcome);
}

void DeviceObject::publish_memory() { block_.set_memory(device_->memory()); }

void DeviceObject::drop_marks() {
  for (cudaEvent_t mark : marks_) cudaEventDestroy(mark);
  marks_.clear();
}

}  // namespace flash_moe
