// The CPU's memory: rows cut into chunks for the threads of torch's pool, and vectorised loops over a chunk.
#pragma once

#include <functional>
#include <type_traits>
#include <utility>

#include "../kernels.h"

// A loop that the compiler must vectorise: compiled for SSE2 and for AVX2, chosen when the library is loaded
// (2 to 3 times faster where the data is in cache, the same bits); noinline, so that the test of
// vectorisation finds it by name.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define IGUANA_CLONES
#define IGUANA_LOOP __attribute__((noinline, target_clones("default", "arch=x86-64-v3")))
#else
#define IGUANA_LOOP __attribute__((noinline))
#endif

namespace iguana {
namespace cpu {

constexpr int64_t kChunk = 16 * kBlock;

// Calls body(row, lo, hi) for every chunk [lo, hi) of every row, on torch's threads. Defined with torch in
// parallel.cpp.
void parallel(int64_t n, int64_t numel, const std::function<void(int64_t, int64_t, int64_t)>& body);

// Calls body(first, count) for groups of whole rows, on torch's threads: about a chunk of small rows, else one
// row. Where there are fewer than threads, for all rows on this thread, so that body's own passes are spread.
void groups(int64_t n, int64_t numel, const std::function<void(int64_t, int64_t)>& body);

// The pointers of a chunk. ops.cpp has refused overlaps, hence the ivdep.
template <int M, int R>
struct Chunk {
  float* m[M > 0 ? M : 1];
  const float* r[R];

  Chunk(const Images<M, R>& images, int64_t at) {
    for (int k = 0; k < M; ++k) m[k] = images.m[k] + at;
    for (int k = 0; k < R; ++k) r[k] = images.r[k] + at;
  }
};

template <class Step, int M, int R, int... I, int... J>
IGUANA_LOOP void loop(Chunk<M, R> c, const Step step, int64_t count, std::integer_sequence<int, I...>,
                      std::integer_sequence<int, J...>) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    float m[] = {c.m[I][i]...};
    const float r[] = {c.r[J][i]...};
    step(m, r);
    ((c.m[I][i] = m[I]), ...);
  }
}

template <class Step, int M, int R, int... I, int... J>
IGUANA_LOOP void values(Chunk<M, R> c, const Step step, int64_t count, float* __restrict out,
                        std::integer_sequence<int, I...>, std::integer_sequence<int, J...>) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    float m[] = {c.m[I][i]..., 0.f};  // never empty
    const float r[] = {c.r[J][i]...};
    out[i] = step(m, r);
    ((c.m[I][i] = m[I]), ...);
  }
}

template <class Term, class T>
IGUANA_LOOP double lane_sum(const T* v, int64_t count) {
  double lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lane[j] += Term::of(v[i + j]);
  }
  for (int j = 0; i + j < count; ++j) lane[j] += Term::of(v[i + j]);
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

struct Same {
  static double of(double v) { return v; }
};

}  // namespace cpu

template <int M, int R, class Body>
void by_rows(Cpu, const Images<M, R>& images, const Body& body) {
  cpu::groups(images.n, images.numel,
              [&](int64_t first, int64_t count) { body(images.rows(first, count), first); });
}

template <class Rows, int M, int R>
void each(Cpu, const Images<M, R>& images, const Rows& rows) {
  cpu::parallel(images.n, images.numel, [&](int64_t row, int64_t lo, int64_t hi) {
    if (!rows.live(row)) return;
    cpu::loop(cpu::Chunk<M, R>(images, row * images.numel + lo), rows(row), hi - lo,
              std::make_integer_sequence<int, M>(), std::make_integer_sequence<int, R>());
  });
}

// sums.row[i] = finish(the sum of Term::of(rows(i)(...)) over row i, in the order of kernels.h).
template <class Term, class Rows, class Finish, int M, int R>
void each_sum(Cpu, const Images<M, R>& images, const Rows& rows, const Sums& sums, const Finish& finish) {
  const int64_t blocks = Sums::blocks(images.numel);
  cpu::parallel(images.n, images.numel, [&](int64_t row, int64_t lo, int64_t hi) {
    [[maybe_unused]] const auto step = rows(row);
    for (; lo < hi; lo += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, hi - lo);
      const cpu::Chunk<M, R> chunk(images, row * images.numel + lo);
      double& sum = sums.block[row * blocks + lo / kBlock];
      if constexpr (std::is_same_v<Rows, ReadRows>) {
        sum = cpu::lane_sum<Term>(chunk.r[0], count);
      } else {
        float v[kBlock];
        cpu::values(chunk, step, count, v, std::make_integer_sequence<int, M>(),
                    std::make_integer_sequence<int, R>());
        sum = cpu::lane_sum<Term>(v, count);
      }
    }
  });
  for (int64_t row = 0; row < images.n; ++row) {
    sums.row[row] = finish(cpu::lane_sum<cpu::Same>(sums.block + row * blocks, blocks));
  }
}

}  // namespace iguana
