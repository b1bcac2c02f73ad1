// Small helpers over the C Node-API. The C interface is used directly because its calls are the cost of an operator.
#pragma once

#define NAPI_VERSION 8
#include <node_api.h>

#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "table.h"

namespace posttrain {

// A value from JavaScript has the wrong type. TypeScript's types keep users from this; it guards untyped callers.
struct BadArgument : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A JavaScript exception is already pending and must be left alone.
struct PendingException {};

inline void check(napi_status status, const char* expected) {
  if (status == napi_ok) return;
  if (status == napi_pending_exception) throw PendingException();
  throw BadArgument(expected);
}

// Throws BadArgument: expected `expected`, received what `value` is.
[[noreturn]] void refuse(napi_env env, napi_value value, const char* expected);

// A JavaScript value as it is written in messages: 1.5, "abc", null, an array.
std::string show(napi_env env, napi_value value);

// A tensor's or generator's slot. Only posttrain/torch makes these, so nothing more than being a number is checked.
inline int32_t asSlot(napi_env env, napi_value value) {
  int32_t result;
  if (napi_get_value_int32(env, value, &result) != napi_ok) refuse(env, value, "a tensor");
  return result;
}

// Integers are refused unless they are whole and exact: Node-API would make 0 of NaN and 1 of 1.5.
int32_t asInt32(napi_env env, napi_value value);
int64_t asInt64(napi_env env, napi_value value);
double asDouble(napi_env env, napi_value value);
bool asBool(napi_env env, napi_value value);
std::string asString(napi_env env, napi_value value);
uint32_t arrayLength(napi_env env, napi_value value);
std::vector<int64_t> asInt64List(napi_env env, napi_value value);
std::vector<int32_t> asSlotList(napi_env env, napi_value value);
bool isNullish(napi_env env, napi_value value);
inline at::Tensor& asTensor(napi_env env, napi_value value) { return tensors().get(asSlot(env, value)); }
// A device that the linked libtorch can use on this machine.
c10::Device asDevice(napi_env env, napi_value value);

napi_value fromInt32(napi_env env, int32_t value);
napi_value fromInt64(napi_env env, int64_t value);
napi_value fromDouble(napi_env env, double value);
napi_value fromBool(napi_env env, bool value);
napi_value fromString(napi_env env, const std::string& value);
napi_value fromSlots(napi_env env, const std::vector<at::Tensor>& values);
napi_value undefinedValue(napi_env env);

// A tensor becomes a new slot; an undefined tensor becomes 0.
inline napi_value fromTensor(napi_env env, at::Tensor value) {
  return fromInt32(env, value.defined() ? tensors().put(std::move(value)) : 0);
}

// Up to eight arguments; missing ones are undefined.
struct Arguments {
  Arguments(napi_env env, napi_callback_info info);
  napi_value operator[](size_t index) const { return values[index]; }
  napi_value values[8];
  size_t count = 8;
  void* data = nullptr;
};

// The JavaScript function (kind, operation, message, details) => Error that builds the thrown object.
void setErrorFactory(napi_env env, napi_value factory);
void throwError(napi_env env, const char* kind, const std::string& operation, const std::string& message,
                const std::string& details);

// Descriptions for messages: float32, and float32[2, 3].
const char* dtypeName(at::ScalarType type);
std::string describe(const at::Tensor& tensor);
std::string describeSlot(napi_env env, napi_value value);
std::string describeSlots(napi_env env, napi_value list);

// Throws the JavaScript error for the C++ exception being handled. `details` is asked only now, and may fail itself.
template <typename Details>
void report(napi_env env, const char* kind, const char* operation, const char* message, Details details) {
  try {
    throwError(env, kind, operation, message, details());
  } catch (...) {
    // The environment is going down, or describing the arguments ran into JavaScript that threw.
    napi_throw_error(env, "E_NATIVE", message);
  }
}

// Runs `body`; turns a C++ exception into a JavaScript one that names the operation, and `details()` what it was called
// with. c10::Error::what() carries a C++ backtrace, which belongs in a bug report and not in a user's terminal.
template <typename Body, typename Details>
napi_value guard(napi_env env, const char* operation, Body body, Details details) {
  try {
    return body();
  } catch (const PendingException&) {
  } catch (const DisposedSlot& error) {
    report(env, "disposed", operation, error.what(), details);
  } catch (const BadArgument& error) {
    report(env, "argument", operation, error.what(), details);
  } catch (const c10::Error& error) {
    report(env, "native", operation, error.what_without_backtrace(), details);
  } catch (const std::exception& error) {
    report(env, "native", operation, error.what(), details);
  } catch (...) {
    report(env, "native", operation, "an exception of an unknown kind", details);
  }
  return nullptr;
}

template <typename Body>
napi_value guard(napi_env env, const char* operation, Body body) {
  return guard(env, operation, body, [] { return std::string(); });
}

// For functions whose first argument is a tensor: `body(tensor, arguments)`.
template <typename Body>
napi_value guardTensor(napi_env env, napi_callback_info info, const char* operation, Body body) {
  return guard(env, operation, [&]() -> napi_value {
    const Arguments arguments(env, info);
    return guard(
        env, operation, [&]() -> napi_value { return body(asTensor(env, arguments[0]), arguments); },
        [&] { return "self: " + describeSlot(env, arguments[0]); });
  });
}

// Defines `name` on `exports`.
void define(napi_env env, napi_value exports, const char* name, napi_callback callback);

// Frees what this thread's environment holds, before the environment goes.
void clearAtExit(napi_env env);

void defineOperators(napi_env env, napi_value exports);
void defineTensors(napi_env env, napi_value exports);
void defineAutograd(napi_env env, napi_value exports);
void defineRuntime(napi_env env, napi_value exports);
void defineAllocator(napi_env env, napi_value exports);
void defineLinear(napi_env env, napi_value exports);
void definePacked(napi_env env, napi_value exports);

// Whether the processor has instructions for products of bfloat16.
bool processorMultipliesPairs();

}  // namespace posttrain
