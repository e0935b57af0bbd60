// The vectors of the instruction set that is compiled for, and what the loops of kernels.cpp do with them
// beyond arithmetic, which the compiler knows.
#pragma once

#include "../vector_types.h"
#include "halves.h"
#include "kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace ltbm {
namespace {

constexpr size_t kValues = kBytes / sizeof(int16_t), kFloats = kBytes / sizeof(float);

typedef int64_t Int64s __attribute__((vector_size(kBytes)));

// kFloats values of x as float32.
Floats load_floats(const float* x) {
  return load<Floats>(x);
}

Floats load_floats(const Half* x) {
  float v[kFloats];
  widen(x, kFloats, v);
  return load<Floats>(v);
}

void store_floats(Floats v, float* y) {
  memcpy(y, &v, sizeof v);
}

void store_floats(Floats v, Half* y) {
  float buffer[kFloats];
  memcpy(buffer, &v, sizeof v);
  narrow(buffer, kFloats, y);
}

// sums[l] + a[2l] * b[2l] + a[2l + 1] * b[2l + 1] (NEON pairs other elements, which does not matter).
Int32s add_products(Int32s sums, Int16s a, Int16s b) {
#if defined(__AVX512VNNI__)
  return Int32s(_mm512_dpwssd_epi32(__m512i(sums), __m512i(a), __m512i(b)));
#elif defined(__AVX2__)
  return sums + Int32s(_mm256_madd_epi16(__m256i(a), __m256i(b)));
#elif defined(__x86_64__)
  return sums + Int32s(_mm_madd_epi16(__m128i(a), __m128i(b)));
#elif defined(__aarch64__)
  const int16x8_t left = int16x8_t(a), right = int16x8_t(b);
  const int32x4_t low = vmlal_s16(int32x4_t(sums), vget_low_s16(left), vget_low_s16(right));
  return Int32s(vmlal_high_s16(low, left, right));
#else
  for (size_t lane = 0; lane < kValues / 2; ++lane)
    sums[lane] += int32_t{a[2 * lane]} * b[2 * lane] + int32_t{a[2 * lane + 1]} * b[2 * lane + 1];
  return sums;
#endif
}

// low and high, within int16, as whole numbers, rounded half to even.
Int16s rounded(Floats low, Floats high) {
#if defined(__AVX512VNNI__)
  const __m256i first = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(__m512(low)));
  const __m256i second = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(__m512(high)));
  return Int16s(_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
#elif defined(__AVX2__)
  const __m256i packed =
      _mm256_packs_epi32(_mm256_cvtps_epi32(__m256(low)), _mm256_cvtps_epi32(__m256(high)));
  return Int16s(_mm256_permute4x64_epi64(packed, 0xd8));  // packs works within halves: quarters 0 2 1 3
#elif defined(__x86_64__)
  return Int16s(_mm_packs_epi32(_mm_cvtps_epi32(__m128(low)), _mm_cvtps_epi32(__m128(high))));
#elif defined(__aarch64__)
  const int32x4_t first = vcvtnq_s32_f32(float32x4_t(low)), second = vcvtnq_s32_f32(float32x4_t(high));
  return Int16s(vcombine_s16(vmovn_s32(first), vmovn_s32(second)));
#else
  Int16s out;
  constexpr float kRound = 0x1.8p23f;  // adding it leaves no room for a fraction
  for (size_t lane = 0; lane < kFloats; ++lane) {
    out[lane] = static_cast<int16_t>(low[lane] + kRound - kRound);
    out[lane + kFloats] = static_cast<int16_t>(high[lane] + kRound - kRound);
  }
  return out;
#endif
}

// Even and odd lanes as int64, added.
Int64s widened_pairs(Int32s sums) {
  const Int64s pairs = Int64s(sums);
  return (pairs >> 32) + ((pairs << 32) >> 32);
}

int64_t lane_sum(Int64s lanes) {
#if defined(__AVX512VNNI__)
  return _mm512_reduce_add_epi64(__m512i(lanes));
#else
  int64_t sum = 0;
  for (size_t lane = 0; lane < kBytes / sizeof(int64_t); ++lane) sum += lanes[lane];
  return sum;
#endif
}

}  // namespace
}  // namespace ltbm
