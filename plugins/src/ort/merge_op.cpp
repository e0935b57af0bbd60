// `ai.ltbm::LTBM` version 1 as an ONNX Runtime custom op for the CPU, in float32 and float16.
#include <limits>

#include "../cpu/merge.h"
#include "context.h"
#include "ops.h"

namespace ltbm::ort {
namespace {

constexpr int kVersion = 1;
constexpr Step kDefaultStep = {2, 5};
constexpr int64_t kLargestStep = std::numeric_limits<int32_t>::max();
constexpr char kName[] = "LTBM";

// An input of exactly one dimension of `count` elements.
template <class T>
const T* list(Api api, const KernelContext* context, size_t index, const char* name, int64_t count) {
  const Value* value = nullptr;
  const T* data = input<T>(api, context, index, &value);
  const auto shape = shape_of(api, value);
  if (shape != std::vector<int64_t>{count})
    throw std::invalid_argument(std::string(name) + " has shape " + text_of(shape) + ", expected [" +
                                std::to_string(count) + "]");
  return data;
}

// --- the kernel ------------------------------------------------------------------------------------------

struct Kernel {
  Api api;
  Step step;
  PlannerPool pool;
};

int64_t attribute(Api api, const KernelInfo* info, const char* name, int64_t otherwise) {
  int64_t value = otherwise;
  if (Status* missing = GetAttribute::call(api, info, name, &value)) {
    ReleaseStatus::call(api, missing);
    value = otherwise;
  }
  if (value < 1 || value > kLargestStep)
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                                ", expected the parts of a positive fraction such as 2/5");
  return value;
}

template <class T>
Inputs<T> inputs(const Kernel& kernel, const KernelContext* context) {
  const Value* value = nullptr;
  Inputs<T> in = {};
  in.x = input<T>(kernel.api, context, 0, &value);
  const auto shape = shape_of(kernel.api, value);
  if (shape.size() != 3 || shape[2] < 1)
    throw std::invalid_argument("x has shape " + text_of(shape) + ", expected [B, T, D]");
  in.rows = shape[0], in.tokens = shape[1], in.width = shape[2];
  in.lengths = list<int32_t>(kernel.api, context, 1, "lengths", in.rows);
  in.targets = list<int32_t>(kernel.api, context, 2, "targets", in.rows);
  in.keep = *list<int64_t>(kernel.api, context, 3, "keep", 1);
  in.window = *list<int32_t>(kernel.api, context, 4, "window", 1);
  in.step = kernel.step;
  check(in);
  return in;
}

template <class T>
Status* compute(void* kernel_pointer, KernelContext* context) {
  Kernel& kernel = *static_cast<Kernel*>(kernel_pointer);
  const Api api = kernel.api;
  return caught(api, kName, [&] {
    const Inputs<T> in = inputs<T>(kernel, context);
    const Outputs<T> out = {output<T>(api, context, 0, {in.rows, in.keep, in.width}),
                            output<int32_t>(api, context, 1, {in.rows, in.keep}),
                            output<int32_t>(api, context, 2, {in.rows, in.keep}),
                            output<int32_t>(api, context, 3, {in.rows, in.tokens})};
    const ParallelFor parallel = [&](size_t count, const std::function<void(size_t)>& body) {
      run_parallel(api, context, count, 0, body);
    };
    merge_rows(in, out, kernel.pool, parallel);
  });
}

// --- what the runtime asks -------------------------------------------------------------------------------

template <class T>
constexpr ElementType element_type() {
  return sizeof(T) == 4 ? kFloat : kFloat16;
}

template <class T>
ElementType input_type(const CustomOp*, size_t index) {
  constexpr ElementType types[] = {element_type<T>(), kInt32, kInt32, kInt64, kInt32};
  return types[index];
}

template <class T>
ElementType output_type(const CustomOp*, size_t index) {
  constexpr ElementType types[] = {element_type<T>(), kInt32, kInt32, kInt32};
  return types[index];
}

Status* create_kernel(const CustomOp*, Api api, const KernelInfo* info, void** kernel) {
  return caught(api, kName, [&] {
    const Step step = {attribute(api, info, "step_num", kDefaultStep.num),
                       attribute(api, info, "step_den", kDefaultStep.den)};
    *kernel = new Kernel{api, step, {}};
  });
}

template <class T>
CustomOp make_op() {
  CustomOp op = {};
  op.name = [](const CustomOp*) { return kName; };
  op.provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
  op.input_type = input_type<T>;
  op.input_count = [](const CustomOp*) -> size_t { return 5; };
  op.output_type = output_type<T>;
  op.output_count = [](const CustomOp*) -> size_t { return 4; };
  op.destroy_kernel = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.input_presence = [](const CustomOp*, size_t) { return kRequired; };
  op.output_presence = [](const CustomOp*, size_t) { return kRequired; };
  op.input_memory = [](const CustomOp*, size_t) { return kDefaultMemory; };
  op.create_kernel_v2 = create_kernel;
  op.compute_v2 = compute<T>;
  op.start_version = [](const CustomOp*) { return kVersion; };
  op.end_version = [](const CustomOp*) { return kVersion; };
  return op;
}

}  // namespace

void add_merge(Api api, Domain* domain) {
  static const CustomOp of_float = make_op<float>(), of_half = make_op<Half>();
  check_status(AddToDomain::call(api, domain, &of_float));
  check_status(AddToDomain::call(api, domain, &of_half));
}

}  // namespace ltbm::ort
