// Any operator of ATen's dispatcher as a JavaScript function.
//
// operator(name): resolves `aten::add.Tensor` once, keeps how each argument is converted, and returns a function that
// takes slots, numbers, booleans, strings and arrays of them in the order of the schema. A missing argument takes the
// schema's default. An operator that writes into its first argument returns undefined.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/jit_type.h>
#include <ATen/ATen.h>

#include <memory>
#include <optional>

#include "napi.h"

namespace posttrain {
namespace {

enum class Kind {
  Tensor,
  TensorList,
  OptionalTensorList,
  Scalar,
  ScalarList,
  OptionalScalarList,
  Int,
  IntList,
  Double,
  DoubleList,
  Bool,
  BoolList,
  String,
  Device,
  Generator,
  Unsupported,
};

struct Parameter {
  std::string name;
  std::string typeName;
  Kind kind;
  bool optional;
  std::optional<c10::IValue> defaultValue;
};

struct Operator {
  explicit Operator(c10::OperatorHandle operatorHandle) : handle(std::move(operatorHandle)) {}
  c10::OperatorHandle handle;
  std::string name;
  std::vector<Parameter> parameters;
  bool writesInPlace = false;
};

constexpr size_t kMaxArguments = 24;

Kind kindOfElement(const c10::TypePtr& type) {
  switch (type->kind()) {
    case c10::TypeKind::TensorType: return Kind::TensorList;
    case c10::TypeKind::NumberType: return Kind::ScalarList;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Kind::IntList;
    case c10::TypeKind::FloatType: return Kind::DoubleList;
    case c10::TypeKind::BoolType: return Kind::BoolList;
    case c10::TypeKind::OptionalType: {
      const auto inner = type->castRaw<c10::OptionalType>()->getElementType();
      if (inner->kind() == c10::TypeKind::TensorType) return Kind::OptionalTensorList;
      if (inner->kind() == c10::TypeKind::NumberType) return Kind::OptionalScalarList;
      return Kind::Unsupported;
    }
    default: return Kind::Unsupported;
  }
}

Kind kindOf(const c10::TypePtr& type) {
  switch (type->kind()) {
    case c10::TypeKind::TensorType: return Kind::Tensor;
    case c10::TypeKind::NumberType: return Kind::Scalar;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Kind::Int;
    case c10::TypeKind::FloatType: return Kind::Double;
    case c10::TypeKind::BoolType: return Kind::Bool;
    case c10::TypeKind::StringType: return Kind::String;
    case c10::TypeKind::DeviceObjType: return Kind::Device;
    case c10::TypeKind::GeneratorType: return Kind::Generator;
    case c10::TypeKind::ListType: return kindOfElement(type->castRaw<c10::ListType>()->getElementType());
    default: return Kind::Unsupported;
  }
}

Parameter parameterOf(const c10::Argument& argument) {
  c10::TypePtr type = argument.type();
  const bool optional = type->kind() == c10::TypeKind::OptionalType;
  const std::string typeName = type->str();
  if (optional) type = type->castRaw<c10::OptionalType>()->getElementType();
  return {argument.name(), typeName, kindOf(type), optional, argument.default_value()};
}

// Integers stay integers so that an integer tensor is not promoted to floating point.
at::Scalar asScalar(napi_env env, napi_value value) {
  napi_valuetype type;
  check(napi_typeof(env, value, &type), "expected a number");
  if (type == napi_boolean) return at::Scalar(asBool(env, value));
  const double number = asDouble(env, value);
  const bool isInteger = number >= -9007199254740992.0 && number <= 9007199254740992.0 &&
                         number == static_cast<double>(static_cast<int64_t>(number));
  if (isInteger) return at::Scalar(static_cast<int64_t>(number));
  return at::Scalar(number);
}

template <typename Element, typename Convert>
c10::List<Element> asList(napi_env env, napi_value value, Convert convert) {
  uint32_t length = 0;
  check(napi_get_array_length(env, value, &length), "expected an array");
  c10::List<Element> list;
  list.reserve(length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    check(napi_get_element(env, value, i, &element), "expected an array");
    list.push_back(convert(element));
  }
  return list;
}

c10::IValue convert(napi_env env, napi_value value, const Parameter& parameter) {
  switch (parameter.kind) {
    case Kind::Tensor: return asTensor(env, value);
    case Kind::Scalar: return asScalar(env, value);
    case Kind::Int: return asInt64(env, value);
    case Kind::Double: return asDouble(env, value);
    case Kind::Bool: return asBool(env, value);
    case Kind::String: return asString(env, value);
    case Kind::IntList: return asInt64List(env, value);
    case Kind::Device: return c10::Device(asString(env, value));
    case Kind::Generator: return generators().get(asInt32(env, value));
    case Kind::TensorList:
      return asList<at::Tensor>(env, value, [&](napi_value v) { return asTensor(env, v); });
    case Kind::OptionalTensorList:
      return asList<std::optional<at::Tensor>>(env, value, [&](napi_value v) {
        return isNullish(env, v) ? std::nullopt : std::optional<at::Tensor>(asTensor(env, v));
      });
    case Kind::ScalarList:
      return asList<at::Scalar>(env, value, [&](napi_value v) { return asScalar(env, v); });
    case Kind::OptionalScalarList:
      return asList<std::optional<at::Scalar>>(env, value, [&](napi_value v) {
        return isNullish(env, v) ? std::nullopt : std::optional<at::Scalar>(asScalar(env, v));
      });
    case Kind::DoubleList:
      return asList<double>(env, value, [&](napi_value v) { return asDouble(env, v); });
    case Kind::BoolList:
      return asList<bool>(env, value, [&](napi_value v) { return asBool(env, v); });
    case Kind::Unsupported: break;
  }
  throw BadArgument("argument " + parameter.name + " has type " + parameter.typeName +
                    ", which this addon does not convert");
}

napi_value fromReturn(napi_env env, const c10::IValue& value) {
  if (value.isTensor()) return fromTensor(env, value.toTensor());
  if (value.isTensorList()) return fromSlots(env, value.toTensorVector());
  if (value.isDouble()) return fromDouble(env, value.toDouble());
  if (value.isInt()) return fromInt64(env, value.toInt());
  if (value.isBool()) return fromBool(env, value.toBool());
  if (value.isNone()) return undefinedValue(env);
  throw BadArgument("the operator returns a value of a kind that this addon does not convert");
}

// What the operator was called with, for the message of an error: self: float[2, 3], dim: 1. Reads the JavaScript
// values again, so that a call that succeeds pays nothing for it.
std::string describeArguments(napi_env env, const Operator& op, const napi_value* values, size_t count) {
  std::string text;
  for (size_t i = 0; i < count && i < op.parameters.size(); i++) {
    std::string shown;
    try {
      if (isNullish(env, values[i])) continue;
      switch (op.parameters[i].kind) {
        case Kind::Tensor: shown = describe(asTensor(env, values[i])); break;
        case Kind::TensorList:
          for (const int32_t slot : asSlotList(env, values[i])) {
            shown += (shown.empty() ? "" : ", ") + describe(tensors().get(slot));
          }
          shown = "(" + shown + ")";
          break;
        case Kind::Int: shown = std::to_string(asInt64(env, values[i])); break;
        case Kind::IntList:
          for (const int64_t number : asInt64List(env, values[i])) {
            shown += (shown.empty() ? "" : ", ") + std::to_string(number);
          }
          shown = "[" + shown + "]";
          break;
        default: continue;
      }
    } catch (const std::exception&) {
      shown = "(freed or of a wrong type)";
    }
    text += (text.empty() ? "" : ", ") + op.parameters[i].name + ": " + shown;
  }
  return text;
}

napi_value callOperator(napi_env env, napi_callback_info info) {
  napi_value values[kMaxArguments];
  size_t count = kMaxArguments;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  const Operator& op = *static_cast<Operator*>(data);

  thread_local std::vector<c10::IValue> stack;
  stack.clear();
  const auto fail = [&](const char* kind, const std::string& message) -> napi_value {
    throwError(env, kind, op.name, message, describeArguments(env, op, values, count));
    return nullptr;
  };

  try {
    const size_t expected = op.parameters.size();
    for (size_t i = 0; i < expected; i++) {
      const Parameter& parameter = op.parameters[i];
      if (i < count) {
        napi_valuetype type;
        check(napi_typeof(env, values[i], &type), "expected a value");
        if (type != napi_undefined && type != napi_null) {
          try {
            stack.push_back(convert(env, values[i], parameter));
          } catch (const BadArgument& error) {
            throw BadArgument("argument " + parameter.name + ": " + error.what());
          }
          continue;
        }
        if (type == napi_null && parameter.optional) {
          stack.emplace_back();
          continue;
        }
      }
      if (parameter.defaultValue.has_value()) {
        stack.push_back(*parameter.defaultValue);
      } else if (parameter.optional) {
        stack.emplace_back();
      } else {
        throw BadArgument("argument " + parameter.name + " is missing");
      }
    }
    op.handle.callBoxed(stack);

    if (op.writesInPlace) {
      stack.clear();
      return nullptr;
    }
    napi_value result;
    if (stack.size() == 1) {
      result = fromReturn(env, stack[0]);
    } else if (stack.empty()) {
      result = nullptr;
    } else {
      check(napi_create_array_with_length(env, stack.size(), &result), "internal: cannot make an array");
      for (size_t i = 0; i < stack.size(); i++) {
        check(napi_set_element(env, result, i, fromReturn(env, stack[i])), "internal: cannot fill an array");
      }
    }
    stack.clear();
    return result;
  } catch (const PendingException&) {
    return nullptr;
  } catch (const DisposedSlot& error) {
    return fail("disposed", error.what());
  } catch (const BadArgument& error) {
    return fail("argument", error.what());
  } catch (const c10::Error& error) {
    return fail("native", error.what_without_backtrace());
  } catch (const std::exception& error) {
    return fail("native", error.what());
  }
}

std::optional<c10::OperatorHandle> find(const std::string& fullName) {
  const size_t colons = fullName.find("::");
  const size_t dot = fullName.find('.', colons == std::string::npos ? 0 : colons);
  const std::string base = fullName.substr(0, dot);
  const std::string overload = dot == std::string::npos ? "" : fullName.substr(dot + 1);
  return c10::Dispatcher::singleton().findSchema({base, overload});
}

// schemaOf(name): the schema as libtorch prints it, or undefined where this libtorch has no such operator.
napi_value schemaOf(napi_env env, napi_callback_info info) {
  return guard(env, "schemaOf", [&] {
    const Arguments arguments(env, info);
    const auto handle = find(asString(env, arguments[0]));
    if (!handle.has_value()) return undefinedValue(env);
    return fromString(env, c10::toString(handle->schema()));
  });
}

// operator(name): the function, or undefined where this libtorch has no such operator.
napi_value bindOperator(napi_env env, napi_callback_info info) {
  return guard(env, "operator", [&] {
    const Arguments arguments(env, info);
    const std::string name = asString(env, arguments[0]);
    const auto handle = find(name);
    if (!handle.has_value()) return undefinedValue(env);
    auto op = std::make_unique<Operator>(*handle);
    op->name = name;
    const c10::FunctionSchema& schema = handle->schema();
    for (const c10::Argument& argument : schema.arguments()) op->parameters.push_back(parameterOf(argument));
    if (op->parameters.size() > kMaxArguments) throw BadArgument("the operator has too many arguments");
    const auto& returns = schema.returns();
    op->writesInPlace = !returns.empty() && returns[0].alias_info() != nullptr && returns[0].alias_info()->isWrite();
    napi_value function;
    check(napi_create_function(env, name.c_str(), name.size(), callOperator, op.get(), &function),
          "internal: cannot make a function");
    op.release();  // Operators live as long as the process: there are a few hundred of them.
    return function;
  });
}

}  // namespace

void defineOperators(napi_env env, napi_value exports) {
  define(env, exports, "operator", bindOperator);
  define(env, exports, "schemaOf", schemaOf);
}

}  // namespace posttrain
