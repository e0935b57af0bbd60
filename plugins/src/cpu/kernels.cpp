// The loops of kernels.h for one instruction set, LTBM_ISA, which the build system sets together with
// compiler flags.
//
// Plain loops are left to the compiler's vectoriser. No header but those of C and of intrinsics: an inline
// function of the C++ library, compiled here for AVX-512, could be the copy that the linker keeps for
// everyone.
#include "kernels.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define LTBM_TEXT(name) #name
#define LTBM_NAME(name) LTBM_TEXT(name)

namespace ltbm {
namespace {

constexpr size_t kChunk = 512;  // floats worked on at a time where float16 has to be widened

// --- types of x --------------------------------------------------------------------------------------------

uint32_t bits_of(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}

float float_of(uint32_t bits) {
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

#if defined(__F16C__)

void widen(const Half* x, size_t n, float* v) {
  size_t c = 0;
  for (; c + 8 <= n; c += 8)
    _mm256_storeu_ps(v + c, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + c))));
  for (; c < n; ++c) v[c] = _cvtsh_ss(x[c]);
}

void narrow(const float* v, size_t n, Half* x) {
  size_t c = 0;
  for (; c + 8 <= n; c += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(x + c),
                     _mm256_cvtps_ph(_mm256_loadu_ps(v + c), 0));  // 0: to nearest
  for (; c < n; ++c) x[c] = _cvtss_sh(v[c], 0);
}

#elif defined(__aarch64__)

void widen(const Half* x, size_t n, float* v) {
  for (size_t c = 0; c < n; ++c) {
    __fp16 half;
    memcpy(&half, x + c, sizeof half);
    v[c] = half;
  }
}

void narrow(const float* v, size_t n, Half* x) {
  for (size_t c = 0; c < n; ++c) {
    const __fp16 half = v[c];
    memcpy(x + c, &half, sizeof half);
  }
}

#else

float widened(Half x) {
  const uint32_t sign = (x & 0x8000u) << 16, rest = x & 0x7fffu;
  if (rest >= 0x7c00) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest >= 0x0400)
    return float_of(sign | ((rest << 13) + 0x38000000u));  // exponent 15 becomes exponent 127
  const float magnitude = static_cast<float>(rest) * 0x1p-24f;  // subnormal: exact in float32
  return float_of(sign | bits_of(magnitude));
}

Half narrowed(float v) {
  const uint32_t bits = bits_of(v), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u)
    return static_cast<Half>(sign | 0x7e00u | (rest >> 13 & 0x3ffu));  // NaN, made quiet
  if (rest >= 0x477ff000u) return static_cast<Half>(sign | 0x7c00u);  // 65520 and more round to infinity
  if (rest <
      0x38800000u)  // below 2^-14: adding 0.5 leaves the subnormal's bits at the bottom, rounded half to even
    return static_cast<Half>(sign | (bits_of(float_of(rest) + 0.5f) - bits_of(0.5f)));
  const uint32_t half_to_even = 0xfffu + (rest >> 13 & 1u);
  return static_cast<Half>(sign | (rest - 0x38000000u + half_to_even) >> 13);
}

void widen(const Half* x, size_t n, float* v) {
  for (size_t c = 0; c < n; ++c) v[c] = widened(x[c]);
}

void narrow(const float* v, size_t n, Half* x) {
  for (size_t c = 0; c < n; ++c) x[c] = narrowed(v[c]);
}

#endif

// n <= kChunk values of x as float32: x itself, or a copy in `buffer`.
const float* floats(const float* x, size_t, float*) {
  return x;
}

const float* floats(const Half* x, size_t n, float* buffer) {
  widen(x, n, buffer);
  return buffer;
}

void store(const float* v, size_t n, float* y) {
  memcpy(y, v, n * sizeof *y);
}
void store(const float* v, size_t n, Half* y) {
  narrow(v, n, y);
}

// --- x to its grid -----------------------------------------------------------------------------------------

// Positive floats order as their bits do.
float largest_float(const float* x, size_t n) {
  int32_t top = 0;
  for (size_t c = 0; c < n; ++c) {
    const int32_t magnitude = bits_of(x[c]) & 0x7fffffff;
    const int32_t finite = magnitude < 0x7f800000 ? magnitude : 0;
    top = finite > top ? finite : top;
  }
  return float_of(static_cast<uint32_t>(top));
}

