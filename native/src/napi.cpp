#include "napi.h"

#include <ATen/ATen.h>

#include <cmath>
#include <optional>
#include <sstream>

namespace posttrain {

SlotTable<at::Tensor>& tensors() {
  static thread_local SlotTable<at::Tensor> table;
  return table;
}

SlotTable<at::Generator>& generators() {
  static thread_local SlotTable<at::Generator> table;
  return table;
}

std::string show(napi_env env, napi_value value) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) != napi_ok) return "a value of an unknown kind";
  switch (type) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_bigint: return "a BigInt";
    case napi_symbol: return "a symbol";
    case napi_function: return "a function";
    case napi_string: return '"' + asString(env, value) + '"';
    case napi_number:
    case napi_boolean: {
      napi_value text;
      check(napi_coerce_to_string(env, value, &text), "internal: cannot show a number");
      return asString(env, text);
    }
    default: {
      bool isArray = false;
      napi_is_array(env, value, &isArray);
      return isArray ? "an array" : "an object";
    }
  }
}

void refuse(napi_env env, napi_value value, const char* expected) {
  throw BadArgument(std::string("expected ") + expected + ", received " + show(env, value));
}

int32_t asInt32(napi_env env, napi_value value) {
  const int64_t result = asInt64(env, value);
  if (result < INT32_MIN || result > INT32_MAX) refuse(env, value, "an integer of at most 31 bits");
  return static_cast<int32_t>(result);
}

int64_t asInt64(napi_env env, napi_value value) {
  constexpr double kLargest = 9007199254740991.0;  // Number.MAX_SAFE_INTEGER
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) refuse(env, value, "an integer");
  if (number >= -kLargest && number <= kLargest) {
    const auto result = static_cast<int64_t>(number);
    if (static_cast<double>(result) == number) return result;
  }
  const bool tooLarge = std::isfinite(number) && std::abs(number) > kLargest;
  refuse(env, value, tooLarge ? "an integer of at most 53 bits" : "an integer");
}

double asDouble(napi_env env, napi_value value) {
  double result;
  if (napi_get_value_double(env, value, &result) != napi_ok) refuse(env, value, "a number");
  return result;
}

bool asBool(napi_env env, napi_value value) {
  bool result;
  if (napi_get_value_bool(env, value, &result) != napi_ok) refuse(env, value, "a boolean");
  return result;
}

std::string asString(napi_env env, napi_value value) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) refuse(env, value, "a string");
  std::string result(length, '\0');
  check(napi_get_value_string_utf8(env, value, result.data(), length + 1, &length), "expected a string");
  return result;
}

uint32_t arrayLength(napi_env env, napi_value value) {
  uint32_t length = 0;
  if (napi_get_array_length(env, value, &length) != napi_ok) refuse(env, value, "an array");
  return length;
}

std::vector<int64_t> asInt64List(napi_env env, napi_value value) {
  // A single number stands for a list of one: most dimension lists are.
  napi_valuetype type;
  check(napi_typeof(env, value, &type), "expected a value");
  if (type == napi_number) return {asInt64(env, value)};
  const uint32_t length = arrayLength(env, value);
  std::vector<int64_t> result(length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    check(napi_get_element(env, value, i, &element), "expected an array of integers");
    result[i] = asInt64(env, element);
  }
  return result;
}

std::vector<int32_t> asSlotList(napi_env env, napi_value value) {
  const uint32_t length = arrayLength(env, value);
  std::vector<int32_t> result(length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    check(napi_get_element(env, value, i, &element), "expected an array of tensors");
    result[i] = asSlot(env, element);
  }
  return result;
}

bool isNullish(napi_env env, napi_value value) {
  napi_valuetype type;
  check(napi_typeof(env, value, &type), "expected a value");
  return type == napi_undefined || type == napi_null;
}

c10::Device asDevice(napi_env env, napi_value value) {
  const std::string text = asString(env, value);
  std::optional<c10::Device> device;
  try {
    device.emplace(text);
  } catch (const c10::Error&) {
    // Not a device at all: the same message as for one that is not here.
  }
  if (device.has_value()) {
    if (device->is_cpu() || device->is_meta()) return *device;
    if (device->is_cuda() && at::hasCUDA()) return *device;
    if (device->is_mps() && at::hasMPS()) return *device;
  }
  const std::string known = std::string("cpu") + (at::hasCUDA() ? ", cuda" : "") + (at::hasMPS() ? ", mps" : "");
  throw BadArgument("expected a device that can be used here (" + known + "), received \"" + text + "\"");
}

napi_value fromInt32(napi_env env, int32_t value) {
  napi_value result;
  check(napi_create_int32(env, value, &result), "internal: cannot make an integer");
  return result;
}

