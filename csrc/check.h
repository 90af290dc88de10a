// What an op refuses, by name: `iguana::linf_step_: x0: want ..., got ...`. Everything else in csrc trusts
// its pointers.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace iguana {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string text(const Tensor& t) {
  std::ostringstream out;
  out << torch::headeronly::toString(t.scalar_type()) << " [";
  for (int64_t i = 0; i < t.dim(); ++i) out << (i ? ", " : "") << t.size(i);
  out << "] with strides [";
  for (int64_t i = 0; i < t.dim(); ++i) out << (i ? ", " : "") << t.stride(i);
  out << "] on ";
  if (t.is_cuda()) {
    out << "cuda:" << t.get_device_index();
  } else {
    out << (t.is_cpu() ? "cpu" : "another device");
  }
  return out.str();
}

template <class T>
constexpr ScalarType scalar_type() {
  if constexpr (std::is_same_v<T, float>) return ScalarType::Float;
  if constexpr (std::is_same_v<T, int64_t>) return ScalarType::Long;
  if constexpr (std::is_same_v<T, uint8_t>) return ScalarType::Byte;
  if constexpr (std::is_same_v<T, bool>) return ScalarType::Bool;
}

// Strides that fill memory without gaps in the order of `axes`, the outermost first. Axes of size 1 may have
// any.
inline bool dense(const Tensor& t, const std::vector<int64_t>& axes) {
  int64_t stride = 1;
  for (size_t i = axes.size(); i-- > 0; stride *= t.size(axes[i])) {
    if (t.size(axes[i]) != 1 && t.stride(axes[i]) != stride) return false;
  }
  return true;
}

inline bool channels_last(const Tensor& t) { return t.dim() == 4 && dense(t, {0, 2, 3, 1}); }

// One call of an op: its first tensor fixes n, the device and, for images, the shape and the layout.
class Call {
 public:
  const int64_t n;

  Call(const char* op, const char* name, const Tensor& first)
      : n(first.dim() > 0 ? first.size(0) : 0), op_(op), name_(name), first_(first) {
    if (first.dim() == 0) refuse(name, "at least the axis of rows", text(first));
  }

  [[noreturn]] void refuse(const std::string& name, const std::string& want, const std::string& got) const {
    throw std::runtime_error("iguana::" + std::string(op_) + ": " + name + ": want " + want + ", got " + got);
  }

  void on_device(const char* name, const Tensor& t) const {
    if (t.is_cuda() != first_.is_cuda() || t.is_cpu() != first_.is_cpu() ||
        t.get_device_index() != first_.get_device_index()) {
      refuse(name, std::string("the device of ") + name_, text(t));
    }
  }

  // A float32 image tensor, like the first in shape and layout.
  float* moves(const char* name, const Tensor& t) {
    image(name, t);
    float* pointer = t.mutable_data_ptr<float>();
    spans_.push_back({name, pointer, t.numel() * 4, true});
    return pointer;
  }

  const float* reads(const char* name, const Tensor& t) {
    image(name, t);
    const float* pointer = t.const_data_ptr<float>();
    spans_.push_back({name, pointer, t.numel() * 4, false});
    return pointer;
  }

  // A contiguous T [size].
  template <class T>
  const T* column(const char* name, const Tensor& t, int64_t size) {
    on_device(name, t);
    if (t.scalar_type() != scalar_type<T>() || t.dim() != 1 || t.size(0) != size || !t.is_contiguous()) {
      std::ostringstream want;
      want << "contiguous " << torch::headeronly::toString(scalar_type<T>()) << " [" << size << "]";
      refuse(name, want.str(), text(t));
    }
    const T* pointer = t.const_data_ptr<T>();
    spans_.push_back({name, pointer, size * static_cast<int64_t>(sizeof(T)), false});
    return pointer;
  }

  template <class T>
  const T* column(const char* name, const Tensor& t) {
    return column<T>(name, t, n);
  }

  // int64 [n] with low <= value < high. Read on the CPU only: to look on a device would take a
  // synchronisation.
  const int64_t* counts(const char* name, const Tensor& t, int64_t low, int64_t high) {
    const int64_t* pointer = column<int64_t>(name, t);
    for (int64_t i = 0; t.is_cpu() && i < n; ++i) {
      if (pointer[i] < low || pointer[i] >= high) {
        refuse(name, "values in [" + std::to_string(low) + ", " + std::to_string(high) + ")",
               std::to_string(pointer[i]) + " in row " + std::to_string(i));
      }
    }
    return pointer;
  }

  // What moves must not share memory with anything else. Called last, when all pointers are known.
  void apart() const {
    for (const Span& a : spans_) {
      for (const Span& b : spans_) {
        if (&a == &b || !a.moves || a.bytes == 0 || b.bytes == 0) continue;
        if (a.begin() < b.begin() + b.bytes && b.begin() < a.begin() + a.bytes) {
          refuse(a.name, std::string("memory apart from ") + b.name, "an overlap");
        }
      }
    }
  }

 private:
  struct Span {
    const char* name;
    const void* pointer;
    int64_t bytes;
    bool moves;
    intptr_t begin() const { return reinterpret_cast<intptr_t>(pointer); }
  };

  void image(const char* name, const Tensor& t) const {
    on_device(name, t);
    bool same = t.scalar_type() == ScalarType::Float && t.dim() == first_.dim();
    for (int64_t i = 0; same && i < t.dim(); ++i) same = t.size(i) == first_.size(i);
    if (!same) refuse(name, std::string("Float of the shape of ") + name_, text(t));
    if (t.numel() == 0) return;
    if (!first_.is_contiguous() && !channels_last(first_))
      refuse(name_, "contiguous or channels_last", text(first_));
    for (int64_t i = 0; same && i < t.dim(); ++i) same = t.size(i) == 1 || t.stride(i) == first_.stride(i);
    if (!same) refuse(name, std::string("the layout of ") + name_ + ", " + text(first_), text(t));
  }

  const char* op_;
  const char* name_;
  const Tensor& first_;
  std::vector<Span> spans_;
};

}  // namespace iguana
