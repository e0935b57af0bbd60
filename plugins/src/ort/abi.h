// The slice of ONNX Runtime's C ABI that a custom op needs, declared by hand: no wheel ships the headers, and
// the ABI is frozen and append-only. A function is its place in the table that OrtApiBase hands out.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ltbm::ort {

constexpr uint32_t kApiVersion = 24;  // of ONNX Runtime 1.24

struct ApiBase {
  const void* const* (*get_api)(uint32_t version);  // null if the runtime is older
  const char* (*get_version)();
};

struct Status;  // null is success
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct Shape;

enum ErrorCode { kFail = 1, kInvalidArgument = 2 };
enum ElementType { kFloat = 1, kUint8 = 2, kInt8 = 3, kInt32 = 6, kInt64 = 7, kFloat16 = 10 };
enum Presence { kRequired = 0, kOptional = 1 };
enum MemoryType { kDefaultMemory = 0 };

// Place and type of each function; all but the one that makes a status return one.
template <size_t place, class Result, class... Arguments>
struct Function {
  static Result call(const void* const* api, Arguments... arguments) {
    return reinterpret_cast<Result (*)(Arguments...)>(const_cast<void*>(api[place]))(arguments...);
  }
};

using CreateStatus = Function<0, Status*, ErrorCode, const char*>;
using CreateDomain = Function<26, Status*, const char*, Domain**>;
using AddToDomain = Function<27, Status*, Domain*, const struct CustomOp*>;
using AddDomain = Function<28, Status*, SessionOptions*, Domain*>;
using GetTensorData = Function<51, Status*, Value*, void**>;
using GetRank = Function<61, Status*, const Shape*, size_t*>;
using GetDimensions = Function<62, Status*, const Shape*, int64_t*, size_t>;
using GetShape = Function<65, Status*, const Value*, Shape**>;
using GetAttribute = Function<86, Status*, const KernelInfo*, const char*, int64_t*>;
using GetInput = Function<90, Status*, const KernelContext*, size_t, const Value**>;
using GetOutput = Function<91, Status*, KernelContext*, size_t, const int64_t*, size_t, Value**>;
using ReleaseStatus = Function<93, void, Status*>;
using ReleaseShape = Function<99, void, Shape*>;
using Parallel = Function<274, Status*, const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*>;

// What ONNX Runtime asks of an op, in the order of its members up to API version 24. Those left null are
// optional.
struct CustomOp {
  uint32_t version = kApiVersion;
  void* (*create_kernel)(const CustomOp*, const void* const*,
                         const KernelInfo*) = nullptr;  // the V2 one is used
  const char* (*name)(const CustomOp*);
  const char* (*provider)(const CustomOp*);
  ElementType (*input_type)(const CustomOp*, size_t);
  size_t (*input_count)(const CustomOp*);
  ElementType (*output_type)(const CustomOp*, size_t);
  size_t (*output_count)(const CustomOp*);
  void (*compute)(void*, KernelContext*) = nullptr;  // the V2 one is used
  void (*destroy_kernel)(void*);
  Presence (*input_presence)(const CustomOp*, size_t);
  Presence (*output_presence)(const CustomOp*, size_t);
  MemoryType (*input_memory)(const CustomOp*, size_t);
  int (*variadic_input_arity)(const CustomOp*) = nullptr;
  int (*variadic_input_same_type)(const CustomOp*) = nullptr;
  int (*variadic_output_arity)(const CustomOp*) = nullptr;
  int (*variadic_output_same_type)(const CustomOp*) = nullptr;
  Status* (*create_kernel_v2)(const CustomOp*, const void* const*, const KernelInfo*, void**);
  Status* (*compute_v2)(void*, KernelContext*);
  Status* (*infer_shapes)(const CustomOp*, void*) = nullptr;
  int (*start_version)(const CustomOp*);
  int (*end_version)(const CustomOp*);
  size_t (*may_inplace)(int**, int**) = nullptr;
  void (*release_may_inplace)(int*, int*) = nullptr;
  size_t (*alias_map)(int**, int**) = nullptr;
  void (*release_alias_map)(int*, int*) = nullptr;
};

}  // namespace ltbm::ort
