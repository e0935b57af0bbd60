// Which of the builds of kernels.cpp to run on this processor.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "../processor.h"
#include "kernels.h"

namespace ltbm {

extern const Kernels plain;
#ifdef LTBM_X86
extern const Kernels avx2, avx512;
#endif

namespace {

const Kernels& choose() {
  const Kernels* runnable[3] = {&plain};
  int count = 1;
#ifdef LTBM_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) runnable[count++] = &avx2;
  if (count == 2 && has_avx512_vnni()) runnable[count++] = &avx512;
#endif
  const char* asked = std::getenv("LTBM_CPU");
  if (!asked || !*asked) return *runnable[count - 1];
  std::string names;
  for (int i = 0; i < count; ++i) {
    if (asked == std::string(runnable[i]->name)) return *runnable[i];
    names += (i ? ", " : "") + std::string(runnable[i]->name);
  }
  throw std::runtime_error("LTBM_CPU asks for " + std::string(asked) + ", this processor and build have " +
                           names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace ltbm
