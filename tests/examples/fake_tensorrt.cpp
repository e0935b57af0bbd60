// TensorRT and the CUDA runtime as far as the C++ example uses them, on the CPU. An engine file is a text
// that describes the tensors; what an engine computes is asked of the test over a socket. Device memory is a
// heap with known ends, full of rubbish, so that an address or a size that is wrong is seen. stubs.h is
// generated from TensorRT's own headers.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "stubs.h"

using namespace nvinfer1;

namespace {

std::map<const char*, size_t> allocations;

// Whether the bytes at `data` are inside one allocation of device memory.
bool on_device(const void* data, size_t bytes) {
  const char* start = static_cast<const char*>(data);
  auto after = allocations.upper_bound(start);
  if (after == allocations.begin()) return false;
  --after;
  return start + bytes <= after->first + after->second;
}

FILE* test() {
  static FILE* socket = fdopen(std::atoi(std::getenv("LTBM_TEST_SOCKET")), "r+b");
  return socket;
}

struct Description {
  bool input;
  DataType type;
  TensorLocation location;
  Dims dims;
  std::vector<Dims> least, most;  // one each profile
};

struct Model {
  std::string stage;
  int profiles = 0;
  std::vector<std::string> names;
  std::map<std::string, Description> tensors;
  std::map<std::string, std::string> aliases;

  const Description* find(const char* name) const {
    const auto found = tensors.find(name);
    return found == tensors.end() ? nullptr : &found->second;
  }
};

Dims read_dims(std::istream& text, int count) {
  Dims made{};
  made.nbDims = count;
  for (int i = 0; i < count; ++i) text >> made.d[i];
  return made;
}

// stage encoder 1 / input|output float32 device 2 -1 128 1 128 3000 128 input_features / alias present.0.key
// past.0.key
Model parse(const std::string& text) {
  const std::map<std::string, DataType> types{{"float32", DataType::kFLOAT},
                                              {"float16", DataType::kHALF},
                                              {"int32", DataType::kINT32},
                                              {"int64", DataType::kINT64}};
  Model made;
  std::istringstream lines(text);
  for (std::string line, kind; std::getline(lines, line);) {
    std::istringstream words(line);
    words >> kind;
    if (kind == "stage") {
      words >> made.stage >> made.profiles;
    } else if (kind == "alias") {
      std::string output, input;
      words >> output >> input;
      made.aliases[output] = input;
    } else {
      std::string type, place, name;
      int count;
      words >> type >> place >> count;
      Description tensor{kind == "input",
                         types.at(type),
                         place == "host" ? TensorLocation::kHOST : TensorLocation::kDEVICE,
                         read_dims(words, count),
                         {},
                         {}};
      for (int profile = 0; tensor.input && profile < made.profiles; ++profile) {
        tensor.least.push_back(read_dims(words, count));
        tensor.most.push_back(read_dims(words, count));
      }
      words >> name;
      made.names.push_back(name);
      made.tensors[name] = tensor;
    }
  }
  return made;
}

size_t itemsize(DataType type) {
  return type == DataType::kINT64 ? 8 : type == DataType::kHALF ? 2 : 4;
}

struct Context final : VExecutionContextStub {
  explicit Context(const Model& model) : model(model) {}
  IExecutionContext* getPImpl() noexcept override { return nullptr; }
  bool setOptimizationProfileAsync(int32_t index, cudaStream_t) noexcept override {
    profile = index;
    shapes.clear();  // as TensorRT does
    return index < model.profiles;
  }
  bool setInputShape(char const* name, Dims const& dims) noexcept override {
    const Description* tensor = model.find(name);
    if (tensor == nullptr || !tensor->input || dims.nbDims != tensor->dims.nbDims) return false;
    for (int i = 0; i < dims.nbDims; ++i)
      if (dims.d[i] < tensor->least[profile].d[i] || dims.d[i] > tensor->most[profile].d[i]) return false;
    shapes[name] = dims;
    return true;
  }
  bool setTensorAddress(char const* name, void* data) noexcept override {
    addresses[name] = data;
    const bool aligned =
        reinterpret_cast<uintptr_t>(data) % 256 == 0;  // NvInferRuntime.h asks for it on the device
    return model.find(name) != nullptr && data != nullptr && (aligned || !on_device(data, 1));
  }
  bool enqueueV3(cudaStream_t) noexcept override {
    FILE* socket = test();
    std::fprintf(socket, "%s %d\n", model.stage.c_str(), profile);
    for (const std::string& name : model.names)
      if (model.tensors.at(name).input && !send(socket, name))
        return complain(name + " is not where it should be");
    std::fprintf(socket, "end\n");
    std::fflush(socket);
    for (const std::string& name : model.names)
      if (!model.tensors.at(name).input && !receive(socket, name)) return complain(name + " has no room");
    return true;
  }

