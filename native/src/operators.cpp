// Any operator of ATen's dispatcher as a JavaScript function.
//
// operator(name): resolves `aten::add.Tensor` once, keeps how each argument is converted, and returns a function that
// takes slots, numbers, booleans, strings and arrays of them in the order of the schema. A missing argument takes the
// schema's default. An operator that writes into its first argument returns undefined.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/jit_type.h>
#include <ATen/ATen.h>

#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

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
  Dtype,
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
  const bool isDtype = argument.real_type()->str().starts_with("ScalarType");
  return {argument.name(), typeName, isDtype ? Kind::Dtype : kindOf(type), optional, argument.default_value()};
}

// Integers stay integers so that an integer tensor is not promoted to floating point. Every double from 2^53 to 2^63 is
// an integer too, and exact.
at::Scalar asScalar(napi_env env, napi_value value) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) {
    napi_valuetype type;
    check(napi_typeof(env, value, &type), "expected a number");
    if (type != napi_boolean) refuse(env, value, "a number");
    return at::Scalar(asBool(env, value));
  }
  const bool isInteger = number >= -9223372036854775808.0 && number < 9223372036854775808.0 &&
                         number == static_cast<double>(static_cast<int64_t>(number));
  if (isInteger) return at::Scalar(static_cast<int64_t>(number));
  return at::Scalar(number);
}

