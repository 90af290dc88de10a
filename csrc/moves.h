// The moves as passes over memory, the same on every device: each(), each_sum() and by_rows() are the
// device's. by_rows() takes a move of several passes through some rows at a time, where that keeps them in a
// cache.
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
  by_rows(device, images, [&](const Images<1, 2>& some, int64_t first) {
    const Images<0, 1> direction{{}, {some.r[1]}, some.n, some.numel};
    const Images<1, 1> pair{{some.m[0]}, {some.r[0]}, some.n, some.numel};
    const Sums own = sums.from(first, some.numel);
    each_sum<Square>(device, direction, ReadRows{}, own, Norm{});
    each_sum<Square>(device, some, L2MoveRows{alpha + first, own.row}, own, Norm{});
    each(device, pair, L2ProjectRows{epsilon + first, own.row});
  });
}

template <class Device>
void l2_distance(Device device, const Images<0, 2>& images, const Sums& sums) {
  each_sum<Square>(device, images, DifferenceRows{}, sums, Root{});
}

template <class Device>
void momentum(Device device, const Images<1, 1>& images, const float* decay, const Sums& sums) {
  by_rows(device, images, [&](const Images<1, 1>& some, int64_t first) {
    const Images<0, 1> gradient{{}, {some.r[0]}, some.n, some.numel};
    const Sums own = sums.from(first, some.numel);
    each_sum<Magnitude>(device, gradient, ReadRows{}, own, Mean{static_cast<double>(some.numel)});
    each(device, some, MomentumRows{decay + first, own.row});
  });
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
