// The part of CUDA that the LTBM kernels use, on one CPU thread: every CUDA thread is a fiber that runs until
// it has to wait for others. Blocks run side by side, as many as `residents`, in an order that a seed
// shuffles: so a missing barrier or a wrong assumption about which block runs first shows as a difference. It
// is no model of memory: fences do nothing.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace emulator {

struct Barrier {
  int expected, arrived = 0;
  unsigned generation = 0;
};

struct Warp {
  Barrier barrier{32};
  alignas(16) unsigned char slots[2][32][32];  // [parity of the exchange, lane, bytes]
};

struct Block {
  Barrier barrier{0};
  int index = -1;
  int running = 0;  // threads
  int counts[3] = {};  // of __syncthreads_count, by generation
  unsigned char* shared;  // dynamic shared memory
  Warp* warps;
};

struct Thread {
  int index;  // in its block
  unsigned exchanges = 0;
  Block* block;
};

Thread& self();
void yield();  // let another thread run
void wait(Barrier& barrier);  // until every expected thread waits
using Body = void (*)(void*);
void run(int blocks, int threads, size_t shared_bytes, Body body, void* argument);

inline Warp& warp() {
  return self().block->warps[self().index / 32];
}
inline int lane() {
  return self().index % 32;
}

// Every lane shows its value to all others. Two sets of slots: nobody writes the next value before all have
// read this one.
template <typename T>
const unsigned char (*share(const T& value))[32] {
  static_assert(sizeof(T) <= 32);
  const unsigned parity = self().exchanges++ % 2;
  std::memcpy(warp().slots[parity][lane()], &value, sizeof(T));
  wait(warp().barrier);
  return warp().slots[parity];
}

template <typename T>
T from_lane(const unsigned char (*slots)[32], int lane) {
  T value;
  std::memcpy(&value, slots[lane], sizeof(T));
  return value;
}

struct ThreadIndex {
  struct X {
    operator int() const { return self().index; }
  } x;
};
struct BlockIndex {
  struct X {
    operator int() const { return self().block->index; }
  } x;
};

template <typename To, typename From>
To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace emulator

inline emulator::ThreadIndex threadIdx;
inline emulator::BlockIndex blockIdx;
#define LTBM_BLOCK_MEMORY(name) unsigned char* name = emulator::self().block->shared

// --- threads together --------------------------------------------------------------------------------------

inline int __syncthreads_count(int predicate) {
  emulator::Block& block = *emulator::self().block;
  const unsigned generation = block.barrier.generation;
  block.counts[generation % 3] += predicate != 0;
  block.counts[(generation + 1) % 3] = 0;
  emulator::wait(block.barrier);
  return block.counts[generation % 3];
}
inline void __syncthreads() {
  __syncthreads_count(0);
}
inline void __syncwarp() {
  emulator::wait(emulator::warp().barrier);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulator::from_lane<T>(emulator::share(value), lane % 32);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulator::from_lane<T>(emulator::share(value), emulator::lane() ^ mask);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int delta) {
  const int lane = emulator::lane() - delta;
  const auto slots = emulator::share(value);
  return lane < 0 ? value : emulator::from_lane<T>(slots, lane);
}
template <typename T>
unsigned __match_any_sync(unsigned, T value) {
  const auto slots = emulator::share(value);
  unsigned lanes = 0;
  for (int lane = 0; lane < 32; ++lane)
    lanes |= unsigned(emulator::from_lane<T>(slots, lane) == value) << lane;
  return lanes;
}

template <typename T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}
inline void __threadfence() {}
inline unsigned load_acquire(const unsigned* address) {
  return *address;
}
inline void store_release(unsigned* address, unsigned value) {
  *address = value;
}
inline void wait_a_little() {
  emulator::yield();
}

struct ByteFragments {
  uint32_t a[4], b[2];
};
// The lanes' parts of the tiles are where the PTX manual has them for mma.m16n8k32 with .s8.
inline void multiply_bytes(int (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  ByteFragments mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const auto slots = emulator::share(mine);
  for (int i = 0; i < 4; ++i) {
    const int row = emulator::lane() / 4 + i / 2 * 8, column = emulator::lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 32; ++k) {
      const auto left = emulator::from_lane<ByteFragments>(slots, row % 8 * 4 + k % 16 / 4);
      const auto right = emulator::from_lane<ByteFragments>(slots, column * 4 + k % 16 / 4);
      sum[i] += static_cast<int8_t>(left.a[row / 8 + k / 16 * 2] >> (k % 4 * 8)) *
                static_cast<int8_t>(right.b[k / 16] >> (k % 4 * 8));
    }
  }
}

// --- one thread --------------------------------------------------------------------------------------------

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t both = uint64_t(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= unsigned(both >> (selector >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
  return result;
}
inline int __popc(unsigned value) {
  return __builtin_popcount(value);
}
inline int __float_as_int(float value) {
  return emulator::bits_of<int>(value);
}
inline float __int_as_float(int value) {
  return emulator::bits_of<float>(value);
}
inline long long __double_as_longlong(double value) {
  return emulator::bits_of<long long>(value);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline double __ddiv_rn(double a, double b) {
  return a / b;
}
inline double __dsub_rn(double a, double b) {
  return a - b;
}

inline float to_float(Half value) {
  return static_cast<float>(emulator::bits_of<_Float16>(value.bits));
}
inline float to_float(float value) {
  return value;
}
inline void from_float(float value, Half& out) {
  out.bits = emulator::bits_of<uint16_t>(static_cast<_Float16>(value));
}
inline void from_float(float value, float& out) {
  out = value;
}

// --- launches ----------------------------------------------------------------------------------------------

template <typename Kernel, typename... Args>
const char* launch(Kernel kernel, int blocks, int threads, size_t shared_bytes, void*, Args... args) {
  auto call = [&] { kernel(args...); };
  emulator::run(
      blocks, threads, shared_bytes, [](void* argument) { (*static_cast<decltype(call)*>(argument))(); },
      &call);
  return nullptr;
}

const char* multiprocessors(int& count);
