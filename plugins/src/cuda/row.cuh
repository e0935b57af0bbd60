// What the kernels know of a row while they merge it: the workspace, laid out once for all three.
//
// A row of T input tokens, after some passes n current tokens. Even places are A, odd ones B:
//
//   input tokens   0  1  2  3  4  5  6  7  8  9            T of them, which never move in x
//   place          0  0  0  1  2  2  3  3  3  4            the current token that each is part of
//   anchors        0        3  4     6        9            the input token that each current token stands at
//   starts         0        3  4     6        9  10        where its members begin in:
//   members        0  1  2  3  4  5  6  7  8  9            input tokens by current token
//                  A        B  A     B        A
//
// A pass: kernel 1 has measured the row once. Blocks of kernel 2 take units: a tile of A tokens against a
// split of the B tokens within reach, grids summed from the members on the fly. Who ends a pass's last unit
// merges:
//
//         B 1   B 3   B 5                 value, partner: of each A, one for each split
//   A 0    #     #     .      tile 0
//   A 2    #     #     #                  the r best A go into their partners; anchors, place, starts and
//   A 4    .     #     #      tile 1      members are written for n - r tokens, into the other of the two
//   A 6    .     .     #                  lists of anchors; the next pass opens
//
// Kernel 3 writes means, sizes, anchors and the source map once n is the target.
#pragma once

#include "../rules.h"
#include "device.h"
#include "ltbm_cuda.h"

using Call = ltbm_cuda_call;

constexpr int kThreads = 512;  // of a block, in every kernel
constexpr int kWarps = kThreads / kWarpThreads;
constexpr int kSharedBytes = 96 * 1024;  // of a planning block: fits every GPU since 8.0 (8.6 gives 99 KB)
constexpr int kPeaksMax = 128;  // blocks that look for the largest value of one row
constexpr int kSplitsMax = 16;  // blocks that share one tile of A tokens
constexpr unsigned kFinished = 0xffffffffu;

// A and B tokens that are scored against each other in one product of matrices. Narrow tiles spread the band
// of a window over many blocks, for few rows; medium ones read tokens fewer times, for many; wide ones are
// for wide bands.
struct Narrow {
  static constexpr int A = 8, B = 16;
};
struct Medium {
  static constexpr int A = 16, B = 32;
};
struct Wide {
  static constexpr int A = 32, B = 64;
};
enum Tiling : int { kNarrow, kMedium, kWide };
constexpr int kWideWindow = 48;  // tokens: windows from here on, and Global Merge, take wide tiles

// A row's pass is a number of units of work, each with a ticket. Tickets count up over all passes of a row:
// those below `limit` can be worked on. A block that takes a ticket too early waits for its pass, never for a
// block that has not started: so any number of resident blocks will do, and no cooperative launch is needed.
struct Control {
  unsigned limit, pad_limit[31];  // polled; on its own line of the cache
  unsigned next, pad_next[31];
  unsigned done, pad_done[31];
  unsigned base;  // first ticket of the current pass
  int tokens;  // n current tokens
  int pass;
  int splits;  // units that share a tile of A tokens
  Tiling tiling;
};

struct Row {
  Control* control;
  uint32_t* peaks;  // [kPeaksMax] bits of a part's largest finite |x|; top bit: it has NaN or infinities
  int *anchors_even, *anchors_odd;  // [T] place of each current token among the row's, in even and odd passes
  int* place;  // [T] current token that each input token is part of
  int* starts;  // [T + 1] where the members of each current token begin
  int* members;  // [T] input tokens by current token, then in increasing order
  double* value;  // [kSplitsMax, A] best value of each A token
  int* partner;  // [kSplitsMax, A] index in B of the token that has it
  unsigned char* scratch;  // what shared memory may not hold while tokens merge
};

