// The inner loops over D, built once per instruction set from kernels.cpp and chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ltbm {

using Half = uint16_t;  // the bits of a float16

constexpr size_t kLane = 32;  // the width of a grid row is a multiple of it: one 64-byte vector of int16
constexpr size_t kTileMost = 4;  // tokens on each side of a tile of products, at most

// A token's G is split into int16 halves, G = hi * 2^14 + lo with lo in [-2^13, 2^13), so that every product
// below is one of int16 by int16. A token that never merged has hi = 0.
constexpr int kSplitBits = 14;

// An int32 lane takes two products from every vector before it overflows: how many vectors, if all values are
// within
// +-2^13, or any but -2^15.
constexpr size_t kSmallRun = 15, kLargeRun = 1;
constexpr int16_t kSmall = 1 << 13;

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

  // The largest |v| among the finite x [n], 0 if none is.
  ForBoth<float (*)(const float* x, size_t n), float (*)(const Half* x, size_t n)> largest;

  // lo [width] = x * scale, rounded half to even; NaN and infinities give 0.
  ForBoth<void (*)(const float* x, size_t width, float scale, int16_t* lo),
          void (*)(const Half* x, size_t width, float scale, int16_t* lo)>
      quantise;

  size_t tile_a, tile_b;  // tokens on the sides of a tile

  // out[i * tile_b + j] = sum over c < width of a[i][c] * b[j][c], exactly. run: kSmallRun or kLargeRun.
  void (*tile)(const int16_t* const* a, const int16_t* const* b, size_t width, size_t run, int64_t* out);

  // sum over c < width of a[c] * b[c], likewise.
  int64_t (*product)(const int16_t* a, const int16_t* b, size_t width, size_t run);

  // (lo, hi) = (lo, hi_in) + (lo_a, hi_a), elementwise on the split numbers; hi_in is hi or zeros. The
  // largest |hi|.
  int16_t (*add)(int16_t* lo, const int16_t* hi_in, int16_t* hi, const int16_t* lo_a, const int16_t* hi_a,
                 size_t width);

  // y [width] = (-0.0 + x[members[0]] + x[members[1]] + ...) / count, in float32 and in this order.
  ForBoth<void (*)(const float* x, const int32_t* members, size_t count, size_t width, float* y),
          void (*)(const Half* x, const int32_t* members, size_t count, size_t width, Half* y)>
      mean;
};

// The fastest of them that this processor runs; LTBM_CPU=plain, avx2 or avx512 in the environment asks for
// one.
const Kernels& kernels();

}  // namespace ltbm
