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

enum {
  LTBM_WIDTH_MAX = 32767,  // D: beyond it the 32-bit sums of 8-bit products could overflow
  LTBM_TOKENS_MAX = 262143,  // T: the sum of more grids, at most 8191 each, could leave 32 bits
  LTBM_WORKSPACE_ALIGNMENT = 256  // bytes, as cudaMalloc gives
};

// libltbm_cuda.so exports this interface; a library that has the kernels for its own use does not.
#ifdef LTBM_CUDA_SHARED
#define LTBM_CUDA_API __attribute__((visibility("default")))
#else
#define LTBM_CUDA_API
#endif

typedef struct {
  const void* x;  // [B, T, D] float32, or float16 if `half`
  const int32_t* lengths;  // [B]
  const int32_t* targets;  // [B]
  const int32_t* window;  // [1]
  void* y;  // [B, K, D], x's type
  int32_t* sizes;  // [B, K]
  int32_t* anchors;  // [B, K]
  int32_t* source_map;  // [B, T]
  void* workspace;  // ltbm_cuda_workspace(B, T) bytes, LTBM_WORKSPACE_ALIGNMENT; its content does not matter
  int32_t batch, tokens, slots, width;
  int32_t half;
  int32_t step_num, step_den;
} ltbm_cuda_call;

// Bytes of workspace, 0 if B or T is out of range; larger B or T never need less.
LTBM_CUDA_API size_t ltbm_cuda_workspace(int32_t batch, int32_t tokens);

// Enqueue three kernels on `stream` (a cudaStream_t) and return without waiting; 0, or what went wrong as
// text. It refuses null pointers, addresses that are not aligned to their type and sizes beyond the limits;
// a tensor of no elements may be null. A row whose length, target or window is out of range cannot raise from
// the device: it comes out empty (y 0, sizes 0, anchors -1, source_map -1), so that no half-right row is ever
// seen.
LTBM_CUDA_API const char* ltbm_cuda_enqueue(const ltbm_cuda_call* call, void* stream);

#ifdef __cplusplus
}
#endif
