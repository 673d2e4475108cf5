// bitlinear: trains a ternary layer to imitate another one, then runs it as inference does.
#include "base/rng.h"
#include "train/bit_linear_training.h"

#include <cstdio>

using namespace bitnet;

constexpr int64_t kIn = 128, kOut = 64, kTokens = 256;

int main() {
  const CounterRng rng(7);
  std::vector<uint8_t> codes(kOut * kIn);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = uint8_t(rng.bits(i) % 3);
  TernaryScales scales;
  scales.tensor = 0.05f;
  auto teacher = BitLinear::create(kOut, kIn, codes, scales);
  auto student = BitLinearTraining::create(kOut, kIn);
  if (!teacher || !student) return 1;
  for (size_t i = 0; i < codes.size(); ++i) student->weights()[i] = float(rng.normal(i)) * 0.05f;

  std::vector<float> x(kTokens * kIn), dx(x.size()), target(kTokens * kOut), y(target.size()), dy(target.size());
  double loss = 0;
  for (uint64_t step = 0; step <= 300; ++step) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = float(rng.normal(step * x.size() + i));
    std::fill(student->gradients().begin(), student->gradients().end(), 0.0f);
    bool fine = bool(teacher->forward({x.data(), kTokens, kIn}, {target.data(), kTokens, kOut}));
    fine = fine && student->prepare() && student->forward({x.data(), kTokens, kIn}, {y.data(), kTokens, kOut});
    if (!fine) return 1;
    loss = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      dy[i] = (y[i] - target[i]) / float(kTokens);
      loss += double(y[i] - target[i]) * double(y[i] - target[i]) / double(y.size());
    }
    if (step % 100 == 0) std::printf("step %3d: squared error %.6f\n", int(step), loss);
    if (!student->backward({dy.data(), kTokens, kOut}, {dx.data(), kTokens, kIn})) return 1;
    for (size_t i = 0; i < codes.size(); ++i) student->weights()[i] -= 0.02f * student->gradients()[i];
  }

  std::vector<float> fast(y.size());
  if (!student->prepare() || !student->forward({x.data(), kTokens, kIn}, {y.data(), kTokens, kOut})) return 1;
  auto layer = student->inference();
  if (!layer || !layer->forward({x.data(), kTokens, kIn}, {fast.data(), kTokens, kOut})) return 1;
  size_t n_same = 0;
  for (size_t i = 0; i < codes.size(); ++i) n_same += student->codes()[i] == codes[i] ? 1 : 0;
  std::printf("%zu of %zu codes found; outputs of the inference form %s\n", n_same, codes.size(),
              fast == y ? "equal, bit by bit" : "differ");
  return fast == y && loss < 0.05 ? 0 : 1;
}
