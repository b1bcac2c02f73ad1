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
  for (const int32_t slot : asSlotList(env, value)) result.push_back(tensors().get(slot));
  return result;
}

// backward(outputs, gradients | undefined, retainGraph, createGraph)
napi_value backward(napi_env env, napi_callback_info info) {
  return guard(env, "backward", [&] {
    const Arguments arguments(env, info);
    const auto body = [&]() -> napi_value {
      torch::autograd::backward(asTensors(env, arguments[0]), asTensors(env, arguments[1]), asBool(env, arguments[2]),
                                asBool(env, arguments[3]));
      return nullptr;
    };
    return guard(env, "backward", body, [&] {
      const bool given = !isNullish(env, arguments[1]);
      return "outputs: " + describeSlots(env, arguments[0]) +
             (given ? ", gradients: " + describeSlots(env, arguments[1]) : "");
    });
  });
}

// grad(outputs, inputs, gradients | undefined, retainGraph, createGraph, allowUnused) → slots, 0 where unused
napi_value grad(napi_env env, napi_callback_info info) {
  return guard(env, "grad", [&] {
    const Arguments arguments(env, info);
    const auto body = [&] {
      return fromSlots(env, torch::autograd::grad(asTensors(env, arguments[0]), asTensors(env, arguments[1]),
                                                  asTensors(env, arguments[2]), asBool(env, arguments[3]),
                                                  asBool(env, arguments[4]), asBool(env, arguments[5])));
    };
    return guard(env, "grad", body, [&] {
      return "outputs: " + describeSlots(env, arguments[0]) + ", inputs: " + describeSlots(env, arguments[1]);
    });
  });
}

napi_value gradientOf(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "grad", [&](const at::Tensor& tensor, const Arguments&) {
    return fromTensor(env, tensor.grad());
  });
}

// setGradient(tensor, gradient | null). libtorch checks nothing here; a gradient of another shape would fail far away.
napi_value setGradient(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "grad", [&](at::Tensor& tensor, const Arguments& arguments) -> napi_value {
    at::Tensor gradient;
    if (!isNullish(env, arguments[1])) {
      gradient = asTensor(env, arguments[1]);
      const bool fits = gradient.sizes() == tensor.sizes() && gradient.scalar_type() == tensor.scalar_type() &&
                        gradient.device() == tensor.device();
      if (!fits) {
        throw BadArgument("expected a gradient that is " + describe(tensor) + " like the tensor, received " +
                          describe(gradient));
      }
      if (gradient.is_same(tensor)) throw BadArgument("a tensor cannot be its own gradient");
    }
    tensor.mutable_grad() = gradient;
    return nullptr;
  });
}

napi_value requiresGrad(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "requiresGrad", [&](const at::Tensor& tensor, const Arguments&) {
    return fromBool(env, tensor.requires_grad());
  });
}

napi_value setRequiresGrad(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "requiresGrad", [&](at::Tensor& tensor, const Arguments& arguments) -> napi_value {
    const bool value = asBool(env, arguments[1]);
    // libtorch would take it and change nothing.
    if (!value && !tensor.is_leaf()) {
      throw BadArgument("expected a leaf: a tensor that an operator made requires a gradient; use detach()");
    }
    tensor.set_requires_grad(value);
    return nullptr;
  });
}

napi_value isLeaf(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "isLeaf", [&](const at::Tensor& tensor, const Arguments&) {
    return fromBool(env, tensor.is_leaf());
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
    const c10::DeviceType type = asDevice(env, arguments[0]).type();
    const bool enabled = asBool(env, arguments[1]);
    const auto target = static_cast<at::ScalarType>(asInt32(env, arguments[2]));
    napi_value previous;
    check(napi_create_array_with_length(env, 2, &previous), "internal: cannot make an array");
    check(napi_set_element(env, previous, 0, fromBool(env, at::autocast::is_autocast_enabled(type))),
          "internal: cannot fill an array");
    const auto dtype = static_cast<int32_t>(at::autocast::get_autocast_dtype(type));
    check(napi_set_element(env, previous, 1, fromInt32(env, dtype)), "internal: cannot fill an array");
    at::autocast::set_autocast_dtype(type, target);
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
