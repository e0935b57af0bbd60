// The rules of LTBM that every body shares, without loops or memory; merge.py is their specification.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define LTBM_HOST_DEVICE __host__ __device__
#else
#define LTBM_HOST_DEVICE
#endif

namespace ltbm {

constexpr float kGridMax = 8191.0f;  // grid steps of the row's largest value: 14 bits with the sign
constexpr float kAmaxMin = 1e-30f;  // rows that stay below it are silent: their grid is zero
constexpr double kSpillPenalty =
    4.0;  // scores lie in [-1, 1], so no spill ever beats a pair inside the window
constexpr double kSafeInt64 = 4611686018427387904.0;  // 2^62: a larger <G, G> is refused
constexpr int kGlobal = -1;  // the window of Global Merge

// How many of n current tokens the next pass merges away.
LTBM_HOST_DEVICE inline int64_t merge_count(int64_t n, int64_t target, int64_t step_num, int64_t step_den) {
  int64_t count = n - target;
  const int64_t share = n * step_num / step_den;
  if (count > share) count = share;
  if (count > n / 2) count = n / 2;
  return count > 1 ? count : 1;
}

// IEEE operations that no compiler may contract. nvcc does so by default; the host's flags forbid it.
#ifdef __CUDA_ARCH__
#define LTBM_DIVIDE(a, b) __ddiv_rn(a, b)
#define LTBM_MULTIPLY(a, b) __dmul_rn(a, b)
#define LTBM_SUBTRACT(a, b) __dsub_rn(a, b)
#else
#define LTBM_DIVIDE(a, b) ((a) / (b))
#define LTBM_MULTIPLY(a, b) ((a) * (b))
#define LTBM_SUBTRACT(a, b) ((a) - (b))
#endif

// The value of a pair: the signed squared cosine, less a penalty outside the window. Never reorder its
// operations.
LTBM_HOST_DEVICE inline double score_of(int64_t dot, uint64_t norm_a, uint64_t norm_b, bool inside_window) {
  const double d = static_cast<double>(dot);
  const double na = static_cast<double>(norm_a > 1 ? norm_a : 1);
  const double nb = static_cast<double>(norm_b > 1 ? norm_b : 1);
  const double score = LTBM_MULTIPLY(LTBM_DIVIDE(d, na), LTBM_DIVIDE(d < 0 ? -d : d, nb));
  return inside_window ? score : LTBM_SUBTRACT(score, kSpillPenalty);
}

}  // namespace ltbm
