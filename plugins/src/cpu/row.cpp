#include "row.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <stdexcept>

#include "../rules.h"

namespace ltbm {
namespace {

constexpr int32_t kTokensPerTask = 32;
constexpr int32_t kBlockA = 16, kPanelB = 64;  // tokens whose grids stay in the caches while they meet
constexpr size_t kAlignment = 64 / sizeof(int16_t);  // of the grid's rows, in values

size_t tasks_of(size_t count, size_t per_task) {
  return (count + per_task - 1) / per_task;
}

}  // namespace

// --- the grid ----------------------------------------------------------------------------------------------

void Grid::reserve(int32_t length, size_t width) {
  stride_ = tasks_of(width, kLane) * kLane;
  const size_t needed = (2 * static_cast<size_t>(length) + 1) * stride_ + kAlignment;
  if (memory_.size() < needed) memory_.resize(needed);
  const size_t offset = reinterpret_cast<uintptr_t>(memory_.data()) / sizeof(int16_t) % kAlignment;
  lo_ = memory_.data() + (kAlignment - offset) % kAlignment;
  hi_ = lo_ + length * stride_;
  zeros_ = hi_ + length * stride_;
  std::fill_n(zeros_, stride_, static_cast<int16_t>(0));
  tokens_.assign(length, {static_cast<int32_t>(kGridMax), 0, 0, 0});
}

template <class T>
void Grid::fill(const Kernels& kernels, const T* x, int32_t length, size_t width,
                const ParallelFor& parallel) {
  kernels_ = &kernels;
  reserve(length, width);
  const size_t tasks = tasks_of(length, kTokensPerTask);
  const auto tokens_of = [length](size_t task) {
    const int32_t first = static_cast<int32_t>(task) * kTokensPerTask;
    return std::make_pair(first, std::min(length, first + kTokensPerTask));
  };

  std::vector<Range> ranges(tasks);
  parallel(tasks, [&](size_t task) {
    const auto [first, end] = tokens_of(task);
    ranges[task] = kernels.range.pick(x)(x + first * width, (end - first) * width);
  });
  Range row = {0, true};
  for (const Range& range : ranges) row = {std::max(row.largest, range.largest), row.finite && range.finite};
  const float scale = row.largest > kAmaxMin ? kGridMax / row.largest : 0.0f;

  // From the end, which is still in the cache.
  parallel(tasks, [&](size_t task) {
    const auto [first, end] = tokens_of(tasks - 1 - task);
    for (int32_t token = end - 1; token >= first; --token) {
      kernels.quantise.pick(x)(x + token * width, width, scale, row.finite, lo(token));
      std::fill(lo(token) + width, lo(token) + stride_, static_cast<int16_t>(0));
      measure(token);
    }
  });
}

bool Grid::measure(int32_t index) {
  Token& token = tokens_[index];
  if (!token.high) {
    const Squares squares = kernels_->squares(lo(index), stride_, token.low);
    token.norm = squares.sum;
    token.run = squares.run;
    return true;
  }
  token.run = run_of(std::max(token.low, token.high));
  const int16_t* halves[] = {lo(index), hi(index)};
  int64_t parts[kTileA * kTileB];
  kernels_->tile(halves, halves, 2, stride_, token.run, parts);
  const int64_t low = parts[0], cross = parts[1], high = parts[kTileB + 1];
  constexpr int64_t kSplit = int64_t{1} << kSplitBits;
  const double size = static_cast<double>(low) + 2.0 * kSplit * cross + 1.0 * kSplit * kSplit * high;
  if (size >= kSafeInt64) return false;
  token.norm = low + kSplit * (2 * cross + kSplit * high);
  return true;
}

void Grid::products(const int32_t* a, const int32_t* b, size_t count, int64_t* out) const {
  const int16_t *lo_a[kTileA] = {}, *hi_a[kTileA] = {}, *lo_b[kTileB] = {}, *hi_b[kTileB] = {};
  size_t run = kWholeRow;
  const auto take = [&](const int32_t* tokens, size_t n, const int16_t** low, const int16_t** high) {
    bool split = false;
    for (size_t i = 0; i < n; ++i) {
      low[i] = lo(tokens[i]);
      high[i] = hi_or_zeros(tokens[i]);
      run = std::min(run, tokens_[tokens[i]].run);
      split |= tokens_[tokens[i]].high > 0;
    }
    return split;
  };
  const bool split_a = take(a, kTileA, lo_a, hi_a), split_b = take(b, count, lo_b, hi_b);
  kernels_->tile(lo_a, lo_b, count, stride_, run, out);
  // By Cauchy-Schwarz each total fits int64; parts of it are added modulo 2^64.
  const auto add_part = [&](const int16_t* const* rows, const int16_t* const* columns, int shift) {
    int64_t part[kTileA * kTileB];
    kernels_->tile(rows, columns, count, stride_, run, part);
    for (size_t i = 0; i < kTileA; ++i)
      for (size_t j = 0; j < count; ++j) {
        int64_t& total = out[i * kTileB + j];
        const uint64_t more = static_cast<uint64_t>(part[i * kTileB + j]) << shift;
        total = static_cast<int64_t>(static_cast<uint64_t>(total) + more);
      }
  };
  if (split_a) add_part(hi_a, lo_b, kSplitBits);
  if (split_b) add_part(lo_a, hi_b, kSplitBits);
  if (split_a && split_b) add_part(hi_a, hi_b, 2 * kSplitBits);
}

void Grid::add(int32_t to, int32_t from) {
  Token &sum = tokens_[to], &other = tokens_[from];
  if (!sum.high && !other.high && sum.low + other.low <= kWidest) {
    sum.low = std::max<int32_t>(1, kernels_->add(lo(to), lo(from), stride_));
    return;
  }
  sum.high = kernels_->add_split(lo(to), hi_or_zeros(to), hi(to), lo(from), hi_or_zeros(from), stride_);
  sum.low = kSplitLow;
}

// --- passes ------------------------------------------------------------------------------------------------

template <class T>
void RowPlanner::plan(const Kernels& kernels, const T* x, int32_t length, size_t width, int32_t target,
                      int32_t window, Step step, const ParallelFor& parallel) {
  anchors.resize(length);
  for (int32_t i = 0; i < length; ++i) anchors[i] = i;
  goes_to_ = anchors;
  window_ = window;
  if (length > target) {
    grid_.fill(kernels, x, length, width, parallel);
  }
  while (static_cast<int32_t>(anchors.size()) > target) {
    const int64_t n = static_cast<int64_t>(anchors.size());
    const int64_t count = merge_count(n, target, step.num, step.den);
    run_pass(count, n - count == target, parallel);
  }
  number_outputs(length);
}

void RowPlanner::run_pass(int64_t count, bool last, const ParallelFor& parallel) {
  const int32_t n = static_cast<int32_t>(anchors.size());
  n_a_ = (n + 1) / 2;
  n_b_ = n / 2;
  find_candidates();
  best_.assign(n_a_, {-std::numeric_limits<double>::infinity(), 0});
  parallel(tasks_of(n_a_, kBlockA),
           [this](size_t block) { score_block(static_cast<int32_t>(block) * kBlockA); });
  select(count);
  if (!last) add_up(parallel);
  anchors.erase(
      std::remove_if(anchors.begin(), anchors.end(), [this](int32_t i) { return goes_to_[i] != i; }),
      anchors.end());
}

// Anchors increase, so the B inside the window of an A and its neighbours a - 1 and a are one stretch of B.
void RowPlanner::find_candidates() {
  first_.assign(n_a_, 0);
  last_.assign(n_a_, n_b_ - 1);
  if (window_ < 0) return;
  int32_t first = 0, last = -1;
  for (int32_t a = 0; a < n_a_; ++a) {
    const int64_t here = anchor_a(a);
    while (first < n_b_ && anchor_b(first) < here - window_) ++first;
    while (last + 1 < n_b_ && anchor_b(last + 1) <= here + window_) ++last;
    first_[a] = std::max(0, std::min(first, a - 1));
    last_[a] = std::min(n_b_ - 1, std::max(last, a));
  }
}

// Score the A from `first` on against all their candidates, in increasing order of B.
void RowPlanner::score_block(int32_t first) {
  const int32_t end = std::min(n_a_, first + kBlockA);
  const int32_t end_b = last_[end - 1] + 1;
  for (int32_t panel = first_[first]; panel < end_b; panel += kPanelB)
    for (int32_t a = first; a < end; a += kTileA) {
      const int32_t last_a = std::min<int32_t>(a + kTileA, end) - 1;
      const int32_t from = std::max(panel, first_[a]), to = std::min(panel + kPanelB, last_[last_a] + 1);
      if (from < to) score_stretch(a, from, to);
    }
}

// Score a tile's A against the B of [from, to), in tiles as equal as can be.
void RowPlanner::score_stretch(int32_t a, int32_t from, int32_t to) {
  const int32_t count = to - from, tiles = (count + kTileB - 1) / kTileB;
  for (int32_t tile = 0; tile < tiles; ++tile)
    score_tile(a, from + count * tile / tiles, from + count * (tile + 1) / tiles);
}

void RowPlanner::score_tile(int32_t a, int32_t from, int32_t to) {
  int32_t tokens_a[kTileA], tokens_b[kTileB];
  int64_t dots[kTileA * kTileB];
  for (int32_t i = 0; i < kTileA; ++i) tokens_a[i] = anchor_a(std::min(a + i, n_a_ - 1));
  for (int32_t b = from; b < to; ++b) tokens_b[b - from] = anchor_b(b);
  grid_.products(tokens_a, tokens_b, to - from, dots);
  for (int32_t i = 0; i < kTileA && a + i < n_a_; ++i) {
    Best& best = best_[a + i];
    const int32_t end = std::min(to, last_[a + i] + 1);
    for (int32_t b = std::max(from, first_[a + i]); b < end; ++b) {
      const int32_t token = tokens_b[b - from];
      const int64_t dot = dots[i * kTileB + b - from];
      const bool inside = window_ < 0 || std::abs(tokens_a[i] - token) <= window_;
      const double value = score_of(dot, grid_.norm(tokens_a[i]), grid_.norm(token), inside);
      if (value > best.value) best = {value, b};  // the lowest index on ties
    }
  }
}

void RowPlanner::select(int64_t count) {
  order_.resize(n_a_);
  for (int32_t a = 0; a < n_a_; ++a) order_[a] = a;
  const auto better = [this](int32_t a, int32_t b) {
    return best_[a].value != best_[b].value ? best_[a].value > best_[b].value : a < b;
  };
  if (count < n_a_) std::nth_element(order_.begin(), order_.begin() + count, order_.end(), better);
  merges_.clear();
  for (int64_t i = 0; i < count; ++i) {
    const int32_t a = order_[i];
    merges_.push_back({anchor_b(best_[a].partner), anchor_a(a)});
    goes_to_[merges_.back().from] = merges_.back().to;
  }
}

// G[to] += G[from]: a task for each stretch of merges, which owns the tokens whose merges begin in it.
void RowPlanner::add_up(const ParallelFor& parallel) {
  std::sort(merges_.begin(), merges_.end(),
            [](const Merge& p, const Merge& q) { return p.to != q.to ? p.to < q.to : p.from < q.from; });
  const size_t count = merges_.size();
  const auto begins = [this](size_t i) { return i == 0 || merges_[i].to != merges_[i - 1].to; };
  std::atomic<bool> fits{true};
  parallel(tasks_of(count, kTokensPerTask), [&](size_t task) {
    size_t i = task * kTokensPerTask;
    const size_t end = std::min(count, i + kTokensPerTask);
    while (i < end && !begins(i)) ++i;
    while (i < end) {
      const int32_t to = merges_[i].to;
      do grid_.add(to, merges_[i++].from);
      while (i < count && !begins(i));
      if (!grid_.measure(to)) fits = false;
    }
  });
  if (!fits)
    throw std::overflow_error(
        "a merged token's <G, G> leaves int64: cut the recording into rows of 30 s, or keep more "
        "tokens");
}

// --- the result --------------------------------------------------------------------------------------------

void RowPlanner::number_outputs(int32_t length) {
  const int32_t count = static_cast<int32_t>(anchors.size());
  source_map.resize(length);
  starts.assign(count + 1, 0);
  members.resize(length);
  std::vector<int32_t>& rank = order_;
  rank.resize(length);
  for (int32_t k = 0; k < count; ++k) rank[anchors[k]] = k;
  for (int32_t i = 0; i < length; ++i) {
    int32_t anchor = i;
    while (goes_to_[anchor] != anchor) anchor = goes_to_[anchor];
    source_map[i] = rank[anchor];
    ++starts[source_map[i] + 1];
  }
  for (int32_t k = 0; k < count; ++k) starts[k + 1] += starts[k];
  std::vector<int32_t>& next = first_;
  next.assign(starts.begin(), starts.end() - 1);
  for (int32_t i = 0; i < length; ++i) members[next[source_map[i]]++] = i;
}

template void RowPlanner::plan(const Kernels&, const float*, int32_t, size_t, int32_t, int32_t, Step,
                               const ParallelFor&);
template void RowPlanner::plan(const Kernels&, const Half*, int32_t, size_t, int32_t, int32_t, Step,
                               const ParallelFor&);

}  // namespace ltbm
