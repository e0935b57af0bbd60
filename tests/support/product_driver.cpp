// One product of quantised weights, outside ONNX Runtime: for processors that run under emulation.
// stdin: six int64 (rows, N, K, bits, block, zero points or not), then x, codes, scales and zero points as
// they lie in memory. stdout: y. Exit code 1 with a reason if the product is not taken.
#include <cstdio>
#include <vector>

#include "../../plugins/src/products/product.h"

template <class T>
std::vector<T> read(size_t count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != count) std::perror("the input ends early");
  return values;
}

int main() {
  const auto sizes = read<int64_t>(6);
  const size_t rows = sizes[0];
  ltbm::products::Weights w = {};
  w.columns = sizes[1], w.width = sizes[2], w.bits = sizes[3], w.block = sizes[4];
  if (const char* obstacle = ltbm::products::obstacle(w)) {
    std::fprintf(stderr, "%s\n", obstacle);
    return 1;
  }
  const auto x = read<float>(rows * w.width);
  const auto codes = read<uint8_t>(w.columns * w.row_bytes());
  const auto scales = read<float>(w.columns * w.blocks());
  const auto zero_points = read<uint8_t>(sizes[5] ? w.columns * ((w.blocks() * w.bits + 7) / 8) : 0);
  w.codes = codes.data(), w.scales = scales.data();
  w.zero_points = sizes[5] ? zero_points.data() : nullptr;
  std::vector<float> y(rows * w.columns);
  const auto serial = [](size_t count, const std::function<void(size_t)>& body) {
    for (size_t i = 0; i < count; ++i) body(i);
  };
  ltbm::products::multiply(w, x.data(), rows, y.data(), serial);
  std::fwrite(y.data(), sizeof(float), y.size(), stdout);
}
