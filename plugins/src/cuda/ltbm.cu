// The op in three kernels: measure every row, plan its merges, average its groups.
#include "ltbm_cuda.h"
#include "select.cuh"

namespace {

constexpr int64 kIndexMax = int64(1) << 30;  // values of a row; leaves room for the last stride

template <typename E>
__device__ __forceinline__ const E* row_of_x(const Call& call, int index) {
  return static_cast<const E*>(call.x) + int64(index) * call.tokens * call.width;
}

// Kernel 1, `parts` blocks a row: the largest finite |x| of each part; and the row's state before its first
// pass.
template <typename E>
__global__ void __launch_bounds__(kThreads) measure(const Call call, int parts, Tiling tiling) {
  const int index = blockIdx.x / parts, part = blockIdx.x % parts;
  const Row row = row_of(call, index);
  const Extent extent = extent_of(call, index);
  const E* x = row_of_x<E>(call, index);
  LTBM_BLOCK_MEMORY(memory);
  uint32_t* found = reinterpret_cast<uint32_t*>(memory);  // [kWarps]

  const bool vectors = can_use_vectors<E>(call.x, call.width);
  const int values = extent.length * call.width;
  float peak = 0.0f;
  uint32_t broken = 0;
#pragma unroll 4
  for (int i = (part * kThreads + threadIdx.x) * kLaneChannels; i < values;
       i += parts * kThreads * kLaneChannels) {
    const Raw<E> raw = load(x, i, values, vectors);
    for (int j = 0; j < kLaneChannels; ++j) {
      const float magnitude = fabsf(to_float(raw.value[j]));
      if (!is_finite(magnitude))
        broken = 0x80000000u;
      else if (magnitude > peak)
        peak = magnitude;
    }
  }
  uint32_t bits = static_cast<uint32_t>(__float_as_int(peak));
  for (int step = kWarpThreads / 2; step > 0; step /= 2) {
    const uint32_t other = __shfl_xor_sync(kAllLanes, bits, step);
    bits = bits > other ? bits : other;
    broken |= __shfl_xor_sync(kAllLanes, broken, step);
  }
  if (threadIdx.x % kWarpThreads == 0) found[threadIdx.x / kWarpThreads] = bits | broken;
  __syncthreads();

  for (int i = part * kThreads + threadIdx.x; i < extent.length; i += parts * kThreads)
    row.anchors_even[i] = row.place[i] = row.starts[i] = row.members[i] = i;
  if (threadIdx.x > 0) return;
  for (int w = 1; w < kWarps; ++w) {
    broken |= found[w] & 0x80000000u;
    if ((found[w] & 0x7fffffffu) > bits) bits = found[w] & 0x7fffffffu;
  }
  row.peaks[part] = bits | broken;
  if (part > 0) return;
  row.starts[extent.length] = extent.length;
  row.control->next = row.control->done = 0;
  row.control->pass = 0;
  row.control->limit = kFinished;
  if (extent.length > extent.target) begin_pass(row, band_of(call, tiling), 0, 0, extent.length);
}

// A ticket for a unit of the row's passes, waited for until its pass is open; kFinished once the row is.
__device__ inline unsigned take_ticket(Control& control) {
  const unsigned ticket = atomicAdd(&control.next, 1u);
  for (;;) {
    const unsigned limit = load_acquire(&control.limit);
    if (limit == kFinished) return kFinished;
    if (ticket < limit) return ticket;
    wait_a_little();
  }
}

// Kernel 2, any number of blocks a row: score units of the pass that is open; who ends the last one merges.
template <typename E>
__global__ void __launch_bounds__(kThreads, 1) plan(const Call call, int parts, Tiling tiling) {
  LTBM_BLOCK_MEMORY(memory);
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int index = blockIdx.x % call.batch;
  const Row row = row_of(call, index);
  const Extent extent = extent_of(call, index);
  if (extent.length <= extent.target) return;
  const Band band = band_of(call, tiling);
  const E* x = row_of_x<E>(call, index);
  if (threadIdx.x < kWarpThreads) {
    const Grid grid = grid_of(row, parts, threadIdx.x);
    if (threadIdx.x == 0) shared.grid = grid;
  }
  for (;;) {
    if (threadIdx.x == 0) shared.ticket = take_ticket(*row.control);
    __syncthreads();
    if (shared.ticket == kFinished) return;
    const unsigned limit = row.control->limit;
    const int unit = static_cast<int>(shared.ticket - row.control->base);
    switch (row.control->tiling) {
      case kNarrow: score_unit<E, Narrow>(shared, call, row, band, x, unit); break;
      case kMedium: score_unit<E, Medium>(shared, call, row, band, x, unit); break;
      default: score_unit<E, Wide>(shared, call, row, band, x, unit);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();  // the block's candidates come before the count that announces them
      shared.last = atomicAdd(&row.control->done, 1u) + 1 == limit;
      __threadfence();
    }
    __syncthreads();
    if (shared.last) merge_pairs(shared, call, row, band, extent, limit);
    __syncthreads();
  }
}

// The mean of a group's channels k.., summed in increasing order from -0.0, the identity of addition.
template <typename E>
__device__ inline Raw<E> mean(const E* x, const int* members, int size, int k, int width, bool vectors) {
  if (size == 1) return load(x + int64(members[0]) * width, k, width, vectors);  // NaN payloads stay as well
  float sum[kLaneChannels];
  for (int j = 0; j < kLaneChannels; ++j) sum[j] = -0.0f;
#pragma unroll 4
  for (int m = 0; m < size; ++m) {
    const Raw<E> raw = load(x + int64(members[m]) * width, k, width, vectors);
#pragma unroll
    for (int j = 0; j < kLaneChannels; ++j) sum[j] = __fadd_rn(sum[j], to_float(raw.value[j]));
  }
  Raw<E> out;
#pragma unroll
  for (int j = 0; j < kLaneChannels; ++j)
    from_float(__fdiv_rn(sum[j], static_cast<float>(size)), out.value[j]);
  return out;
}

template <typename E>
__device__ __forceinline__ void store(E* token, int k, int width, bool vectors, const Raw<E>& raw) {
  constexpr int kCount = sizeof(Raw<E>) / sizeof(Words);
  if (vectors && k + kLaneChannels <= width) {
    Words words[kCount];
    memcpy(words, &raw, sizeof(raw));
#pragma unroll
    for (int i = 0; i < kCount; ++i) reinterpret_cast<Words*>(token + k)[i] = words[i];
    return;
  }
  for (int j = 0; j < kLaneChannels && k + j < width; ++j) token[k + j] = raw.value[j];
}

// Kernel 3, `parts` blocks a row: every element of the outputs.
template <typename E>
__global__ void __launch_bounds__(kThreads) average(const Call call, int parts) {
  const int index = blockIdx.x / parts;
  const int stride = parts * kThreads, first = blockIdx.x % parts * kThreads + threadIdx.x;
  const Row row = row_of(call, index);
  const Extent extent = extent_of(call, index);
  const int* anchors = anchors_of(row, row.control->pass);
  for (int i = first; i < call.tokens; i += stride)
    call.source_map[int64(index) * call.tokens + i] = i < extent.length ? row.place[i] : -1;
  for (int k = first; k < call.slots; k += stride) {
    const bool filled = k < extent.target;
    call.sizes[int64(index) * call.slots + k] = filled ? row.starts[k + 1] - row.starts[k] : 0;
    call.anchors[int64(index) * call.slots + k] = filled ? anchors[k] : -1;
  }
  const E* x = row_of_x<E>(call, index);
  E* y = static_cast<E*>(call.y) + int64(index) * call.slots * call.width;
  const int chunks = ceil_div(call.width, kLaneChannels);
  const bool read = can_use_vectors<E>(call.x, call.width), write = can_use_vectors<E>(call.y, call.width);
  for (int i = first; i < call.slots * chunks; i += stride) {
    const int slot = i / chunks, k = i % chunks * kLaneChannels;
    Raw<E> out = {};
    if (slot < extent.target) {
      const int start = row.starts[slot];
      out = mean(x, row.members + start, row.starts[slot + 1] - start, k, call.width, read);
    }
    store(y + int64(slot) * call.width, k, call.width, write, out);
  }
}

// Blocks that plan: all that the rows' first passes can use, as long as the device runs them all at once, one
// on each of its multiprocessors.
int planners(const Call& call, int processors) {
  const int pairs = ceil_div(call.tokens, 2);
  const int narrow = ceil_div(pairs, Narrow::A);
  const int wide = ceil_div(pairs, Wide::A) * minimum(kSplitsMax, ceil_div(pairs, Wide::B));
  const int64 useful = int64(call.batch) * maximum(1, maximum(narrow, wide));
  return static_cast<int>(useful < processors ? useful : maximum(call.batch, processors));
}

// Narrow tiles as long as there are multiprocessors for them.
Tiling tiling_of(const Call& call, int processors) {
  return int64(call.batch) * ceil_div(call.tokens, 2 * Narrow::A) <= processors ? kNarrow : kMedium;
}

int between(int low, int value, int high) {
  return value < low ? low : value > high ? high : value;
}

template <typename E>
const char* enqueue(const Call& call, void* stream) {
  int processors = 0;
  if (const char* error = multiprocessors(processors)) return error;
  const int parts = between(1, 2 * processors / call.batch, kPeaksMax);
  const int chunks = ceil_div(call.width, kLaneChannels), outputs = maximum(call.slots * chunks, call.tokens);
  const int averagers = between(1, ceil_div(outputs, kThreads), maximum(1, 8 * processors / call.batch));
  const Tiling tiling = tiling_of(call, processors);
  if (const char* error = launch(measure<E>, call.batch * parts, kThreads, kWarps * sizeof(uint32_t), stream,
                                 call, parts, tiling))
    return error;
  if (const char* error =
          launch(plan<E>, planners(call, processors), kThreads, kSharedBytes, stream, call, parts, tiling))
    return error;
  return launch(average<E>, call.batch * averagers, kThreads, 0, stream, call, averagers);
}

const char* refused_size(const Call& call) {
  if (call.batch < 0 || call.tokens < 0 || call.slots < 0) return "LTBM: a dimension of x or y is negative";
  if (call.width < 1 || call.width > LTBM_WIDTH_MAX)
    return "LTBM: x must be [B, T, D] with D from 1 to 32767";
  if (int64(call.tokens) * call.width > kIndexMax || int64(call.slots) * call.width > kIndexMax)
    return "LTBM: a row of x or y has more values than a 32-bit index reaches: cut the recording into "
           "shorter rows";
  if (call.tokens > LTBM_TOKENS_MAX)
    return "LTBM: x has rows of more than 262143 tokens: cut the recording into shorter rows";
  if (call.step_num < 1 || call.step_den < 1) return "LTBM: step_num and step_den must be positive";
  return nullptr;
}

// One buffer of a call, as the checks see it.
struct Buffer {
  const void* address;
  int64 count;  // elements
  size_t alignment;  // bytes
  const char* missing;
  const char* misaligned;
};

#define LTBM_BUFFER(name, count, alignment)                                                              \
  Buffer {                                                                                               \
    call.name, count, alignment, "LTBM: " #name " is null", "LTBM: " #name " is not aligned to its type" \
  }

const char* refused_buffer(const Call& call) {
  if (call.workspace == nullptr) return "LTBM: no workspace was given";
  if (reinterpret_cast<uintptr_t>(call.workspace) % LTBM_WORKSPACE_ALIGNMENT != 0)
    return "LTBM: workspace is not aligned to 256 bytes";
  const int64 batch = call.batch;
  const size_t element = call.half ? sizeof(Half) : sizeof(float);
  const Buffer buffers[] = {
      LTBM_BUFFER(x, batch * call.tokens, element),
      LTBM_BUFFER(lengths, batch, sizeof(int32_t)),
      LTBM_BUFFER(targets, batch, sizeof(int32_t)),
      LTBM_BUFFER(window, 1, sizeof(int32_t)),
      LTBM_BUFFER(y, batch * call.slots, element),
      LTBM_BUFFER(sizes, batch * call.slots, sizeof(int32_t)),
      LTBM_BUFFER(anchors, batch * call.slots, sizeof(int32_t)),
      LTBM_BUFFER(source_map, batch * call.tokens, sizeof(int32_t)),
  };
  for (const Buffer& buffer : buffers) {
    if (buffer.count > 0 && buffer.address == nullptr) return buffer.missing;
    if (reinterpret_cast<uintptr_t>(buffer.address) % buffer.alignment != 0) return buffer.misaligned;
  }
  return nullptr;
}

#undef LTBM_BUFFER

}  // namespace

extern "C" size_t ltbm_cuda_workspace(int32_t batch, int32_t tokens) {
  if (batch < 0 || tokens < 0 || tokens > LTBM_TOKENS_MAX) return 0;
  return static_cast<size_t>(batch) * static_cast<size_t>(row_bytes(tokens));
}

extern "C" const char* ltbm_cuda_enqueue(const ltbm_cuda_call* call, void* stream) {
  if (call == nullptr) return "LTBM: the call is null";
  if (const char* reason = refused_size(*call)) return reason;
  if (call->batch == 0) return nullptr;
  if (const char* reason = refused_buffer(*call)) return reason;
  return call->half ? enqueue<Half>(*call, stream) : enqueue<float>(*call, stream);
}