  bool send(FILE* socket, const std::string& name) {
    if (shapes.count(name) == 0 || addresses.count(name) == 0) return false;
    const Description& tensor = model.tensors.at(name);
    size_t bytes = itemsize(tensor.type);
    std::fprintf(socket, "%s", name.c_str());
    for (int i = 0; i < shapes[name].nbDims; ++i) {
      bytes *= shapes[name].d[i];
      std::fprintf(socket, " %lld", static_cast<long long>(shapes[name].d[i]));
    }
    std::fprintf(socket, "\n");
    if (on_device(addresses[name], bytes) != (tensor.location == TensorLocation::kDEVICE)) return false;
    return std::fwrite(addresses[name], 1, bytes, socket) == bytes;
  }
  bool receive(FILE* socket, const std::string& name) {
    uint64_t bytes = 0;
    if (std::fread(&bytes, sizeof(bytes), 1, socket) != 1 || !on_device(addresses[name], bytes)) return false;
    const auto alias = model.aliases.find(name);
    if (alias != model.aliases.end() && addresses[name] != addresses[alias->second]) return false;
    return std::fread(addresses[name], 1, bytes, socket) == bytes;
  }
  static bool complain(const std::string& what) {
    std::fprintf(stderr, "fake TensorRT: %s\n", what.c_str());
    return false;
  }

  const Model& model;
  int profile = 0;
  std::map<std::string, Dims> shapes;
  std::map<std::string, void*> addresses;
};
struct ContextApi final : IExecutionContext {
  explicit ContextApi(const Model& model) { mImpl = new Context(model); }
  ~ContextApi() noexcept override { delete mImpl; }
};

struct Engine final : VCudaEngineStub {
  explicit Engine(Model made) : model(std::move(made)) {}
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept override {
    return new ContextApi(model);
  }
  int32_t getNbOptimizationProfiles() const noexcept override { return model.profiles; }
  Dims getTensorShape(char const* name) const noexcept override { return model.find(name)->dims; }
  DataType getTensorDataType(char const* name) const noexcept override { return model.find(name)->type; }
  TensorIOMode getTensorIOMode(char const* name) const noexcept override {
    const Description* tensor = model.find(name);
    return tensor == nullptr ? TensorIOMode::kNONE
           : tensor->input   ? TensorIOMode::kINPUT
                             : TensorIOMode::kOUTPUT;
  }
  Dims getProfileShape(char const* name, int32_t profile, OptProfileSelector select) const noexcept override {
    const Description* tensor = model.find(name);
    return (select == OptProfileSelector::kMIN ? tensor->least : tensor->most).at(profile);
  }
  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(model.names.size()); }
  char const* getIOTensorName(int32_t index) const noexcept override { return model.names.at(index).c_str(); }
#if NV_TENSORRT_MAJOR > 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 15)
  char const* getAliasedInputTensor(char const* name) const noexcept override {
    const auto found = model.aliases.find(name);
    return found == model.aliases.end() ? nullptr : found->second.c_str();
  }
#endif
  Model model;
};
struct EngineApi final : ICudaEngine {
  explicit EngineApi(Model model) { mImpl = new Engine(std::move(model)); }
  ~EngineApi() noexcept override { delete mImpl; }
};

struct Registry final : IPluginRegistryStub {
  PluginLibraryHandle loadLibrary(char const* path) noexcept override {
    FILE* file = std::fopen(path, "rb");
    if (file != nullptr) std::fclose(file);
    return file;
  }
} registry;

struct Runtime final : VRuntimeStub {
  ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
    const std::string text(static_cast<const char*>(blob), size);
    return text.rfind("stage ", 0) == 0 ? new EngineApi(parse(text)) : nullptr;
  }
  IPluginRegistry& getPluginRegistry() noexcept override { return registry; }
};
struct RuntimeApi final : IRuntime {
  RuntimeApi() { mImpl = new Runtime; }
  ~RuntimeApi() noexcept override { delete mImpl; }
};

}  // namespace

extern "C" {

void* createInferRuntime_INTERNAL(void*, int32_t) noexcept {
  return static_cast<IRuntime*>(new RuntimeApi);
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  *data = std::aligned_alloc(256, (bytes + 256) / 256 * 256);
  std::memset(*data, 0x7F, bytes);  // a large float, no number in float16
  allocations[static_cast<char*>(*data)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  allocations.erase(static_cast<char*>(data));
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  if (!on_device(data, bytes)) return cudaErrorInvalidValue;
  std::memset(data, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  if (!on_device(kind == cudaMemcpyHostToDevice ? to : from, bytes)) return cudaErrorInvalidValue;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) {
  return "invalid value";
}

}  // extern "C"
