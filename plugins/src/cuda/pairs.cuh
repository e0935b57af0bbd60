// The best partner of each A token: one unit of work scores a tile of A tokens against B tokens within reach.
//
// A token's grid G is summed from its members on the fly, cut into signed bytes in shared memory and
// multiplied on the tensor cores: sums of 8-bit products in 32 bits, put together in 64 bits, so every dot
// product is exact.
#pragma once

#include "tokens.cuh"

constexpr int kStripChannels = kWarpThreads * kLaneChannels;  // channels that a warp reads at once
constexpr int kPadBytes = 16;  // bytes between rows of bytes: keeps a warp's reads off each other's banks
constexpr int kStepChannels = 32;  // channels of one product of matrices
constexpr int kSizeIn2Bytes = 3;  // largest group whose grid, at most 8191 each, fits in two signed bytes
constexpr int kSizeIn3Bytes = 1020;  // and in three; four hold what int32 holds
constexpr double kNoCandidate = -9.0;  // below every spill
constexpr int kRowsMax = Wide::A + Wide::B;

// Rows of a tile: first the A tokens, then the B tokens. A row of size 0 is left out.
struct Tile {
  uint64 norm[kRowsMax];  // <G, G>
  int start[kRowsMax], size[kRowsMax], anchor[kRowsMax];
};

struct Shared {
  Tile tile;
  uint64 warp_sums[kWarps];
  Grid grid;
  unsigned ticket;
  int last;
  alignas(16) unsigned char bytes[16];  // and what is left of kSharedBytes
};
constexpr int kRoomBytes = kSharedBytes - static_cast<int>(offsetof(Shared, bytes));
static_assert(kRoomBytes >= kWarps * Narrow::A * Narrow::B * 8 && kRoomBytes >= Wide::A * Wide::B * 8,
              "dot products must fit");

// Strips that a warp reads at once, to have loads in flight; fewer where sums and bytes fill the registers.
template <typename E, int kBytes>
constexpr int kUnroll = sizeof(E) * kBytes > 6 ? 2 : 4;

struct Candidate {
  double value;
  int partner;  // index in B
};

__device__ __forceinline__ Candidate better(const Candidate& p, const Candidate& q) {
  const bool second = q.value > p.value || (q.value == p.value && q.partner < p.partner);
  return second ? q : p;
}

// --- what stands in a tile ---------------------------------------------------------------------------------

// Row r of the tile whose first tokens are A token `a` and B token `b`; returns its group's size, 0 if it is
// left out.
template <typename Shape>
__device__ inline int describe_row(Tile& tile, int r, const Row& row, const Control& control,
                                   const Band& band, int a, int b) {
  const bool is_b = r >= Shape::A;
  const int place = is_b ? 2 * (b + r - Shape::A) + 1 : 2 * (a + r);
  bool needed = place < control.tokens;
  const int* anchors = anchors_of(row, control.pass);
  const int anchor = needed ? anchors[place] : 0;
  if (is_b && needed && band.window >= 0) {  // candidates of some A token of the tile only
    const int first = 2 * a, last = minimum(2 * (a + Shape::A - 1), (control.tokens - 1) / 2 * 2);
    needed = (place >= first - 1 && place <= last + 1) ||
             (anchor >= anchors[first] - band.window && anchor <= anchors[last] + band.window);
  }
  const int start = needed ? row.starts[place] : 0;
  tile.norm[r] = 0;
  tile.anchor[r] = anchor;
  tile.start[r] = start;
  tile.size[r] = needed ? row.starts[place + 1] - start : 0;
  return tile.size[r];
}

// Fill in the tile; returns how many bytes its grid values take.
template <typename Shape>
__device__ inline int describe_tile(Tile& tile, const Row& row, const Control& control, const Band& band,
                                    int a, int b) {
  const int r = threadIdx.x;
  const int size = r < Shape::A + Shape::B ? describe_row<Shape>(tile, r, row, control, band, a, b) : 0;
  const int above_2 = __syncthreads_count(size > kSizeIn2Bytes);
  const int above_3 = __syncthreads_count(size > kSizeIn3Bytes);
  return above_3 > 0 ? 4 : above_2 > 0 ? 3 : 2;
}

