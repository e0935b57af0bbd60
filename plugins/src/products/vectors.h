// The vectors of the instruction set that is compiled for, and what the loops of kernels.cpp do with them
// beyond arithmetic, which the compiler knows.
#pragma once

#include "../vector_types.h"
#include "kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif

namespace ltbm::products {
namespace {

constexpr size_t kLanes = kBytes / kStep;

typedef uint8_t Bytes __attribute__((vector_size(kBytes)));
typedef int8_t Codes __attribute__((vector_size(kLanes)));

// The tile: as many sums as the registers hold.
#if defined(__AVX512VNNI__)
constexpr size_t kTileRows = 6;
#else
constexpr size_t kTileRows = 4;
#endif
#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
template <int kBits>
constexpr size_t kTileVectors = kBits == 8 ? 1 : 2;
#else
template <int kBits>
constexpr size_t kTileVectors = 2;
#endif
template <int kBits>
constexpr size_t kTileColumns = kTileVectors<kBits>* kLanes;

// `value` in every lane; these compile to one instruction.
Int32s all(int32_t value) {
  return Int32s{} + value;
}

Floats all(float value) {
  return Floats{} + value;
}

// --- products --------------------------------------------------------------------------------------------

// NEON multiplies signed bytes: codes of 8 bits are moved to the middle.
#if defined(__aarch64__)
constexpr uint8_t kMoved = 0x80;
#else
constexpr uint8_t kMoved = 0;
#endif

// What the code of zero is to the products.
template <int kBits>
constexpr int32_t kMiddle = kBits == 8 ? 128 - kMoved : 8;

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__aarch64__)

// Sums of products, of both widths.
template <int kBits>
using Sums = Int32s;

// sums[lane] += the four products of codes and activations there.
Int32s add_products(Int32s sums, Bytes codes, Bytes activations) {
#if defined(__AVX512VNNI__)
  return Int32s(_mm512_dpbusd_epi32(__m512i(sums), __m512i(codes), __m512i(activations)));
#elif defined(__AVXVNNI__)
  return Int32s(_mm256_dpbusd_avx_epi32(__m256i(sums), __m256i(codes), __m256i(activations)));
#else
  return Int32s(vdotq_s32(int32x4_t(sums), int8x16_t(codes), int8x16_t(activations)));
#endif
}

// Sums that go on from `total`, and `total` with them.
void begin(Int32s total, Int32s* sums) {
  *sums = total;
}

Int32s added(Int32s, Int32s sums) {
  return sums;
}

#else

// AVX2 adds pairs of products in int16, which may stay there for kUnpacked codes of 4 bits of a column: a
// lane adds 16 products of up to 15 * 127. Codes of 8 bits are multiplied as two of 4.
struct Halves {
  Int16s low, high;
};

template <int kBits>
struct SumsOf {
  using Type = Int16s;
};
template <>
struct SumsOf<8> {
  using Type = Halves;
};
template <int kBits>
using Sums = typename SumsOf<kBits>::Type;

Int16s add_products(Int16s sums, Bytes codes, Bytes activations) {
  return sums + Int16s(_mm256_maddubs_epi16(__m256i(codes), __m256i(activations)));
}

Halves add_products(Halves sums, Bytes codes, Bytes activations) {
  return {add_products(sums.low, codes & 15, activations), add_products(sums.high, codes >> 4, activations)};
}

Int32s widened(Int16s sums) {
  return Int32s(_mm256_madd_epi16(__m256i(sums), _mm256_set1_epi16(1)));
}

void begin(Int32s, Int16s* sums) {
  *sums = Int16s{};
}

void begin(Int32s, Halves* sums) {
  *sums = Halves{};
}

Int32s added(Int32s total, Int16s sums) {
  return total + widened(sums);
}

Int32s added(Int32s total, Halves sums) {
  return total + widened(sums.low) + (widened(sums.high) << 4);
}

#endif

// As whole numbers, rounded half to even.
Int32s rounded(Floats v) {
#if defined(__AVX512VNNI__)
  return Int32s(_mm512_cvtps_epi32(__m512(v)));
#elif defined(__AVX2__)
  return Int32s(_mm256_cvtps_epi32(__m256(v)));
#else
  return Int32s(vcvtnq_s32_f32(float32x4_t(v)));
#endif
}

Floats converted(Int32s v) {
  return __builtin_convertvector(v, Floats);
}

// Whole numbers within int8.
Codes narrowed(Int32s v) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
  const __m128i halves =
      _mm_packs_epi32(_mm256_castsi256_si128(__m256i(v)), _mm256_extracti128_si256(__m256i(v), 1));
  const __m128i bytes = _mm_packs_epi16(halves, halves);
  return load<Codes>(&bytes);
#else
  return __builtin_convertvector(v, Codes);
#endif
}

int32_t lane_sum(Int32s v) {
#if defined(__AVX512VNNI__)
  return _mm512_reduce_add_epi32(__m512i(v));
#elif defined(__aarch64__)
  return vaddvq_s32(int32x4_t(v));
#else
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(__m256i(v)), _mm256_extracti128_si256(__m256i(v), 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
#endif
}

int32_t lane_max(Int32s v) {
#if defined(__AVX512VNNI__)
  return _mm512_reduce_max_epi32(__m512i(v));
#elif defined(__aarch64__)
  return vmaxvq_s32(int32x4_t(v));
#else
  const __m128i four =
      _mm_max_epi32(_mm256_castsi256_si128(__m256i(v)), _mm256_extracti128_si256(__m256i(v), 1));
  const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
#endif
}

float lane_sum(Floats v) {
#if defined(__AVX512VNNI__)
  return _mm512_reduce_add_ps(__m512(v));
#else
  float sum = 0;
  for (size_t lane = 0; lane < kLanes; ++lane) sum += v[lane];
  return sum;
#endif
}

// --- order -----------------------------------------------------------------------------------------------

// table[index[lane]] for indices below kLanes.
Floats gathered(const float* table, Int32s index) {
#if defined(__AVX512VNNI__)
  return Floats(_mm512_permutexvar_ps(__m512i(index), _mm512_loadu_ps(table)));
#elif defined(__AVX2__)
  return Floats(_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), __m256i(index)));
