// The moves as passes over memory, the same on every device: each() and each_sum() are the device's.
#pragma once

#include "kernels.h"

namespace iguana {

template <class Device>
void linf_step(Device device, const Images<1, 2>& images, const LinfRows& rows) {
  each(device, images, rows);
}

template <class Device>
void l2_step(Device device, const Images<1, 2>& images, const float* epsilon, const float* alpha,
             const Sums& sums) {
  const Images<0, 1> direction{{}, {images.r[1]}, images.n, images.numel};
  const Images<1, 1> pair{{images.m[0]}, {images.r[0]}, images.n, images.numel};
  each_sum<Square>(device, direction, ReadRows{}, sums, Norm{});
  each_sum<Square>(device, images, L2MoveRows{alpha, sums.row}, sums, Norm{});
  each(device, pair, L2ProjectRows{epsilon, sums.row});
}

template <class Device>
void l2_distance(Device device, const Images<0, 2>& images, const Sums& sums) {
  each_sum<Square>(device, images, DifferenceRows{}, sums, Root{});
}

template <class Device>
void momentum(Device device, const Images<1, 1>& images, const float* decay, const Sums& sums) {
  const Images<0, 1> gradient{{}, {images.r[0]}, images.n, images.numel};
  each_sum<Magnitude>(device, gradient, ReadRows{}, sums, Mean{static_cast<double>(images.numel)});
  each(device, images, MomentumRows{decay, sums.row});
}

template <class Device>
void apgd_step(Device device, const Images<2, 2>& images, const ApgdRows& rows) {
  each(device, images, rows);
}

template <class Device>
void forge_step(Device device, const Images<3, 2>& images, const ForgeAdamRows& rows) {
  const Images<1, 2> signs{{images.m[0]}, {images.r[0], images.r[1]}, images.n, images.numel};
  each(device, images, rows);
  each(device, signs, ForgeSignRows{rows.lr, rows.penalty, rows.adam});
}

template <class Device>
void grid(Device device, const Images<1, 1>& images, const GridRows& rows) {
  each(device, images, rows);
}

template <class Device>
void keep(Device device, const Images<1, 1>& images, const KeepRows& rows) {
  each(device, images, rows);
}

#define IGUANA_MOVES(Device)                                                                                 \
  template void linf_step(Device, const Images<1, 2>&, const LinfRows&);                                     \
  template void l2_step(Device, const Images<1, 2>&, const float* epsilon, const float* alpha, const Sums&); \
  template void l2_distance(Device, const Images<0, 2>&, const Sums&);                                       \
  template void momentum(Device, const Images<1, 1>&, const float* decay, const Sums&);                      \
  template void apgd_step(Device, const Images<2, 2>&, const ApgdRows&);                                     \
  template void forge_step(Device, const Images<3, 2>&, const ForgeAdamRows&);                               \
  template void grid(Device, const Images<1, 1>&, const GridRows&);                                          \
  template void keep(Device, const Images<1, 1>&, const KeepRows&);

}  // namespace iguana
