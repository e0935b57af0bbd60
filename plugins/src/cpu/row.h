// The plan of one row on the CPU: which of its L tokens merge, bit for bit that of merge.py.
//
// A current token is known by its anchor, and its G stands in row `anchor` of the grid from start to end:
// only the list of the anchors still alive gets shorter. A are the even places of that list, B the odd ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels.h"

namespace ltbm {

// Calls body(0) .. body(count - 1), in any order and perhaps at the same time; the bodies must not throw.
using ParallelFor = std::function<void(size_t count, const std::function<void(size_t)>& body)>;

constexpr int32_t kLongestRow = 65535;  // tokens: the sum of so many grids fits two int16 halves

struct Step {
  int64_t num, den;
};

// The integer grids of a row's tokens; memory is kept from row to row.
class Grid {
 public:
  // Put x [length, width] on the grid.
  template <class T>
  void fill(const Kernels& kernels, const T* x, int32_t length, size_t width, const ParallelFor& parallel);

  // The exact products of kTileA by `count` tokens: out[i * kTileB + j] = <G[a[i]], G[b[j]]>.
  void products(const int32_t* a, const int32_t* b, size_t count, int64_t* out) const;

  void add(int32_t to, int32_t from);

  // Compute <G, G> anew; false if it leaves int64.
  bool measure(int32_t token);

  int64_t norm(int32_t token) const { return tokens_[token].norm; }

 private:
  struct Token {
    int32_t low, high;  // at most the largest in lo and hi; high is 0 if G is not split
    size_t run;  // of its own squares
    int64_t norm;  // <G, G>
  };

  int16_t* lo(int32_t token) const { return lo_ + token * stride_; }
  int16_t* hi(int32_t token) const { return hi_ + token * stride_; }
  const int16_t* hi_or_zeros(int32_t token) const { return tokens_[token].high ? hi(token) : zeros_; }
  void reserve(int32_t length, size_t width);

  const Kernels* kernels_ = nullptr;
  std::vector<int16_t> memory_;
  int16_t *lo_ = nullptr, *hi_ = nullptr, *zeros_ = nullptr;  // [L, stride], the same, [stride]
  size_t stride_ = 0;  // D rounded up to kLane
  std::vector<Token> tokens_;  // [L]
};

class RowPlanner {
 public:
  // Plan the merge of x [length, width] down to `target`; throws std::overflow_error if similarity leaves
  // int64.
  template <class T>
  void plan(const Kernels& kernels, const T* x, int32_t length, size_t width, int32_t target, int32_t window,
            Step step, const ParallelFor& parallel);

  // What was planned last. Outputs are numbered in order of their anchors.
  std::vector<int32_t> anchors;  // [target]
  std::vector<int32_t> source_map;  // [length]
  std::vector<int32_t> starts;  // [target + 1] where each output's members begin
  std::vector<int32_t> members;  // [length] tokens by output, each output's in increasing order

 private:
  struct Best {
    double value;
    int32_t partner;  // index into B
  };
  struct Merge {
    int32_t to, from;  // anchors
  };

  void run_pass(int64_t count, bool last, const ParallelFor& parallel);
  void find_candidates();
  void score_block(int32_t first);
  void score_stretch(int32_t a, int32_t from, int32_t to);
  void score_tile(int32_t a, int32_t from, int32_t to);
  void select(int64_t count);
  void add_up(const ParallelFor& parallel);
  void number_outputs(int32_t length);

  int32_t anchor_a(int32_t a) const { return anchors[2 * a]; }
  int32_t anchor_b(int32_t b) const { return anchors[2 * b + 1]; }

  Grid grid_;
  int32_t window_ = 0, n_a_ = 0, n_b_ = 0;
  std::vector<int32_t> first_, last_;  // [n_a] candidates of each A, both included
  std::vector<Best> best_;  // [n_a]
  std::vector<int32_t> order_;  // [n_a] A by falling value, as far as it is sorted
  std::vector<Merge> merges_;
  std::vector<int32_t> goes_to_;  // [L] anchor that each token last merged into, itself if none
};

}  // namespace ltbm
