// What libltbm_cuda.so was built for, as `ltbm doctor` reads it: a device has no tool that tells.
#include <cuda_runtime_api.h>

#define LTBM_TEXT_OF(number) #number
#define LTBM_TEXT(number) LTBM_TEXT_OF(number)

extern "C" __attribute__((visibility("default"))) const char ltbm_built_for[];
const char ltbm_built_for[] = "architectures=" LTBM_ARCHITECTURES ";cuda=" LTBM_TEXT(CUDART_VERSION);
