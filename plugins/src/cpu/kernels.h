// The inner loops over D, built once per instruction set from kernels.cpp and chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ltbm {

using Half = uint16_t;  // the bits of a float16

constexpr size_t kLane = 128;  // the width of a grid row is a multiple of it: four 64-byte vectors of int16
constexpr int32_t kTileA = 2, kTileB = 6;  // tokens of a tile of products: two A, one to six B

// A token's G is one row of int16, lo, while it fits. One that does not is split, G = hi * 2^14 + lo with lo
// in [-2^13, 2^13), so that every product below is one of int16 by int16.
constexpr int kSplitBits = 14;
constexpr int32_t kSplitLow = 1 << (kSplitBits - 1), kWidest = INT16_MAX;

// A run is how many vectors of products an int32 lane adds up before it is widened to int64. A row has a run
// r if its own squares stay below 2^31 in every lane over any r vectors. By Cauchy-Schwarz no part of the
// products of two rows in a lane exceeds the larger of their squares there, so the shorter of two runs is one
// for both.

// The run of any row with values within +-largest, at most kWidest: each vector gives a lane two products.
constexpr size_t run_of(int32_t largest) {
  return static_cast<size_t>(INT32_MAX / (2 * int64_t{largest} * largest));
}
constexpr size_t kWholeRow = SIZE_MAX / kLane;

struct Squares {
  int64_t sum;  // <row, row>
  size_t run;  // of this row, run_of(largest) or more
};

struct Range {
  float largest;  // of the finite magnitudes, 0 if there is none
  bool finite;  // no NaN, no infinity
};

// Functions on x exist for float32 and float16, in this order.
template <class Float32, class Float16>
struct ForBoth {
  Float32 of_float;
  Float16 of_half;
  Float32 pick(const float*) const { return of_float; }
  Float16 pick(const Half*) const { return of_half; }
};

struct Kernels {
  const char* name;

  ForBoth<Range (*)(const float* x, size_t n), Range (*)(const Half* x, size_t n)> range;

  // lo [width] = x * scale, rounded half to even; NaN and infinities give 0. finite: there are none.
  ForBoth<void (*)(const float* x, size_t width, float scale, bool finite, int16_t* lo),
          void (*)(const Half* x, size_t width, float scale, bool finite, int16_t* lo)>
      quantise;

  // largest: of the magnitudes in row, at most.
  Squares (*squares)(const int16_t* row, size_t width, int32_t largest);

  // out[i * kTileB + j] = sum over c < width of a[i][c] * b[j][c], exactly, for i < kTileA and j < count.
  void (*tile)(const int16_t* const* a, const int16_t* const* b, size_t count, size_t width, size_t run,
               int64_t* out);

  // lo += lo_a, elementwise; the sums fit int16. The largest |lo|.
  int16_t (*add)(int16_t* lo, const int16_t* lo_a, size_t width);

  // (lo, hi) = (lo, hi_in) + (lo_a, hi_a), elementwise, and split; hi_in is hi or zeros. The largest |hi|.
  int16_t (*add_split)(int16_t* lo, const int16_t* hi_in, int16_t* hi, const int16_t* lo_a,
                       const int16_t* hi_a, size_t width);

  // y [width] = (-0.0 + x[members[0]] + x[members[1]] + ...) / count, in float32 and in this order.
  ForBoth<void (*)(const float* x, const int32_t* members, size_t count, size_t width, float* y),
          void (*)(const Half* x, const int32_t* members, size_t count, size_t width, Half* y)>
      mean;
};

// The fastest of them that this processor runs; LTBM_CPU=plain, avx2 or avx512 in the environment asks for
// one.
const Kernels& kernels();

}  // namespace ltbm
