// Products of quantised weights, in float32, over weights that stay where they are:
// `ai.ltbm::MatMulNBits` version 1 is ONNX Runtime's op of this name at accuracy level 4, without g_idx;
// `ai.ltbm::DynamicQuantizeMatMul` version 1 is A [.., K] times B [K, N] int8 with a scale a column, b_scale
// [N], where each row of A is rounded to int8 with a scale of its own.
#include "../products/product.h"
#include "ops.h"

namespace ltbm::ort {
namespace {

struct Kernel {
  Api api;
  products::Weights weights;  // their sizes, as far as attributes say them
};

// --- what both share -------------------------------------------------------------------------------------

// An input of `count` elements, null where it is left out.
template <class T>
const T* values(Api api, const KernelContext* context, size_t index, const char* name, size_t count) {
  const Value* value = nullptr;
  const T* data = input<T>(api, context, index, &value);
  if (!data) return nullptr;
  size_t found = 1;
  const auto shape = shape_of(api, value);
  for (int64_t n : shape) found *= static_cast<size_t>(n);
  if (found != count)
    throw std::invalid_argument(std::string(name) + " has shape " + text_of(shape) + ", expected " +
                                std::to_string(count) + " values");
  return data;
}

void multiply(Api api, KernelContext* context, const products::Weights& w) {
  const Value* value = nullptr;
  const float* x = input<float>(api, context, 0, &value);
  auto shape = shape_of(api, value);
  if (shape.empty() || shape.back() != static_cast<int64_t>(w.width))
    throw std::invalid_argument("A has shape " + text_of(shape) + ", expected [.., " +
                                std::to_string(w.width) + "]");
  size_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= static_cast<size_t>(shape[i]);
  shape.back() = static_cast<int64_t>(w.columns);
  float* y = output<float>(api, context, 0, shape);
  products::multiply(w, x, rows, y, [&](size_t count, const std::function<void(size_t)>& body) {
    run_parallel(api, context, count, count, body);  // a thread that is late takes fewer
  });
}

CustomOp make_op() {
  CustomOp op = {};
  op.provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
  op.output_type = [](const CustomOp*, size_t) { return kFloat; };
  op.output_count = [](const CustomOp*) -> size_t { return 1; };
  op.destroy_kernel = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.output_presence = [](const CustomOp*, size_t) { return kRequired; };
  op.input_memory = [](const CustomOp*, size_t) { return kDefaultMemory; };
  op.start_version = [](const CustomOp*) { return 1; };
  op.end_version = [](const CustomOp*) { return 1; };
  return op;
}

// --- blocks of 4 or 8 bits -------------------------------------------------------------------------------

namespace of_blocks {

constexpr char kName[] = "MatMulNBits";
enum Input { kX, kCodes, kScales, kZeroPoints, kGroupIndex, kBias, kInputs };

size_t attribute(Api api, const KernelInfo* info, const char* name) {
  int64_t value = 0;
  check_status(GetAttribute::call(api, info, name, &value));
  if (value < 1) throw std::invalid_argument(std::string(name) + " is " + std::to_string(value));
  return static_cast<size_t>(value);
}

Status* create_kernel(const CustomOp*, Api api, const KernelInfo* info, void** kernel) {
  return caught(api, kName, [&] {
    products::Weights weights = {};
    weights.columns = attribute(api, info, "N");
    weights.width = attribute(api, info, "K");
    weights.bits = attribute(api, info, "bits");
    weights.block = attribute(api, info, "block_size");
    if (const char* obstacle = products::obstacle(weights)) throw std::invalid_argument(obstacle);
    *kernel = new Kernel{api, weights};
  });
}

Status* compute(void* kernel_pointer, KernelContext* context) {
  const Kernel& kernel = *static_cast<Kernel*>(kernel_pointer);
  const Api api = kernel.api;
  return caught(api, kName, [&] {
    products::Weights w = kernel.weights;
    const size_t point_bytes = w.columns * ((w.blocks() * w.bits + 7) / 8);
    w.codes = values<uint8_t>(api, context, kCodes, "B", w.columns * w.row_bytes());
    w.scales = values<float>(api, context, kScales, "scales", w.columns * w.blocks());
    w.zero_points = values<uint8_t>(api, context, kZeroPoints, "zero_points", point_bytes);
    w.bias = values<float>(api, context, kBias, "bias", w.columns);
    const Value* value = nullptr;
    if (input<int32_t>(api, context, kGroupIndex, &value)) throw std::invalid_argument("g_idx is not taken");
    multiply(api, context, w);
  });
}

CustomOp make() {
  CustomOp op = make_op();
  op.name = [](const CustomOp*) { return kName; };
  op.input_type = [](const CustomOp*, size_t index) {
    constexpr ElementType types[kInputs] = {kFloat, kUint8, kFloat, kUint8, kInt32, kFloat};
    return types[index];
  };
  op.input_count = [](const CustomOp*) -> size_t { return kInputs; };
  op.input_presence = [](const CustomOp*, size_t index) {
    return index < kZeroPoints ? kRequired : kOptional;
  };
  op.create_kernel_v2 = create_kernel;
  op.compute_v2 = compute;
  return op;
}

}  // namespace of_blocks

// --- columns of 8 bits -----------------------------------------------------------------------------------

namespace of_columns {

constexpr char kName[] = "DynamicQuantizeMatMul";
enum Input { kX, kCodes, kScales, kInputs };

Status* create_kernel(const CustomOp*, Api api, const KernelInfo*, void** kernel) {
  return caught(api, kName, [&] { *kernel = new Kernel{api, {}}; });
}

Status* compute(void* kernel_pointer, KernelContext* context) {
  const Api api = static_cast<Kernel*>(kernel_pointer)->api;
  return caught(api, kName, [&] {
    const Value* value = nullptr;
    products::Weights w = {};
    w.codes = input<uint8_t>(api, context, kCodes, &value);
    const auto shape = shape_of(api, value);
    if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1)
      throw std::invalid_argument("B has shape " + text_of(shape) + ", expected [K, N]");
    w.width = w.block = static_cast<size_t>(shape[0]);
    w.columns = static_cast<size_t>(shape[1]);
    w.bits = 8;
    w.transposed = true;
    if (const char* obstacle = products::obstacle(w)) throw std::invalid_argument(obstacle);
    w.scales = values<float>(api, context, kScales, "b_scale", w.columns);
    multiply(api, context, w);
  });
}

CustomOp make() {
  CustomOp op = make_op();
  op.name = [](const CustomOp*) { return kName; };
  op.input_type = [](const CustomOp*, size_t index) {
    constexpr ElementType types[kInputs] = {kFloat, kInt8, kFloat};
    return types[index];
  };
  op.input_count = [](const CustomOp*) -> size_t { return kInputs; };
  op.input_presence = [](const CustomOp*, size_t) { return kRequired; };
  op.create_kernel_v2 = create_kernel;
  op.compute_v2 = compute;
  return op;
}

}  // namespace of_columns
}  // namespace

void add_products(Api api, Domain* domain) {
  static const CustomOp blocks = of_blocks::make(), columns = of_columns::make();
  check_status(AddToDomain::call(api, domain, &blocks));
  check_status(AddToDomain::call(api, domain, &columns));
}

}  // namespace ltbm::ort
