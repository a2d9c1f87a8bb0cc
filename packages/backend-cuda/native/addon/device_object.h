// An open device as an object of JavaScript: see NativeDevice in src/addon.ts.
#pragma once

#include <memory>
#include <vector>

#include "addon/call_block.h"
#include "addon/completion.h"
#include "addon/node_api.h"
#include "runtime/device.h"

namespace flash_moe {

class DeviceObject : public Napi::ObjectWrap<DeviceObject> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit DeviceObject(const Napi::CallbackInfo& info);
  ~DeviceObject() override;

 private:
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value reserve(const Napi::CallbackInfo& info);
  Napi::Value alloc(const Napi::CallbackInfo& info);
  Napi::Value free(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value copy(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value sync(const Napi::CallbackInfo& info);
  Napi::Value mark(const Napi::CallbackInfo& info);
  Napi::Value elapsed(const Napi::CallbackInfo& info);
  Napi::Value start_timing(const Napi::CallbackInfo& info);
  Napi::Value stop_timing(const Napi::CallbackInfo& info);
  Napi::Value expectations(const Napi::CallbackInfo& info);
  Napi::Value tune(const Napi::CallbackInfo& info);
  Napi::Value reclaim(const Napi::CallbackInfo& info);
  Napi::Value lose(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  // Hands a promise to `enqueue`, which has to see to it that `finish` is called.
  template <typename Enqueue>
  Napi::Value promise(const Napi::CallbackInfo& info, Napi::Value kept, Enqueue&& enqueue);
  // On the waiting thread.
  void finish(Completion* completion);
  // On the thread of JavaScript, or with no environment where that ends.
  static void settle(Napi::Env env, Napi::Function callback, DeviceObject* self, Completion* completion);
  void resolve(Napi::Env env, Completion& completion);

  void publish_memory();
  void drop_marks();
  void close();
  // The environment ends, maybe with work in flight.
  static void clean_up(void* self);

  using Queue = Napi::TypedThreadSafeFunction<DeviceObject, Completion, settle>;

  Napi::Env env_;
  std::unique_ptr<Device> device_;
  CallBlock block_;
  Queue queue_;
  int pending_ = 0;
  std::vector<cudaEvent_t> marks_;
  bool closed_ = false;
};

}  // namespace flash_moe
