// The ops of the domain `ai.ltbm` that the library registers.
#pragma once

#include "context.h"

namespace ltbm::ort {

void add_merge(Api api, Domain* domain);  // LTBM
void add_products(Api api, Domain* domain);  // MatMulNBits and DynamicQuantizeMatMul

}  // namespace ltbm::ort
