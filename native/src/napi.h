// Small helpers over the C Node-API. The C interface is used directly because its calls are the cost of an operator.
#pragma once

#define NAPI_VERSION 8
#include <node_api.h>

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

int32_t asInt32(napi_env env, napi_value value);
int64_t asInt64(napi_env env, napi_value value);
double asDouble(napi_env env, napi_value value);
bool asBool(napi_env env, napi_value value);
std::string asString(napi_env env, napi_value value);
std::vector<int64_t> asInt64List(napi_env env, napi_value value);
std::vector<int32_t> asSlotList(napi_env env, napi_value value);
bool isNullish(napi_env env, napi_value value);
at::Tensor& asTensor(napi_env env, napi_value value);

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

// A description of a tensor for messages: float32[2, 3].
std::string describe(const at::Tensor& tensor);

// Runs `body`; turns a C++ exception into a JavaScript one that names the operation. c10::Error::what() carries a C++
// backtrace, which belongs in a bug report and not in a user's terminal.
template <typename Body>
napi_value guard(napi_env env, const char* operation, Body body) {
  try {
    return body();
  } catch (const PendingException&) {
  } catch (const DisposedSlot& error) {
    throwError(env, "disposed", operation, error.what(), "");
  } catch (const BadArgument& error) {
    throwError(env, "argument", operation, error.what(), "");
  } catch (const c10::Error& error) {
    throwError(env, "native", operation, error.what_without_backtrace(), "");
  } catch (const std::exception& error) {
    throwError(env, "native", operation, error.what(), "");
  }
  return nullptr;
}

// Defines `name` on `exports`.
void define(napi_env env, napi_value exports, const char* name, napi_callback callback);

void defineOperators(napi_env env, napi_value exports);
void defineTensors(napi_env env, napi_value exports);
void defineAutograd(napi_env env, napi_value exports);
void defineRuntime(napi_env env, napi_value exports);

}  // namespace posttrain