float largest_half(const Half* x, size_t n) {
  int16_t top = 0;
  for (size_t c = 0; c < n; ++c) {
    const int16_t magnitude = x[c] & 0x7fff;
    const int16_t finite = magnitude < 0x7c00 ? magnitude : static_cast<int16_t>(0);
    top = finite > top ? finite : top;
  }
  const Half bits = static_cast<Half>(top);
  float v;
  widen(&bits, 1, &v);
  return v;
}

// Adding 1.5 * 2^23 rounds to whole numbers, half to even, and leaves them in the low bits.
template <class T>
void quantise(const T* x, size_t width, float scale, int16_t* lo) {
  constexpr float kRound = 12582912.0f;
  float buffer[kChunk];
  for (size_t first = 0; first < width; first += kChunk) {
    const size_t n = width - first < kChunk ? width - first : kChunk;
    const float* v = floats(x + first, n, buffer);
    int16_t* out = lo + first;
    for (size_t c = 0; c < n; ++c) {
      const int32_t rounded = static_cast<int32_t>(bits_of(v[c] * scale + kRound));
      const bool finite = (bits_of(v[c]) & 0x7f800000u) != 0x7f800000u;
      out[c] = static_cast<int16_t>(finite ? rounded : 0);
    }
  }
}

// --- products ----------------------------------------------------------------------------------------------

#if defined(__x86_64__) || defined(__aarch64__)

#if defined(__AVX512VNNI__)
constexpr size_t kBytes = 64, kTileA = 4;
#elif defined(__AVX2__)
constexpr size_t kBytes = 32, kTileA = 2;
#elif defined(__x86_64__)
constexpr size_t kBytes = 16, kTileA = 2;
#else
constexpr size_t kBytes = 16, kTileA = 4;
#endif
constexpr size_t kTileB = 4;  // the sums of a tile and what they are made from fit the vector registers

typedef int32_t Int32s __attribute__((vector_size(kBytes)));
typedef int64_t Int64s __attribute__((vector_size(kBytes)));