// --- tokens to bytes ---------------------------------------------------------------------------------------

// The bytes of four whole numbers, one word for each significance: value = sum of signed byte i * 256^i.
// Adding 0x80 to each lower byte carries into the next exactly when the byte is to be negative; xor takes it
// off again.
template <int kBytes>
__device__ __forceinline__ void cut_into_bytes(uint32_t (&words)[kBytes], const int* values) {
  constexpr uint32_t kCarry = kBytes == 2 ? 0x80u : kBytes == 3 ? 0x8080u : 0x808080u;
  uint32_t v[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = static_cast<uint32_t>(values[i]) + kCarry;
  const uint32_t low_01 = __byte_perm(v[0], v[1], 0x5140), low_23 = __byte_perm(v[2], v[3], 0x5140);
  words[0] = __byte_perm(low_01, low_23, 0x5410) ^ 0x80808080u;
  words[1] = __byte_perm(low_01, low_23, 0x7632) ^ (kBytes > 2 ? 0x80808080u : 0u);
  if constexpr (kBytes > 2) {
    const uint32_t high_01 = __byte_perm(v[0], v[1], 0x7362), high_23 = __byte_perm(v[2], v[3], 0x7362);
    words[2] = __byte_perm(high_01, high_23, 0x5410) ^ (kBytes > 3 ? 0x80808080u : 0u);
    if constexpr (kBytes > 3) words[3] = __byte_perm(high_01, high_23, 0x7632);
  }
}

// Channels [first, first + count) of a tile as bytes in shared memory.
struct Slab {
  unsigned char* bytes;  // [kBytes, rows, count + kPadBytes]
  int rows, first, count;
  __device__ __forceinline__ unsigned char* at(int significance, int r, int k) const {
    return bytes + (significance * rows + r) * (count + kPadBytes) + k;
  }
};

// One warp adds up the members of row r at `strips` of its kUnroll strips of the slab from channel k on,
// stores the bytes and returns this lane's share of <G, G>.
template <typename E, int kBytes>
__device__ inline uint64 gather_strips(const Slab& slab, const Tile& tile, int r, int k, int strips,
                                       const Row& row, const E* x, int width, bool vectors,
                                       const Grid& grid) {
  const int lane = threadIdx.x % kWarpThreads, size = tile.size[r],
            end = minimum(width, slab.first + slab.count);
  constexpr int kCount = kUnroll<E, kBytes>;
  int sum[kCount][kLaneChannels] = {};
  int member = 0;
  for (int m = 0; m < size; ++m) {
    if (m % kWarpThreads == 0) member = m + lane < size ? row.members[tile.start[r] + m + lane] : 0;
    const E* token = x + int64(__shfl_sync(kAllLanes, member, m % kWarpThreads)) * width;
    Raw<E> raw[kCount];
#pragma unroll
    for (int u = 0; u < kCount; ++u)
      raw[u] = load(token, slab.first + k + u * kStripChannels + lane * kLaneChannels, u < strips ? end : 0,
                    vectors);
#pragma unroll
    for (int u = 0; u < kCount; ++u) add_rounded(sum[u], raw[u], grid);
  }
  uint64 norm = 0;
#pragma unroll
  for (int u = 0; u < kCount; ++u) {
    const int at = k + u * kStripChannels + lane * kLaneChannels;
#pragma unroll
    for (int j = 0; j < kLaneChannels; ++j) {
      sum[u][j] -= static_cast<int>(static_cast<uint32_t>(size) * static_cast<uint32_t>(kRounderBits));
      norm += static_cast<uint64>(int64(sum[u][j]) * sum[u][j]);
    }
    if (u >= strips || at >= slab.count) continue;
#pragma unroll
    for (int half = 0; half < kLaneChannels; half += 4) {
      uint32_t words[kBytes];
      cut_into_bytes<kBytes>(words, sum[u] + half);
#pragma unroll
      for (int i = 0; i < kBytes; ++i) *reinterpret_cast<uint32_t*>(slab.at(i, r, at + half)) = words[i];
    }
  }
  return norm;
}

// All warps gather the slab: each takes part of a token's strips at a time.
template <typename E, int kBytes>
__device__ inline void gather(const Slab& slab, Tile& tile, const Row& row, const E* x, int width,
                              bool vectors, const Grid& grid) {
  const int strips = ceil_div(slab.count, kStripChannels), parts = ceil_div(strips, kUnroll<E, kBytes>),
            share = ceil_div(strips, parts);
  for (int task = threadIdx.x / kWarpThreads; task < slab.rows * parts; task += kWarps) {
    const int r = task % slab.rows, from = task / slab.rows * share;
    if (tile.size[r] == 0) continue;
    uint64 norm = gather_strips<E, kBytes>(slab, tile, r, from * kStripChannels,
                                           minimum(share, strips - from), row, x, width, vectors, grid);
    for (int step = kWarpThreads / 2; step > 0; step /= 2) norm += __shfl_xor_sync(kAllLanes, norm, step);
    if (threadIdx.x % kWarpThreads == 0) atomicAdd(&tile.norm[r], norm);
  }
}

// --- dot products ------------------------------------------------------------------------------------------

// Each warp has one 16 x 8 tile of B x A, and with few tiles only each kShare-th step of the channels.
template <typename Shape>
struct Warps {
  static constexpr int kTiles = Shape::A / 8 * (Shape::B / 16), kShare = kWarps / kTiles;
  static_assert(kTiles * kShare == kWarps, "every warp has work");
};

template <typename Shape, int kBytes>
__device__ __forceinline__ void multiply(int (&sums)[2 * kBytes - 1][4], const Slab& slab) {
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads, group = lane / 4,
            four = lane % 4 * 4;
  const int tile = warp % Warps<Shape>::kTiles, share = warp / Warps<Shape>::kTiles;
  const int row_a = tile % (Shape::A / 8) * 8 + group, row_b = Shape::A + tile / (Shape::A / 8) * 16 + group;
  for (int k = share * kStepChannels; k < slab.count; k += Warps<Shape>::kShare * kStepChannels) {
    uint32_t a[kBytes][2], b[kBytes][4];
#pragma unroll
    for (int i = 0; i < kBytes; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        a[i][half] = *reinterpret_cast<const uint32_t*>(slab.at(i, row_a, k + half * 16 + four));
        b[i][2 * half] = *reinterpret_cast<const uint32_t*>(slab.at(i, row_b, k + half * 16 + four));
        b[i][2 * half + 1] = *reinterpret_cast<const uint32_t*>(slab.at(i, row_b + 8, k + half * 16 + four));
      }
#pragma unroll
    for (int i = 0; i < kBytes; ++i)
#pragma unroll
      for (int j = 0; j < kBytes; ++j) multiply_bytes(sums[i + j], b[i], a[j]);
  }
}

// <Ga, Gb> of every pair of the tile to dots [kShare, B, A], shares to be added up; and the norms.
template <typename E, typename Shape, int kBytes>
__device__ inline void tile_products(Shared& shared, const Row& row, const E* x, int width, bool vectors) {
  constexpr int kRows = Shape::A + Shape::B;
  constexpr int FIT = (kRoomBytes / (kBytes * kRows) - kPadBytes) / kStepChannels * kStepChannels;
  int sums[2 * kBytes - 1][4] = {};
  const int count = minimum(FIT, ceil_div(width, kStepChannels) * kStepChannels);
  for (int first = 0; first < width; first += count) {
    const Slab slab{shared.bytes, kRows, first,
                    minimum(count, ceil_div(width - first, kStepChannels) * kStepChannels)};
    gather<E, kBytes>(slab, shared.tile, row, x, width, vectors, shared.grid);
    __syncthreads();
    multiply<Shape, kBytes>(sums, slab);
    __syncthreads();
  }
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const int tile = warp % Warps<Shape>::kTiles, share = warp / Warps<Shape>::kTiles;
  const int a = tile % (Shape::A / 8) * 8 + lane % 4 * 2, b = tile / (Shape::A / 8) * 16 + lane / 4;
  int64* dots = reinterpret_cast<int64*>(shared.bytes) + share * Shape::A * Shape::B;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    uint64 dot = 0;
#pragma unroll
    for (int s = 0; s < 2 * kBytes - 1; ++s) dot += static_cast<uint64>(int64(sums[s][i])) << (8 * s);
    dots[(b + i / 2 * 8) * Shape::A + a + i % 2] = static_cast<int64>(dot);
  }
  __syncthreads();
}

