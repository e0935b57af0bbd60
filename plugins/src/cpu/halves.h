// float16 to float32 and back, for the instruction set that is compiled for.
#pragma once

#include <string.h>

#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ltbm {
namespace {

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

}  // namespace
}  // namespace ltbm