// sums[l] + a[2l] * b[2l] + a[2l + 1] * b[2l + 1] (NEON pairs other elements, which does not matter).
#if defined(__AVX512VNNI__)
typedef __m512i Int16s;
Int16s load(const int16_t* p) {
  return _mm512_loadu_si512(p);
}
Int32s add_products(Int32s sums, Int16s a, Int16s b) {
  return reinterpret_cast<Int32s>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sums), a, b));
}
#elif defined(__AVX2__)
typedef __m256i Int16s;
Int16s load(const int16_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
Int32s add_products(Int32s sums, Int16s a, Int16s b) {
  return sums + reinterpret_cast<Int32s>(_mm256_madd_epi16(a, b));
}
#elif defined(__x86_64__)
typedef __m128i Int16s;
Int16s load(const int16_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
Int32s add_products(Int32s sums, Int16s a, Int16s b) {
  return sums + reinterpret_cast<Int32s>(_mm_madd_epi16(a, b));
}
#else
typedef int16x8_t Int16s;
Int16s load(const int16_t* p) {
  return vld1q_s16(p);
}
Int32s add_products(Int32s sums, Int16s a, Int16s b) {
  int32x4_t low = vmlal_s16(reinterpret_cast<int32x4_t>(sums), vget_low_s16(a), vget_low_s16(b));
  return reinterpret_cast<Int32s>(vmlal_high_s16(low, a, b));
}
#endif

// Even and odd lanes as int64, added.
Int64s widened_pairs(Int32s sums) {
  const Int64s pairs = reinterpret_cast<Int64s>(sums);
  return (pairs >> 32) + ((pairs << 32) >> 32);
}

int64_t lane_sum(Int64s lanes) {
#if defined(__AVX512VNNI__)
  return _mm512_reduce_add_epi64(reinterpret_cast<__m512i>(lanes));
#else
  int64_t sum = 0;
  for (size_t lane = 0; lane < kBytes / sizeof(int64_t); ++lane) sum += lanes[lane];
  return sum;
#endif
}

template <size_t kA, size_t kB>
void tile(const int16_t* const* a, const int16_t* const* b, size_t width, size_t run, int64_t* out) {
  constexpr size_t kValues = kBytes / sizeof(int16_t);
  const size_t stretch = run * kValues;
  Int64s total[kA][kB];
  for (size_t i = 0; i < kA; ++i)
    for (size_t j = 0; j < kB; ++j) total[i][j] = Int64s{};
  for (size_t first = 0; first < width; first += stretch) {
    const size_t end = first + stretch < width ? first + stretch : width;
    Int32s sums[kA][kB] = {};
    for (size_t c = first; c < end; c += kValues) {
      Int16s rows[kA];
      for (size_t i = 0; i < kA; ++i) rows[i] = load(a[i] + c);
      for (size_t j = 0; j < kB; ++j) {
        const Int16s column = load(b[j] + c);
        for (size_t i = 0; i < kA; ++i) sums[i][j] = add_products(sums[i][j], rows[i], column);
      }
    }
    for (size_t i = 0; i < kA; ++i)
      for (size_t j = 0; j < kB; ++j) total[i][j] += widened_pairs(sums[i][j]);
  }
  for (size_t i = 0; i < kA; ++i)
    for (size_t j = 0; j < kB; ++j) out[i * kB + j] = lane_sum(total[i][j]);
}

int64_t product(const int16_t* a, const int16_t* b, size_t width, size_t run) {
  int64_t out;
  tile<1, 1>(&a, &b, width, run, &out);
  return out;
}

#else

constexpr size_t kTileA = 2, kTileB = 4;

int64_t product(const int16_t* a, const int16_t* b, size_t width, size_t) {
  int64_t sum = 0;
  for (size_t c = 0; c < width; ++c) sum += static_cast<int32_t>(a[c]) * b[c];
  return sum;
}

template <size_t kA, size_t kB>
void tile(const int16_t* const* a, const int16_t* const* b, size_t width, size_t run, int64_t* out) {
  for (size_t i = 0; i < kA; ++i)
    for (size_t j = 0; j < kB; ++j) out[i * kB + j] = product(a[i], b[j], width, run);
}

#endif

// --- merged tokens -----------------------------------------------------------------------------------------

int16_t add(int16_t* lo, const int16_t* hi_in, int16_t* hi, const int16_t* lo_a, const int16_t* hi_a,
            size_t width) {
  int16_t largest = 0;
  for (size_t c = 0; c < width; ++c) {
    const int16_t sum = static_cast<int16_t>(lo[c] + lo_a[c]);  // within +-2^14
    const int16_t carry = static_cast<int16_t>((sum + (1 << (kSplitBits - 1))) >> kSplitBits);
    const int16_t high = static_cast<int16_t>(hi_in[c] + hi_a[c] + carry);
    const int16_t magnitude = static_cast<int16_t>(high < 0 ? -high : high);
    lo[c] = static_cast<int16_t>(sum - carry * (1 << kSplitBits));
    hi[c] = high;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

template <class T>
void mean(const T* x, const int32_t* members, size_t count, size_t width, T* y) {
  float sum[kChunk], buffer[kChunk];
  const float size = static_cast<float>(count);
  for (size_t first = 0; first < width; first += kChunk) {
    const size_t n = width - first < kChunk ? width - first : kChunk;
    for (size_t c = 0; c < n; ++c) sum[c] = -0.0f;  // the identity of addition: a token alone stays as it is
    for (size_t m = 0; m < count; ++m) {
      const float* v = floats(x + members[m] * width + first, n, buffer);
      for (size_t c = 0; c < n; ++c) sum[c] += v[c];
    }
    for (size_t c = 0; c < n; ++c) sum[c] /= size;
    store(sum, n, y + first);
  }
}

}  // namespace

extern const Kernels LTBM_ISA;
const Kernels LTBM_ISA = {
    LTBM_NAME(LTBM_ISA),
    {largest_float, largest_half},
    {quantise<float>, quantise<Half>},
    kTileA,
    kTileB,
    tile<kTileA, kTileB>,
    product,
    add,
    {mean<float>, mean<Half>},
};

}  // namespace ltbm