template <typename Element, typename Convert>
c10::List<Element> asList(napi_env env, napi_value value, Convert convert) {
  const uint32_t length = arrayLength(env, value);
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
    case Kind::Int:
    case Kind::Dtype: return asInt64(env, value);
    case Kind::Double: return asDouble(env, value);
    case Kind::Bool: return asBool(env, value);
    case Kind::String: return asString(env, value);
    case Kind::IntList: return asInt64List(env, value);
    case Kind::Device: return asDevice(env, value);
    case Kind::Generator: return generators().get(asSlot(env, value));
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

napi_value fromReturn(napi_env env, c10::IValue&& value) {
  if (value.isTensor()) return fromTensor(env, std::move(value).toTensor());
  if (value.isTensorList()) return fromSlots(env, value.toTensorVector());
  if (value.isDouble()) return fromDouble(env, value.toDouble());
  if (value.isInt()) return fromInt64(env, value.toInt());
  if (value.isBool()) return fromBool(env, value.toBool());
  if (value.isNone()) return undefinedValue(env);
  throw BadArgument("the operator returns a value of a kind that this addon does not convert");
}

std::string describeArgument(napi_env env, Kind kind, napi_value value) {
  switch (kind) {
    case Kind::Tensor: return describeSlot(env, value);
    case Kind::TensorList: return describeSlots(env, value);
    case Kind::Int:
    case Kind::Scalar:
    case Kind::Double:
    case Kind::Bool: return show(env, value);
    case Kind::Dtype: return dtypeName(static_cast<at::ScalarType>(asInt64(env, value)));
    case Kind::IntList:
      try {
        std::string text;
        for (const int64_t number : asInt64List(env, value)) {
          text += (text.empty() ? "" : ", ") + std::to_string(number);
        }
        return "[" + text + "]";
      } catch (const BadArgument&) {
        return "";
      }
    default: return "";
  }
}

// What the operator was called with, for the message of an error: self: float32[2, 3], dim: 1. Reads the JavaScript
// values again, so that a call that succeeds pays nothing for it.
std::string describeArguments(napi_env env, const Operator& op, const napi_value* values, size_t count) {
  std::string text;
  for (size_t i = 0; i < count && i < op.parameters.size(); i++) {
    if (isNullish(env, values[i])) continue;
    const std::string shown = describeArgument(env, op.parameters[i].kind, values[i]);
    if (!shown.empty()) text += (text.empty() ? "" : ", ") + op.parameters[i].name + ": " + shown;
  }
  return text;
}

// The arguments of a call. The memory is kept for the next one; a call that begins inside another (an array's element
// may be a getter) finds none and allocates. Whatever happens, no tensor stays behind.
struct Stack {
  Stack() { values.swap(spare); }
  ~Stack() {
    values.clear();
    values.swap(spare);
  }
  std::vector<c10::IValue> values;
  static thread_local std::vector<c10::IValue> spare;
};
thread_local std::vector<c10::IValue> Stack::spare;

// Argument i of the call, or its default.
void pushArgument(napi_env env, const Parameter& parameter, napi_value value, bool given, Stack& stack) {
  napi_valuetype type = napi_undefined;
  if (given) check(napi_typeof(env, value, &type), "expected a value");
  if (type == napi_undefined && parameter.defaultValue.has_value()) {
    stack.values.push_back(*parameter.defaultValue);
  } else if (parameter.optional && (type == napi_null || type == napi_undefined)) {
    stack.values.emplace_back();
  } else if (type == napi_undefined) {
    // Something that is not a Tensor has no slot, which arrives as undefined.
    const bool isTensor = parameter.kind == Kind::Tensor;
    throw BadArgument("argument " + parameter.name + (isTensor ? ": expected a Tensor" : " is missing"));
  } else {
    try {
      stack.values.push_back(convert(env, value, parameter));
    } catch (const BadArgument& error) {
      throw BadArgument("argument " + parameter.name + ": " + error.what());
    }
  }
}

napi_value callOperator(napi_env env, napi_callback_info info) {
  napi_value values[kMaxArguments];
  size_t count = kMaxArguments;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  const Operator& op = *static_cast<const Operator*>(data);

  const auto body = [&]() -> napi_value {
    Stack stack;
    const size_t expected = op.parameters.size();
    for (size_t i = 0; i < expected; i++) pushArgument(env, op.parameters[i], values[i], i < count, stack);
    op.handle.callBoxed(stack.values);

    std::vector<c10::IValue>& results = stack.values;
    if (op.writesInPlace || results.empty()) return nullptr;
    if (results.size() == 1) return fromReturn(env, std::move(results[0]));
    napi_value array;
    check(napi_create_array_with_length(env, results.size(), &array), "internal: cannot make an array");
    for (size_t i = 0; i < results.size(); i++) {
      check(napi_set_element(env, array, i, fromReturn(env, std::move(results[i]))), "internal: cannot fill an array");
    }
    return array;
  };
  return guard(env, op.name.c_str(), body, [&] { return describeArguments(env, op, values, count); });
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

// The operator of that name, made once per process: every thread that loads the addon shares it.
const Operator& operatorNamed(const std::string& name, const c10::OperatorHandle& handle) {
  static std::mutex mutex;
  static auto& known = *new std::unordered_map<std::string, std::unique_ptr<const Operator>>();
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<const Operator>& entry = known[name];
  if (entry == nullptr) {
    auto op = std::make_unique<Operator>(handle);
    op->name = name;
    const c10::FunctionSchema& schema = handle.schema();
    for (const c10::Argument& argument : schema.arguments()) op->parameters.push_back(parameterOf(argument));
    if (op->parameters.size() > kMaxArguments) throw BadArgument("the operator has too many arguments");
    const auto& returns = schema.returns();
    op->writesInPlace = !returns.empty() && returns[0].alias_info() != nullptr && returns[0].alias_info()->isWrite();
    entry = std::move(op);
  }
  return *entry;
}

// operator(name): the function, or undefined where this libtorch has no such operator.
napi_value bindOperator(napi_env env, napi_callback_info info) {
  return guard(env, "operator", [&] {
    const Arguments arguments(env, info);
    const std::string name = asString(env, arguments[0]);
    const auto handle = find(name);
    if (!handle.has_value()) return undefinedValue(env);
    napi_value function;
    check(napi_create_function(env, name.c_str(), name.size(), callOperator,
                               const_cast<Operator*>(&operatorNamed(name, *handle)), &function),
          "internal: cannot make a function");
    return function;
  });
}

}  // namespace

void defineOperators(napi_env env, napi_value exports) {
  define(env, exports, "operator", bindOperator);
  define(env, exports, "schemaOf", schemaOf);
}

}  // namespace posttrain
