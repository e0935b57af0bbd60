#include "merge.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace ltbm {
namespace {

constexpr int64_t kRowsAtOnce =
    8;  // batches of so many rows run in parallel by rows, smaller ones within each row
constexpr int32_t kOutputsPerTask = 16;

void serial(size_t count, const std::function<void(size_t)>& body) {
  for (size_t i = 0; i < count; ++i) body(i);
}

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument(what);
}

std::string entry(const char* name, int64_t row, int64_t value) {
  return std::string(name) + "[" + std::to_string(row) + "] is " + std::to_string(value);
}

template <class T>
void merge_row(const Inputs<T>& in, const Outputs<T>& out, int64_t row, PlannerPool& pool,
               const ParallelFor& parallel) {
  const int32_t length = in.lengths[row], target = in.targets[row];
  const T* x = in.x + row * in.tokens * in.width;
  T* y = out.y + row * in.keep * in.width;
  int32_t *sizes = out.sizes + row * in.keep, *anchors = out.anchors + row * in.keep;
  int32_t* source_map = out.source_map + row * in.tokens;

  auto planner = pool.take();
  planner->plan(kernels(), x, length, in.width, target, in.window, in.step, parallel);
  std::copy(planner->source_map.begin(), planner->source_map.end(), source_map);
  std::fill(source_map + length, source_map + in.tokens, -1);
  std::copy(planner->anchors.begin(), planner->anchors.end(), anchors);
  std::fill(anchors + target, anchors + in.keep, -1);
  const int32_t* starts = planner->starts.data();
  for (int32_t k = 0; k < target; ++k) sizes[k] = starts[k + 1] - starts[k];
  std::fill(sizes + target, sizes + in.keep, 0);

  parallel((target + kOutputsPerTask - 1) / kOutputsPerTask, [&](size_t task) {
    const int32_t first = static_cast<int32_t>(task) * kOutputsPerTask;
    for (int32_t k = first; k < std::min(target, first + kOutputsPerTask); ++k)
      kernels().mean.pick(x)(x, planner->members.data() + starts[k], sizes[k], in.width, y + k * in.width);
  });
  std::fill(y + target * in.width, y + in.keep * in.width, T{});  // all bits 0 are 0.0 in float16 too
  pool.give_back(std::move(planner));
}

}  // namespace

std::unique_ptr<RowPlanner> PlannerPool::take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (idle_.empty()) return std::make_unique<RowPlanner>();
  auto planner = std::move(idle_.back());
  idle_.pop_back();
  return planner;
}

void PlannerPool::give_back(std::unique_ptr<RowPlanner> planner) {
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(planner));
}

template <class T>
void check(const Inputs<T>& in) {
  int64_t most = 0;
  for (int64_t row = 0; row < in.rows; ++row) {
    const int64_t length = in.lengths[row], target = in.targets[row];
    if (length < 0 || length > in.tokens)
      refuse(entry("lengths", row, length) + ", expected 0.." + std::to_string(in.tokens) +
             ", the tokens of x");
    if (length > kLongestRow)
      refuse(entry("lengths", row, length) + ", more than the " + std::to_string(kLongestRow) +
             " tokens that exact similarity allows: cut the recording into rows of 30 s");
    if (target < std::min<int64_t>(length, 1) || target > length)
      refuse(entry("targets", row, target) + " for a row of " + std::to_string(length) +
             " tokens, expected " + (length ? "1.." + std::to_string(length) : "0"));
    most = std::max(most, target);
  }
  if (in.keep < most)
    refuse("keep is " + std::to_string(in.keep) + " slots, expected at least " + std::to_string(most) +
           ", the largest target");
  if (in.window < -1)
    refuse("window is " + std::to_string(in.window) +
           ", expected a distance in encoder tokens, or -1 for Global Merge");
}

template <class T>
void merge_rows(const Inputs<T>& in, const Outputs<T>& out, PlannerPool& pool, const ParallelFor& parallel) {
  if (in.rows < kRowsAtOnce) {
    for (int64_t row = 0; row < in.rows; ++row) merge_row(in, out, row, pool, parallel);
    return;
  }
  std::vector<std::string> errors(in.rows);
  parallel(in.rows, [&](size_t row) {
    try {
      merge_row(in, out, static_cast<int64_t>(row), pool, serial);
    } catch (const std::exception& error) {
      errors[row] = "row " + std::to_string(row) + ": " + error.what();
    }
  });
  for (const std::string& error : errors)
    if (!error.empty()) throw std::overflow_error(error);
}

template void check(const Inputs<float>&);
template void check(const Inputs<Half>&);
template void merge_rows(const Inputs<float>&, const Outputs<float>&, PlannerPool&, const ParallelFor&);
template void merge_rows(const Inputs<Half>&, const Outputs<Half>&, PlannerPool&, const ParallelFor&);

}  // namespace ltbm