// --- scores ------------------------------------------------------------------------------------------------

// The best of the tile's B tokens for its A token a, of those that this thread looks at: b, b + lanes, ...
template <typename Shape>
__device__ inline Candidate best_of_tile(const Shared& shared, const Band& band, int a, int b, int lanes,
                                         int first_a, int first_b) {
  const Tile& tile = shared.tile;
  const int64* dots = reinterpret_cast<const int64*>(shared.bytes);
  Candidate best{kNoCandidate, 0x7fffffff};
  for (; b < Shape::B; b += lanes) {
    const int row_b = Shape::A + b, apart = 2 * (first_b + b) + 1 - 2 * (first_a + a);
    const int distance = tile.anchor[a] - tile.anchor[row_b];
    const bool inside = band.window < 0 || (distance < 0 ? -distance : distance) <= band.window;
    const bool neighbours = apart == 1 || apart == -1;
    if (tile.size[a] == 0 || tile.size[row_b] == 0 || !(inside || neighbours)) continue;
    int64 dot = 0;
    for (int share = 0; share < Warps<Shape>::kShare; ++share)
      dot += dots[(share * Shape::B + b) * Shape::A + a];
    const double value = ltbm::score_of(dot, tile.norm[a], tile.norm[row_b], inside);
    best = better(best, Candidate{value, first_b + b});
  }
  return best;
}

