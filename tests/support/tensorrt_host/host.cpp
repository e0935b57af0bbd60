// As much of TensorRT as it takes to drive the plugin: loads the library, asks what TensorRT asks, enqueues.
// Plain C outside, so that Python holds the expectations. It needs TensorRT's headers and none of its
// libraries.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace {

constexpr int INPUTS = 5, OUTPUTS = 4, KEEP = 3;

// --- symbolic dimensions -----------------------------------------------------------------------------------

struct Value final : apiv::VDimensionExpr {
  explicit Value(int64_t value) : value(value) {}
  bool isConstant() const override { return false; }
  int64_t getConstantValue() const override { return value; }
  bool isSizeTensor() const override { return false; }
  int64_t value;
};
struct Expression final : IDimensionExpr {
  explicit Expression(int64_t number) : value(number) { mImpl = &value; }
  Value value;
};
struct Builder final : IExprBuilder {
  const IDimensionExpr* of(int64_t value) {
    made.push_back(std::make_unique<Expression>(value));
    return made.back().get();
  }
  std::vector<std::unique_ptr<Expression>> made;
};

// --- what the plugin says ----------------------------------------------------------------------------------

struct Log final : ILogger {
  void log(Severity, const char* message) noexcept override { text += std::string(message) + "\n"; }
  std::string text;
};
struct Finder final : ILoggerFinder {
  ILogger* findLogger() override { return &log; }
  Log log;
} finder;

struct Capabilities {
  IPluginV3OneCore* core;
  IPluginV3OneBuild* build;
  IPluginV3OneRuntime* runtime;
};
Capabilities of(IPluginV3* plugin) {
  return {static_cast<IPluginV3OneCore*>(plugin->getCapabilityInterface(PluginCapabilityType::kCORE)),
          static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD)),
          static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME))};
}

Dims dims(std::initializer_list<int64_t> extents) {
  Dims made{};
  made.nbDims = static_cast<int32_t>(extents.size());
  int i = 0;
  for (int64_t extent : extents) made.d[i++] = static_cast<decltype(made.d[0] + 0)>(extent);
  return made;
}

struct Tensors {
  PluginTensorDesc in[INPUTS]{}, out[OUTPUTS]{};
};
// B, T, D, K; x in float16 or float32.
Tensors tensors(const int64_t* shape, int half) {
  const int64_t batch = shape[0], tokens = shape[1], width = shape[2], slots = shape[3];
  const DataType x = half ? DataType::kHALF : DataType::kFLOAT;
  Tensors made;
  const Dims in[] = {dims({batch, tokens, width}), dims({batch}), dims({batch}), dims({1}), dims({1})};
  const Dims out[] = {dims({batch, slots, width}), dims({batch, slots}), dims({batch, slots}),
                      dims({batch, tokens})};
  for (int i = 0; i < INPUTS; ++i) {
    made.in[i].dims = in[i];
    made.in[i].type = i == 0 ? x : i == KEEP ? DataType::kINT64 : DataType::kINT32;
    made.in[i].format = TensorFormat::kLINEAR;
  }
  for (int i = 0; i < OUTPUTS; ++i) {
    made.out[i].dims = out[i];
    made.out[i].type = i == 0 ? x : DataType::kINT32;
    made.out[i].format = TensorFormat::kLINEAR;
  }
  return made;
}
std::vector<DynamicPluginTensorDesc> dynamic(const PluginTensorDesc* descs, int count) {
  std::vector<DynamicPluginTensorDesc> made(count);
  for (int i = 0; i < count; ++i) {
    made[i].desc = descs[i];
    made[i].min = made[i].max = made[i].opt = descs[i].dims;
  }
  return made;
}

}  // namespace

