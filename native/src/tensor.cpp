// Tensors from and to JavaScript's typed arrays, and what a tensor says of itself.
#include <ATen/ATen.h>
#include <ATen/MapAllocator.h>
#include <sys/mman.h>

#include <cstring>
#include <unordered_set>

#include "napi.h"

namespace posttrain {
namespace {

struct Buffer {
  void* data;
  size_t length;  // elements
  at::ScalarType type;
};

Buffer asBuffer(napi_env env, napi_value value) {
  napi_typedarray_type type;
  Buffer buffer{};
  check(napi_get_typedarray_info(env, value, &type, &buffer.length, &buffer.data, nullptr, nullptr),
        "expected a typed array");
  switch (type) {
    case napi_float32_array: buffer.type = at::kFloat; break;
    case napi_float64_array: buffer.type = at::kDouble; break;
    case napi_int32_array: buffer.type = at::kInt; break;
    case napi_bigint64_array: buffer.type = at::kLong; break;
    case napi_uint8_array:
    case napi_uint8_clamped_array: buffer.type = at::kByte; break;
    default:
      throw BadArgument(
          "expected a Float32Array, Float64Array, Int32Array, BigInt64Array or Uint8Array");
  }
  return buffer;
}

// fromTypedArray(array, dtype, shape, device): a copy of the array's elements, converted to dtype.
napi_value fromTypedArray(napi_env env, napi_callback_info info) {
  return guard(env, "tensor", [&] {
    const Arguments arguments(env, info);
    const Buffer buffer = asBuffer(env, arguments[0]);
    const auto dtype = static_cast<at::ScalarType>(asInt32(env, arguments[1]));
    const std::vector<int64_t> shape = asInt64List(env, arguments[2]);
    const c10::Device device = asDevice(env, arguments[3]);
    uint64_t elements = 1;
    for (const int64_t size : shape) {
      if (size < 0 || __builtin_mul_overflow(elements, static_cast<uint64_t>(size), &elements)) {
        throw BadArgument("the shape is not one of a tensor");
      }
    }
    if (elements != buffer.length) throw BadArgument("the shape does not fit the data");
    if (elements == 0) return fromTensor(env, at::empty(shape, at::TensorOptions(dtype).device(device)));
    const at::Tensor view = at::from_blob(buffer.data, shape, at::TensorOptions(buffer.type));
    return fromTensor(env, view.to(at::TensorOptions(dtype).device(device), /*non_blocking=*/false, /*copy=*/true));
  });
}

// fromBytes(bytes, dtype, shape): the bytes are the elements, as in a file.
napi_value fromBytes(napi_env env, napi_callback_info info) {
  return guard(env, "tensor", [&] {
    const Arguments arguments(env, info);
    const Buffer buffer = asBuffer(env, arguments[0]);
    const auto dtype = static_cast<at::ScalarType>(asInt32(env, arguments[1]));
    at::Tensor result = at::empty(asInt64List(env, arguments[2]), at::TensorOptions(dtype));
    if (buffer.type != at::kByte || result.nbytes() != buffer.length) {
      throw BadArgument("the number of bytes does not fit the shape and the dtype");
    }
    std::memcpy(result.data_ptr(), buffer.data, buffer.length);
    return fromTensor(env, result);
  });
}

// V8 ends the process where a longer array is asked for.
void checkArrayLength(int64_t length) {
  if (length > UINT32_MAX) throw BadArgument("expected at most 4294967295 elements, as many as a JavaScript array holds");
}

napi_value makeArray(napi_env env, napi_typedarray_type type, const void* data, size_t length, size_t bytes) {
  void* target = nullptr;
  napi_value buffer;
  check(napi_create_arraybuffer(env, bytes, &target, &buffer), "internal: cannot make an array");
  if (bytes != 0) std::memcpy(target, data, bytes);
  napi_value result;
  check(napi_create_typedarray(env, type, length, buffer, 0, &result), "internal: cannot make an array");
  return result;
}

// toTypedArray(tensor): its elements in row-major order. 16-bit floats become float32, int64 becomes float64, and bool
// becomes uint8, because JavaScript has no arrays of those.
napi_value toTypedArray(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "toTypedArray", [&](const at::Tensor& source, const Arguments&) {
    checkArrayLength(source.numel());
    at::Tensor tensor = source.detach();
    napi_typedarray_type type;
    at::ScalarType target;
    switch (tensor.scalar_type()) {
      case at::kDouble:
      case at::kLong: type = napi_float64_array, target = at::kDouble; break;
      case at::kFloat:
      case at::kHalf:
      case at::kBFloat16: type = napi_float32_array, target = at::kFloat; break;
      case at::kInt: type = napi_int32_array, target = at::kInt; break;
      case at::kByte:
      case at::kBool: type = napi_uint8_array, target = at::kByte; break;
      default: throw BadArgument("expected a dtype that JavaScript has an array for");
    }
    tensor = tensor.to(at::kCPU, target).resolve_neg().contiguous();
    return makeArray(env, type, tensor.data_ptr(), tensor.numel(), tensor.nbytes());
  });
}

// toBytes(tensor): its elements as they lie in memory, row-major.
napi_value toBytes(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "toBytes", [&](const at::Tensor& source, const Arguments&) {
    checkArrayLength(static_cast<int64_t>(source.nbytes()));
    const at::Tensor tensor = source.detach().to(at::kCPU).resolve_conj().resolve_neg().contiguous();
    return makeArray(env, napi_uint8_array, tensor.data_ptr(), tensor.nbytes(), tensor.nbytes());
  });
}

