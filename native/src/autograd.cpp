// Reverse-mode differentiation and the modes that switch it.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <memory>

#include "napi.h"

namespace posttrain {
namespace {

std::vector<at::Tensor> asTensors(napi_env env, napi_value value) {
  std::vector<at::Tensor> result;
  if (isNullish(env, value)) return result;
  for (const int32_t slot : asSlotList(env, value)) {
    // Slot 0 stands for "no gradient given here".
    result.push_back(slot == 0 ? at::Tensor() : tensors().get(slot));
  }
  return result;
}

// backward(outputs, gradients | undefined, retainGraph, createGraph)
napi_value backward(napi_env env, napi_callback_info info) {
  return guard(env, "backward", [&]() -> napi_value {
    const Arguments arguments(env, info);
    torch::autograd::backward(asTensors(env, arguments[0]), asTensors(env, arguments[1]), asBool(env, arguments[2]),
                              asBool(env, arguments[3]));
    return nullptr;
  });
}

// grad(outputs, inputs, gradients | undefined, retainGraph, createGraph, allowUnused) → slots, 0 where unused
napi_value grad(napi_env env, napi_callback_info info) {
  return guard(env, "grad", [&] {
    const Arguments arguments(env, info);
    return fromSlots(env, torch::autograd::grad(asTensors(env, arguments[0]), asTensors(env, arguments[1]),
                                                asTensors(env, arguments[2]), asBool(env, arguments[3]),
                                                asBool(env, arguments[4]), asBool(env, arguments[5])));
  });
}

napi_value gradientOf(napi_env env, napi_callback_info info) {
  return guard(env, "grad", [&] {
    const Arguments arguments(env, info);
    return fromTensor(env, asTensor(env, arguments[0]).grad());
  });
}

// setGradient(tensor, gradient | 0)
napi_value setGradient(napi_env env, napi_callback_info info) {
  return guard(env, "grad", [&]() -> napi_value {
    const Arguments arguments(env, info);
    const int32_t slot = asInt32(env, arguments[1]);
    asTensor(env, arguments[0]).mutable_grad() = slot == 0 ? at::Tensor() : tensors().get(slot);
    return nullptr;
  });
}

napi_value requiresGrad(napi_env env, napi_callback_info info) {
  return guard(env, "requiresGrad", [&] {
    const Arguments arguments(env, info);
    return fromBool(env, asTensor(env, arguments[0]).requires_grad());
  });
}

napi_value setRequiresGrad(napi_env env, napi_callback_info info) {
  return guard(env, "requiresGrad", [&]() -> napi_value {
    const Arguments arguments(env, info);
    asTensor(env, arguments[0]).set_requires_grad(asBool(env, arguments[1]));
    return nullptr;
  });
}

napi_value isLeaf(napi_env env, napi_callback_info info) {
  return guard(env, "isLeaf", [&] {
    const Arguments arguments(env, info);
    return fromBool(env, asTensor(env, arguments[0]).is_leaf());
  });
}

// setGradEnabled(enabled) → what it was
napi_value setGradEnabled(napi_env env, napi_callback_info info) {
  return guard(env, "setGradEnabled", [&] {
    const Arguments arguments(env, info);
    const bool previous = at::GradMode::is_enabled();
    at::GradMode::set_enabled(asBool(env, arguments[0]));
    return fromBool(env, previous);
  });
}

napi_value isGradEnabled(napi_env env, napi_callback_info info) {
  return guard(env, "isGradEnabled", [&] { return fromBool(env, at::GradMode::is_enabled()); });
}

thread_local std::vector<std::unique_ptr<c10::InferenceMode>> inferenceGuards;

napi_value enterInference(napi_env env, napi_callback_info info) {
  return guard(env, "inferenceMode", [&]() -> napi_value {
    inferenceGuards.push_back(std::make_unique<c10::InferenceMode>(true));
    return nullptr;
  });
}

napi_value exitInference(napi_env env, napi_callback_info info) {
  return guard(env, "inferenceMode", [&]() -> napi_value {
    if (inferenceGuards.empty()) throw BadArgument("inference mode was not entered");
    inferenceGuards.pop_back();
    return nullptr;
  });
}

// setAutocast(device, enabled, dtype) → [enabled, dtype] as they were. Clears the weight cache when it is switched off.
napi_value setAutocast(napi_env env, napi_callback_info info) {
  return guard(env, "autocast", [&] {
    const Arguments arguments(env, info);
    const c10::DeviceType type = c10::Device(asString(env, arguments[0])).type();
    const bool enabled = asBool(env, arguments[1]);
    napi_value previous;
    check(napi_create_array_with_length(env, 2, &previous), "internal: cannot make an array");
    check(napi_set_element(env, previous, 0, fromBool(env, at::autocast::is_autocast_enabled(type))),
          "internal: cannot fill an array");
    const auto dtype = static_cast<int32_t>(at::autocast::get_autocast_dtype(type));
    check(napi_set_element(env, previous, 1, fromInt32(env, dtype)), "internal: cannot fill an array");
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(asInt32(env, arguments[2])));
    at::autocast::set_autocast_enabled(type, enabled);
    if (!enabled) at::autocast::clear_cache();
    return previous;
  });
}

}  // namespace

void defineAutograd(napi_env env, napi_value exports) {
  define(env, exports, "backward", backward);
  define(env, exports, "grad", grad);
  define(env, exports, "gradientOf", gradientOf);
  define(env, exports, "setGradient", setGradient);
  define(env, exports, "requiresGrad", requiresGrad);
  define(env, exports, "setRequiresGrad", setRequiresGrad);
  define(env, exports, "isLeaf", isLeaf);
  define(env, exports, "setGradEnabled", setGradEnabled);
  define(env, exports, "isGradEnabled", isGradEnabled);
  define(env, exports, "enterInference", enterInference);
  define(env, exports, "exitInference", exitInference);
  define(env, exports, "setAutocast", setAutocast);
}

}  // namespace posttrain
