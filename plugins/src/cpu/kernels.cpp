// The loops of kernels.h for one instruction set, LTBM_ISA, which the build system sets together with
// compiler flags.
//
// No header but those of C, of intrinsics and our own without names outside: an inline function of the C++
// library, compiled here for AVX-512, could be the copy that the linker keeps for everyone.
#include "kernels.h"

#include <string.h>

#include "halves.h"
#include "vectors.h"

#define LTBM_TEXT(name) #name
#define LTBM_NAME(name) LTBM_TEXT(name)

namespace ltbm {
namespace {

// --- x to its grid -----------------------------------------------------------------------------------------

constexpr int32_t infinity_of(const float*) {
  return 0x7f800000;
}
constexpr int16_t infinity_of(const Half*) {
  return 0x7c00;
}

float value_of(float x) {
  return x;
}

float value_of(Half x) {
  float v;
  widen(&x, 1, &v);
  return v;
}

void store_value(float v, float* y) {
  *y = v;
}

void store_value(float v, Half* y) {
  narrow(&v, 1, y);
}

// The largest |x[c]| as bits; positive floats order as their bits do, infinity and then NaN last.
template <class Bits, class T>
Bits largest_bits(const T* x, size_t n, Bits magnitude) {
  typedef Bits Vector __attribute__((vector_size(kBytes)));
  constexpr size_t kCount = kBytes / sizeof(Bits), kAtOnce = 4;
  Vector top[kAtOnce] = {};
  size_t c = 0;
  for (; c + kAtOnce * kCount <= n; c += kAtOnce * kCount)
    for (size_t v = 0; v < kAtOnce; ++v) {
      const Vector bits = load<Vector>(x + c + v * kCount) & magnitude;
      top[v] = bits > top[v] ? bits : top[v];
    }
  Bits largest = 0;
  for (size_t v = 0; v < kAtOnce; ++v)
    for (size_t lane = 0; lane < kCount; ++lane) largest = top[v][lane] > largest ? top[v][lane] : largest;
  for (; c < n; ++c) {
    Bits bits;
    memcpy(&bits, x + c, sizeof bits);
    bits &= magnitude;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

template <class T>
Range range(const T* x, size_t n) {
  constexpr auto kInfinity = infinity_of(static_cast<const T*>(nullptr));
  constexpr auto kMagnitude = static_cast<decltype(infinity_of(x))>(~(uint64_t{1} << (8 * sizeof(T) - 1)));
  const auto bits = largest_bits(x, n, kMagnitude);
  if (bits < kInfinity) {
    T largest;
    memcpy(&largest, &bits, sizeof bits);
    return {value_of(largest), true};
  }
  float largest = 0;
  for (size_t c = 0; c < n; ++c) {
    const float v = value_of(x[c]), magnitude = v < 0 ? -v : v;
    if (magnitude > largest && magnitude - magnitude == 0) largest = magnitude;
  }
  return {largest, false};
}

// v, but 0 for infinities and NaN, which are not 0 less themselves.
Floats finite_or_zero(Floats v) {
  return Floats(Int32s(v) & ((v - v) == Floats{}));
}

template <bool kFinite, class T>
Int16s grid_values(const T* x, float scale) {
  Floats low = load_floats(x), high = load_floats(x + kFloats);
  if (!kFinite) {
    low = finite_or_zero(low);
    high = finite_or_zero(high);
  }
  return rounded(low * scale, high * scale);
}

template <bool kFinite, class T>
void quantise_values(const T* x, size_t width, float scale, int16_t* lo) {
  size_t c = 0;
  for (; c + kValues <= width; c += kValues) {
    const Int16s values = grid_values<kFinite>(x + c, scale);
    memcpy(lo + c, &values, sizeof values);
  }
  if (c == width) return;
  T rest[kValues] = {};
  memcpy(rest, x + c, (width - c) * sizeof *x);
  const Int16s values = grid_values<kFinite>(rest, scale);
  memcpy(lo + c, &values, (width - c) * sizeof *lo);
}

template <class T>
void quantise(const T* x, size_t width, float scale, bool finite, int16_t* lo) {
  if (finite)
    quantise_values<true>(x, width, scale, lo);
  else
    quantise_values<false>(x, width, scale, lo);
}

// --- products ----------------------------------------------------------------------------------------------

// Where the run that begins at `first` ends.
size_t end_of_run(size_t first, size_t width, size_t run) {
  return run < (width - first) / kValues ? first + run * kValues : width;
}

template <size_t kB>
void tile_of(const int16_t* const* a, const int16_t* const* b, size_t width, size_t run, int64_t* out) {
  Int64s total[kTileA][kB] = {};
  for (size_t c = 0; c < width;) {
    const size_t end = end_of_run(c, width, run);
    Int32s sums[kTileA][kB] = {};
    for (; c < end; c += kValues) {
      Int16s rows[kTileA];
      for (size_t i = 0; i < kTileA; ++i) rows[i] = load<Int16s>(a[i] + c);
      for (size_t j = 0; j < kB; ++j) {
        const Int16s column = load<Int16s>(b[j] + c);
        for (size_t i = 0; i < kTileA; ++i) sums[i][j] = add_products(sums[i][j], rows[i], column);
      }
    }
    for (size_t i = 0; i < kTileA; ++i)
      for (size_t j = 0; j < kB; ++j) total[i][j] += widened_pairs(sums[i][j]);
  }
  for (size_t i = 0; i < kTileA; ++i)
    for (size_t j = 0; j < kB; ++j) out[i * kTileB + j] = lane_sum(total[i][j]);
}

void tile(const int16_t* const* a, const int16_t* const* b, size_t count, size_t width, size_t run,
          int64_t* out) {
  static constexpr decltype(&tile_of<1>) kTiles[kTileB] = {tile_of<1>, tile_of<2>, tile_of<3>,
                                                           tile_of<4>, tile_of<5>, tile_of<6>};
  kTiles[count - 1](a, b, width, run, out);
}

// A lane never exceeds `most` in a block, and a run of n blocks that begins anywhere touches at most n + 1 of
// them.
size_t measured_run(int32_t most, size_t block, size_t blocks) {
  const size_t fit = static_cast<size_t>(INT32_MAX / (most > 1 ? most : 1));
  if (fit >= blocks) return kWholeRow;
  return fit > 2 ? (fit - 1) * block : block;
}

Squares squares(const int16_t* row, size_t width, int32_t largest) {
  const size_t block = run_of(largest);
  size_t blocks = 0;
  Int64s total = {};
  Int32s most = {};
  for (size_t c = 0; c < width; ++blocks) {
    const size_t end = end_of_run(c, width, block);
    Int32s sums = {};
    for (; c < end; c += kValues) {
      const Int16s values = load<Int16s>(row + c);
      sums = add_products(sums, values, values);
    }
    total += widened_pairs(sums);
    most = sums > most ? sums : most;
  }
  int32_t lane_most = 0;
  for (size_t lane = 0; lane < kFloats; ++lane) lane_most = most[lane] > lane_most ? most[lane] : lane_most;
  return {lane_sum(total), measured_run(lane_most, block, blocks)};
}

// --- merged tokens -----------------------------------------------------------------------------------------

int16_t add(int16_t* lo, const int16_t* lo_a, size_t width) {
  int16_t largest = 0;
  for (size_t c = 0; c < width; ++c) {
    const int16_t sum = static_cast<int16_t>(lo[c] + lo_a[c]);
    const int16_t magnitude = static_cast<int16_t>(sum < 0 ? -sum : sum);
    lo[c] = sum;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

int16_t add_split(int16_t* lo, const int16_t* hi_in, int16_t* hi, const int16_t* lo_a, const int16_t* hi_a,
                  size_t width) {
  int16_t largest = 0;
  for (size_t c = 0; c < width; ++c) {
    const int32_t sum = lo[c] + lo_a[c];
    const int32_t carry = (sum + kSplitLow) >> kSplitBits;
    const int16_t high = static_cast<int16_t>(hi_in[c] + hi_a[c] + carry);
    const int16_t magnitude = static_cast<int16_t>(high < 0 ? -high : high);
    lo[c] = static_cast<int16_t>(sum - carry * (1 << kSplitBits));
    hi[c] = high;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// kVectors vectors of a mean. All members are read side by side, and the sums stay in registers.
template <size_t kVectors, class T>
void mean_stripe(const T* x, const int32_t* members, size_t count, size_t width, T* y) {
  Floats sum[kVectors];
  for (size_t v = 0; v < kVectors; ++v) sum[v] = -Floats{};  // the identity of addition: a token alone stays
  for (size_t m = 0; m < count; ++m) {
    const T* token = x + members[m] * width;
    for (size_t v = 0; v < kVectors; ++v) sum[v] += load_floats(token + v * kFloats);
  }
  const float size = static_cast<float>(count);
  const bool exact =
      (count & (count - 1)) == 0;  // a power of two: its reciprocal gives the same bits, sooner
  const float reciprocal = 1 / size;
  for (size_t v = 0; v < kVectors; ++v)
    store_floats(exact ? sum[v] * reciprocal : sum[v] / size, y + v * kFloats);
}

template <class T>
void mean(const T* x, const int32_t* members, size_t count, size_t width, T* y) {
  constexpr size_t kStripe = 4;
  size_t c = 0;
  for (; c + kStripe * kFloats <= width; c += kStripe * kFloats)
    mean_stripe<kStripe>(x + c, members, count, width, y + c);
  for (; c + kFloats <= width; c += kFloats) mean_stripe<1>(x + c, members, count, width, y + c);
  for (; c < width; ++c) {
    float sum = -0.0f;
    for (size_t m = 0; m < count; ++m) sum += value_of(x[members[m] * width + c]);
    store_value(sum / static_cast<float>(count), y + c);
  }
}

}  // namespace

extern const Kernels LTBM_ISA;
const Kernels LTBM_ISA = {
    LTBM_NAME(LTBM_ISA), {range<float>, range<Half>}, {quantise<float>, quantise<Half>}, squares, tile, add,
    add_split,           {mean<float>, mean<Half>},
};

}  // namespace ltbm
