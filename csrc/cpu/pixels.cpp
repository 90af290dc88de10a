// Pixels and noise on the CPU.
#include <vector>

#include "each.h"

#ifdef IGUANA_CLONES
#include <immintrin.h>
#endif

namespace iguana {
namespace {

// ---- Pixels

// Pixels converted at once, by way of the cache: about 1024 elements, whole vectors where a pixel is small.
int64_t tile_of(int64_t channels) {
  const int64_t pixels = 1024 / std::max<int64_t>(1, channels);
  return pixels > 32 ? pixels / 32 * 32 : std::max<int64_t>(1, pixels);
}

IGUANA_LOOP void floats_of(const uint8_t* __restrict pixel, const float* __restrict scale,
                           const float* __restrict bias, float* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_float(pixel[i], scale[i], bias[i]);
}

IGUANA_LOOP void pixels_of(const float* __restrict v, uint8_t* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_pixel(v[i]);
}

// A tile's bytes to planes and back. Channels is int64_t, or a constant of it so that the loop is vectorised.
template <class Channels>
IGUANA_LOOP void split(const uint8_t* __restrict pixel, uint8_t* __restrict planes, int64_t tile,
                       int64_t count, Channels channels) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < channels; ++c) planes[c * tile + i] = pixel[i * channels + c];
  }
}

template <class Channels>
IGUANA_LOOP void interleave(const uint8_t* __restrict planes, uint8_t* __restrict pixel, int64_t tile,
                            int64_t count, Channels channels) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < channels; ++c) pixel[i * channels + c] = planes[c * tile + i];
  }
}

using Three = std::integral_constant<int64_t, 3>;

}  // namespace

void pixels_to_float(Cpu, const Pixels& p, const uint8_t* pixel, const float* scale, const float* bias,
                     float* out) {
  const int64_t tile = tile_of(p.channels), size = tile * p.channels;
  std::vector<float> scales(size), biases(size);  // of each element of a tile, so that the loop is plain
  for (int64_t i = 0; i < size; ++i) {
    scales[i] = scale[p.interleaved ? i % p.channels : i / tile];
    biases[i] = bias[p.interleaved ? i % p.channels : i / tile];
  }
  cpu::parallel(p.n, p.plane, [&](int64_t row, int64_t lo, int64_t hi) {
    std::vector<uint8_t> planes(p.interleaved ? 0 : size);
    for (; lo < hi; lo += tile) {
      const int64_t count = std::min(tile, hi - lo), at = (row * p.plane + lo) * p.channels;
      if (p.interleaved) {
        floats_of(pixel + at, scales.data(), biases.data(), out + at, count * p.channels);
        continue;
      }
      if (p.channels == 3) {
        split(pixel + at, planes.data(), tile, count, Three());
      } else {
        split(pixel + at, planes.data(), tile, count, p.channels);
      }
      for (int64_t c = 0; c < p.channels; ++c) {
        floats_of(planes.data() + c * tile, scales.data() + c * tile, biases.data() + c * tile,
                  out + (row * p.channels + c) * p.plane + lo, count);
      }
    }
  });
}

void float_to_pixels(Cpu, const Pixels& p, const float* v, uint8_t* out) {
  const int64_t tile = tile_of(p.channels);
  cpu::parallel(p.n, p.plane, [&](int64_t row, int64_t lo, int64_t hi) {
    const int64_t at = (row * p.plane + lo) * p.channels;
    if (p.interleaved) return pixels_of(v + at, out + at, (hi - lo) * p.channels);
    std::vector<uint8_t> planes(tile * p.channels);
    for (; lo < hi; lo += tile) {
      const int64_t count = std::min(tile, hi - lo);
      for (int64_t c = 0; c < p.channels; ++c) {
        pixels_of(v + (row * p.channels + c) * p.plane + lo, planes.data() + c * tile, count);
      }
      uint8_t* to = out + (row * p.plane + lo) * p.channels;
      if (p.channels == 3) {
        interleave(planes.data(), to, tile, count, Three());
      } else {
        interleave(planes.data(), to, tile, count, p.channels);
      }
    }
  });
}

// ---- Noise

