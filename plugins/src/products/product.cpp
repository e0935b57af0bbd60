#include "product.h"

#include <algorithm>
#include <new>
#include <vector>

#include "kernels.h"

namespace ltbm::products {
namespace {

constexpr size_t kAlignment = 64;  // of a vector, at most
constexpr size_t kMostColumns = 32;  // of a tile
constexpr size_t kDepth =
    4096;  // codes of a column that a tile is multiplied with at once, if a block is less
constexpr size_t kRowsInPlace = 2 * kFewRows;  // up to so many rows cost less than unpacking the codes
constexpr size_t kColumnsPerTask = 256;  // enough to outweigh handing a task over, few enough to share out
constexpr size_t kPanelBytes = 2 * 1024 * 1024;  // of activations, multiplied with each column in turn
constexpr size_t kFewestTiles = 16;  // of a panel, so that unpacking the codes stays a small part

size_t divided_up(size_t a, size_t b) {
  return (a + b - 1) / b;
}

// Memory of n values that are not set.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t n)
      : data_(static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{kAlignment}))) {}
  ~Buffer() { ::operator delete (data_, std::align_val_t{kAlignment}); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

const Kernels& kernels_of(const Weights& w) {
  const InstructionSet& set = *instruction_set();
  return w.bits == 4 ? set.of_4_bits : set.of_8_bits;
}

size_t zero_point_bytes(const Weights& w) {
  return divided_up(w.blocks() * w.bits, 8);
}

// The zero points of one column, less what the kernels take off every code.
void read_zero_points(const Weights& w, const Kernels& kernels, size_t column, float* out) {
  const uint8_t* points = w.zero_points + column * zero_point_bytes(w);
  for (size_t block = 0; block < w.blocks(); ++block) {
    const int point = w.bits == 8 ? points[block] : points[block / 2] >> block % 2 * 4 & 15;
    out[block] = static_cast<float>(point - kernels.moved);
  }
}

// --- few rows --------------------------------------------------------------------------------------------

// Activations of a few rows, and what of a column is read with them.
struct FewRows {
  size_t read_codes, read_scales;  // bytes and floats of a column, with those behind it
  size_t row_codes, row_lanes;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;

  FewRows(const Weights& w, const Kernels& kernels, const float* x, size_t rows) {
    const size_t chunk_codes = kernels.chunk_bytes * 8 / w.bits, lanes = kernels.chunk_bytes / kStep;
    const size_t chunks = divided_up(w.width, chunk_codes);
    read_codes = chunks * kernels.chunk_bytes;
    read_scales = (chunks - 1) * chunk_codes / w.block + lanes;
    row_codes = chunks * chunk_codes;
    row_lanes = chunks * lanes;
    codes.resize(rows * row_codes);
    scales.resize(rows * row_lanes);
    sums.resize(rows * row_lanes);
    for (size_t r = 0; r < rows; ++r) kernels.quantise_for_few(w, x + r * w.width, from(r));
  }

  Activations from(size_t row) {
    return {codes.data() + row * row_codes, scales.data() + row * row_lanes, sums.data() + row * row_lanes};
  }

  // Whether all that is read of a column lies within W.
  bool inside(const Weights& w, size_t column) const {
    return column * w.row_bytes() + read_codes <= w.columns * w.row_bytes() &&
           column * w.blocks() + read_scales <= w.columns * w.blocks();
  }
};

// One column with room behind it.
struct PaddedColumn {
  std::vector<uint8_t> codes;
  std::vector<float> scales;

  PaddedColumn(const Weights& w, size_t column, const FewRows& rows)
      : codes(rows.read_codes), scales(rows.read_scales) {
    std::copy_n(w.codes + column * w.row_bytes(), w.row_bytes(), codes.data());
    std::copy_n(w.scales + column * w.blocks(), w.blocks(), scales.data());
  }
};

// `columns` of W times all rows, kFewRows at once.
void multiply_columns(const Weights& w, FewRows& activations, const Columns& columns, size_t rows, float* y) {
  for (size_t row = 0; row < rows; row += kFewRows)
    kernels_of(w).few(w, activations.from(row), std::min(kFewRows, rows - row), columns, y + row * w.columns);
}

void multiply_few(const Weights& w, const float* x, size_t rows, float* y, const ParallelFor& parallel) {
  const Kernels& kernels = kernels_of(w);
  FewRows activations(w, kernels, x, rows);
  const size_t stride = activations.read_scales;  // of zero points
  parallel(divided_up(w.columns, kColumnsPerTask), [&](size_t task) {
    std::vector<float> zero_points(w.zero_points ? kColumnsAtOnce * stride : 0);
    const size_t end = std::min(w.columns, (task + 1) * kColumnsPerTask);
    for (size_t column = task * kColumnsPerTask, count; column < end; column += count) {
      const size_t last = column + kColumnsAtOnce - 1;
      count = last < end && activations.inside(w, last) ? kColumnsAtOnce : 1;
      Columns columns = {};
      columns.count = count;
      columns.codes = w.codes + column * w.row_bytes(), columns.code_stride = w.row_bytes();
      columns.scales = w.scales + column * w.blocks(), columns.scale_stride = w.blocks();
      if (w.zero_points) {
        columns.zero_points = zero_points.data(), columns.zero_point_stride = stride;
        for (size_t i = 0; i < count; ++i)
          read_zero_points(w, kernels, column + i, zero_points.data() + i * stride);
      }
      if (activations.inside(w, column)) {
        multiply_columns(w, activations, columns, rows, y + column);
      } else {
        const PaddedColumn padded(w, column, activations);
        columns.codes = padded.codes.data(), columns.scales = padded.scales.data();
        multiply_columns(w, activations, columns, rows, y + column);
      }
      if (!w.bias) continue;
      for (size_t r = 0; r < rows; ++r)
        for (size_t i = 0; i < count; ++i) y[r * w.columns + column + i] += w.bias[column + i];
    }
  });
}

// --- many rows -------------------------------------------------------------------------------------------

// All activations, in tiles.
struct Tiles {
  const Weights& w;
  size_t tile_rows, count;
  Buffer<int8_t> codes;
  Buffer<float> scales;
  Buffer<int32_t> sums;

  Tiles(const Weights& weights, size_t rows, size_t rows_of_tile)
      : w(weights),
        tile_rows(rows_of_tile),
        count(divided_up(rows, rows_of_tile)),
        codes(count * tile_rows * w.width),
        scales(count * tile_rows * w.blocks()),
        sums(count * tile_rows * w.blocks()) {}

  // Of tile `tile` from code `depth` of each row on.
  Activations at(size_t tile, size_t depth) const {
    const size_t block = (tile * w.blocks() + depth / w.block) * tile_rows;
    return {codes.get() + (tile * w.width + depth) * tile_rows, scales.get() + block, sums.get() + block};
  }
};

// Codes of a column that are unpacked at once: whole blocks.
size_t depth_at_once(const Weights& w) {
  return std::max(kDepth, w.block);
}

// What one task needs to multiply tiles with a group of columns.
struct Group {
  const Kernels& kernels;
  Buffer<uint8_t> unpacked;
  std::vector<float> scales, zero_points;  // [blocks, tile_columns]
  std::vector<float> column;  // zero points of one column
  std::vector<float> sums;  // [tiles of a panel, tile_rows, tile_columns]

  Group(const Weights& w, const Kernels& k, size_t panel)
      : kernels(k),
        unpacked(std::min(w.width, depth_at_once(w)) * k.tile_columns),
        scales(w.blocks() * k.tile_columns),
        zero_points(w.zero_points ? w.blocks() * k.tile_columns : 0),
        column(w.zero_points ? w.blocks() : 0),
        sums(panel * k.tile_rows * k.tile_columns) {}
};

// The column that stands at place `i` of the tile that begins at `first`: the last one fills it up.
size_t column_at(const Weights& w, size_t first, size_t i) {
  return std::min(first + i, w.columns - 1);
}

void read_scales(const Weights& w, size_t first, Group& group) {
  const size_t width = group.kernels.tile_columns;
  for (size_t i = 0; i < width; ++i) {
    const size_t column = column_at(w, first, i);
    const float* scales = w.scales + column * w.blocks();
    for (size_t block = 0; block < w.blocks(); ++block) group.scales[block * width + i] = scales[block];
    if (!w.zero_points) continue;
    read_zero_points(w, group.kernels, column, group.column.data());
    for (size_t block = 0; block < w.blocks(); ++block)
      group.zero_points[block * width + i] = group.column[block];
  }
}

// `length` codes, from `depth` on, of the columns of a tile.
void unpack(const Weights& w, const Kernels& kernels, size_t first, size_t depth, size_t length,
            uint8_t* out) {
  if (w.transposed) return kernels.unpack_transposed(w, w.codes + depth * w.columns + first, length, out);
  const uint8_t* columns[kMostColumns];
  for (size_t i = 0; i < kernels.tile_columns; ++i)
    columns[i] = w.codes + column_at(w, first, i) * w.row_bytes() + depth * w.bits / 8;
  kernels.unpack(w, columns, length, out);
}

// The columns of a tile from `first` on, times the tiles from `tile` to `end`, into y.
void multiply_group(const Tiles& tiles, size_t rows, size_t tile, size_t end, size_t first, Group& group,
                    float* y) {
  const Weights& w = tiles.w;
  const Kernels& kernels = group.kernels;
  const size_t width = kernels.tile_columns, tile_size = kernels.tile_rows * width;
  std::fill(group.sums.begin(), group.sums.end(), 0.0f);
  for (size_t depth = 0; depth < w.width; depth += depth_at_once(w)) {
    const size_t length = std::min(depth_at_once(w), w.width - depth), block = depth / w.block;
    unpack(w, kernels, first, depth, length, group.unpacked.get());
    const float* zero_points = w.zero_points ? group.zero_points.data() + block * width : nullptr;
    for (size_t t = tile; t < end; ++t)
      kernels.tile(w, tiles.at(t, depth), std::min(kernels.tile_rows, rows - t * kernels.tile_rows),
                   group.unpacked.get(), group.scales.data() + block * width, zero_points, length / w.block,
                   group.sums.data() + (t - tile) * tile_size);
  }
  const size_t count = std::min(width, w.columns - first);
  const size_t first_row = tile * kernels.tile_rows, last_row = std::min(rows, end * kernels.tile_rows);
  for (size_t row = first_row; row < last_row; ++row) {
    const float* from = group.sums.data() + (row - first_row) * width;
    float* to = y + row * w.columns + first;
    for (size_t i = 0; i < count; ++i) to[i] = from[i] + (w.bias ? w.bias[first + i] : 0);
  }
}

void multiply_many(const Weights& w, const float* x, size_t rows, float* y, const ParallelFor& parallel) {
  const Kernels& kernels = kernels_of(w);
  const Tiles tiles(w, rows, kernels.tile_rows);
  parallel(tiles.count, [&](size_t tile) {
    const size_t first = tile * kernels.tile_rows, last = std::min(rows, first + kernels.tile_rows);
    for (size_t row = first; row < last; ++row)
      kernels.quantise_in_tile(w, x + row * w.width, row - first, tiles.at(tile, 0));
  });
  const size_t panel = std::max(kFewestTiles, kPanelBytes / (w.width * kernels.tile_rows));
  parallel(divided_up(w.columns, kColumnsPerTask), [&](size_t task) {
    Group group(w, kernels, std::min(panel, tiles.count));
    const size_t end = std::min(w.columns, (task + 1) * kColumnsPerTask);
    for (size_t tile = 0; tile < tiles.count; tile += panel) {
      for (size_t first = task * kColumnsPerTask; first < end; first += kernels.tile_columns) {
        read_scales(w, first, group);
        multiply_group(tiles, rows, tile, std::min(tiles.count, tile + panel), first, group, y);
      }
    }
  });
}

}  // namespace

const char* obstacle(const Weights& w) {
  if (!instruction_set()) return "this processor has none of the instructions that the products need";
  if (w.bits != 4 && w.bits != 8) return "codes have 4 or 8 bits";
  if (w.width % kUnpacked || !w.width) return "K is a multiple of 32";
  if (w.transposed)
    return w.columns % instruction_set()->of_8_bits.tile_columns ? "N is a multiple of 32" : nullptr;
  if (w.block < 16 || w.block > 256 || w.block & (w.block - 1))
    return "a block has 16, 32, 64, 128 or 256 codes";
  if (w.width % w.block) return "K is a multiple of the block";
  return nullptr;
}

void multiply(const Weights& w, const float* x, size_t rows, float* y, const ParallelFor& parallel) {
  if (!rows || !w.columns) return;
  (rows <= kRowsInPlace && !w.transposed ? multiply_few : multiply_many)(w, x, rows, y, parallel);
}

}  // namespace ltbm::products
