// The arithmetic of every move: functors that see registers only, one code for host and device.
//
// A `FooRows` holds the per-row parameter columns; `rows(i)` makes row i's functor and `rows.live(i)` says
// whether row i moves at all. A functor is called per element with the mutable images' values `m` and the
// read-only ones' `r`.
//
// Bits. The order of float32 operations written here is the specification, equal to
// server/iguana_server/ops/reference.py and to eager torch; build.py compiles with -ffp-contract=off and
// -fmad=false so that nothing is fused. The comparisons are written so that g++ makes minps/maxps of them and
// a NaN behaves as in torch:
//   clamp(v, lo, hi)    keeps a NaN of v, like torch.clamp;
//   between(v, lo, hi)  is NaN if v or a bound is, like torch.minimum(torch.maximum(v, lo), hi);
//   sign(NaN) = 0       like torch.sign: a NaN direction does not move a pixel, a NaN pixel stays NaN.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define IGUANA_HD __host__ __device__ __forceinline__
#else
#define IGUANA_HD inline __attribute__((always_inline))
#endif

namespace iguana {

IGUANA_HD float clamp(float v, float lo, float hi) {
  v = v < lo ? lo : v;
  return v > hi ? hi : v;
}

IGUANA_HD float between(float v, float lo, float hi) {
  float w = v > lo ? v : lo;
  w = w < hi ? w : hi;
  return v != v ? v : w;
}

IGUANA_HD float at_least(float v, float lo) { return v < lo ? lo : v; }  // keeps NaN, like torch.clamp_min
IGUANA_HD float at_most(float v, float hi) { return v > hi ? hi : v; }

IGUANA_HD float sign(float v) {
  return static_cast<float>(static_cast<int>(v > 0.f) - static_cast<int>(v < 0.f));
}

// Round half to even, for |v| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction. SSE2 has no roundps.
// What is larger keeps its side of that range, and a zero is +0.
constexpr float kNoFraction = 12582912.f;
IGUANA_HD float round_even(float v) { return (v + kNoFraction) - kNoFraction; }

// k / 255 for integers 0 <= k <= 255, NaN of NaN: the quotient of a true division in every bit (tests/ops look
// at all 256), for 1 / 255 = 2^-8 + 1 / 65280 and the first product is exact.
IGUANA_HD float per_255(float k) { return k * 0x1p-8f + k * (1.f / 65280.f); }

// ---- Linf: Madry et al. 2018, arXiv:1706.06083

struct LinfStep {  // m = {x}, r = {x0, d}
  float epsilon, alpha;

  IGUANA_HD void operator()(float* m, const float* r) const {
    const float x0 = r[0], d = r[1];
    const float delta = clamp((m[0] + alpha * sign(d)) - x0, -epsilon, epsilon);
    m[0] = clamp(x0 + delta, 0.f, 1.f);
  }
};

struct LinfRows {
  const float *epsilon, *alpha;  // [n]
  IGUANA_HD bool live(int64_t) const { return true; }
  IGUANA_HD LinfStep operator()(int64_t row) const { return {epsilon[row], alpha[row]}; }
};

// ---- Auto-PGD in Linf: Croce and Hein 2020, arXiv:2003.01690

struct ApgdStep {                // m = {x, x_old}, r = {x0, d}
  float epsilon, step, a, rest;  // rest = 1 - a

  IGUANA_HD void operator()(float* m, const float* r) const {
    const float x = m[0], x_old = m[1], x0 = r[0], d = r[1];
    const float lo = x0 - epsilon, hi = x0 + epsilon;
    const float z = clamp(between(x + step * sign(d), lo, hi), 0.f, 1.f);
    const float y = (x + (z - x) * a) + (x - x_old) * rest;
    m[0] = clamp(between(y, lo, hi), 0.f, 1.f);
    m[1] = x;
  }
};

struct ApgdRows {
  const float *epsilon, *step, *a;  // [n]
  IGUANA_HD bool live(int64_t) const { return true; }
  IGUANA_HD ApgdStep operator()(int64_t row) const { return {epsilon[row], step[row], a[row], 1.f - a[row]}; }
};

// ---- Sums over a row: a functor that returns a value feeds one of these

struct Square {
  IGUANA_HD static double of(float v) { return static_cast<double>(v) * static_cast<double>(v); }
};

struct Magnitude {
  IGUANA_HD static double of(float v) { return fabs(static_cast<double>(v)); }
};

struct Read {  // r = {v}
  IGUANA_HD float operator()(float*, const float* r) const { return r[0]; }
};

struct ReadRows {
  IGUANA_HD Read operator()(int64_t) const { return {}; }
};

struct Difference {  // r = {x, x0}
  IGUANA_HD float operator()(float*, const float* r) const { return r[0] - r[1]; }
};

struct DifferenceRows {
  IGUANA_HD Difference operator()(int64_t) const { return {}; }
};

// What a row's sum is turned into. at_least keeps NaN, so that a row that is not finite fails visibly.
struct Norm {
  IGUANA_HD float operator()(double squares) const {
    return at_least(static_cast<float>(sqrt(squares)), 1e-12f);
  }
};

struct Root {
  IGUANA_HD float operator()(double squares) const { return static_cast<float>(sqrt(squares)); }
};

struct Mean {
  double numel;
  IGUANA_HD float operator()(double total) const {
    return at_least(static_cast<float>(total / numel), 1.17549435e-38f);  // the smallest normal float
  }
};

// ---- L2: Madry et al. 2018

struct L2Move {  // m = {x}, r = {x0, d}; returns delta, whose squares are summed next
  float norm, alpha;

