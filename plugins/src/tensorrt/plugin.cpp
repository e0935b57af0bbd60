// The TensorRT plugin LTBM, version 1 of ai.ltbm: one source for TensorRT 10.0 and later.
//
// TensorRT finds it through getCreators when it loads the library, so nothing here needs a symbol of
// libnvinfer. `keep` is a shape input: its value K arrives in getOutputShapes only, and enqueue reads it off
// the outputs. Lengths, targets and window stay on the device.
#include <NvInferRuntime.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "../cuda/ltbm_cuda.h"

namespace {

using namespace nvinfer1;

constexpr char NAME[] = "LTBM", VERSION[] = "1", NAMESPACE[] = "ai.ltbm";
enum Input : int32_t { X, LENGTHS, TARGETS, KEEP, WINDOW, INPUTS };
enum Output : int32_t { Y, SIZES, ANCHORS, SOURCE_MAP, OUTPUTS };
constexpr int32_t OK = 0, FAILED = -1;  // what TensorRT's callbacks return

ILoggerFinder* logger_finder = nullptr;  // TensorRT sets it once, when it loads the library

int32_t fail(const char* reason) noexcept {
  ILogger* logger = logger_finder == nullptr ? nullptr : logger_finder->findLogger();
  if (logger != nullptr)
    logger->log(ILogger::Severity::kERROR, reason);
  else
    std::fprintf(stderr, "%s\n", reason);
  return FAILED;
}

struct Step {
  int32_t num = 2, den = 5;  // at most this share of the current tokens is merged away in one pass
};

class Plugin final : public IPluginV3,
                     public IPluginV3OneCore,
                     public IPluginV3OneBuild,
                     public IPluginV3OneRuntime {
 public:
  explicit Plugin(Step step)
      : step_(step),
        timing_id_("LTBM 1, step " + std::to_string(step.num) + "/" + std::to_string(step.den)),
        fields_{PluginField{"step_num", &step_.num, PluginFieldType::kINT32, 1},
                PluginField{"step_den", &step_.den, PluginFieldType::kINT32, 1}},
        collection_{static_cast<int32_t>(fields_.size()), fields_.data()} {}
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
      default: return nullptr;
    }
  }
  IPluginV3* clone() noexcept override { return new (std::nothrow) Plugin(step_); }

  const char* getPluginName() const noexcept override { return NAME; }
  const char* getPluginVersion() const noexcept override { return VERSION; }
  const char* getPluginNamespace() const noexcept override { return NAMESPACE; }

  // --- build ---

  int32_t getNbOutputs() const noexcept override { return OUTPUTS; }

  int32_t getOutputDataTypes(DataType* types, int32_t outputs, const DataType* input_types,
                             int32_t inputs) const noexcept override {
    if (inputs != INPUTS || outputs != OUTPUTS) return fail(WRONG_COUNT);
    types[Y] = input_types[X];
    types[SIZES] = types[ANCHORS] = types[SOURCE_MAP] = DataType::kINT32;
    return OK;
  }

  int32_t getOutputShapes(const DimsExprs* inputs, int32_t input_count, const DimsExprs* shape_inputs,
                          int32_t shape_input_count, DimsExprs* outputs, int32_t output_count,
                          IExprBuilder&) noexcept override {
    if (input_count != INPUTS || output_count != OUTPUTS) return fail(WRONG_COUNT);
    if (shape_input_count != 1 || shape_inputs[0].nbDims != 1)
      return fail(
          "LTBM: keep must be a shape input [1]: give the node tensorrt_plugin_shape_input_indices = [3]");
    if (inputs[X].nbDims != 3) return fail("LTBM: x must be [B, T, D]");
    const IDimensionExpr *batch = inputs[X].d[0], *tokens = inputs[X].d[1], *width = inputs[X].d[2];
    const IDimensionExpr* slots = shape_inputs[0].d[0];
    outputs[Y].nbDims = 3;
    outputs[Y].d[0] = batch;
    outputs[Y].d[1] = slots;
    outputs[Y].d[2] = width;
    for (int32_t output : {SIZES, ANCHORS, SOURCE_MAP}) {
      outputs[output].nbDims = 2;
      outputs[output].d[0] = batch;
      outputs[output].d[1] = output == SOURCE_MAP ? tokens : slots;
    }
    return OK;
  }

  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t inputs,
                                 int32_t outputs) noexcept override {
    if (inputs != INPUTS || outputs != OUTPUTS || position < 0 || position >= INPUTS + OUTPUTS) return false;
    const PluginTensorDesc& tensor = tensors[position].desc;
    if (tensor.format != TensorFormat::kLINEAR) return false;
    if (position == X) return tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF;
    if (position == INPUTS + Y) return tensor.type == tensors[X].desc.type;
    // Nobody reads keep here: TensorRT may hold shapes in either type.
    if (position == KEEP) return tensor.type == DataType::kINT64 || tensor.type == DataType::kINT32;
    return tensor.type == DataType::kINT32;
  }

  int32_t configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const DynamicPluginTensorDesc*, int32_t output_count) noexcept override {
    if (input_count != INPUTS || output_count != OUTPUTS) return fail(WRONG_COUNT);
    return inputs[X].max.nbDims == 3 && inputs[X].max.d[2] <= LTBM_WIDTH_MAX ? OK : fail(WRONG_X);
  }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t, const DynamicPluginTensorDesc*,
                          int32_t) const noexcept override {
    const Dims& most = inputs[X].max;
    return ltbm_cuda_workspace(static_cast<int32_t>(most.d[0]), static_cast<int32_t>(most.d[1]));
  }

  const char* getTimingCacheID() noexcept override { return timing_id_.c_str(); }

  // --- run ---

  int32_t onShapeChange(const PluginTensorDesc* inputs, int32_t input_count, const PluginTensorDesc* outputs,
                        int32_t output_count) noexcept override {
    if (input_count != INPUTS || output_count != OUTPUTS) return fail(WRONG_COUNT);
    const Dims &x = inputs[X].dims, &y = outputs[Y].dims;
    if (x.nbDims != 3 || x.d[2] > LTBM_WIDTH_MAX) return fail(WRONG_X);
    if (!is(inputs[LENGTHS].dims, x.d[0]) || !is(inputs[TARGETS].dims, x.d[0]) || !is(inputs[WINDOW].dims, 1))
      return fail("LTBM: lengths and targets must be [B], one for each row of x, and window [1]");
    return y.nbDims == 3 ? OK : fail("LTBM: y must be [B, K, D]");
  }

  int32_t enqueue(const PluginTensorDesc* input_desc, const PluginTensorDesc* output_desc,
                  const void* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override {
    const Dims &x = input_desc[X].dims, &y = output_desc[Y].dims;
    ltbm_cuda_call call{};
    call.x = inputs[X];
    call.lengths = static_cast<const int32_t*>(inputs[LENGTHS]);
    call.targets = static_cast<const int32_t*>(inputs[TARGETS]);
    call.window = static_cast<const int32_t*>(inputs[WINDOW]);
    call.y = outputs[Y];
    call.sizes = static_cast<int32_t*>(outputs[SIZES]);
    call.anchors = static_cast<int32_t*>(outputs[ANCHORS]);
    call.source_map = static_cast<int32_t*>(outputs[SOURCE_MAP]);
    call.workspace = workspace;
    call.batch = static_cast<int32_t>(x.d[0]);
    call.tokens = static_cast<int32_t>(x.d[1]);
    call.slots = static_cast<int32_t>(y.d[1]);
    call.width = static_cast<int32_t>(x.d[2]);
    call.half = input_desc[X].type == DataType::kHALF;
    call.step_num = step_.num;
    call.step_den = step_.den;
    const char* error = ltbm_cuda_enqueue(&call, stream);
    return error == nullptr ? OK : fail(error);
  }

  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }
  const PluginFieldCollection* getFieldsToSerialize() noexcept override { return &collection_; }

 private:
  static constexpr char WRONG_COUNT[] =
      "LTBM takes x, lengths, targets, keep, window and gives y, sizes, anchors, source_map";
  static constexpr char WRONG_X[] = "LTBM: x must be [B, T, D] with D up to 32767";
  static bool is(const Dims& dims, int64_t extent) noexcept {
    return dims.nbDims == 1 && dims.d[0] == extent;
  }

  const Step step_;
  const std::string timing_id_;
  const std::array<PluginField, 2> fields_;
  const PluginFieldCollection collection_;
};

