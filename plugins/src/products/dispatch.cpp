// Which of the builds of kernels.cpp to run on this processor.
#include <cstdlib>
#include <cstring>

#include "../processor.h"
#include "kernels.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace ltbm::products {

#if defined(LTBM_X86)
extern const InstructionSet avx2, avx512;
#if defined(LTBM_AVXVNNI)  // the compiler knows it
extern const InstructionSet avxvnni;
#endif
#elif defined(__aarch64__)
extern const InstructionSet dotprod;
#endif

namespace {

struct Candidate {
  const InstructionSet* set;
  bool here;  // whether this processor has it
};

const InstructionSet* choose() {
#if defined(LTBM_X86)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const Candidate candidates[] = {
    // the fastest first
    {&avx512, has_avx2 && has_avx512_vnni()},
#if defined(LTBM_AVXVNNI)
    {&avxvnni, has_avx2 && __builtin_cpu_supports("avxvnni")},
#endif
    {&avx2, has_avx2}
  };
#elif defined(__aarch64__) && defined(__linux__)
  const Candidate candidates[] = {{&dotprod, (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0}};
#else
  const Candidate candidates[] = {{nullptr, false}};
#endif
  const char* asked = std::getenv("LTBM_CPU");
  for (const Candidate& candidate : candidates) {
    if (!candidate.here) continue;
    if (!asked || !*asked || !std::strcmp(asked, candidate.set->name)) return candidate.set;
  }
  return nullptr;
}

}  // namespace

const InstructionSet* instruction_set() {
  static const InstructionSet* const chosen = choose();
  return chosen;
}

}  // namespace ltbm::products
