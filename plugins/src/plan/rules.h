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
constexpr double kSpillPenalty = 4.0;  // scores lie in [-1, 1], so no spill ever beats a pair inside the window
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

// The signed squared cosine. Never contract or reorder these two divisions and their product.
inline double score_of(int64_t dot, int64_t norm_a, int64_t norm_b) {
  const double d = static_cast<double>(dot);
  const double na = static_cast<double>(norm_a > 1 ? norm_a : 1);
  const double nb = static_cast<double>(norm_b > 1 ? norm_b : 1);
  return (d / na) * ((d < 0 ? -d : d) / nb);
}

}  // namespace ltbm
