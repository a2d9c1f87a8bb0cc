// What JavaScript sees: src/addon.ts.
#include "addon/device_object.h"
#include "addon/js_error.h"
#include "addon/op_table.h"
#include "runtime/survey.h"

namespace flash_moe {
namespace {

// Of the interface in src/addon.ts.
constexpr int interface_version = 4;

#ifdef FLASH_MOE_SHIM
constexpr bool shim = true;
#else
constexpr bool shim = false;
#endif

// Belongs to one environment: a worker thread loads the addon again and has its own.
struct Instance {
  Napi::FunctionReference device;
};

Napi::Value probe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Survey found = survey();
  Napi::Object report = Napi::Object::New(env);
  report.Set("refusal", found.refusal);
  report.Set("driverCuda", found.driver_version);
  report.Set("requiredCuda", found.runtime_version);
  Napi::Array devices = Napi::Array::New(env, found.devices.size());
  for (size_t i = 0; i < found.devices.size(); i++) {
    const DeviceInfo& device = found.devices[i];
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", device.name);
    entry.Set("computeCapability", device.compute_capability);
    entry.Set("memoryBytes", static_cast<double>(device.memory_bytes));
    entry.Set("refusal", device.refusal);
    devices.Set(static_cast<uint32_t>(i), entry);
  }
  report.Set("devices", devices);
  return report;
}

// (device, memoryLimitBytes or -1 for what is free, graphs)
Napi::Value open(const Napi::CallbackInfo& info) {
  const Napi::FunctionReference& device = info.Env().GetInstanceData<Instance>()->device;
  return device.New({info[0], info[1], info[2]});
}

// Shows the fields of a call under the names of JavaScript.
class CallShower {
 public:
  explicit CallShower(Napi::Env env) : env_(env), shown(Napi::Object::New(env)) {}

  void operator()(const char* name, const int64_t& field) { shown.Set(name, static_cast<double>(field)); }
  void operator()(const char* name, const double& field) { shown.Set(name, field); }
  void operator()(const char* name, const bool& field) { shown.Set(name, field); }
  void operator()(const char* name, const Activation& field) { shown.Set(name, static_cast<int>(field)); }
  void operator()(const char* name, const TableLayout& field) { shown.Set(name, static_cast<int>(field)); }
  void operator()(const char* name, const Buffer& field) {
    if (!field) return shown.Set(name, env_.Null()), void();
    Napi::Object buffer = Napi::Object::New(env_);
    buffer.Set("dtype", static_cast<int>(field.dtype));
    buffer.Set("address", static_cast<double>(reinterpret_cast<uintptr_t>(field.data)));
    shown.Set(name, buffer);
  }

 private:
  Napi::Env env_;

 public:
  Napi::Object shown;
};

// (op, block)
Napi::Value decode_call(const Napi::CallbackInfo& info) {
  const Napi::Float64Array block = info[1].As<Napi::Float64Array>();
  CallShower shower(info.Env());
  with_call_of(info[0].As<Napi::Number>().Int32Value(), [&](auto call) {
    visit_fields(CallReader(block.Data()), call);
    visit_fields(shower, call);
  });
  return shower.shown;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* instance = new Instance();
  instance->device = Napi::Persistent(DeviceObject::define(env));
  env.SetInstanceData(instance);
  exports.Set("interfaceVersion", interface_version);
  exports.Set("shim", shim);
  Napi::Array names = Napi::Array::New(env, op_count);
  for (int op = 0; op < op_count; op++) names.Set(static_cast<uint32_t>(op), op_table[op].name);
  exports.Set("opNames", names);
  exports.Set("probe", Napi::Function::New<probe>(env, "probe"));
  exports.Set("open", Napi::Function::New<open>(env, "open"));
  exports.Set("decodeCall", Napi::Function::New<decode_call>(env, "decodeCall"));
  return exports;
}

}  // namespace

NODE_API_MODULE(flash_moe_cuda, init)

}  // namespace flash_moe
