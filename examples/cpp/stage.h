// A stage: one TensorRT engine and its context, and the device memory it works on. Every call's result is
// checked.
#pragma once

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace ltbm {

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}
inline void check(bool done, const std::string& what) {
  if (!done) throw std::runtime_error(what);
}

class Stream {
 public:
  Stream() { check(cudaStreamCreate(&stream_), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void wait() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_ = nullptr;
};

// Device memory, zero at first.
class Buffer {
 public:
  Buffer() = default;
  Buffer(size_t bytes, const Stream& stream) {
    check(cudaMalloc(&data_, bytes), "cudaMalloc");
    check(cudaMemsetAsync(data_, 0, bytes, stream), "cudaMemsetAsync");
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  void* at(size_t offset = 0) const { return static_cast<char*>(data_) + offset; }

  template <class T>
  static Buffer of(const std::vector<T>& values, const Stream& stream) {
    Buffer made(values.size() * sizeof(T), stream);
    made.write(values.data(), values.size() * sizeof(T), 0, stream);
    return made;
  }
  void write(const void* host, size_t bytes, size_t offset, const Stream& stream) const {
    check(cudaMemcpyAsync(at(offset), host, bytes, cudaMemcpyHostToDevice, stream),
          "cudaMemcpyAsync to the device");
  }
  // The first `bytes` of `from`, to `offset` here; both on the device.
  void copy(const Buffer& from, size_t bytes, size_t offset, const Stream& stream) const {
    check(cudaMemcpyAsync(at(offset), from.at(), bytes, cudaMemcpyDeviceToDevice, stream),
          "cudaMemcpyAsync on the device");
  }
  void read(void* host, size_t bytes, const Stream& stream) const {
    check(cudaMemcpyAsync(host, data_, bytes, cudaMemcpyDeviceToHost, stream),
          "cudaMemcpyAsync from the device");
    stream.wait();
  }

 private:
  void* data_ = nullptr;
};

class Logger final : public nvinfer1::ILogger {
  void log(Severity severity, const char* message) noexcept override {
    if (severity <= Severity::kWARNING) std::fprintf(stderr, "TensorRT: %s\n", message);
  }
};

// Where a tensor lies; the shapes of outputs follow from those of inputs and may be left out.
struct Tensor {
  void* data;
  std::vector<int64_t> shape;
};
using Tensors = std::map<std::string, Tensor>;

class Stage {
 public:
  Stage(nvinfer1::IRuntime& runtime, const std::string& path) : path_(path) {
    std::ifstream file(path, std::ios::binary);
    check(bool(file), "no engine " + path + ": make it here with `ltbm build`");
    const std::vector<char> plan((std::istreambuf_iterator<char>(file)), {});
    engine_.reset(runtime.deserializeCudaEngine(plan.data(), plan.size()));
    check(engine_ != nullptr, path +
                                  " does not load: it was built by another TensorRT, for another GPU, or "
                                  "with another plugin; `ltbm build` again");
    context_.reset(engine_->createExecutionContext());
    check(context_ != nullptr, path + ": no execution context, too little memory?");
  }

  bool has(const std::string& name) const {
    return engine_->getTensorIOMode(name.c_str()) != nvinfer1::TensorIOMode::kNONE;
  }

  // Extents of a tensor, -1 where they vary.
  std::vector<int64_t> shape(const std::string& name) const {
    check(has(name), path_ + " has no tensor " + name + ": it was not built from a bundle of this version");
    const nvinfer1::Dims dims = engine_->getTensorShape(name.c_str());
    return {dims.d, dims.d + dims.nbDims};
  }

  nvinfer1::DataType type(const std::string& name) const { return engine_->getTensorDataType(name.c_str()); }

  // Bytes of a value of the tensor.
  size_t itemsize(const std::string& name) const {
    switch (type(name)) {
      case nvinfer1::DataType::kINT64: return 8;
      case nvinfer1::DataType::kFLOAT:
      case nvinfer1::DataType::kINT32: return 4;
      case nvinfer1::DataType::kHALF:
      case nvinfer1::DataType::kBF16: return 2;
      default: throw std::runtime_error(path_ + ": " + name + " has a type that this example does not know");
    }
  }

#if NV_TENSORRT_MAJOR > 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 15)
  bool updates_in_place(const std::string& output, const std::string& input) const {
    const char* aliased = engine_->getAliasedInputTensor(output.c_str());
    return aliased != nullptr && input == aliased;
  }
#else
  bool updates_in_place(const std::string&, const std::string&) const {
    return false;
  }
#endif

  // Run on the stream; every tensor of the engine must be given.
  void enqueue(const Tensors& tensors, const Stream& stream) {
    choose_profile(tensors, stream);
    for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
      const char* name = engine_->getIOTensorName(i);
      const auto given = tensors.find(name);
      check(given != tensors.end(), path_ + ": nothing is bound to " + name);
      const Tensor& tensor = given->second;
      if (engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT)
        check(context_->setInputShape(name, dims(tensor)), path_ + " does not take this shape of " + name);
      check(context_->setTensorAddress(name, tensor.data), path_ + " does not take this address of " + name);
    }
    check(context_->enqueueV3(stream), path_ + " does not run: see TensorRT's message above");
  }

 private:
  static nvinfer1::Dims dims(const Tensor& tensor) {
    nvinfer1::Dims made{};
    made.nbDims = static_cast<int32_t>(tensor.shape.size());
    for (int i = 0; i < made.nbDims; ++i) made.d[i] = tensor.shape[i];
    return made;
  }

  // The decoder has a profile for prefill, which takes everything, and then one for single tokens, which is
  // faster there.
  void choose_profile(const Tensors& tensors, const Stream& stream) {
    for (int profile = engine_->getNbOptimizationProfiles() - 1; profile >= 0; --profile) {
      if (!fits(tensors, profile)) continue;
      if (profile != profile_)
        check(context_->setOptimizationProfileAsync(profile, stream), path_ + ": profile");
      profile_ = profile;
      return;
    }
    throw std::runtime_error(
        path_ + " was built for smaller shapes: `ltbm build` with larger limits, or a shorter request");
  }

  bool fits(const Tensors& tensors, int profile) const {
    for (const auto& [name, tensor] : tensors) {
      if (engine_->getTensorIOMode(name.c_str()) != nvinfer1::TensorIOMode::kINPUT) continue;
      const auto least = engine_->getProfileShape(name.c_str(), profile, nvinfer1::OptProfileSelector::kMIN);
      const auto most = engine_->getProfileShape(name.c_str(), profile, nvinfer1::OptProfileSelector::kMAX);
      for (int i = 0; i < least.nbDims; ++i)
        if (tensor.shape.at(i) < least.d[i] || tensor.shape[i] > most.d[i]) return false;
    }
    return true;
  }

  std::string path_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  int profile_ = 0;
};

}  // namespace ltbm
