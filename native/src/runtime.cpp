// Threads, devices, versions and random generators.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/version.h>

#include <mutex>

#include "linear.h"
#include "napi.h"

namespace posttrain {
namespace {

napi_value getNumThreads(napi_env env, napi_callback_info info) {
  return guard(env, "getNumThreads", [&] { return fromInt32(env, at::get_num_threads()); });
}

napi_value setNumThreads(napi_env env, napi_callback_info info) {
  return guard(env, "setNumThreads", [&]() -> napi_value {
    const Arguments arguments(env, info);
    at::set_num_threads(asInt32(env, arguments[0]));
    return nullptr;
  });
}

// runtimeInfo() → { version, cpuCapability, cudaDevices, hasMkldnn, parallel }
napi_value runtimeInfo(napi_env env, napi_callback_info info) {
  return guard(env, "runtimeInfo", [&] {
    napi_value result;
    check(napi_create_object(env, &result), "internal: cannot make an object");
    const auto set = [&](const char* name, napi_value value) {
      check(napi_set_named_property(env, result, name, value), "internal: cannot fill an object");
    };
    set("version", fromString(env, TORCH_VERSION));
    set("cpuCapability", fromString(env, at::get_cpu_capability()));
    set("cudaDevices", fromInt32(env, at::hasCUDA() ? static_cast<int32_t>(at::detail::getCUDAHooks().deviceCount()) : 0));
    set("hasMps", fromBool(env, at::hasMPS()));
    set("hasMkldnn", fromBool(env, at::hasMKLDNN()));
    set("multipliesBfloat16", fromBool(env, processorMultipliesPairs()));
    set("widensBfloat16", fromBool(env, widensProducts()));
    set("parallel", fromString(env, at::get_parallel_info()));
    return result;
  });
}

napi_value synchronize(napi_env env, napi_callback_info info) {
  return guard(env, "synchronize", [&]() -> napi_value {
    const Arguments arguments(env, info);
    const c10::Device device = asDevice(env, arguments[0]);
    if (device.is_cuda()) at::detail::getCUDAHooks().deviceSynchronize(device.index() < 0 ? 0 : device.index());
    return nullptr;
  });
}

napi_value manualSeed(napi_env env, napi_callback_info info) {
  return guard(env, "manualSeed", [&]() -> napi_value {
    const Arguments arguments(env, info);
    at::manual_seed(static_cast<uint64_t>(asInt64(env, arguments[0])));
    return nullptr;
  });
}

// createGenerator(device, seed) → slot in the table of generators
napi_value createGenerator(napi_env env, napi_callback_info info) {
  return guard(env, "generator", [&] {
    const Arguments arguments(env, info);
    const c10::Device device = asDevice(env, arguments[0]);
    at::Generator original = at::globalContext().defaultGenerator(device);
    at::Generator generator = [&] {
      const std::lock_guard<std::mutex> lock(original.mutex());
      return original.clone();
    }();
    generator.set_current_seed(static_cast<uint64_t>(asInt64(env, arguments[1])));
    return fromInt32(env, generators().put(generator));
  });
}

napi_value releaseGenerator(napi_env env, napi_callback_info info) {
  return guard(env, "generator", [&]() -> napi_value {
    const Arguments arguments(env, info);
    generators().release(asSlot(env, arguments[0]));
    return nullptr;
  });
}

// A slot, or a device's name for the default generator of that device.
at::Generator asGenerator(napi_env env, napi_value value) {
  napi_valuetype type;
  check(napi_typeof(env, value, &type), "expected a generator");
  if (type == napi_string) return at::globalContext().defaultGenerator(asDevice(env, value));
  return generators().get(asSlot(env, value));
}

napi_value generatorState(napi_env env, napi_callback_info info) {
  return guard(env, "generator", [&] {
    const Arguments arguments(env, info);
    at::Generator generator = asGenerator(env, arguments[0]);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    return fromTensor(env, generator.get_state());
  });
}

napi_value setGeneratorState(napi_env env, napi_callback_info info) {
  return guard(env, "generator", [&]() -> napi_value {
    const Arguments arguments(env, info);
    at::Generator generator = asGenerator(env, arguments[0]);
    const at::Tensor& state = asTensor(env, arguments[1]);
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(state);
    return nullptr;
  });
}

napi_value setFactory(napi_env env, napi_callback_info info) {
  return guard(env, "setErrorFactory", [&]() -> napi_value {
    const Arguments arguments(env, info);
    setErrorFactory(env, arguments[0]);
    return nullptr;
  });
}

}  // namespace

void defineRuntime(napi_env env, napi_value exports) {
  define(env, exports, "getNumThreads", getNumThreads);
  define(env, exports, "setNumThreads", setNumThreads);
  define(env, exports, "runtimeInfo", runtimeInfo);
  define(env, exports, "synchronize", synchronize);
  define(env, exports, "manualSeed", manualSeed);
  define(env, exports, "createGenerator", createGenerator);
  define(env, exports, "releaseGenerator", releaseGenerator);
  define(env, exports, "generatorState", generatorState);
  define(env, exports, "setGeneratorState", setGeneratorState);
  define(env, exports, "setErrorFactory", setFactory);
}

}  // namespace posttrain
