// Merging: one block takes the r best pairs of a pass, exactly, and regroups the row's tokens.
#pragma once

#include "pairs.cuh"

// Doubles as whole numbers in the same order. No value is -0: it is a product of quotients of the same dot
// product.
__device__ __forceinline__ uint64 ordered(double value) {
  const uint64 bits = static_cast<uint64>(__double_as_longlong(value));
  return bits >> 63 ? ~bits : bits | (uint64(1) << 63);
}

// What a block has at hand while tokens merge: shared memory as long as it lasts, then the row's scratch.
struct Scratch {
  Arena shared;
  uintptr_t shared_end;
  Arena scratch;
  template <typename T>
  __device__ T* take(int64 count) {
    Arena attempt = shared;
    T* piece = attempt.take<T>(count);
    if (attempt.at > shared_end) return scratch.take<T>(count);
    shared = attempt;
    return piece;
  }
};

struct Selection {
  uint64* keys;  // [A] ordered best values
  int* partner;  // [A] index in B
  int* moved;  // [n] new place of each current token; ~place of its partner for a token that merges away
};

// Sum over the threads before this one, in *total over all of them.
__device__ inline uint64 sum_before(Shared& shared, uint64 value, uint64& total) {
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  uint64 sum = value;
  for (int step = 1; step < kWarpThreads; step *= 2) {
    const uint64 other = __shfl_up_sync(kAllLanes, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == kWarpThreads - 1) shared.warp_sums[warp] = sum;
  __syncthreads();
  uint64 before = 0;
  total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += shared.warp_sums[w];
    total += shared.warp_sums[w];
  }
  __syncthreads();
  return before + sum - value;
}

__device__ inline int count_from(const uint64* keys, int pairs, uint64 bound) {
  int count = 0;
  for (int first = 0; first < pairs; first += kThreads) {
    const int a = first + threadIdx.x;
    count += __syncthreads_count(a < pairs && keys[a] >= bound);
  }
  return count;
}

// The largest bound that at least r keys reach, found bit by bit; `count` of them reach it.
__device__ inline uint64 threshold_of(const uint64* keys, int pairs, int r, int& count) {
  uint64 bound = 0;
  count = pairs;
  for (int bit = 63; bit >= 0 && count > r; --bit) {
    const uint64 higher = bound | (uint64(1) << bit);
    const int reach = count_from(keys, pairs, higher);
    if (reach < r) continue;
    bound = higher;
    count = reach;
  }
  return bound;
}

// The best of the splits' candidates.
__device__ inline void collect(const Selection& selection, const Row& row, int pairs, int splits) {
  for (int a = threadIdx.x; a < pairs; a += kThreads) {
    Candidate best{row.value[a], row.partner[a]};
    for (int split = 1; split < splits; ++split)
      best = better(best, Candidate{row.value[split * pairs + a], row.partner[split * pairs + a]});
    selection.keys[a] = ordered(best.value);
    selection.partner[a] = best.partner;
  }
}

// Where each current token goes, and the anchors of those that stay.
__device__ inline void move_tokens(Shared& shared, const Selection& selection, const Row& row, int n,
                                   int pass, int r) {
  const int pairs = (n + 1) / 2;
  int reached;
  const uint64 bound = threshold_of(selection.keys, pairs, r, reached);
  const int above = reached == r ? r : bound == ~uint64(0) ? 0 : count_from(selection.keys, pairs, bound + 1);
  const uint64 ties = static_cast<uint64>(r - above);  // of the keys equal to the bound the first ones merge
  const bool all_reached = reached == r;
  const int* anchors = anchors_of(row, pass);
  int* next_anchors = anchors_of(row, pass + 1);
  uint64 counted = 0;  // keys above the bound in the high half, equal to it in the low half
  for (int first = 0; first < pairs; first += kThreads) {
    const int a = first + threadIdx.x;
    const uint64 key = a < pairs ? selection.keys[a] : 0;
    const bool better_one = a < pairs && (all_reached ? key >= bound : key > bound);
    const bool tie = a < pairs && !all_reached && key == bound;
    uint64 total;
    const uint64 before = counted + sum_before(shared, (uint64(better_one) << 32) | uint64(tie), total);
    counted += total;
    if (a >= pairs) continue;
    const uint64 ties_before = before & 0xffffffffu;
    const bool merges = better_one || (tie && ties_before < ties);
    const int gone = static_cast<int>((before >> 32) + (ties_before < ties ? ties_before : ties));
    const int place = 2 * a, next = place - gone;
    selection.moved[place] = merges ? ~(2 * selection.partner[a] + 1) : next;
    if (!merges) next_anchors[next] = anchors[place];
    if (place + 1 >= n) continue;
    selection.moved[place + 1] = next + !merges;
    next_anchors[next + !merges] = anchors[place + 1];
  }
  __syncthreads();
}

