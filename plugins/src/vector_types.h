// The widest vectors of the instruction set that is compiled for.
#pragma once

#include <string.h>

#include <cstddef>
#include <cstdint>

namespace ltbm {
namespace {

#if defined(__AVX512VNNI__)
constexpr size_t kBytes = 64;
#elif defined(__AVX2__)
constexpr size_t kBytes = 32;
#else
constexpr size_t kBytes = 16;
#endif

typedef int16_t Int16s __attribute__((vector_size(kBytes)));
typedef int32_t Int32s __attribute__((vector_size(kBytes)));
typedef float Floats __attribute__((vector_size(kBytes)));

template <class Vector>
Vector load(const void* p) {
  Vector v;
  memcpy(&v, p, sizeof v);
  return v;
}

}  // namespace
}  // namespace ltbm
