// Pixels and noise on a CUDA device.
#include "launch.cuh"

namespace iguana {
namespace {

using cuda::kThreads;
using cuda::Pack;

// One thread converts V neighbours of the float side: of the row (interleaved) or of one channel's plane.
template <int V>
__global__ void __launch_bounds__(kThreads)
    to_float_kernel(const Pixels p, const uint8_t* pixel, const float* scale, const float* bias, float* out) {
  const uint32_t plane = static_cast<uint32_t>(p.plane), channels = static_cast<uint32_t>(p.channels);
  const uint32_t size = plane * channels;
  for (int64_t row = blockIdx.y; row < p.n; row += gridDim.y) {
    for (uint32_t i = (blockIdx.x * kThreads + threadIdx.x) * V; i < size; i += gridDim.x * kThreads * V) {
      Pack<float, V> v;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const uint32_t c = p.interleaved ? (i + e) % channels : (i + e) / plane;
        const uint32_t from = p.interleaved ? i + e : (i + e) % plane * channels + c;
        v.v[e] = to_float(pixel[row * size + from], scale[c], bias[c]);
      }
      *reinterpret_cast<Pack<float, V>*>(out + row * size + i) = v;
    }
  }
}

template <int V>
__global__ void __launch_bounds__(kThreads) to_pixel_kernel(const Pixels p, const float* v, uint8_t* out) {
  const uint32_t plane = static_cast<uint32_t>(p.plane), channels = static_cast<uint32_t>(p.channels);
  const uint32_t size = plane * channels;
  for (int64_t row = blockIdx.y; row < p.n; row += gridDim.y) {
    for (uint32_t i = (blockIdx.x * kThreads + threadIdx.x) * V; i < size; i += gridDim.x * kThreads * V) {
      const Pack<float, V> from = *reinterpret_cast<const Pack<float, V>*>(v + row * size + i);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const uint32_t to = p.interleaved ? i + e : (i + e) % plane * channels + (i + e) / plane;
        out[row * size + to] = to_pixel(from.v[e]);
      }
    }
  }
}

// A row with a counter outside [0, 2^32) is NaN: to refuse it would take a synchronisation.
template <class Distribution>
__global__ void __launch_bounds__(kThreads)
    philox_kernel(const PhiloxRows rows, float* out, int64_t n, int64_t numel) {
  for (int64_t row = blockIdx.y; row < n; row += gridDim.y) {
    const Philox words = rows(row);
    const bool valid = rows.valid(row);
    for (int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 4; i < numel;
         i += int64_t{gridDim.x} * kThreads * 4) {
      Pack<float, 4> v;
      const Words drawn = words(static_cast<uint32_t>(i / 4));
      Distribution::draw(drawn.w, v.v);
      Distribution::draw(drawn.w + 2, v.v + 2);
#pragma unroll
      for (int e = 0; e < 4; ++e) v.v[e] = valid ? v.v[e] : nanf("");
      float* to = out + row * numel + i;
      if (numel % 4 == 0) {  // a fresh allocation is aligned
        *reinterpret_cast<Pack<float, 4>*>(to) = v;
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (i + e < numel) to[e] = v.v[e];
        }
      }
    }
  }
}

template <class Distribution>
void philox(Cuda device, const PhiloxRows& rows, float* out, int64_t n, int64_t numel) {
  if (n * numel == 0) return;
  const auto stream = static_cast<cudaStream_t>(device.stream);
  philox_kernel<Distribution>
      <<<cuda::grid_of(n, (numel + 3) / 4), kThreads, 0, stream>>>(rows, out, n, numel);
  cuda::launched("iguana::philox");
}

}  // namespace

void pixels_to_float(Cuda device, const Pixels& p, const uint8_t* pixel, const float* scale,
                     const float* bias, float* out) {
  const int64_t size = p.plane * p.channels;
  if (p.n * size == 0) return;
  const auto stream = static_cast<cudaStream_t>(device.stream);
  if (size % 4 == 0) {
    to_float_kernel<4><<<cuda::grid_of(p.n, size / 4), kThreads, 0, stream>>>(p, pixel, scale, bias, out);
  } else {
    to_float_kernel<1><<<cuda::grid_of(p.n, size), kThreads, 0, stream>>>(p, pixel, scale, bias, out);
  }
  cuda::launched("iguana::pixels_to_float");
}

void float_to_pixels(Cuda device, const Pixels& p, const float* v, uint8_t* out) {
  const int64_t size = p.plane * p.channels;
  if (p.n * size == 0) return;
  const auto stream = static_cast<cudaStream_t>(device.stream);
  if (size % 4 == 0 && cuda::aligned(v, 16)) {
    to_pixel_kernel<4><<<cuda::grid_of(p.n, size / 4), kThreads, 0, stream>>>(p, v, out);
  } else {
    to_pixel_kernel<1><<<cuda::grid_of(p.n, size), kThreads, 0, stream>>>(p, v, out);
  }
  cuda::launched("iguana::float_to_pixels");
}

void philox_uniform(Cuda device, const PhiloxRows& rows, float* out, int64_t n, int64_t numel) {
  philox<Uniform>(device, rows, out, n, numel);
}

void philox_normal(Cuda device, const PhiloxRows& rows, float* out, int64_t n, int64_t numel) {
  philox<Normal>(device, rows, out, n, numel);
}

}  // namespace iguana