// --- groups ------------------------------------------------------------------------------------------------

// Lanes of this warp that have the same group; this lane's rank among them.
struct Peers {
  unsigned lanes;
  int rank;
};
__device__ __forceinline__ Peers peers_of(int group) {
  const unsigned lanes = __match_any_sync(kAllLanes, group);
  return Peers{lanes, __popc(lanes & ((1u << (threadIdx.x % kWarpThreads)) - 1))};
}

// Sort the input tokens by group, each group in increasing order: a counting sort in which each warp has a
// stretch of tokens. counts: [kWarps, groups] tokens of each stretch in each group, then where the next of
// them goes.
__device__ inline void regroup(Shared& shared, const Row& row, int* counts, int length, int groups) {
  const int warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const int stretch = ceil_div(ceil_div(length, kWarps), kWarpThreads) * kWarpThreads;
  const int from = warp * stretch, to = minimum(length, from + stretch);
  int* own = counts + warp * groups;
  for (int g = lane; g < groups; g += kWarpThreads) own[g] = 0;
  __syncwarp();
  for (int first = from; first < to; first += kWarpThreads) {
    const int group = first + lane < to ? row.place[first + lane] : -1;
    const Peers peers = peers_of(group);
    if (group >= 0 && peers.rank == 0) own[group] += __popc(peers.lanes);
    __syncwarp();
  }
  __syncthreads();
  int begin = 0;
  for (int first = 0; first < groups; first += kThreads) {
    const int g = first + threadIdx.x;
    int size = 0;
    for (int w = 0; w < kWarps && g < groups; ++w) size += counts[w * groups + g];
    uint64 total;
    int at = begin + static_cast<int>(sum_before(shared, static_cast<uint64>(size), total));
    begin += static_cast<int>(total);
    if (g < groups) row.starts[g] = at;
    for (int w = 0; w < kWarps && g < groups; ++w) {
      const int count = counts[w * groups + g];
      counts[w * groups + g] = at;
      at += count;
    }
  }
  if (threadIdx.x == 0) row.starts[groups] = length;
  __syncthreads();
  for (int first = from; first < to; first += kWarpThreads) {
    const int group = first + lane < to ? row.place[first + lane] : -1;
    const Peers peers = peers_of(group);
    if (group >= 0) row.members[own[group] + peers.rank] = first + lane;
    __syncwarp();
    if (group >= 0 && peers.rank == 0) own[group] += __popc(peers.lanes);
    __syncwarp();
  }
  __syncthreads();
}

// End the current pass of a row of `extent`, all of whose units are scored, and open the next one or finish
// the row.
__device__ inline void merge_pairs(Shared& shared, const Call& call, const Row& row, const Band& band,
                                   const Extent& extent, unsigned limit) {
  const int n = row.control->tokens, pass = row.control->pass, splits = row.control->splits,
            pairs = (n + 1) / 2;
  const int r = static_cast<int>(ltbm::merge_count(n, extent.target, call.step_num, call.step_den));
  const uintptr_t bytes = reinterpret_cast<uintptr_t>(shared.bytes);
  Scratch scratch{Arena{(bytes + 127) / 128 * 128}, bytes + kRoomBytes,
                  Arena{reinterpret_cast<uintptr_t>(row.scratch)}};
  Selection selection;
  selection.keys = scratch.take<uint64>(pairs);
  selection.moved = scratch.take<int>(n);
  selection.partner = scratch.take<int>(pairs);
  int* counts = scratch.take<int>(int64(kWarps) * (n - r));
  collect(selection, row, pairs, splits);
  __syncthreads();
  move_tokens(shared, selection, row, n, pass, r);
  for (int i = threadIdx.x; i < extent.length; i += kThreads) {
    const int next = selection.moved[row.place[i]];
    row.place[i] = next < 0 ? selection.moved[~next] : next;
  }
  __syncthreads();
  regroup(shared, row, counts, extent.length, n - r);
  if (threadIdx.x > 0) return;
  __threadfence();  // what the whole block wrote comes before the new limit
  if (n - r > extent.target) return begin_pass(row, band, limit, pass + 1, n - r);
  row.control->pass = pass + 1;
  row.control->tokens = n - r;
  store_release(&row.control->limit, kFinished);
}
