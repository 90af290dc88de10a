// The ops' names: schema, checks, raw pointers to a driver. LibTorch's stable ABI, so that one binary fits
// torch >= 2.11.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "check.h"
#include "kernels.h"

#ifdef IGUANA_CUDA
// Weak: a torch without CUDA lacks it and must still load this library.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**) __attribute__((weak));
#endif

namespace iguana::ops {
namespace {

constexpr int64_t kWord = int64_t{1} << 32;
constexpr int64_t kMost = INT64_MAX;

template <class Launch>
void run([[maybe_unused]] const Tensor& on, Launch launch) {
#ifdef IGUANA_CUDA
  if (on.is_cuda()) {
    if (!aoti_torch_get_current_cuda_stream) throw std::runtime_error("iguana: this torch has no CUDA");
    torch::stable::accelerator::DeviceGuard guard(on.get_device_index());
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(on.get_device_index(), &stream));
    return launch(Cuda{stream});
  }
#endif
  launch(Cpu{});
}

int64_t row_numel(const Tensor& x) { return x.numel() == 0 ? 0 : x.numel() / x.size(0); }

// Room for the sums of n rows; the tensor owns it.
Tensor sums_room(const Tensor& x, int64_t n) {
  return torch::stable::new_empty(x, {n, Sums::blocks(row_numel(x)) + 1}, ScalarType::Double);
}

Sums sums_in(const Tensor& room, int64_t n) {
  double* start = room.mutable_data_ptr<double>();
  return {start + n, reinterpret_cast<float*>(start)};
}

void linf_step_(Tensor x, Tensor x0, Tensor d, Tensor epsilon, Tensor alpha) {
  Call call("linf_step_", "x", x);
  const Images<1, 2> images{
      {call.moves("x", x)}, {call.reads("x0", x0), call.reads("d", d)}, call.n, row_numel(x)};
  const LinfRows rows{call.column<float>("epsilon", epsilon), call.column<float>("alpha", alpha)};
  call.apart();
  run(x, [&](auto device) { linf_step(device, images, rows); });
}

void l2_step_(Tensor x, Tensor x0, Tensor d, Tensor epsilon, Tensor alpha) {
  Call call("l2_step_", "x", x);
  const Images<1, 2> images{
      {call.moves("x", x)}, {call.reads("x0", x0), call.reads("d", d)}, call.n, row_numel(x)};
  const float* radius = call.column<float>("epsilon", epsilon);
  const float* length = call.column<float>("alpha", alpha);
  call.apart();
  const Tensor room = sums_room(x, call.n);
  run(x, [&](auto device) { l2_step(device, images, radius, length, sums_in(room, call.n)); });
}

Tensor l2_distance(Tensor x, Tensor x0) {
  Call call("l2_distance", "x", x);
  const Images<0, 2> images{{}, {call.reads("x", x), call.reads("x0", x0)}, call.n, row_numel(x)};
  const Tensor room = sums_room(x, call.n);
  const Tensor out = torch::stable::new_empty(x, {call.n}, ScalarType::Float);
  const Sums sums{sums_in(room, call.n).block, out.mutable_data_ptr<float>()};
  run(x, [&](auto device) { l2_distance(device, images, sums); });
  return out;
}

void momentum_(Tensor m, Tensor g, Tensor decay) {
  Call call("momentum_", "m", m);
  const Images<1, 1> images{{call.moves("m", m)}, {call.reads("g", g)}, call.n, row_numel(m)};
  const float* weight = call.column<float>("decay", decay);
  call.apart();
  const Tensor room = sums_room(m, call.n);
  run(m, [&](auto device) { momentum(device, images, weight, sums_in(room, call.n)); });
}

void apgd_step_(Tensor x, Tensor x_old, Tensor x0, Tensor d, Tensor epsilon, Tensor step, Tensor a) {
  Call call("apgd_step_", "x", x);
  const Images<2, 2> images{{call.moves("x", x), call.moves("x_old", x_old)},
                            {call.reads("x0", x0), call.reads("d", d)},
                            call.n,
                            row_numel(x)};
  const ApgdRows rows{call.column<float>("epsilon", epsilon), call.column<float>("step", step),
                      call.column<float>("a", a)};
  call.apart();
  run(x, [&](auto device) { apgd_step(device, images, rows); });
}

void forge_step_(Tensor x, Tensor m, Tensor v, Tensor x_ref, Tensor g, Tensor t, Tensor lr, Tensor penalty,
                 Tensor adam) {
  Call call("forge_step_", "x", x);
  const Images<3, 2> images{{call.moves("x", x), call.moves("m", m), call.moves("v", v)},
                            {call.reads("x_ref", x_ref), call.reads("g", g)},
                            call.n,
                            row_numel(x)};
  const ForgeAdamRows rows{call.counts("t", t, 1, kMost), call.column<float>("lr", lr),
                           call.column<float>("penalty", penalty), call.column<bool>("adam", adam)};
  call.apart();
  run(x, [&](auto device) { forge_step(device, images, rows); });
}

void grid_(Tensor x, Tensor x0, Tensor epsilon) {
  Call call("grid_", "x", x);
  const Images<1, 1> images{{call.moves("x", x)}, {call.reads("x0", x0)}, call.n, row_numel(x)};
  const GridRows rows{call.column<float>("epsilon", epsilon)};
  call.apart();
  run(x, [&](auto device) { grid(device, images, rows); });
}

void keep_(Tensor best, Tensor x, Tensor mask) {
  Call call("keep_", "best", best);
  const Images<1, 1> images{{call.moves("best", best)}, {call.reads("x", x)}, call.n, row_numel(best)};
  const KeepRows rows{call.column<bool>("mask", mask)};
  call.apart();
  run(best, [&](auto device) { keep(device, images, rows); });
}

Pixels pixels_of(const Call& call, const char* name, const Tensor& t, int64_t plane, int64_t channels) {
  if (plane * channels >= kWord / 2) call.refuse(name, "fewer than 2^31 values a row", text(t));
  return {call.n, plane, channels, channels == 1};
}

Tensor pixels_to_float(Tensor u8, Tensor scale, Tensor bias, bool last) {
  Call call("pixels_to_float", "u8", u8);
  if (u8.scalar_type() != ScalarType::Byte || u8.dim() != 4 || !u8.is_contiguous()) {
    call.refuse("u8", "contiguous Byte [n, H, W, C]", text(u8));
  }
  const int64_t height = u8.size(1), width = u8.size(2), channels = u8.size(3);
  Pixels pixels = pixels_of(call, "u8", u8, height * width, channels);
  pixels.interleaved = pixels.interleaved || last;
  const float* scales = call.column<float>("scale", scale, channels);
  const float* biases = call.column<float>("bias", bias, channels);
  const Tensor out = torch::stable::empty(
      {call.n, channels, height, width}, ScalarType::Float, std::nullopt, u8.device(), std::nullopt,
      last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
  run(u8, [&](auto device) {
    iguana::pixels_to_float(device, pixels, u8.const_data_ptr<uint8_t>(), scales, biases,
                            out.mutable_data_ptr<float>());
  });
  return out;
}

Tensor float_to_pixels(Tensor x) {
  Call call("float_to_pixels", "x", x);
  if (x.scalar_type() != ScalarType::Float || x.dim() != 4) call.refuse("x", "Float [n, C, H, W]", text(x));
  const float* values = call.reads("x", x);
  const int64_t channels = x.size(1), height = x.size(2), width = x.size(3);
  Pixels pixels = pixels_of(call, "x", x, height * width, channels);
  pixels.interleaved = channels_last(x);
  const Tensor out = torch::stable::new_empty(x, {call.n, height, width, channels}, ScalarType::Byte);
  run(x,
      [&](auto device) { iguana::float_to_pixels(device, pixels, values, out.mutable_data_ptr<uint8_t>()); });
  return out;
}

PhiloxRows philox_rows(Call& call, const Tensor& seed, const Tensor& sample, const Tensor& restart,
                       const Tensor& step, int64_t numel) {
  if (numel < 0 || numel > 4 * kWord) call.refuse("numel", "0 to 2^34", std::to_string(numel));
  return {call.column<int64_t>("seed", seed), call.counts("sample", sample, 0, kWord),
          call.counts("restart", restart, 0, kWord), call.counts("step", step, 0, kWord)};
}

Tensor philox_uniform(Tensor seed, Tensor sample, Tensor restart, Tensor step, int64_t numel) {
  Call call("philox_uniform", "seed", seed);
  const PhiloxRows rows = philox_rows(call, seed, sample, restart, step, numel);
  const Tensor out = torch::stable::new_empty(seed, {call.n, numel}, ScalarType::Float);
  run(seed, [&](auto device) {
    iguana::philox_uniform(device, rows, out.mutable_data_ptr<float>(), call.n, numel);
  });
  return out;
}

Tensor philox_normal(Tensor seed, Tensor sample, Tensor restart, Tensor step, int64_t numel) {
  Call call("philox_normal", "seed", seed);
  const PhiloxRows rows = philox_rows(call, seed, sample, restart, step, numel);
  const Tensor out = torch::stable::new_empty(seed, {call.n, numel}, ScalarType::Float);
  run(seed, [&](auto device) {
    iguana::philox_normal(device, rows, out.mutable_data_ptr<float>(), call.n, numel);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY(iguana, m) {
  m.def("linf_step_(Tensor(a!) x, Tensor x0, Tensor d, Tensor epsilon, Tensor alpha) -> ()");
  m.def("l2_step_(Tensor(a!) x, Tensor x0, Tensor d, Tensor epsilon, Tensor alpha) -> ()");
  m.def("l2_distance(Tensor x, Tensor x0) -> Tensor");
  m.def("momentum_(Tensor(a!) m, Tensor g, Tensor decay) -> ()");
  m.def(
      "apgd_step_(Tensor(a!) x, Tensor(b!) x_old, Tensor x0, Tensor d, Tensor epsilon, Tensor step, Tensor "
      "a) -> ()");
  m.def(
      "forge_step_(Tensor(a!) x, Tensor(b!) m, Tensor(c!) v, Tensor x_ref, Tensor g, Tensor t, Tensor lr, "
      "Tensor penalty, Tensor adam) -> ()");
  m.def("grid_(Tensor(a!) x, Tensor x0, Tensor epsilon) -> ()");
  m.def("keep_(Tensor(a!) best, Tensor x, Tensor mask) -> ()");
  m.def("pixels_to_float(Tensor u8, Tensor scale, Tensor bias, bool channels_last) -> Tensor");
  m.def("float_to_pixels(Tensor x) -> Tensor");
  m.def("philox_uniform(Tensor seed, Tensor sample, Tensor restart, Tensor step, int numel) -> Tensor");
  m.def("philox_normal(Tensor seed, Tensor sample, Tensor restart, Tensor step, int numel) -> Tensor");
}

#define IGUANA_IMPLEMENT(m)                               \
  m.impl("linf_step_", TORCH_BOX(&linf_step_));           \
  m.impl("l2_step_", TORCH_BOX(&l2_step_));               \
  m.impl("l2_distance", TORCH_BOX(&l2_distance));         \
  m.impl("momentum_", TORCH_BOX(&momentum_));             \
  m.impl("apgd_step_", TORCH_BOX(&apgd_step_));           \
  m.impl("forge_step_", TORCH_BOX(&forge_step_));         \
  m.impl("grid_", TORCH_BOX(&grid_));                     \
  m.impl("keep_", TORCH_BOX(&keep_));                     \
  m.impl("pixels_to_float", TORCH_BOX(&pixels_to_float)); \
  m.impl("float_to_pixels", TORCH_BOX(&float_to_pixels)); \
  m.impl("philox_uniform", TORCH_BOX(&philox_uniform));   \
  m.impl("philox_normal", TORCH_BOX(&philox_normal));

STABLE_TORCH_LIBRARY_IMPL(iguana, CPU, m){IGUANA_IMPLEMENT(m)}
#ifdef IGUANA_CUDA
STABLE_TORCH_LIBRARY_IMPL(iguana, CUDA, m) {
  IGUANA_IMPLEMENT(m)
}
#endif

}  // namespace iguana::ops
