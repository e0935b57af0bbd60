// The ops of the domain `ai.ltbm` that the library registers.
#pragma once

#include "context.h"

namespace ltbm::ort {

void add_merge(Api api, Domain* domain);  // LTBM
void add_matmul_nbits(Api api, Domain* domain);  // MatMulNBits, where this processor has kernels for it

}  // namespace ltbm::ort
