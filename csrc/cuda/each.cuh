// The moves' passes over a CUDA device's memory: grid y = row, 16-byte accesses where every pointer and row
// allows them.
#pragma once

#include "launch.cuh"

namespace iguana {
namespace cuda {

constexpr int kAhead = 4;  // elements a thread of a sum has in flight

template <int V, class Rows, int M, int R>
__global__ void __launch_bounds__(kThreads) each_kernel(const Images<M, R> images, const Rows rows) {
  using P = Pack<float, V>;
  for (int64_t row = blockIdx.y; row < images.n; row += gridDim.y) {
    if (!rows.live(row)) continue;
    const auto step = rows(row);
    const int64_t at = row * images.numel;
    for (int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * V; i < images.numel;
         i += int64_t{gridDim.x} * kThreads * V) {
      P m[M], r[R];
#pragma unroll
      for (int k = 0; k < M; ++k) m[k] = *reinterpret_cast<const P*>(images.m[k] + at + i);
#pragma unroll
      for (int k = 0; k < R; ++k) r[k] = *reinterpret_cast<const P*>(images.r[k] + at + i);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        float me[M], re[R];
#pragma unroll
        for (int k = 0; k < M; ++k) me[k] = m[k].v[e];
#pragma unroll
        for (int k = 0; k < R; ++k) re[k] = r[k].v[e];
        step(me, re);
#pragma unroll
        for (int k = 0; k < M; ++k) m[k].v[e] = me[k];
      }
#pragma unroll
      for (int k = 0; k < M; ++k) *reinterpret_cast<P*>(images.m[k] + at + i) = m[k];
    }
  }
}

// Lane j of 16 neighbouring threads holds what kernels.h calls lane j; every thread of the warp must take
// part.
__device__ inline double add_lanes(double lane) {
#pragma unroll
  for (int half = kLanes / 2; half > 0; half /= 2) lane += __shfl_down_sync(0xffffffffu, lane, half, kLanes);
  return lane;  // the sum, in lane 0
}

// 16 threads a block of kBlock elements: their accesses are neighbours in memory.
template <class Term, class Rows, int M, int R>
__global__ void __launch_bounds__(kThreads)
    block_sum_kernel(const Images<M, R> images, const Rows rows, double* out) {
  const int64_t blocks = Sums::blocks(images.numel);
  const int lane = threadIdx.x % kLanes;
  for (int64_t row = blockIdx.y; row < images.n; row += gridDim.y) {
    const auto step = rows(row);
    const int64_t at = row * images.numel;
    for (int64_t first = int64_t{blockIdx.x} * (kThreads / kLanes); first < blocks;
         first += int64_t{gridDim.x} * (kThreads / kLanes)) {
      const int64_t block = first + threadIdx.x / kLanes;
      const int64_t end = min(images.numel, (block + 1) * kBlock);
      double sum = 0.0;
      for (int64_t i = block * kBlock + lane; i < end; i += kAhead * kLanes) {
        float m[kAhead][M > 0 ? M : 1], r[kAhead][R];  // all read before any is written: the loads overlap
#pragma unroll
        for (int e = 0; e < kAhead; ++e) {
          if (i + e * kLanes >= end) break;
#pragma unroll
          for (int k = 0; k < M; ++k) m[e][k] = images.m[k][at + i + e * kLanes];
#pragma unroll
          for (int k = 0; k < R; ++k) r[e][k] = images.r[k][at + i + e * kLanes];
        }
#pragma unroll
        for (int e = 0; e < kAhead; ++e) {
          if (i + e * kLanes >= end) break;
          sum += Term::of(step(m[e], r[e]));
#pragma unroll
          for (int k = 0; k < M; ++k) images.m[k][at + i + e * kLanes] = m[e][k];
        }
      }
      sum = add_lanes(sum);
      if (lane == 0 && block < blocks) out[row * blocks + block] = sum;
    }
  }
}

template <class Finish>
__global__ void __launch_bounds__(kLanes * 2)
    row_sum_kernel(const double* block, float* out, int64_t n, int64_t blocks, const Finish finish) {
  const int lane = threadIdx.x % kLanes;
  for (int64_t first = int64_t{blockIdx.x} * 2; first < n; first += int64_t{gridDim.x} * 2) {
    const int64_t row = first + threadIdx.x / kLanes;
    double sum = 0.0;
    for (int64_t i = lane; row < n && i < blocks; i += kLanes) sum += block[row * blocks + i];
    sum = add_lanes(sum);
    if (lane == 0 && row < n) out[row] = finish(sum);
  }
}

}  // namespace cuda

template <int M, int R, class Body>
void by_rows(Cuda, const Images<M, R>& images, const Body& body) {
  body(images, 0);
}

template <class Rows, int M, int R>
void each(Cuda device, const Images<M, R>& images, const Rows& rows) {
  if (images.n * images.numel == 0) return;
  const auto stream = static_cast<cudaStream_t>(device.stream);
  bool wide = images.numel % 4 == 0;
  for (int k = 0; k < M; ++k) wide = wide && cuda::aligned(images.m[k], 16);
  for (int k = 0; k < R; ++k) wide = wide && cuda::aligned(images.r[k], 16);
  if (wide) {
    cuda::each_kernel<4>
        <<<cuda::grid_of(images.n, images.numel / 4), cuda::kThreads, 0, stream>>>(images, rows);
  } else {
    cuda::each_kernel<1><<<cuda::grid_of(images.n, images.numel), cuda::kThreads, 0, stream>>>(images, rows);
  }
  cuda::launched("iguana::each");
}

template <class Term, class Rows, class Finish, int M, int R>
void each_sum(Cuda device, const Images<M, R>& images, const Rows& rows, const Sums& sums,
              const Finish& finish) {
  if (images.n * images.numel == 0) return;
  const auto stream = static_cast<cudaStream_t>(device.stream);
  const int64_t blocks = Sums::blocks(images.numel);
  cuda::block_sum_kernel<Term>
      <<<cuda::grid_of(images.n, blocks * kLanes), cuda::kThreads, 0, stream>>>(images, rows, sums.block);
  cuda::launched("iguana::block_sum");
  const unsigned pairs = static_cast<unsigned>(std::min<int64_t>((images.n + 1) / 2, 65535));
  cuda::row_sum_kernel<<<pairs, kLanes * 2, 0, stream>>>(sums.block, sums.row, images.n, blocks, finish);
  cuda::launched("iguana::row_sum");
}

}  // namespace iguana
