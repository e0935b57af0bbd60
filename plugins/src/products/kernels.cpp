#include "kernels.h"

#include <math.h>

#include <algorithm>

#include "vectors.h"

#ifndef LTBM_ISA
#error "LTBM_ISA names the instruction set that this file is compiled for"
#endif

namespace ltbm::products {
namespace {

constexpr float kTop = 127;  // the code of a block's largest value
constexpr size_t kPart = 16;  // activations that are rounded at once; a block has a multiple of it

// --- activations -----------------------------------------------------------------------------------------

// The largest magnitude of n values, a multiple of kPart; NaN is above all.
float largest_magnitude(const float* x, size_t n) {
  Int32s largest = {};  // bits without the sign, which are in the order of the magnitudes
  for (size_t i = 0; i < n; i += kLanes) {
    const Int32s magnitude = load<Int32s>(x + i) & INT32_MAX;
    largest = magnitude > largest ? magnitude : largest;
  }
  const int32_t bits = lane_max(largest);
  return load<float>(&bits);
}

// What values of a block with this scale are multiplied by before they are rounded.
Floats inverse_of(float scale) {
  return all(scale != 0 ? 1 / scale : 0.0f);
}

// Rounds kPart values, in the order in which codes are unpacked; adds what they are to `sum`.
template <int kBits>
void round_part(const float* x, Floats inverse, int8_t* codes, Int32s* sum) {
  int8_t in_order[kPart];
  for (size_t i = 0; i < kPart; i += kLanes) {
    const Int32s values = rounded(load<Floats>(x + i) * inverse);
    const Codes narrow = narrowed(values);
    memcpy(in_order + i, &narrow, sizeof narrow);
    *sum += values;
  }
  if (kBits == 8)
    memcpy(codes, in_order, kPart);
  else
    evens_first(in_order, codes);
}

// What a sum of products begins from, of activations that sum up to `sum`.
template <int kBits>
int32_t beginning(const Weights& w, int32_t sum) {
  return w.zero_points ? sum : -kMiddle<kBits> * sum;
}

template <int kBits>
void quantise_in_tile(const Weights& w, const float* x, size_t row, const Activations& tile) {
  int8_t codes[kPart];
  for (size_t block = 0; block < w.blocks(); ++block) {
    const size_t place = block * kTileRows + row, first = block * w.block;
    const float scale = largest_magnitude(x + first, w.block) / kTop;
    const Floats inverse = inverse_of(scale);
    Int32s sum = {};
    for (size_t at = first; at < first + w.block; at += kPart) {
      round_part<kBits>(x + at, inverse, codes, &sum);
      int8_t* out = tile.codes + at * kTileRows + row * kStep;
      for (size_t i = 0; i < kPart; i += kStep) memcpy(out + i * kTileRows, codes + i, kStep);
    }
    tile.scales[place] = scale;
    tile.sums[place] = beginning<kBits>(w, lane_sum(sum));
  }
}

// Codes of a column in one chunk, and in one of its lanes.
template <int kBits>
constexpr size_t kChunk = kBytes * 8 / kBits;
template <int kBits>
constexpr size_t kInLane = kChunk<kBits> / kLanes;

template <int kBits>
void quantise_for_few(const Weights& w, const float* x, const Activations& row) {
  int8_t codes[kPart];
  for (size_t at = 0; at < w.width; at += kPart) {
    const size_t first = at / w.block * w.block;
    const float scale = largest_magnitude(x + first, w.block) / kTop;
    Int32s ignored = {};
    round_part<kBits>(x + at, inverse_of(scale), codes, &ignored);
    int8_t* chunk = row.codes + at / kChunk<kBits> * kChunk<kBits>;
    for (size_t i = 0; i < kPart; i += kInLane<kBits>) {
      const size_t lane = (at + i) / kInLane<kBits>;
      int32_t sum = 0;
      for (size_t k = 0; k < kInLane<kBits>; ++k) sum += codes[i + k];
      row.scales[lane] = scale;
      row.sums[lane] = beginning<kBits>(w, sum);
      int8_t* out = chunk + lane % kLanes * kStep;
      memcpy(out, codes + i, kStep);
      if (kBits == 4) memcpy(out + kBytes, codes + i + kStep, kStep);
    }
  }
}

// --- many rows -------------------------------------------------------------------------------------------

template <int kBits>
void unpack(const Weights&, const uint8_t* const* columns, size_t depth, uint8_t* unpacked) {
  constexpr size_t kStepBytes = kTileColumns<kBits> * kStep;  // of one step of all columns
  constexpr size_t kLoaded = 16;  // bytes of a column that are transposed at once
  for (size_t vector = 0; vector < kTileVectors<kBits>; ++vector) {
    uint8_t* out = unpacked + vector * kBytes;
    for (size_t at = 0; at < depth * kBits / 8; at += kLoaded) {
      Bytes steps[4];
      transposed(columns + vector * kLanes, at, steps);
      for (const Bytes& step : steps) {
        if (kBits == 8) {
          const Bytes codes = step ^ kMoved;
          memcpy(out, &codes, kBytes);
          out += kStepBytes;
        } else {
          const Bytes low = step & 15, high = step >> 4;
          memcpy(out, &low, kBytes);
          memcpy(out + kStepBytes, &high, kBytes);
          out += 2 * kStepBytes;
        }
      }
    }
  }
}

void unpack_transposed(const Weights& w, const uint8_t* codes, size_t depth, uint8_t* unpacked) {
  constexpr uint8_t kFlipped = 0x80 ^ kMoved;  // from signed to what is multiplied
  for (size_t step = 0; step < depth; step += kStep) {
    for (size_t vector = 0; vector < kTileVectors<8>; ++vector) {
      const Bytes steps = interleaved(codes + step * w.columns + vector * kLanes, w.columns) ^ kFlipped;
      memcpy(unpacked, &steps, kBytes);
      unpacked += kBytes;
    }
  }
}

template <int kBits, size_t kRows, class Vector>
using Tile = Vector[kRows][kTileVectors<kBits>];

// totals += the products of `steps` steps of a tile's codes and activations, which both move on.
template <int kBits, size_t kRows>
inline void add_steps(size_t steps, const uint8_t** unpacked, const int8_t** activations,
                      Tile<kBits, kRows, Int32s>& totals) {
  constexpr size_t kVectors = kTileVectors<kBits>;
  Tile<kBits, kRows, Sums<kBits>> sums;
  for (size_t r = 0; r < kRows; ++r)
    for (size_t v = 0; v < kVectors; ++v) begin(totals[r][v], &sums[r][v]);
  for (size_t step = 0; step < steps; ++step) {
    Bytes codes[kVectors];
    for (size_t v = 0; v < kVectors; ++v) codes[v] = load<Bytes>(*unpacked + v * kBytes);
    for (size_t r = 0; r < kRows; ++r) {
      const Bytes row = Bytes(all(load<int32_t>(*activations + r * kStep)));
      for (size_t v = 0; v < kVectors; ++v) sums[r][v] = add_products(sums[r][v], codes[v], row);
    }
    *unpacked += kVectors * kBytes;
    *activations += kTileRows * kStep;
  }
  for (size_t r = 0; r < kRows; ++r)
    for (size_t v = 0; v < kVectors; ++v) totals[r][v] = added(totals[r][v], sums[r][v]);
}

// A tile of kRows rows over blocks of `block` codes.
template <int kBits, size_t kRows, bool kZeroPoints>
void tile_of(size_t block, const Activations& tile, const uint8_t* unpacked, const float* scales,
             const float* zero_points, size_t blocks, float* out) {
  constexpr size_t kVectors = kTileVectors<kBits>, kColumns = kTileColumns<kBits>;
  const size_t part = std::min(block, kUnpacked);
  const int8_t* activations = tile.codes;
  Tile<kBits, kRows, Floats> sums;
  for (size_t r = 0; r < kRows; ++r)
    for (size_t v = 0; v < kVectors; ++v) sums[r][v] = load<Floats>(out + r * kColumns + v * kLanes);

  for (size_t b = 0; b < blocks; ++b) {
    const int32_t* beginnings = tile.sums + b * kTileRows;
    const float* row_scales = tile.scales + b * kTileRows;
    Tile<kBits, kRows, Int32s> totals;
    for (size_t r = 0; r < kRows; ++r)
      for (size_t v = 0; v < kVectors; ++v) totals[r][v] = all(kZeroPoints ? 0 : beginnings[r]);
    for (size_t begun = 0; begun < block; begun += part)
      add_steps<kBits, kRows>(part / kStep, &unpacked, &activations, totals);

    for (size_t v = 0; v < kVectors; ++v) {
      const size_t place = b * kColumns + v * kLanes;
      const Floats column_scales = load<Floats>(scales + place);
      for (size_t r = 0; r < kRows; ++r) {
        Floats dot = converted(totals[r][v]);
        if (kZeroPoints) dot -= load<Floats>(zero_points + place) * all(static_cast<float>(beginnings[r]));
        sums[r][v] += dot * column_scales * all(row_scales[r]);
      }
    }
  }
  for (size_t r = 0; r < kRows; ++r) memcpy(out + r * kColumns, sums[r], sizeof sums[r]);
}

template <int kBits, bool kZeroPoints, size_t kRows = kTileRows>
void tile_of_rows(size_t rows, size_t block, const Activations& tile, const uint8_t* unpacked,
                  const float* scales, const float* zero_points, size_t blocks, float* out) {
  if (rows == kRows)
    return tile_of<kBits, kRows, kZeroPoints>(block, tile, unpacked, scales, zero_points, blocks, out);
  if constexpr (kRows > 1)
    tile_of_rows<kBits, kZeroPoints, kRows - 1>(rows, block, tile, unpacked, scales, zero_points, blocks,
                                                out);
}

template <int kBits>
void tile(const Weights& w, const Activations& tile, size_t rows, const uint8_t* unpacked,
          const float* scales, const float* zero_points, size_t blocks, float* sums) {
  const auto of_rows = zero_points ? tile_of_rows<kBits, true> : tile_of_rows<kBits, false>;
  of_rows(rows, w.block, tile, unpacked, scales, zero_points, blocks, sums);
}

// --- few rows --------------------------------------------------------------------------------------------

// The block of each lane of a chunk, counted from that of its first lane.
template <int kBits>
Int32s block_of_lanes(size_t block) {
  Int32s index;
  for (size_t lane = 0; lane < kLanes; ++lane)
    index[lane] = static_cast<int32_t>(lane * kInLane<kBits> / block);
  return index;
}

template <int kBits>
Int32s chunk_products(Int32s total, Bytes codes, const int8_t* activations) {
  Sums<kBits> sums;
  begin(total, &sums);
  if (kBits == 8) {
    sums = add_products(sums, codes ^ kMoved, load<Bytes>(activations));
  } else {
    sums = add_products(sums, codes & 15, load<Bytes>(activations));
    sums = add_products(sums, codes >> 4, load<Bytes>(activations + kBytes));
  }
  return added(total, sums);
}

template <int kBits, bool kZeroPoints, size_t kColumns, size_t kRows>
void few_of(const Weights& w, const Activations& rows, const Columns& columns, float* y) {
  const size_t chunks = (w.width + kChunk<kBits> - 1) / kChunk<kBits>;
  const Int32s index = block_of_lanes<kBits>(w.block);
  Floats sums[kRows][kColumns] = {};
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    const size_t block = chunk * kChunk<kBits> / w.block;
    for (size_t i = 0; i < kColumns; ++i) {
      const uint8_t* codes = columns.codes + i * columns.code_stride + chunk * kBytes;
      const size_t scale = i * columns.scale_stride + block;
      __builtin_prefetch(codes + kColumns * columns.code_stride);
      const Bytes column = load<Bytes>(codes);
      const Floats column_scales = gathered(columns.scales + scale, index);
      for (size_t r = 0; r < kRows; ++r) {
        const size_t place = r * chunks + chunk;
        const Int32s beginnings = load<Int32s>(rows.sums + place * kLanes);
        const Int32s total = chunk_products<kBits>(kZeroPoints ? Int32s{} : beginnings, column,
                                                   rows.codes + place * kChunk<kBits>);
        Floats dot = converted(total);
        if (kZeroPoints) {
          const float* zero_points = columns.zero_points + i * columns.zero_point_stride + block;
          dot -= gathered(zero_points, index) * converted(beginnings);
        }
        sums[r][i] += dot * column_scales * load<Floats>(rows.scales + place * kLanes);
      }
    }
  }
  for (size_t r = 0; r < kRows; ++r)
    for (size_t i = 0; i < kColumns; ++i) y[r * w.columns + i] = lane_sum(sums[r][i]);
}

template <int kBits, bool kZeroPoints, size_t kColumns, size_t kRows = kFewRows>
void few_of_rows(size_t count, const Weights& w, const Activations& rows, const Columns& columns, float* y) {
  if (count == kRows) return few_of<kBits, kZeroPoints, kColumns, kRows>(w, rows, columns, y);
  if constexpr (kRows > 1) few_of_rows<kBits, kZeroPoints, kColumns, kRows - 1>(count, w, rows, columns, y);
}

template <int kBits, bool kZeroPoints>
void few_columns(size_t count, const Weights& w, const Activations& rows, const Columns& columns, float* y) {
  if (columns.count == 1) return few_of_rows<kBits, kZeroPoints, 1>(count, w, rows, columns, y);
  few_of_rows<kBits, kZeroPoints, kColumnsAtOnce>(count, w, rows, columns, y);
}

template <int kBits>
void few(const Weights& w, const Activations& rows, size_t count, const Columns& columns, float* y) {
  const auto of_columns = columns.zero_points ? few_columns<kBits, true> : few_columns<kBits, false>;
  of_columns(count, w, rows, columns, y);
}

// --- both widths -----------------------------------------------------------------------------------------

template <int kBits>
constexpr Kernels of_width = {
    kTileRows,
    kTileColumns<kBits>,
    kBytes,
    kBits == 8 ? kMoved : 0,
    quantise_in_tile<kBits>,
    quantise_for_few<kBits>,
    unpack<kBits>,
    unpack_transposed,
    tile<kBits>,
    few<kBits>,
};

}  // namespace

#define LTBM_QUOTE(name) #name
#define LTBM_TEXT(name) LTBM_QUOTE(name)

extern const InstructionSet LTBM_ISA;
const InstructionSet LTBM_ISA = {LTBM_TEXT(LTBM_ISA), of_width<4>, of_width<8>};

}  // namespace ltbm::products
