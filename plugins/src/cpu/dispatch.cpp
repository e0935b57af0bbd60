// Which of the builds of kernels.cpp to run on this processor.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace ltbm {

extern const Kernels plain;
#ifdef LTBM_X86
extern const Kernels avx2, avx512;
#endif

static const Kernels& choose() {
  const char* asked = std::getenv("LTBM_CPU");
  const auto wanted = [asked](const char* name) { return !asked || !*asked || !std::strcmp(asked, name); };
#ifdef LTBM_X86
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vnni");
  if (has_avx512 && wanted("avx512")) return avx512;
  if (has_avx2 && wanted("avx2")) return avx2;
#endif
  (void)wanted;
  return plain;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace ltbm
