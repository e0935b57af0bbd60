// The whole op on a padded batch, on the CPU; merge_rows of merge.py is its specification.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "row.h"

namespace ltbm {

template <class T>
struct Inputs {
  const T* x;  // [B, T, D]
  int64_t rows, tokens, width;  // B, T, D
  const int32_t *lengths, *targets;  // [B]
  int64_t keep;  // K
  int32_t window;
  Step step;
};

template <class T>
struct Outputs {
  T* y;  // [B, K, D]
  int32_t *sizes, *anchors;  // [B, K]
  int32_t* source_map;  // [B, T]
};

// Planners not in use, so that memory stays mapped from run to run. Runs may overlap.
class PlannerPool {
 public:
  std::unique_ptr<RowPlanner> take();
  void give_back(std::unique_ptr<RowPlanner> planner);

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<RowPlanner>> idle_;
};

// Throws std::invalid_argument if lengths, targets, keep, window or step are out of range.
template <class T>
void check(const Inputs<T>& in);

// Throws std::overflow_error if a row is too long for exact similarity.
template <class T>
void merge_rows(const Inputs<T>& in, const Outputs<T>& out, PlannerPool& pool, const ParallelFor& parallel);

}  // namespace ltbm
