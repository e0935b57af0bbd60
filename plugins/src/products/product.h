// y = x @ W.T with W in blocks of 4 or 8 bits, as ONNX Runtime's MatMulNBits stores it and rounds at accuracy
// level 4: activations are rounded to int8 with a scale a block. The codes are read where they lie: nothing
// is packed or copied, so a file that is mapped stays the only copy of the weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace ltbm::products {

// W [columns, width]. A value is (code - zero point) * scale; the lower of two codes in a byte comes first.
struct Weights {
  size_t columns, width;  // N, K
  size_t bits, block;  // 4 or 8; codes of a scale
  const uint8_t* codes;  // [N, K * bits / 8]
  const float* scales;  // [N, K / block]
  const uint8_t* zero_points;  // [N, bytes of K / block of them], or null: the middle of the codes
  const float* bias;  // [N], or null
  // The codes are [K, N], signed, of 8 bits, without zero points, and a block is a whole column.
  bool transposed;

  size_t blocks() const { return width / block; }
  size_t row_bytes() const { return width * bits / 8; }
};

// Runs body(0), ..., body(count - 1), on several threads.
using ParallelFor = std::function<void(size_t count, const std::function<void(size_t)>& body)>;

// Why `multiply` does not take such weights, or null.
const char* obstacle(const Weights& weights);

// x [rows, K] to y [rows, N].
void multiply(const Weights& weights, const float* x, size_t rows, float* y, const ParallelFor& parallel);

}  // namespace ltbm::products