  IGUANA_HD float operator()(float* m, const float* r) const {
    m[0] = m[0] + alpha * (r[1] / norm);
    return m[0] - r[0];
  }
};

struct L2MoveRows {
  const float *alpha, *norm;  // [n] norm of d
  IGUANA_HD L2Move operator()(int64_t row) const { return {norm[row], alpha[row]}; }
};

struct L2Project {  // m = {x}, r = {x0}
  float factor;

  IGUANA_HD void operator()(float* m, const float* r) const {
    m[0] = clamp(r[0] + (m[0] - r[0]) * factor, 0.f, 1.f);
  }
};

struct L2ProjectRows {
  const float *epsilon, *norm;  // [n] norm of delta
  IGUANA_HD bool live(int64_t) const { return true; }
  IGUANA_HD L2Project operator()(int64_t row) const {
    const float factor = epsilon[row] / norm[row];
    return {factor > 1.f ? 1.f : factor};
  }
};

// ---- Momentum: Dong et al. 2018, arXiv:1710.06081

struct MomentumStep {  // m = {m}, r = {g}
  float mean, decay;

  IGUANA_HD void operator()(float* m, const float* r) const { m[0] = r[0] / mean + m[0] * decay; }
};

struct MomentumRows {
  const float *decay, *mean;  // [n] mean of |g|
  IGUANA_HD bool live(int64_t) const { return true; }
  IGUANA_HD MomentumStep operator()(int64_t row) const { return {mean[row], decay[row]}; }
};

// ---- Forging by optimisation; Adam: Kingma and Ba 2015, arXiv:1412.6980

// base^t by squaring: plain products, so that host, device and reference agree in every bit, as pow() does
// not.
IGUANA_HD double power(double base, int64_t t) {
  double result = 1.0;
  for (; t > 0; t >>= 1, base *= base) {
    if (t & 1) result *= base;
  }
  return result;
}

struct ForgeAdam {  // m = {x, m, v}, r = {x_ref, g}
  float lr, penalty, c1, c2;

  IGUANA_HD void operator()(float* m, const float* r) const {
    const float g = r[1] + (2.f * penalty) * (m[0] - r[0]);
    m[1] = 0.9f * m[1] + 0.1f * g;
    m[2] = 0.999f * m[2] + (0.001f * g) * g;
    m[0] = clamp(m[0] - (lr * (m[1] / c1)) / (sqrtf(m[2] / c2) + 1e-8f), 0.f, 1.f);
  }
};

struct ForgeAdamRows {
  const int64_t* t;           // [n], counts from 1
  const float *lr, *penalty;  // [n]
  const bool* adam;           // [n]
  IGUANA_HD bool live(int64_t row) const { return adam[row]; }
  IGUANA_HD ForgeAdam operator()(int64_t row) const {
    return {lr[row], penalty[row], static_cast<float>(1.0 - power(0.9, t[row])),
            static_cast<float>(1.0 - power(0.999, t[row]))};
  }
};

struct ForgeSign {  // m = {x}, r = {x_ref, g}
  float lr, penalty;

  IGUANA_HD void operator()(float* m, const float* r) const {
    const float g = r[1] + (2.f * penalty) * (m[0] - r[0]);
    m[0] = clamp(m[0] - lr * sign(g), 0.f, 1.f);
  }
};

struct ForgeSignRows {
  const float *lr, *penalty;  // [n]
  const bool* adam;           // [n]
  IGUANA_HD bool live(int64_t row) const { return !adam[row]; }
  IGUANA_HD ForgeSign operator()(int64_t row) const { return {lr[row], penalty[row]}; }
};

// ---- The 8-bit grid k / 255

struct GridStep {  // m = {x}, r = {x0}
  float epsilon;

  // An end beyond round_even's range leaves no k, however it is rounded. Between whole ends it does not matter
  // whether x is limited or rounded first. The 1e-3 forgives the rounding of x0 and epsilon themselves.
  IGUANA_HD void operator()(float* m, const float* r) const {
    const float a = 255.f * (r[0] - epsilon) - 1e-3f, a_even = round_even(a);
    const float b = 255.f * (r[0] + epsilon) + 1e-3f, b_even = round_even(b);
    const float lo = at_least(a_even + static_cast<float>(a_even < a), 0.f);    // ceil
    const float hi = at_most(b_even - static_cast<float>(b_even > b), 255.f);  // floor
    const float k = between(255.f * m[0], lo, hi);
    float nearest = 255.f * r[0];  // not taken where x0 is NaN, so that plain min and max do
    nearest = nearest > 0.f ? nearest : 0.f;
    nearest = nearest < 255.f ? nearest : 255.f;
    m[0] = per_255(round_even(lo > hi ? nearest : k));
  }
};

struct GridRows {
  const float* epsilon;  // [n]
  IGUANA_HD bool live(int64_t) const { return true; }
  IGUANA_HD GridStep operator()(int64_t row) const { return {epsilon[row]}; }
};

// ---- Keeping a row

struct Keep {  // m = {best}, r = {x}
  IGUANA_HD void operator()(float* m, const float* r) const { m[0] = r[0]; }
};

struct KeepRows {
  const bool* mask;  // [n]
  IGUANA_HD bool live(int64_t row) const { return mask[row]; }
  IGUANA_HD Keep operator()(int64_t) const { return {}; }
};

// ---- Pixels

IGUANA_HD float to_float(uint8_t pixel, float scale, float bias) {
  return per_255(static_cast<float>(pixel)) * scale + bias;
}

// Round half to even of 255 * v; saturates outside [0, 1]; NaN gives 0.
IGUANA_HD uint8_t to_pixel(float v) {
  v = 255.f * v;
  v = v > 0.f ? v : 0.f;
  v = v < 255.f ? v : 255.f;
  v += kNoFraction;  // as round_even does; the whole number is now in the low bits
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return static_cast<uint8_t>(bits);
}

}  // namespace iguana
