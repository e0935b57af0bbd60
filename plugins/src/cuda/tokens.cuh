// Reading tokens, eight channels at a time, and putting them on the grid of whole numbers.
#pragma once

#include "row.cuh"

constexpr int kLaneChannels = 8;  // channels that a thread reads at once
constexpr float kLargestFloat = 3.402823466e38f;

// Adding 1.5 * 2^23 rounds a float below 2^22 half to even, and leaves the whole number in its low bits.
constexpr float kRounder = 12582912.0f;
constexpr int kRounderBits = 0x4b400000;

struct alignas(16) Words {
  uint32_t word[4];
};

// Eight neighbouring channels as they stand in memory.
template <typename E>
struct alignas(16) Raw {
  E value[kLaneChannels];
};

// Channels k.. of a token; 0 from `width` on. Vectors need every token to be 16-byte aligned.
template <typename E>
__device__ __forceinline__ Raw<E> load(const E* token, int k, int width, bool vectors) {
  Raw<E> raw;
  constexpr int kCount = sizeof(Raw<E>) / sizeof(Words);
  if (vectors && k + kLaneChannels <= width) {
    Words words[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) words[i] = reinterpret_cast<const Words*>(token + k)[i];
    memcpy(&raw, words, sizeof(raw));
    return raw;
  }
#pragma unroll
  for (int j = 0; j < kLaneChannels; ++j) raw.value[j] = k + j < width ? token[k + j] : E{};
  return raw;
}

template <typename E>
__device__ __forceinline__ bool can_use_vectors(const void* tensor, int width) {
  return width % kLaneChannels == 0 && reinterpret_cast<uintptr_t>(tensor) % sizeof(Words) == 0;
}

__device__ __forceinline__ bool is_finite(float value) {
  return fabsf(value) <= kLargestFloat;
}

// How a row is put on its grid.
struct Grid {
  float scale;
  bool finite;  // the row has neither NaN nor infinities
};

// One warp gathers what the measuring blocks found.
__device__ inline Grid grid_of(const Row& row, int parts, int lane) {
  uint32_t peak = 0, broken = 0;
  for (int part = lane; part < parts; part += kWarpThreads) {
    const uint32_t found = row.peaks[part];
    peak = peak > (found & 0x7fffffffu) ? peak : (found & 0x7fffffffu);
    broken |= found & 0x80000000u;
  }
  for (int step = kWarpThreads / 2; step > 0; step /= 2) {
    const uint32_t other = __shfl_xor_sync(kAllLanes, peak, step);
    peak = peak > other ? peak : other;  // floats that are not negative order like their bits
    broken |= __shfl_xor_sync(kAllLanes, broken, step);
  }
  const float amax = __int_as_float(static_cast<int>(peak));
  return Grid{amax > ltbm::kAmaxMin ? __fdiv_rn(ltbm::kGridMax, amax) : 0.0f, broken == 0};
}

// Add eight channels on the grid to `sum`, each with kRounderBits on top: the caller takes them off once.
template <typename E>
__device__ __forceinline__ void add_rounded(int (&sum)[kLaneChannels], const Raw<E>& raw, const Grid& grid) {
#pragma unroll
  for (int j = 0; j < kLaneChannels; ++j) {
    float value = to_float(raw.value[j]);
    if (!grid.finite) value = is_finite(value) ? value : 0.0f;
    sum[j] += __float_as_int(__fadd_rn(__fmul_rn(value, grid.scale), kRounder));
  }
}
