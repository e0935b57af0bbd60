// Everything the kernels use of CUDA that is not a plain built-in, in one place: a test compiles the same
// kernels for the CPU by putting an emulator here. Add nothing to this list without adding it there.
//
// Built-ins in use: threadIdx.x, blockIdx.x, __syncthreads, __syncthreads_count, __syncwarp, __shfl_sync,
// __shfl_up_sync, __shfl_xor_sync, __match_any_sync, atomicAdd, __threadfence, __byte_perm, __popc,
// __float_as_int, __int_as_float and the IEEE operations __fmul_rn, __fadd_rn and __fdiv_rn, which no
// compiler may contract. The doubles of ../rules.h are the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

using uint64 = unsigned long long;  // what atomicAdd takes
using int64 = long long;

constexpr int kWarpThreads = 32;  // threads
constexpr unsigned kAllLanes = 0xffffffffu;

struct Half {
  uint16_t bits;
};

#ifdef LTBM_EMULATED
#include "emulator.h"
#else
#include <cuda_fp16.h>

#define LTBM_BLOCK_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]

__device__ __forceinline__ float to_float(Half value) {
  return __half2float(__ushort_as_half(value.bits));
}
__device__ __forceinline__ float to_float(float value) {
  return value;
}
__device__ __forceinline__ void from_float(float value, Half& out) {
  out.bits = __half_as_ushort(__float2half_rn(value));
}
__device__ __forceinline__ void from_float(float value, float& out) {
  out = value;
}

// What another block wrote before its store_release is visible after the load_acquire that saw the store.
__device__ __forceinline__ unsigned load_acquire(const unsigned* address) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
__device__ __forceinline__ void store_release(unsigned* address, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
__device__ __forceinline__ void wait_a_little() {
  __nanosleep(40);
}

// One warp multiplies a 16 x 32 tile by a 32 x 8 tile of signed bytes and adds it to `sum`, exactly.
// Lane l holds, of the 16 x 32 tile, rows l/4 and l/4 + 8, bytes 4*(l%4).. and 16 + 4*(l%4)..: a = (row, k),
// (row + 8, k), (row, k + 16), (row + 8, k + 16); of the other, column l/4 at the same bytes; of the sum,
// rows l/4, l/4 + 8 and columns 2*(l%4), + 1.
__device__ __forceinline__ void multiply_bytes(int (&sum)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
      "%1, %2, %3};"
      : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <typename... Params, typename... Args>
const char* launch(void (*kernel)(Params...), int blocks, int threads, size_t shared_bytes, void* stream,
                   Args... args) {
  cudaError_t error = cudaSuccess;
  if (shared_bytes > 0)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared_bytes));
  if (error != cudaSuccess) return cudaGetErrorString(error);
  kernel<<<blocks, threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(args...);
  error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

inline const char* multiprocessors(int& count) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
#endif

__host__ __device__ constexpr int minimum(int a, int b) {
  return a < b ? a : b;
}
__host__ __device__ constexpr int maximum(int a, int b) {
  return a > b ? a : b;
}
__host__ __device__ constexpr int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}