extern "C" {

// The plugin's only creator, or nullptr: then host_log says why.
IPluginCreatorV3One* host_open(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    finder.log.text += std::string(dlerror()) + "\n";
    return nullptr;
  }
  auto* set_finder = reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"));
  auto* get = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"));
  int32_t count = 0;
  if (set_finder == nullptr || get == nullptr) return nullptr;
  set_finder(&finder);
  IPluginCreatorInterface* const* creators = get(count);
  if (count != 1 || std::strcmp(creators[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") != 0)
    return nullptr;
  return static_cast<IPluginCreatorV3One*>(creators[0]);
}

const char* host_log() {
  return finder.log.text.c_str();
}
void host_clear_log() {
  finder.log.text.clear();
}

// "name version namespace: fields" of the creator.
void host_describe(IPluginCreatorV3One* creator, char* text, int room) {
  std::string fields;
  const PluginFieldCollection* names = creator->getFieldNames();
  for (int i = 0; i < names->nbFields; ++i) fields += std::string(" ") + names->fields[i].name;
  std::snprintf(text, room, "%s %s %s:%s", creator->getPluginName(), creator->getPluginVersion(),
                creator->getPluginNamespace(), fields.c_str());
}

// A plugin from the first `given` of the fields step_num and step_den, in int32 or, as an ONNX attribute has
// it, int64.
IPluginV3* host_create(IPluginCreatorV3One* creator, int64_t step_num, int64_t step_den, int wide,
                       int given) {
  const int32_t narrow[] = {static_cast<int32_t>(step_num), static_cast<int32_t>(step_den)};
  const int64_t whole[] = {step_num, step_den};
  const PluginFieldType type = wide ? PluginFieldType::kINT64 : PluginFieldType::kINT32;
  PluginField fields[2];
  for (int i = 0; i < 2; ++i)
    fields[i] = PluginField(i == 0 ? "step_num" : "step_den",
                            wide ? static_cast<const void*>(whole + i) : narrow + i, type, 1);
  const PluginFieldCollection collection{given, fields};
  return creator->createPlugin("merge", &collection, TensorRTPhase::kBUILD);
}

IPluginV3* host_clone(IPluginV3* plugin) {
  return plugin->clone();
}
IPluginV3* host_attach(IPluginV3* plugin) {
  return of(plugin).runtime->attachToContext(nullptr);
}
void host_destroy(IPluginV3* plugin) {
  delete plugin;
}

// Through an engine file and back: only the bytes of the fields outlive the first plugin.
IPluginV3* host_reload(IPluginCreatorV3One* creator, IPluginV3* plugin) {
  const PluginFieldCollection* saved = of(plugin).runtime->getFieldsToSerialize();
  std::vector<std::string> names;
  std::vector<int32_t> values;
  for (int i = 0; i < saved->nbFields; ++i) {
    if (saved->fields[i].type != PluginFieldType::kINT32 || saved->fields[i].length != 1) return nullptr;
    names.emplace_back(saved->fields[i].name);
    values.push_back(*static_cast<const int32_t*>(saved->fields[i].data));
  }
  std::vector<PluginField> fields;
  for (size_t i = 0; i < names.size(); ++i)
    fields.emplace_back(names[i].c_str(), &values[i], PluginFieldType::kINT32, 1);
  const PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
  delete plugin;
  return creator->createPlugin("merge", &collection, TensorRTPhase::kRUNTIME);
}

const char* host_timing_id(IPluginV3* plugin) {
  return of(plugin).build->getTimingCacheID();
}
int host_outputs(IPluginV3* plugin) {
  return of(plugin).build->getNbOutputs();
}

// Output shapes [4][3] as TensorRT would infer them from x's shape and the value of keep; 0 where there is no
// dimension.
int host_shapes(IPluginV3* plugin, const int64_t* x, int x_dims, int64_t keep, int shape_inputs,
                int64_t* out) {
  Builder builder;
  DimsExprs in[INPUTS]{}, shapes[1]{}, result[OUTPUTS]{};
  in[0].nbDims = x_dims;
  for (int i = 0; i < x_dims; ++i) in[0].d[i] = builder.of(x[i]);
  for (int i = 1; i < INPUTS; ++i) {
    in[i].nbDims = 1;
    in[i].d[0] = builder.of(i < KEEP ? x[0] : 1);
  }
  shapes[0].nbDims = 1;
  shapes[0].d[0] = builder.of(keep);
  const int status =
      of(plugin).build->getOutputShapes(in, INPUTS, shapes, shape_inputs, result, OUTPUTS, builder);
  if (status != 0) return status;
  for (int i = 0; i < OUTPUTS; ++i)
    for (int j = 0; j < 3; ++j)
      out[3 * i + j] = j < result[i].nbDims ? result[i].d[j]->getConstantValue() : 0;
  return 0;
}

int host_types(IPluginV3* plugin, int x_type, int32_t* out) {
  DataType types[OUTPUTS];
  const DataType in[INPUTS] = {static_cast<DataType>(x_type), DataType::kINT32, DataType::kINT32,
                               DataType::kINT64, DataType::kINT32};
  const int status = of(plugin).build->getOutputDataTypes(types, OUTPUTS, in, INPUTS);
  for (int i = 0; i < OUTPUTS; ++i) out[i] = static_cast<int32_t>(types[i]);
  return status;
}

// Whether tensor `position` (inputs, then outputs) may have this type and format while x has x_type.
int host_supports(IPluginV3* plugin, int position, int x_type, int type, int format) {
  const int64_t shape[] = {2, 8, 4, 3};
  Tensors made = tensors(shape, 0);
  std::vector<DynamicPluginTensorDesc> all = dynamic(made.in, INPUTS);
  for (const DynamicPluginTensorDesc& desc : dynamic(made.out, OUTPUTS)) all.push_back(desc);
  all[0].desc.type = static_cast<DataType>(x_type);
  all[position].desc.type = static_cast<DataType>(type);
  all[position].desc.format = static_cast<TensorFormat>(format);
  return of(plugin).build->supportsFormatCombination(position, all.data(), INPUTS, OUTPUTS);
}

int host_type(const char* name) {
  const std::pair<const char*, DataType> types[] = {
      {"float32", DataType::kFLOAT}, {"float16", DataType::kHALF}, {"int8", DataType::kINT8},
      {"int32", DataType::kINT32},   {"int64", DataType::kINT64},  {"bfloat16", DataType::kBF16}};
  for (const auto& [known, type] : types)
    if (std::strcmp(known, name) == 0) return static_cast<int>(type);
  return -1;
}
int host_linear() {
  return static_cast<int>(TensorFormat::kLINEAR);
}

int64_t host_workspace(IPluginV3* plugin, const int64_t* shape, int half) {
  const Tensors made = tensors(shape, half);
  const auto in = dynamic(made.in, INPUTS), out = dynamic(made.out, OUTPUTS);
  if (of(plugin).build->configurePlugin(in.data(), INPUTS, out.data(), OUTPUTS) != 0) return -1;
  return static_cast<int64_t>(of(plugin).build->getWorkspaceSize(in.data(), INPUTS, out.data(), OUTPUTS));
}

// in: x, lengths, targets, keep, window; out: y, sizes, anchors, source_map.
int host_enqueue(IPluginV3* plugin, const int64_t* shape, int half, void** in, void** out, void* workspace,
                 void* stream) {
  const Tensors made = tensors(shape, half);
  IPluginV3OneRuntime& runtime = *of(plugin).runtime;
  if (runtime.onShapeChange(made.in, INPUTS, made.out, OUTPUTS) != 0) return -1;
  return runtime.enqueue(made.in, made.out, in, out, workspace, static_cast<cudaStream_t>(stream));
}

// As enqueue is called when lengths has another extent than x has rows.
int host_wrong_lengths(IPluginV3* plugin) {
  const int64_t shape[] = {2, 8, 4, 3};
  Tensors made = tensors(shape, 0);
  made.in[1].dims.d[0] = 3;
  return of(plugin).runtime->onShapeChange(made.in, INPUTS, made.out, OUTPUTS);
}

}  // extern "C"
