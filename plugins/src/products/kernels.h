// The inner loops of the product, built once per instruction set from kernels.cpp and chosen at run time.
#pragma once

#include "product.h"

namespace ltbm::products {

constexpr size_t kStep = 4;  // activations of one 32-bit lane, the unit of every layout below
constexpr size_t kUnpacked = 32;  // codes of a column that are unpacked at once; K is a multiple of it
constexpr size_t kFewRows = 4;  // that `few` multiplies at once, at most
constexpr size_t kColumnsAtOnce = 4;  // that `few` multiplies them with at once

// Activations of some rows, rounded to int8. A few rows lie one after the other, each in chunks as `few`
// reads the codes; more of them in tiles of `tile_rows`, whose rows take turns step by step and block by
// block; the rows that would fill the last tile are neither set nor read. A sum is of the codes of a block
// (for a few rows, of those in a lane of a chunk). Where every zero point is the middle code, it is the sum
// times minus that, from which a sum of products begins.
struct Activations {
  int8_t* codes;
  float* scales;  // of a block; for a few rows, of each lane of a chunk
  int32_t* sums;
};

// Some columns of W as `few` reads them. Up to a chunk behind the codes of each and a vector behind its
// scales and zero points is read too, and not used.
struct Columns {
  size_t count;  // 1 or kColumnsAtOnce
  const uint8_t* codes;
  size_t code_stride;
  const float* scales;
  size_t scale_stride;
  const float* zero_points;  // null where every one is the middle code
  size_t zero_point_stride;
};

// Of codes of one width.
struct Kernels {
  size_t tile_rows, tile_columns;
  size_t chunk_bytes;  // of a column's codes that `few` reads at once
  uint8_t moved;  // what is to be taken from every zero point

  // Rounds x [K] into the place of row `row` of its tile.
  void (*quantise_in_tile)(const Weights& w, const float* x, size_t row, const Activations& tile);
  // Rounds x [K] as `few` reads it.
  void (*quantise_for_few)(const Weights& w, const float* x, const Activations& row);

  // Unpacks `depth` codes of tile_columns columns: [depth / kStep][tile_columns][kStep].
  // columns: where the codes of each begin.
  void (*unpack)(const Weights& w, const uint8_t* const* columns, size_t depth, uint8_t* unpacked);

  // The same of codes [K, N]: tile_columns of them stand side by side in each of `depth` rows.
  void (*unpack_transposed)(const Weights& w, const uint8_t* codes, size_t depth, uint8_t* unpacked);

  // sums [tile_rows, tile_columns] += a tile of activations times unpacked codes, over `blocks` blocks.
  // scales, zero_points: [blocks, tile_columns]; no zero_points where every one is the middle code.
  void (*tile)(const Weights& w, const Activations& tile, size_t rows, const uint8_t* unpacked,
               const float* scales, const float* zero_points, size_t blocks, float* sums);

  // y[r * N + i] = the product of row r with column i, for up to kFewRows rows.
  void (*few)(const Weights& w, const Activations& rows, size_t count, const Columns& columns, float* y);
};

struct InstructionSet {
  const char* name;
  Kernels of_4_bits, of_8_bits;
};

// The fastest that this processor has, null if none. LTBM_CPU in the environment asks for one: plain for
// none.
const InstructionSet* instruction_set();

}  // namespace ltbm::products