napi_value item(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "item", [&](const at::Tensor& tensor, const Arguments&) {
    if (tensor.is_complex()) throw BadArgument("expected a real number");
    const at::Scalar value = tensor.item();
    if (value.isBoolean()) return fromBool(env, value.toBool());
    return fromDouble(env, value.toDouble());
  });
}

napi_value shape(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "shape", [&](const at::Tensor& tensor, const Arguments&) {
    napi_value result;
    check(napi_create_array_with_length(env, tensor.dim(), &result), "internal: cannot make an array");
    for (int64_t i = 0; i < tensor.dim(); i++) {
      check(napi_set_element(env, result, i, fromInt64(env, tensor.size(i))), "internal: cannot fill an array");
    }
    return result;
  });
}

napi_value dtype(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "dtype", [&](const at::Tensor& tensor, const Arguments&) {
    return fromInt32(env, static_cast<int32_t>(tensor.scalar_type()));
  });
}

napi_value device(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "device", [&](const at::Tensor& tensor, const Arguments&) {
    return fromString(env, tensor.device().str());
  });
}

napi_value isContiguous(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "isContiguous", [&](const at::Tensor& tensor, const Arguments&) {
    return fromBool(env, tensor.is_contiguous());
  });
}

// release(slots: Int32Array, count): frees the first `count` slots.
napi_value release(napi_env env, napi_callback_info info) {
  return guard(env, "release", [&]() -> napi_value {
    const Arguments arguments(env, info);
    const Buffer buffer = asBuffer(env, arguments[0]);
    const int64_t count = asInt64(env, arguments[1]);
    if (buffer.type != at::kInt || count < 0 || count > static_cast<int64_t>(buffer.length)) throw BadArgument("expected an Int32Array of slots");
    for (int64_t i = 0; i < count; i++) tensors().release(static_cast<const int32_t*>(buffer.data)[i]);
    return nullptr;
  });
}

napi_value releaseOne(napi_env env, napi_callback_info info) {
  return guard(env, "release", [&]() -> napi_value {
    const Arguments arguments(env, info);
    tensors().release(asSlot(env, arguments[0]));
    return nullptr;
  });
}

// memory(): [live slots, bytes of the distinct storages behind them].
napi_value memory(napi_env env, napi_callback_info info) {
  return guard(env, "memory", [&] {
    std::unordered_set<const void*> seen;
    int64_t bytes = 0;
    for (const at::Tensor& tensor : tensors().values()) {
      if (!tensor.defined() || !tensor.has_storage()) continue;
      if (seen.insert(tensor.storage().unsafeGetStorageImpl()).second) {
        bytes += static_cast<int64_t>(tensor.storage().nbytes());
      }
    }
    napi_value result;
    check(napi_create_array_with_length(env, 2, &result), "internal: cannot make an array");
    check(napi_set_element(env, result, 0, fromInt64(env, tensors().live())), "internal: cannot fill an array");
    check(napi_set_element(env, result, 1, fromInt64(env, bytes)), "internal: cannot fill an array");
    return result;
  });
}

// storageBytes(tensor): for telling V8 how much memory hangs on a small object. Tensors that share a storage share its
// bytes, so that hundreds of views of one file do not look like hundreds of files.
napi_value storageBytes(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "storageBytes", [&](const at::Tensor& tensor, const Arguments&) {
    if (!tensor.has_storage()) return fromInt64(env, 0);
    const c10::Storage& storage = tensor.storage();
    return fromInt64(env, static_cast<int64_t>(storage.nbytes() / storage.use_count()));
  });
}

// giveBackPages(tensor): the pages of the mapped file that a tensor lies in leave memory, and come back when they are read.
// What was written to a mapping that is not shared is lost.
napi_value giveBackPages(napi_env env, napi_callback_info info) {
  return guardTensor(env, info, "giveBackPages", [&](const at::Tensor& tensor, const Arguments&) -> napi_value {
    const at::MapAllocator* const map = at::MapAllocator::fromDataPtr(tensor.storage().data_ptr());
    TORCH_CHECK(map != nullptr, "expected a tensor that lies in a mapped file");
    madvise(map->data(), map->size(), MADV_DONTNEED);  // pages that are locked stay, which is no error of a computation
    return nullptr;
  });
}

napi_value adjustExternalMemory(napi_env env, napi_callback_info info) {
  return guard(env, "adjustExternalMemory", [&]() -> napi_value {
    const Arguments arguments(env, info);
    int64_t total = 0;
    check(napi_adjust_external_memory(env, asInt64(env, arguments[0]), &total), "expected a number of bytes");
    return nullptr;
  });
}

}  // namespace

void defineTensors(napi_env env, napi_value exports) {
  define(env, exports, "fromTypedArray", fromTypedArray);
  define(env, exports, "fromBytes", fromBytes);
  define(env, exports, "toTypedArray", toTypedArray);
  define(env, exports, "toBytes", toBytes);
  define(env, exports, "item", item);
  define(env, exports, "shape", shape);
  define(env, exports, "dtype", dtype);
  define(env, exports, "device", device);
  define(env, exports, "isContiguous", isContiguous);
  define(env, exports, "release", release);
  define(env, exports, "releaseOne", releaseOne);
  define(env, exports, "memory", memory);
  define(env, exports, "storageBytes", storageBytes);
  define(env, exports, "giveBackPages", giveBackPages);
  define(env, exports, "adjustExternalMemory", adjustExternalMemory);
}

}  // namespace posttrain
