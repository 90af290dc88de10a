#include <torch/csrc/stable/ops.h>

#include "each.h"

namespace iguana::cpu {

void parallel(int64_t n, int64_t numel, const std::function<void(int64_t, int64_t, int64_t)>& body) {
  const int64_t chunks = (numel + kChunk - 1) / kChunk;  // of a row
  if (n * chunks == 0) return;
  const int64_t grain =
      std::max<int64_t>(1, 2 * kChunk / std::min(numel, kChunk));  // at least 32768 elements a thread
  torch::stable::parallel_for(0, n * chunks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t lo = i % chunks * kChunk;
      body(i / chunks, lo, std::min(lo + kChunk, numel));
    }
  });
}

void groups(int64_t n, int64_t numel, const std::function<void(int64_t, int64_t)>& body) {
  if (n * numel == 0) return;
  const int64_t rows = std::max<int64_t>(1, kChunk / numel), count = (n + rows - 1) / rows;
  if (count < torch::stable::get_num_threads()) return body(0, n);
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i * rows, std::min(rows, n - i * rows));
  });
}

}  // namespace iguana::cpu
