// `ai.ltbm::MatMulNBits` version 1: ONNX Runtime's op of this name at accuracy level 4, in float32, over
// weights that stay where they are. The inputs and attributes are the same; g_idx is refused.
#include "../nbits/product.h"
#include "ops.h"

namespace ltbm::ort {
namespace {

constexpr char kName[] = "MatMulNBits";
enum Input { kX, kCodes, kScales, kZeroPoints, kGroupIndex, kBias, kInputs };

struct Kernel {
  Api api;
  nbits::Weights weights;  // their sizes; where they lie is asked at each run
};

size_t attribute(Api api, const KernelInfo* info, const char* name) {
  int64_t value = 0;
  check_status(GetAttribute::call(api, info, name, &value));
  if (value < 1) throw std::invalid_argument(std::string(name) + " is " + std::to_string(value));
  return static_cast<size_t>(value);
}

Status* create_kernel(const CustomOp*, Api api, const KernelInfo* info, void** kernel) {
  return caught(api, kName, [&] {
    nbits::Weights weights = {};
    weights.columns = attribute(api, info, "N");
    weights.width = attribute(api, info, "K");
    weights.bits = attribute(api, info, "bits");
    weights.block = attribute(api, info, "block_size");
    if (const char* obstacle = nbits::obstacle(weights)) throw std::invalid_argument(obstacle);
    *kernel = new Kernel{api, weights};
  });
}

// An input of `count` elements, null where it is left out.
template <class T>
const T* values(Api api, const KernelContext* context, Input index, const char* name, size_t count) {
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

Status* compute(void* kernel_pointer, KernelContext* context) {
  const Kernel& kernel = *static_cast<Kernel*>(kernel_pointer);
  const Api api = kernel.api;
  return caught(api, kName, [&] {
    nbits::Weights w = kernel.weights;
    const Value* value = nullptr;
    const float* x = input<float>(api, context, kX, &value);
    auto shape = shape_of(api, value);
    if (shape.empty() || shape.back() != static_cast<int64_t>(w.width))
      throw std::invalid_argument("A has shape " + text_of(shape) + ", expected [.., " +
                                  std::to_string(w.width) + "]");
    const size_t point_bytes = w.columns * ((w.blocks() * w.bits + 7) / 8);
    w.codes = values<uint8_t>(api, context, kCodes, "B", w.columns * w.row_bytes());
    w.scales = values<float>(api, context, kScales, "scales", w.columns * w.blocks());
    w.zero_points = values<uint8_t>(api, context, kZeroPoints, "zero_points", point_bytes);
    w.bias = values<float>(api, context, kBias, "bias", w.columns);
    if (input<int32_t>(api, context, kGroupIndex, &value)) throw std::invalid_argument("g_idx is not taken");

    size_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= static_cast<size_t>(shape[i]);
    shape.back() = static_cast<int64_t>(w.columns);
    float* y = output<float>(api, context, 0, shape);
    nbits::multiply(w, x, rows, y, [&](size_t count, const std::function<void(size_t)>& body) {
      run_parallel(api, context, count, count, body);  // a thread that is late takes fewer
    });
  });
}

CustomOp make_op() {
  CustomOp op = {};
  op.name = [](const CustomOp*) { return kName; };
  op.provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
  op.input_type = [](const CustomOp*, size_t index) {
    constexpr ElementType types[kInputs] = {kFloat, kUint8, kFloat, kUint8, kInt32, kFloat};
    return types[index];
  };
  op.input_count = [](const CustomOp*) -> size_t { return kInputs; };
  op.output_type = [](const CustomOp*, size_t) { return kFloat; };
  op.output_count = [](const CustomOp*) -> size_t { return 1; };
  op.destroy_kernel = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.input_presence = [](const CustomOp*, size_t index) {
    return index < kZeroPoints ? kRequired : kOptional;
  };
  op.output_presence = [](const CustomOp*, size_t) { return kRequired; };
  op.input_memory = [](const CustomOp*, size_t) { return kDefaultMemory; };
  op.create_kernel_v2 = create_kernel;
  op.compute_v2 = compute;
  op.start_version = [](const CustomOp*) { return 1; };
  op.end_version = [](const CustomOp*) { return 1; };
  return op;
}

}  // namespace

void add_matmul_nbits(Api api, Domain* domain) {
  static const CustomOp op = make_op();
  check_status(AddToDomain::call(api, domain, &op));
}

}  // namespace ltbm::ort
