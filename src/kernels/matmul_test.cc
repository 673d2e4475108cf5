#include "kernels/matmul.h"

#include "kernels/device_tensor.h"
#include "kernels/test_support.h"
#include "tensor/reduce.h"
#include "tensor/test_goldens.h"

#include <cstdlib>

namespace bitnet {
namespace {

TEST(Matmul, GivesWhatNumpyGives) {
  ThreadPool pool(2);
  expect_goldens(
      {{"matmul", [&](const std::vector<TensorView>& in, const GoldenJson&) { return matmul(pool, in[0], in[1]); }}});
}

std::vector<uint32_t> bits_of(const Tensor& tensor) {
  const auto values = *tensor.values<float>();
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size_bytes());
  return bits;
}

// Past the depth and the tile of the kernels, in every order of axes: the same bits, near the product in double.
TEST(Matmul, BitsDependOnNeitherLayoutNorThreadsNorInstructionSet) {
  const Tensor a = *Tensor::normal(DType::kF32, {77, 1100}, 1), b = *Tensor::normal(DType::kF32, {1100, 45}, 2);
  const Tensor a_turned = *Tensor::copy_of(*a.view().transpose()), b_turned = *Tensor::copy_of(*b.view().transpose());
  ThreadPool one(1), three(3);
  const Tensor first = *matmul(one, a, b);
  const Tensor wide = *matmul(one, *cast(a, DType::kF64), *cast(b, DType::kF64));
  EXPECT_LT(*relative_error(wide, first), 1e-6);
  EXPECT_EQ(bits_of(first), bits_of(*matmul(three, *a_turned.view().transpose(), *b_turned.view().transpose())));
  const Tensor upside_down = *Tensor::copy_of(*a.view().slice(0, {{}, {}, -1}));
  EXPECT_EQ(bits_of(first), bits_of(*matmul(three, *upside_down.view().slice(0, {{}, {}, -1}), b)));
  for (const CpuKernels* kernels : usable_cpu_kernels()) {
    ::setenv("BITNET_CPU_ISA", kernels->name, 1);
    EXPECT_EQ(bits_of(first), bits_of(*matmul(three, a, b))) << kernels->name;
  }
  ::unsetenv("BITNET_CPU_ISA");
}

TEST(Matmul, StacksOfManyAgainstOneByOne) {
  ThreadPool pool(2);
  const Tensor a = *Tensor::normal(DType::kF32, {3, 2, 5, 7}, 1), b = *Tensor::normal(DType::kF32, {7, 4}, 2);
  const Tensor all = *matmul(pool, a, b);
  ASSERT_EQ(all.shape(), (Shape{3, 2, 5, 4}));
  const TensorView turned = *a.view().permute({1, 0, 2, 3});  // no rows of one matrix any more
  const Tensor all_turned = *matmul(pool, turned, b);
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t j = 0; j < 2; ++j) {
      const Tensor one = *matmul(pool, *a.view().select(0, i)->select(0, j), b);
      EXPECT_EQ(bits_of(one), bits_of(*Tensor::copy_of(*all.view().select(0, i)->select(0, j))));
      EXPECT_EQ(bits_of(one), bits_of(*Tensor::copy_of(*all_turned.view().select(0, j)->select(0, i))));
    }
  }
}

TEST(Matmul, SaysWhichShapesDoNotFit) {
  ThreadPool pool(1);
  const auto multiply = [&](Shape a, Shape b) {
    return matmul(pool, *Tensor::zeros(DType::kF32, std::move(a)), *Tensor::zeros(DType::kF32, std::move(b)));
  };
  EXPECT_EQ(multiply({2, 3}, {4, 5}).error().message, "cannot multiply [2, 3] by [4, 5]");
  EXPECT_EQ(multiply({2, 2, 3}, {5, 3, 4}).error().message, "cannot multiply [2, 2, 3] by [5, 3, 4]");
  EXPECT_FALSE(multiply({}, {1}));
  EXPECT_FALSE(matmul(pool, *Tensor::zeros(DType::kQ8_0, {2, 32}), *Tensor::zeros(DType::kF32, {32, 1})));
  EXPECT_EQ(multiply({2, 0}, {0, 3})->shape(), (Shape{2, 3}));
  EXPECT_EQ(multiply({0, 4}, {4, 3})->shape(), (Shape{0, 3}));
}

TEST(DeviceTensor, ComesBackAsItWent) {
  const auto backend = *make_backend("cpu");
  const auto stream = make_stream(*backend, 1, 4, 32);
  const Tensor from = *Tensor::normal(DType::kF32, {4, 6}, 3);
  const TensorView turned = *from.view().transpose();
  const DeviceTensor there = *DeviceTensor::upload(*backend, turned);
  const Tensor back = *there.fetch(*stream);
  EXPECT_EQ(back.shape(), (Shape{6, 4}));
  EXPECT_EQ(*to_vector<float>(back), *to_vector<float>(turned));
  // An operation of the back end in between.
  const DeviceTensor sum = *DeviceTensor::upload(*backend, from);
  backend->add(*stream, *DeviceTensor::upload(*backend, from)->matrix(), *sum.matrix());
  EXPECT_EQ(*to_vector<float>(*sum.fetch(*stream)),
            *to_vector<float>(*matmul(stream->pool(), from,
                                      *Tensor::from<float>({2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0,
                                                            0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 2},
                                                           {6, 6}))));

  Tensor packed = *Tensor::zeros(DType::kQ8_0, {2, 32});
  packed.bytes()[5] = std::byte{77};
  const Tensor packed_back = *DeviceTensor::upload(*backend, packed)->fetch(*stream);
  EXPECT_EQ(packed_back.dtype(), DType::kQ8_0);
  EXPECT_TRUE(std::equal(packed.bytes().begin(), packed.bytes().end(), packed_back.bytes().begin()));
  EXPECT_FALSE(DeviceTensor::upload(*backend, packed)->matrix());
  EXPECT_FALSE(DeviceTensor::allocate(*backend, DType::kF32, {int64_t{1} << 40, int64_t{1} << 40}));
}

}  // namespace
}  // namespace bitnet
