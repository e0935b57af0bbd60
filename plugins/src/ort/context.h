// What the kernels share: the runtime's errors, and tensors by their place.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "abi.h"

namespace ltbm::ort {

using Api = const void* const*;

// A status of the runtime on its way back to it.
struct Failure {
  Status* status;
};

inline void check_status(Status* status) {
  if (status) throw Failure{status};
}

// What `body` throws, as a status that begins with the name of the op.
template <class Body>
Status* caught(Api api, const char* op, Body body) {
  const auto status_of = [=](ErrorCode code, const std::exception& error) {
    return CreateStatus::call(api, code, (std::string(op) + ", native CPU op: " + error.what()).c_str());
  };
  try {
    body();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::invalid_argument& error) {
    return status_of(kInvalidArgument, error);
  } catch (const std::exception& error) {
    return status_of(kFail, error);
  }
}

inline std::string text_of(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

inline std::vector<int64_t> shape_of(Api api, const Value* value) {
  Shape* raw = nullptr;
  check_status(GetShape::call(api, value, &raw));
  const auto release = [api](Shape* shape) { ReleaseShape::call(api, shape); };
  const std::unique_ptr<Shape, decltype(release)> shape(raw, release);
  size_t rank = 0;
  check_status(GetRank::call(api, raw, &rank));
  std::vector<int64_t> dimensions(rank);
  check_status(GetDimensions::call(api, raw, dimensions.data(), rank));
  return dimensions;
}

// The elements of an input, null where an optional one is left out.
template <class T>
const T* input(Api api, const KernelContext* context, size_t index, const Value** value) {
  check_status(GetInput::call(api, context, index, value));
  if (!*value) return nullptr;
  void* data = nullptr;
  check_status(GetTensorData::call(api, const_cast<Value*>(*value), &data));
  return static_cast<const T*>(data);
}

template <class T>
T* output(Api api, KernelContext* context, size_t index, const std::vector<int64_t>& shape) {
  Value* value = nullptr;
  check_status(GetOutput::call(api, context, index, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check_status(GetTensorData::call(api, value, &data));
  return static_cast<T*>(data);
}

// Runs body(0), ..., body(count - 1) on the runtime's own threads, as many as the session was given.
// batches: how many parts they are handed out in; 0 for one a thread
inline void run_parallel(Api api, const KernelContext* context, size_t count, size_t batches,
                         const std::function<void(size_t)>& body) {
  const auto call = [](void* pointer, size_t i) {
    (*static_cast<const std::function<void(size_t)>*>(pointer))(i);
  };
  void* pointer = const_cast<void*>(static_cast<const void*>(&body));
  if (count) check_status(Parallel::call(api, context, call, count, batches, pointer));
}

}  // namespace ltbm::ort