// Hands out 128-byte aligned pieces of memory; from nullptr, it measures.
struct Arena {
  uintptr_t at;
  template <typename T>
  __host__ __device__ T* take(int64 count) {
    T* piece = reinterpret_cast<T*>(at);
    at += (static_cast<uintptr_t>(count) * sizeof(T) + 127) / 128 * 128;
    return piece;
  }
};

__host__ __device__ inline int64 scratch_bytes(int tokens) {
  const int64 pairs = (tokens + 1) / 2;
  return pairs * (sizeof(uint64) + sizeof(int)) + (int64(tokens) * (1 + kWarps)) * int64(sizeof(int)) +
         4 * 128;
}

__host__ __device__ inline Row lay_out(Arena& arena, int tokens) {
  const int64 pairs = (tokens + 1) / 2;
  Row row;
  row.control = arena.take<Control>(1);
  row.peaks = arena.take<uint32_t>(kPeaksMax);
  row.anchors_even = arena.take<int>(tokens);
  row.anchors_odd = arena.take<int>(tokens);
  row.place = arena.take<int>(tokens);
  row.starts = arena.take<int>(int64(tokens) + 1);
  row.members = arena.take<int>(tokens);
  row.value = arena.take<double>(kSplitsMax * pairs);
  row.partner = arena.take<int>(kSplitsMax * pairs);
  row.scratch = arena.take<unsigned char>(scratch_bytes(tokens));
  return row;
}

__host__ __device__ inline int64 row_bytes(int tokens) {
  Arena arena{0};
  lay_out(arena, tokens);
  return static_cast<int64>(arena.at);
}

__device__ __forceinline__ Row row_of(const Call& call, int index) {
  Arena arena{reinterpret_cast<uintptr_t>(call.workspace) +
              static_cast<uintptr_t>(index * row_bytes(call.tokens))};
  return lay_out(arena, call.tokens);
}

__device__ __forceinline__ int* anchors_of(const Row& row, int pass) {
  return pass % 2 == 0 ? row.anchors_even : row.anchors_odd;
}

struct Extent {
  int length, target;
};

// Length and target of a row; both 0 if any of its inputs is out of range.
__device__ __forceinline__ Extent extent_of(const Call& call, int index) {
  const int length = call.lengths[index], target = call.targets[index];
  const bool fits = length >= 0 && length <= call.tokens && target >= minimum(length, 1) &&
                    target <= length && target <= call.slots && call.window[0] >= -1;
  return fits ? Extent{length, target} : Extent{0, 0};
}

// --- the band of pairs -------------------------------------------------------------------------------------

// Anchors increase strictly, so two tokens' anchors are at least as far apart as their places: inside its
// window an A token meets at most `reach` B tokens before its own index and as many from it on, its two
// neighbours included.
struct Band {
  int window;  // tokens; -1: all pairs
  int reach;
  Tiling tiling;  // if the window is no wide one
};

__device__ __forceinline__ Band band_of(const Call& call, Tiling tiling) {
  const int window = minimum(call.window[0], call.tokens);  // no two anchors are further apart
  return Band{window, window < 0 ? call.tokens : maximum(1, (window + 1) / 2), tiling};
}

// Open the next pass over n current tokens: thread 0 of the only block that works on the row.
__device__ inline void begin_pass(const Row& row, const Band& band, unsigned base, int pass, int n) {
  Control& control = *row.control;
  const Tiling tiling = band.window < 0 || band.window >= kWideWindow ? kWide : band.tiling;
  const int tile_a = tiling == kWide ? Wide::A : tiling == kMedium ? Medium::A : Narrow::A;
  const int tile_b = tiling == kWide ? Wide::B : tiling == kMedium ? Medium::B : Narrow::B;
  const int columns = minimum(n / 2, tile_a - 1 + 2 * band.reach);
  control.base = base;
  control.tokens = n;
  control.pass = pass;
  control.tiling = tiling;
  control.splits = minimum(kSplitsMax, ceil_div(columns, tile_b));
  store_release(&control.limit, base + static_cast<unsigned>(ceil_div((n + 1) / 2, tile_a) * control.splits));
}
