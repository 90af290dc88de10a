// The drivers: what ops.cpp calls and cpu/*.cpp, cuda/*.cu define. Raw pointers, no torch. A zero n or numel
// is legal.
#pragma once

#include <algorithm>

#include "philox.h"
#include "step.h"

namespace iguana {

struct Cpu {};
struct Cuda {
  void* stream;  // a cudaStream_t; launches are asynchronous on it
};

// n rows of numel float32 each, in one memory order: M images that move and R that are read.
template <int M, int R>
struct Images {
  float* m[M > 0 ? M : 1];
  const float* r[R];
  int64_t n, numel;

  Images rows(int64_t first, int64_t count) const {
    Images some = *this;
    for (int k = 0; k < M; ++k) some.m[k] += first * numel;
    for (int k = 0; k < R; ++k) some.r[k] += first * numel;
    some.n = count;
    return some;
  }
};

// Sums over a row are added in one order on every device, whatever n and the number of threads: blocks of
// kBlock elements; in a block lane j adds the elements i = j mod kLanes in turn; the lanes are added pairwise
// (j with j + 8, 4, 2, 1); the blocks' sums are themselves added in this way.
constexpr int kLanes = 16;
constexpr int kBlock = 1024;

struct Sums {
  double* block;  // [n, blocks(numel)] room for the blocks' sums
  float* row;     // [n] what the sums are turned into: a Norm or a Mean
  IGUANA_HD static int64_t blocks(int64_t numel) { return (numel + kBlock - 1) / kBlock; }
  Sums from(int64_t first, int64_t numel) const { return {block + first * blocks(numel), row + first}; }
};

// uint8 [n, plane, channels] beside float32 of the same values, either in the same order (interleaved) or as
// [n, channels, plane].
struct Pixels {
  int64_t n, plane, channels;  // plane * channels < 2^31
  bool interleaved;
};

template <class Device>
void linf_step(Device, const Images<1, 2>&, const LinfRows&);
template <class Device>
void l2_step(Device, const Images<1, 2>&, const float* epsilon, const float* alpha, const Sums&);
template <class Device>
void l2_distance(Device, const Images<0, 2>&, const Sums&);
template <class Device>
void momentum(Device, const Images<1, 1>&, const float* decay, const Sums&);
template <class Device>
void apgd_step(Device, const Images<2, 2>&, const ApgdRows&);
template <class Device>
void forge_step(Device, const Images<3, 2>&, const ForgeAdamRows&);
template <class Device>
void grid(Device, const Images<1, 1>&, const GridRows&);
template <class Device>
void keep(Device, const Images<1, 1>&, const KeepRows&);

#define IGUANA_DRIVERS(Device)                                                                       \
  void pixels_to_float(Device, const Pixels&, const uint8_t*, const float* scale, const float* bias, \
                       float*);                                                                      \
  void float_to_pixels(Device, const Pixels&, const float*, uint8_t*);                               \
  void philox_uniform(Device, const PhiloxRows&, float*, int64_t n, int64_t numel);                  \
  void philox_normal(Device, const PhiloxRows&, float*, int64_t n, int64_t numel);

IGUANA_DRIVERS(Cpu)
IGUANA_DRIVERS(Cuda)
#undef IGUANA_DRIVERS

}  // namespace iguana