namespace {

constexpr int64_t kDraws = 1024;  // elements drawn at once

#ifdef IGUANA_CLONES
__attribute__((noinline, target("default")))
#endif
void words_of(const Philox& philox, uint32_t first, uint32_t* out, int64_t blocks) {
  for (int64_t i = 0; i < blocks; ++i) {
    const Words words = philox(first + static_cast<uint32_t>(i));
    for (int k = 0; k < 4; ++k) out[4 * i + k] = words.w[k];
  }
}

#ifdef IGUANA_CLONES
// The same by vectors of four blocks, a word in the low half of each 64 bits: there vpmuludq wants its factors
// and leaves its products, so that nothing is shuffled inside a round. The high halves hold what is ignored.
// By hand, because g++ shuffles and takes three times as long. `out` has room for whole turns of eight blocks.
__attribute__((noinline, target("arch=x86-64-v3"))) void words_of(const Philox& philox, uint32_t first,
                                                                  uint32_t* out, int64_t blocks) {
  constexpr int kChains = 2;  // vectors in flight: a product takes several cycles
  const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m2 = _mm256_set1_epi64x(0xCD9E8D57);
  for (int64_t i = 0; i < blocks; i += 4 * kChains) {
    __m256i c0[kChains], c1[kChains], c2[kChains], c3[kChains];
    for (int j = 0; j < kChains; ++j) {
      const uint32_t block = first + static_cast<uint32_t>(i) + 4 * j;
      c0[j] = _mm256_add_epi64(_mm256_set1_epi64x(block), _mm256_set_epi64x(3, 2, 1, 0));
      c1[j] = _mm256_set1_epi64x(philox.step);
      c2[j] = _mm256_set1_epi64x(philox.restart);
      c3[j] = _mm256_set1_epi64x(philox.sample);
    }
    uint32_t key0 = philox.key[0], key1 = philox.key[1];
    for (int round = 0; round < 10; ++round) {
      const __m256i k0 = _mm256_set1_epi64x(key0), k1 = _mm256_set1_epi64x(key1);
      for (int j = 0; j < kChains; ++j) {
        const __m256i a = _mm256_mul_epu32(c0[j], m0), b = _mm256_mul_epu32(c2[j], m2);
        c0[j] = _mm256_xor_si256(_mm256_srli_epi64(b, 32), _mm256_xor_si256(c1[j], k0));
        c1[j] = b;
        c2[j] = _mm256_xor_si256(_mm256_srli_epi64(a, 32), _mm256_xor_si256(c3[j], k1));
        c3[j] = a;
      }
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    for (int j = 0; j < kChains; ++j) {  // (c0, c1) and (c2, c3) of blocks 0 to 3, then block by block
      const __m256i a = _mm256_blend_epi32(c0[j], _mm256_slli_epi64(c1[j], 32), 0xAA);
      const __m256i b = _mm256_blend_epi32(c2[j], _mm256_slli_epi64(c3[j], 32), 0xAA);
      const __m256i even = _mm256_unpacklo_epi64(a, b), odd = _mm256_unpackhi_epi64(a, b);
      __m256i* to = reinterpret_cast<__m256i*>(out + 4 * (i + 4 * j));
      _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
      _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
    }
  }
}
#endif

template <class Distribution>
IGUANA_LOOP void draws_of(const uint32_t* __restrict words, float* __restrict out, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) Distribution::draw(words + 2 * i, out + 2 * i);
}

template <class Distribution>
void philox(const PhiloxRows& rows, float* out, int64_t n, int64_t numel) {
  cpu::parallel(n, numel, [&](int64_t row, int64_t lo, int64_t hi) {
    const Philox words = rows(row);
    uint32_t word[kDraws];
    for (; lo < hi; lo += kDraws) {
      const int64_t count = std::min(kDraws, hi - lo);
      float* to = out + row * numel + lo;
      words_of(words, static_cast<uint32_t>(lo / 4), word, (count + 3) / 4);
      draws_of<Distribution>(word, to, count / 2);
      if (count % 2) {
        float last[2];
        Distribution::draw(word + count - 1, last);
        to[count - 1] = last[0];
      }
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
