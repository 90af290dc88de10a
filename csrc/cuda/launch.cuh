// What every kernel needs to start: shapes of launches, packs of 16 bytes, errors.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "../kernels.h"

namespace iguana::cuda {

constexpr int kThreads = 256;

template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T v[V];
};

inline dim3 grid_of(int64_t n,
                    int64_t work) {  // work = threads wanted for a row; kernels stride over what is left
  const int64_t blocks = (work + kThreads - 1) / kThreads;
  return dim3(static_cast<unsigned>(std::min<int64_t>(blocks, 1 << 20)),
              static_cast<unsigned>(std::min<int64_t>(n, 65535)));
}

inline void launched(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(kernel) + ": " + cudaGetErrorString(error));
}

inline bool aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

}  // namespace iguana::cuda
