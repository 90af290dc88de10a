// Philox4x32-10: Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
// A counter generator: element e of row i is a pure function of (seed, sample, restart, step, e), so noise
// depends on neither the batch nor the device. key = seed; counter = (e / 4, step, restart, sample); word = e
// % 4.
#pragma once

#include "step.h"

namespace iguana {

struct Words {
  uint32_t w[4];
};

struct Philox {
  uint32_t key[2], step, restart, sample;

  IGUANA_HD Words operator()(uint32_t block) const {
    uint32_t c0 = block, c1 = step, c2 = restart, c3 = sample, k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
      const uint64_t a = uint64_t{0xD2511F53} * c0, b = uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
      c1 = static_cast<uint32_t>(b);
      c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
      c3 = static_cast<uint32_t>(a);
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    return {{c0, c1, c2, c3}};
  }
};

struct PhiloxRows {
  const int64_t *seed, *sample, *restart, *step;  // [n]; the last three in [0, 2^32)

  IGUANA_HD bool valid(int64_t row) const { return ((sample[row] | restart[row] | step[row]) >> 32) == 0; }
  IGUANA_HD Philox operator()(int64_t row) const {
    const uint64_t key = static_cast<uint64_t>(seed[row]);
    return {{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)},
            static_cast<uint32_t>(step[row]),
            static_cast<uint32_t>(restart[row]),
            static_cast<uint32_t>(sample[row])};
  }
};

struct Uniform {  // [0, 1), 24 bits
  IGUANA_HD static void draw(const uint32_t* pair, float* out) {
    out[0] = static_cast<float>(static_cast<int32_t>(pair[0] >> 8)) * 0x1p-24f;
    out[1] = static_cast<float>(static_cast<int32_t>(pair[1] >> 8)) * 0x1p-24f;
  }
};

// log(k / 2^24) for 1 <= k <= 2^24, never positive, to 1e-7 of itself. Plain products and sums, like cos_sin
// below: the C library's would differ between a host, another host and a device. Polynomials of Moshier's
// Cephes.
IGUANA_HD float log_fraction(int32_t k) {
  const float v = static_cast<float>(k);
  int32_t bits;
  memcpy(&bits, &v, sizeof bits);
  const int32_t above = (bits & 0x7FFFFF) > 0x3504F3;  // mantissa above sqrt(2)
  const float e = static_cast<float>((bits >> 23) - 127 - 24 + above);
  bits = (bits & 0x7FFFFF) | ((127 - above) << 23);
  float m;
  memcpy(&m, &bits, sizeof m);
  const float x = m - 1.f, z = x * x;
  float y = 7.0376836292e-2f;
  y = y * x - 1.1514610310e-1f;
  y = y * x + 1.1676998740e-1f;
  y = y * x - 1.2420140846e-1f;
  y = y * x + 1.4249322787e-1f;
  y = y * x - 1.6668057665e-1f;
  y = y * x + 2.0000714765e-1f;
  y = y * x - 2.4999993993e-1f;
  y = y * x + 3.3333331174e-1f;
  y = y * x * z - 2.12194440e-4f * e;
  return (x + (y - 0.5f * z)) + 0.693359375f * e;
}

// cos and sin of 2 pi k / 2^24 for 0 <= k < 2^24: the nearest quarter turn, and a polynomial within pi / 4 of
// it.
IGUANA_HD void cos_sin(int32_t k, float* c, float* s) {
  const int32_t quarter = (k + (1 << 21)) >> 22;
  const float x = static_cast<float>(k - (quarter << 22)) * 3.7450704e-7f, z = x * x;
  const float near_sin = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * x + x;
  const float near_cos =
      ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z +
      1.f;
  const float a = quarter & 1 ? near_sin : near_cos, b = quarter & 1 ? near_cos : near_sin;
  *c = (quarter + 1) & 2 ? -a : a;
  *s = quarter & 2 ? -b : b;
}

struct Normal {  // Box and Muller 1958; |out| < 5.8
  IGUANA_HD static void draw(const uint32_t* pair, float* out) {
    const float radius = sqrtf(-2.f * log_fraction(static_cast<int32_t>(pair[0] >> 8) + 1));
    float c, s;
    cos_sin(static_cast<int32_t>(pair[1] >> 8), &c, &s);
    out[0] = radius * c;
    out[1] = radius * s;
  }
};

}  // namespace iguana