#else
  return Floats{table[index[0]], table[index[1]], table[index[2]], table[index[3]]};
#endif
}

// Of each 8 of 16 codes those at even places first, as the low halves of bytes are unpacked before the high.
void evens_first(const int8_t* codes, int8_t* out) {
  alignas(16) static constexpr uint8_t kFrom[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
#if defined(__aarch64__)
  vst1q_s8(out, vqtbl1q_s8(vld1q_s8(codes), vld1q_u8(kFrom)));
#else
  const __m128i order = _mm_load_si128((const __m128i*)kFrom);
  _mm_storeu_si128((__m128i*)out, _mm_shuffle_epi8(_mm_loadu_si128((const __m128i*)codes), order));
#endif
}

// 16 bytes of kLanes columns, `at` bytes from where they begin: lane c of out[i] is the i-th step of column
// c.
void transposed(const uint8_t* const* columns, size_t at, Bytes out[4]) {
#if defined(__AVX512VNNI__)
  const auto bytes = [=](size_t column) { return _mm_loadu_si128((const __m128i*)(columns[column] + at)); };
  __m512i rows[4];  // columns i, i + 4, i + 8, i + 12, so that the order comes out right within quarters
  for (size_t i = 0; i < 4; ++i) {
    const __m256i first = _mm256_set_m128i(bytes(i + 4), bytes(i));
    const __m256i second = _mm256_set_m128i(bytes(i + 12), bytes(i + 8));
    rows[i] = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
  }
  const __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]), b = _mm512_unpacklo_epi32(rows[2], rows[3]);
  const __m512i c = _mm512_unpackhi_epi32(rows[0], rows[1]), d = _mm512_unpackhi_epi32(rows[2], rows[3]);
  out[0] = Bytes(_mm512_unpacklo_epi64(a, b)), out[1] = Bytes(_mm512_unpackhi_epi64(a, b));
  out[2] = Bytes(_mm512_unpacklo_epi64(c, d)), out[3] = Bytes(_mm512_unpackhi_epi64(c, d));
#elif defined(__AVX2__)
  const auto bytes = [=](size_t column) { return _mm_loadu_si128((const __m128i*)(columns[column] + at)); };
  __m256i rows[4];  // columns i and i + 4, so that the order comes out right within halves
  for (size_t i = 0; i < 4; ++i) rows[i] = _mm256_set_m128i(bytes(i + 4), bytes(i));
  const __m256i a = _mm256_unpacklo_epi32(rows[0], rows[1]), b = _mm256_unpacklo_epi32(rows[2], rows[3]);
  const __m256i c = _mm256_unpackhi_epi32(rows[0], rows[1]), d = _mm256_unpackhi_epi32(rows[2], rows[3]);
  out[0] = Bytes(_mm256_unpacklo_epi64(a, b)), out[1] = Bytes(_mm256_unpackhi_epi64(a, b));
  out[2] = Bytes(_mm256_unpacklo_epi64(c, d)), out[3] = Bytes(_mm256_unpackhi_epi64(c, d));
#else
  uint32x4_t rows[4];
  for (size_t i = 0; i < 4; ++i) rows[i] = vreinterpretq_u32_u8(vld1q_u8(columns[i] + at));
  const auto low = [](uint32x4_t a, uint32x4_t b) { return vreinterpretq_u64_u32(vzip1q_u32(a, b)); };
  const auto high = [](uint32x4_t a, uint32x4_t b) { return vreinterpretq_u64_u32(vzip2q_u32(a, b)); };
  const uint64x2_t a = low(rows[0], rows[1]), b = low(rows[2], rows[3]);
  const uint64x2_t c = high(rows[0], rows[1]), d = high(rows[2], rows[3]);
  out[0] = Bytes(vzip1q_u64(a, b)), out[1] = Bytes(vzip2q_u64(a, b));
  out[2] = Bytes(vzip1q_u64(c, d)), out[3] = Bytes(vzip2q_u64(c, d));
#endif
}

// Lane c holds the bytes that stand at place c of four rows, `stride` bytes apart.
Bytes interleaved(const uint8_t* rows, size_t stride) {
#if defined(__AVX512VNNI__)
  const auto row = [=](size_t i) { return _mm_loadu_si128((const __m128i*)(rows + i * stride)); };
  const __m128i a = _mm_unpacklo_epi8(row(0), row(1)), b = _mm_unpacklo_epi8(row(2), row(3));
  const __m128i c = _mm_unpackhi_epi8(row(0), row(1)), d = _mm_unpackhi_epi8(row(2), row(3));
  const __m256i low = _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
  const __m256i high = _mm256_set_m128i(_mm_unpackhi_epi16(c, d), _mm_unpacklo_epi16(c, d));
  return Bytes(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
#elif defined(__AVX2__)
  const auto row = [=](size_t i) { return _mm_loadl_epi64((const __m128i*)(rows + i * stride)); };
  const __m128i a = _mm_unpacklo_epi8(row(0), row(1)), b = _mm_unpacklo_epi8(row(2), row(3));
  return Bytes(_mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b)));
#else
  Bytes out;
  for (size_t byte = 0; byte < kBytes; ++byte) out[byte] = rows[byte % kStep * stride + byte / kStep];
  return out;
#endif
}

}  // namespace
}  // namespace ltbm::products
