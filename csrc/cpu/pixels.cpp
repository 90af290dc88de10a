// Pixels and noise on the CPU.
#include <vector>

#include "each.h"

namespace iguana {
namespace {

constexpr int64_t kTile = 1024;  // elements converted at once, a whole number of pixels

IGUANA_LOOP void floats_of(const uint8_t* __restrict pixel, const float* __restrict scale,
                           const float* __restrict bias, float* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_float(pixel[i], scale[i], bias[i]);
}

IGUANA_LOOP void pixels_of(const float* __restrict v, uint8_t* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_pixel(v[i]);
}

// Channels is int64_t, or a constant of it so that the usual inner loop is unrolled.
template <class Channels>
void interleave(const uint8_t* __restrict planes, uint8_t* __restrict out, int64_t count, Channels channels) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < channels; ++c) out[i * channels + c] = planes[c * kTile + i];
  }
}

}  // namespace

void pixels_to_float(Cpu, const Pixels& p, const uint8_t* pixel, const float* scale, const float* bias,
                     float* out) {
  const int64_t tile = std::max<int64_t>(1, kTile / std::max<int64_t>(1, p.channels));  // in pixels
  std::vector<float> scales(tile * p.channels),
      biases(tile * p.channels);  // repeated, so that the loop is plain
  for (int64_t i = 0; i < tile * p.channels; ++i) {
    scales[i] = scale[i % p.channels];
    biases[i] = bias[i % p.channels];
  }
  cpu::parallel(p.n, p.plane, [&](int64_t row, int64_t lo, int64_t hi) {
    std::vector<float> buffer(p.interleaved ? 0 : tile * p.channels);
    for (; lo < hi; lo += tile) {
      const int64_t count = std::min(tile, hi - lo), at = (row * p.plane + lo) * p.channels;
      float* to = p.interleaved ? out + at : buffer.data();
      floats_of(pixel + at, scales.data(), biases.data(), to, count * p.channels);
      if (p.interleaved) continue;
      for (int64_t c = 0; c < p.channels; ++c) {
        float* plane = out + (row * p.channels + c) * p.plane + lo;
        for (int64_t i = 0; i < count; ++i) plane[i] = buffer[i * p.channels + c];
      }
    }
  });
}

void float_to_pixels(Cpu, const Pixels& p, const float* v, uint8_t* out) {
  cpu::parallel(p.n, p.plane, [&](int64_t row, int64_t lo, int64_t hi) {
    const int64_t at = (row * p.plane + lo) * p.channels;
    if (p.interleaved) return pixels_of(v + at, out + at, (hi - lo) * p.channels);
    std::vector<uint8_t> planes(kTile * p.channels);
    for (; lo < hi; lo += kTile) {
      const int64_t count = std::min(kTile, hi - lo);
      for (int64_t c = 0; c < p.channels; ++c) {
        pixels_of(v + (row * p.channels + c) * p.plane + lo, planes.data() + c * kTile, count);
      }
      uint8_t* to = out + (row * p.plane + lo) * p.channels;
      if (p.channels == 3) {
        interleave(planes.data(), to, count, std::integral_constant<int64_t, 3>());
      } else {
        interleave(planes.data(), to, count, p.channels);
      }
    }
  });
}

namespace {

IGUANA_LOOP void words_of(const Philox philox, uint32_t first, uint32_t* __restrict out, int64_t blocks) {
  for (int64_t i = 0; i < blocks; ++i) {
    const Words words = philox(first + static_cast<uint32_t>(i));
    for (int k = 0; k < 4; ++k) out[4 * i + k] = words.w[k];
  }
}

template <class Distribution>
IGUANA_LOOP void draws_of(const uint32_t* __restrict words, float* __restrict out, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) Distribution::draw(words + 2 * i, out + 2 * i);
}

template <class Distribution>
void philox(const PhiloxRows& rows, float* out, int64_t n, int64_t numel) {
  cpu::parallel(n, numel, [&](int64_t row, int64_t lo, int64_t hi) {
    const Philox words = rows(row);
    uint32_t word[kTile];
    float draw[kTile];
    for (; lo < hi; lo += kTile) {
      const int64_t count = std::min(kTile, hi - lo), blocks = (count + 3) / 4;
      words_of(words, static_cast<uint32_t>(lo / 4), word, blocks);
      draws_of<Distribution>(word, draw, 2 * blocks);
      std::copy(draw, draw + count, out + row * numel + lo);
    }
  });
}

}  // namespace

void philox_uniform(Cpu, const PhiloxRows& rows, float* out, int64_t n, int64_t numel) {
  philox<Uniform>(rows, out, n, numel);
}

void philox_normal(Cpu, const PhiloxRows& rows, float* out, int64_t n, int64_t numel) {
  philox<Normal>(rows, out, n, numel);
}

}  // namespace iguana
