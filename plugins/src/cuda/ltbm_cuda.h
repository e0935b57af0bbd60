// The op ai.ltbm::LTBM on a CUDA device, as plain C: see merge.py for what it computes.
//
// Shapes: B rows, T tokens in, K slots out, D encoder width. Every tensor is dense, row-major device memory.
// lengths, targets and window are read on the device: one captured graph serves every level and every window.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { LTBM_WIDTH_MAX = 32767 };  // D: beyond it the 32-bit sums of 8-bit products could overflow

typedef struct {
  const void* x;  // [B, T, D] float32, or float16 if `half`
  const int32_t* lengths;  // [B]
  const int32_t* targets;  // [B]
  const int32_t* window;  // [1]
  void* y;  // [B, K, D], x's type
  int32_t* sizes;  // [B, K]
  int32_t* anchors;  // [B, K]
  int32_t* source_map;  // [B, T]
  void* workspace;  // ltbm_cuda_workspace(B, T) bytes, 256-byte aligned; its content does not matter
  int32_t batch, tokens, slots, width;
  int32_t half;
  int32_t step_num, step_den;
} ltbm_cuda_call;

// Bytes of workspace; larger B or T never need less.
size_t ltbm_cuda_workspace(int32_t batch, int32_t tokens);

// Enqueue three kernels on `stream` (a cudaStream_t) and return without waiting; 0, or what went wrong as
// text. A row whose length, target or window is out of range cannot raise from the device: it comes out empty
// (y 0, sizes 0, anchors -1, source_map -1), so that no half-right row is ever seen.
const char* ltbm_cuda_enqueue(const ltbm_cuda_call* call, void* stream);

#ifdef __cplusplus
}
#endif
