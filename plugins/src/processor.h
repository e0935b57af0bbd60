// What the processor that runs this has, beyond what the compiler was told of.
#pragma once

namespace ltbm {

#ifdef LTBM_X86
// What kernels built for avx512 use: with the dot products of AVX-512 VNNI.
inline bool has_avx512_vnni() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif

}  // namespace ltbm