// Score unit `unit` of the current pass, with all threads: the best value and partner of each of its A tokens
// among its split of the B tokens within reach.
template <typename E, typename Shape>
__device__ inline void score_unit(Shared& shared, const Call& call, const Row& row, const Band& band,
                                  const E* x, int unit) {
  constexpr int kLanes = 16;  // threads that share an A token
  const Control& control = *row.control;
  const int splits = control.splits, split = unit % splits, first_a = unit / splits * Shape::A;
  const int from = maximum(0, first_a - band.reach),
            to = minimum(control.tokens / 2, first_a + Shape::A - 1 + band.reach);
  const int share = ceil_div(ceil_div(maximum(to - from, 0), splits), Shape::B) * Shape::B;
  const int end = minimum(to, from + (split + 1) * share);
  const bool vectors = can_use_vectors<E>(call.x, call.width);
  const int a = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  Candidate best{kNoCandidate, 0x7fffffff};
  for (int first_b = from + split * share; first_b < end; first_b += Shape::B) {
    switch (describe_tile<Shape>(shared.tile, row, control, band, first_a, first_b)) {
      case 2: tile_products<E, Shape, 2>(shared, row, x, call.width, vectors); break;
      case 3: tile_products<E, Shape, 3>(shared, row, x, call.width, vectors); break;
      default: tile_products<E, Shape, 4>(shared, row, x, call.width, vectors);
    }
    if (a < Shape::A)
      best = better(best, best_of_tile<Shape>(shared, band, a, lane, kLanes, first_a, first_b));
    __syncthreads();
  }
  if (a >= Shape::A) return;
  for (int step = kLanes / 2; step > 0; step /= 2)
    best = better(best, Candidate{__shfl_xor_sync(kAllLanes, best.value, step),
                                  __shfl_xor_sync(kAllLanes, best.partner, step)});
  const int pairs = (control.tokens + 1) / 2;
  if (lane == 0 && first_a + a < pairs) {
    row.value[split * pairs + first_a + a] = best.value;
    row.partner[split * pairs + first_a + a] = best.partner;
  }
}