napi_value fromInt64(napi_env env, int64_t value) {
  napi_value result;
  check(napi_create_int64(env, value, &result), "internal: cannot make an integer");
  return result;
}

napi_value fromDouble(napi_env env, double value) {
  napi_value result;
  check(napi_create_double(env, value, &result), "internal: cannot make a number");
  return result;
}

napi_value fromBool(napi_env env, bool value) {
  napi_value result;
  check(napi_get_boolean(env, value, &result), "internal: cannot make a boolean");
  return result;
}

napi_value fromString(napi_env env, const std::string& value) {
  napi_value result;
  check(napi_create_string_utf8(env, value.data(), value.size(), &result), "internal: cannot make a string");
  return result;
}

napi_value fromSlots(napi_env env, const std::vector<at::Tensor>& values) {
  napi_value result;
  check(napi_create_array_with_length(env, values.size(), &result), "internal: cannot make an array");
  for (size_t i = 0; i < values.size(); i++) {
    check(napi_set_element(env, result, i, fromTensor(env, values[i])), "internal: cannot fill an array");
  }
  return result;
}

napi_value undefinedValue(napi_env env) {
  napi_value result;
  check(napi_get_undefined(env, &result), "internal: cannot get undefined");
  return result;
}

Arguments::Arguments(napi_env env, napi_callback_info info) {
  check(napi_get_cb_info(env, info, &count, values, nullptr, &data), "internal: cannot read the arguments");
}

static thread_local napi_ref errorFactory = nullptr;

void setErrorFactory(napi_env env, napi_value factory) {
  if (errorFactory != nullptr) napi_delete_reference(env, errorFactory);
  check(napi_create_reference(env, factory, 1, &errorFactory), "expected a function");
}

void throwError(napi_env env, const char* kind, const std::string& operation, const std::string& message,
                const std::string& details) {
  napi_value factory = nullptr;
  if (errorFactory == nullptr || napi_get_reference_value(env, errorFactory, &factory) != napi_ok ||
      factory == nullptr) {
    napi_throw_error(env, "E_NATIVE", (operation + ": " + message).c_str());
    return;
  }
  napi_value arguments[4] = {fromString(env, kind), fromString(env, operation), fromString(env, message),
                             fromString(env, details)};
  napi_value receiver = undefinedValue(env);
  napi_value error;
  if (napi_call_function(env, receiver, factory, 4, arguments, &error) == napi_ok) napi_throw(env, error);
}

// The names that posttrain/torch gives to dtypes; others as libtorch prints them.
const char* dtypeName(at::ScalarType type) {
  switch (type) {
    case at::kDouble: return "float64";
    case at::kFloat: return "float32";
    case at::kBFloat16: return "bfloat16";
    case at::kHalf: return "float16";
    case at::kLong: return "int64";
    case at::kInt: return "int32";
    case at::kByte: return "uint8";
    case at::kBool: return "bool";
    case at::kComplexFloat: return "complex64";
    case at::kComplexDouble: return "complex128";
    default: return c10::toString(type);
  }
}

std::string describe(const at::Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  std::ostringstream out;
  out << dtypeName(tensor.scalar_type()) << "[";
  for (int64_t i = 0; i < tensor.dim(); i++) out << (i == 0 ? "" : ", ") << tensor.size(i);
  out << "]";
  if (!tensor.device().is_cpu()) out << " on " << tensor.device().str();
  return out.str();
}

std::string describeSlot(napi_env env, napi_value value) {
  try {
    return describe(asTensor(env, value));
  } catch (const DisposedSlot&) {
    return "(freed)";
  } catch (const BadArgument&) {
    return show(env, value);
  }
}

std::string describeSlots(napi_env env, napi_value list) {
  constexpr uint32_t kShown = 8;
  try {
    const uint32_t length = arrayLength(env, list);
    std::string text;
    for (uint32_t i = 0; i < length && i < kShown; i++) {
      napi_value element;
      check(napi_get_element(env, list, i, &element), "expected an array of tensors");
      text += (i == 0 ? "" : ", ") + describeSlot(env, element);
    }
    if (length > kShown) text += ", … (" + std::to_string(length) + " in all)";
    return "(" + text + ")";
  } catch (const BadArgument&) {
    return show(env, list);
  }
}

void clearAtExit(napi_env env) {
  check(napi_add_env_cleanup_hook(
            env,
            [](void*) {
              errorFactory = nullptr;  // goes with the environment
              tensors() = {};
              generators() = {};
            },
            nullptr),
        "internal: cannot add a hook");
}

void define(napi_env env, napi_value exports, const char* name, napi_callback callback) {
  napi_value function;
  check(napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function),
        "internal: cannot make a function");
  check(napi_set_named_property(env, exports, name, function), "internal: cannot export a function");
}

}  // namespace posttrain