// Reads a whole number; false if the field holds none.
bool read(const PluginField& field, int32_t& value) noexcept {
  if (field.data == nullptr || field.length != 1) return false;
  int64_t number = 0;
  if (field.type == PluginFieldType::kINT64) {
    std::memcpy(&number, field.data, sizeof(number));
  } else if (field.type == PluginFieldType::kINT32) {
    int32_t narrow = 0;
    std::memcpy(&narrow, field.data, sizeof(narrow));
    number = narrow;
  } else {
    return false;
  }
  value = static_cast<int32_t>(number);
  return number >= 1 && number == value;
}

class Creator final : public IPluginCreatorV3One {
 public:
  const char* getPluginName() const noexcept override { return NAME; }
  const char* getPluginVersion() const noexcept override { return VERSION; }
  const char* getPluginNamespace() const noexcept override { return NAMESPACE; }
  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

  IPluginV3* createPlugin(const char*, const PluginFieldCollection* given, TensorRTPhase) noexcept override {
    Step step;
    for (int32_t i = 0; given != nullptr && i < given->nbFields; ++i) {
      const PluginField& field = given->fields[i];
      int32_t* value = std::strcmp(field.name, "step_num") == 0   ? &step.num
                       : std::strcmp(field.name, "step_den") == 0 ? &step.den
                                                                  : nullptr;
      if (value == nullptr || read(field, *value)) continue;
      fail("LTBM: step_num and step_den must be positive whole numbers");
      return nullptr;
    }
    return new (std::nothrow) Plugin(step);
  }

 private:
  const std::array<PluginField, 2> fields_{PluginField{"step_num", nullptr, PluginFieldType::kINT32, 1},
                                           PluginField{"step_den", nullptr, PluginFieldType::kINT32, 1}};
  const PluginFieldCollection collection_{static_cast<int32_t>(fields_.size()), fields_.data()};
};

}  // namespace

#define LTBM_EXPORT extern "C" __attribute__((visibility("default")))

// What this file was built for, as `ltbm doctor` reads it: a device has no tool that tells.
#ifndef LTBM_ARCHITECTURES
#define LTBM_ARCHITECTURES "none"
#endif
#define LTBM_TEXT_OF(number) #number
#define LTBM_TEXT(number) LTBM_TEXT_OF(number)
LTBM_EXPORT const char ltbm_built_for[];
const char ltbm_built_for[] = "architectures=" LTBM_ARCHITECTURES ";cuda=" LTBM_TEXT(
    CUDART_VERSION) ";tensorrt=" LTBM_TEXT(NV_TENSORRT_MAJOR) "." LTBM_TEXT(NV_TENSORRT_MINOR);

LTBM_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  logger_finder = finder;
}

LTBM_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static Creator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}
