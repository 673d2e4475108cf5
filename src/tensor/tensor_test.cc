#include "tensor/tensor.h"

#include "base/rng.h"
#include "tensor/activation.h"
#include "tensor/elementwise.h"
#include "tensor/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

namespace bitnet {
namespace {

using Ints = std::vector<int32_t>;

Tensor counting(Shape shape) {
  return *std::move(*Tensor::arange(DType::kI32, 0, double(*element_count(shape)))).reshaped(shape);
}
std::vector<std::byte> bytes_of(const Tensor& tensor) { return {tensor.bytes().begin(), tensor.bytes().end()}; }

// A view of random values, laid out at random: axes in any order, every second one backwards or with gaps.
TensorView scrambled(const Tensor& pool, const CounterRng& rng, uint64_t& draw) {
  const auto number = [&](int64_t n) { return int64_t(rng.bits(draw++) % uint64_t(n)); };
  const int64_t rank = number(4);
  Shape shape;
  for (int64_t i = 0; i < rank; ++i) shape.push_back(1 + number(9));
  const int64_t n = int64_t(*element_count(shape));
  TensorView view = *pool.view().slice(0, {number(pool.n_values() - n + 1), {}, 1})->slice(0, {0, n})->reshape(shape);
  for (int64_t i = 0; i < rank; ++i) {
    constexpr int64_t kSteps[] = {1, -1, 2, -3};
    view = *view.slice(i, {{}, {}, kSteps[number(4)]});
    view = *view.transpose(i, number(rank));
  }
  return view;
}

TEST(TensorView, MessagesNameShapes) {
  const Tensor x = counting({2, 3});
  EXPECT_EQ(broadcast_shapes({2, 3}, {4}).error().message, "cannot broadcast [2, 3] with [4]");
  EXPECT_EQ(add(x, counting({4})).error().message, "cannot broadcast [2, 3] with [4]");
  EXPECT_EQ(x.view().broadcast_to({3, 3}).error().message, "cannot broadcast [2, 3] to [3, 3]");
  EXPECT_EQ(x.view().reshape({4, 2}).error().message, "cannot reshape [2, 3] to [4, 2]: 6 values");
  EXPECT_EQ(x.view().reshape({-1, 4}).error().message, "cannot reshape [2, 3] to [-1, 4]: 6 values");
  EXPECT_EQ(x.view().transpose()->reshape({6}).error().message,
            "cannot see values of shape [3, 2] with strides [1, 3] as [6] without a copy");
  EXPECT_EQ(x.view().select(0, 2).error().message, "index 2 on axis 0 of a tensor of shape [2, 3]");
  EXPECT_EQ(x.view().slice(2, {}).error().message, "axis 2 of a tensor of shape [2, 3] with 2 axes");
  EXPECT_EQ(x.view().permute({0, 0}).error().message,
            "axes [0, 0] are not those of a tensor of shape [2, 3] in another order");
  EXPECT_EQ(x.view().squeeze(1).error().message,
            "cannot squeeze axis 1 of a tensor of shape [2, 3]: its length is not 1");
  EXPECT_EQ(x.values<float>().error().message, "a tensor [2, 3] of I32 read as F32");
  EXPECT_FALSE(x.view().transpose()->values<int32_t>());
  EXPECT_FALSE(x.view().slice(0, {{}, {}, 0}));
  EXPECT_FALSE(TensorView::of(std::span<const float>(), {1}));
  EXPECT_FALSE(item(x));
  EXPECT_FALSE(Tensor::zeros(DType::kF32, {int64_t{1} << 62, 8}));
  EXPECT_FALSE(Tensor::zeros(DType::kF32, {-1}));
  EXPECT_EQ(Tensor::zeros(DType::kF32, {int64_t{1} << 50}).error().code, ErrorCode::kResource);
  EXPECT_FALSE(Tensor::arange(DType::kF32, 0, 1, 0));
}

TEST(TensorView, WritesOnlyWhatItSees) {
  Tensor x = counting({4, 5});
  // Every second row from the last, its columns 3 and 1.
  const MutableTensorView seen = *x.mutable_view().slice(0, {{}, {}, -2})->slice(1, {3, 0, -2});
  ASSERT_TRUE(assign(seen, *Tensor::from<double>({-1, -2, -3, -4}, {2, 2})));
  EXPECT_EQ(*to_vector<int32_t>(x), (Ints{0, 1, 2, 3, 4, 5, -4, 7, -3, 9, 10, 11, 12, 13, 14, 15, -2, 17, -1, 19}));
  ASSERT_TRUE(assign(seen, *Tensor::full(DType::kI8, {}, 9)));  // one value everywhere
  EXPECT_EQ(*to_vector<int32_t>(seen), (Ints{9, 9, 9, 9}));
  EXPECT_FALSE(assign(seen, counting({3})));
}

TEST(Tensor, OperationsMayOverlap) {
  Tensor x = counting({10});
  ASSERT_TRUE(assign(*x.mutable_view().slice(0, {1, {}}), *x.view().slice(0, {{}, -1})));
  EXPECT_EQ(*to_vector<int32_t>(x), (Ints{0, 0, 1, 2, 3, 4, 5, 6, 7, 8}));
  ASSERT_TRUE(assign(x.mutable_view(), *x.view().slice(0, {{}, {}, -1})));
  EXPECT_EQ(*to_vector<int32_t>(x), (Ints{8, 7, 6, 5, 4, 3, 2, 1, 0, 0}));
  Tensor square = counting({3, 3});
  ASSERT_TRUE(apply(BinaryOp::kAdd, square, *square.view().transpose(), square.mutable_view()));
  EXPECT_EQ(*to_vector<int32_t>(square), (Ints{0, 4, 8, 4, 8, 12, 8, 12, 16}));
  Tensor large = *Tensor::normal(DType::kF32, {5000}, 1);
  const Tensor twice = *add(large, large);
  ASSERT_TRUE(apply(BinaryOp::kAdd, large, large, large.mutable_view()));
  EXPECT_EQ(bytes_of(large), bytes_of(twice));
  ASSERT_TRUE(apply(UnaryOp::kNegative, *large.view().slice(0, {{}, -1}), *large.mutable_view().slice(0, {1, {}})));
  EXPECT_EQ(bytes_of(*Tensor::copy_of(*large.view().slice(0, {1, {}}))),
            bytes_of(*negative(*twice.view().slice(0, {{}, -1}))));
}

TEST(Tensor, IsAlignedZeroedAndOfPackedTypesToo) {
  for (const int64_t n : {1, 100, 1 << 20}) {
    const Tensor x = *Tensor::zeros(DType::kF32, {n});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(x.bytes().data()) % 64, 0u);
    EXPECT_EQ(*item(*sum(x)), 0.0);
  }
  const Tensor packed = *Tensor::zeros(DType::kQ4_0, {3, 64});
  EXPECT_EQ(packed.bytes().size(), 3u * 2 * 18);
  EXPECT_EQ(packed.clone()->bytes().size(), packed.bytes().size());
  EXPECT_EQ(add(packed, packed).error().message,
            "Q4_0 values are packed: decode them to F32 before computing with them");
  EXPECT_FALSE(sum(packed));
  EXPECT_FALSE(softmax(packed));
  EXPECT_FALSE(cast(packed, DType::kF32));
  EXPECT_FALSE(Tensor::full(DType::kQ4_0, {32}, 1));
  EXPECT_EQ(Tensor().shape(), (Shape{0}));
}

TEST(Tensor, ConversionsRoundOnceAndStayInRange) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const Tensor x = *Tensor::from<double>({-kInf, -300, -1.9, 0.99, 127.9, 1e30, kInf, std::nan("")}, {8});
  EXPECT_EQ(*to_vector<int8_t>(x), (std::vector<int8_t>{-128, -128, -1, 0, 127, 127, 127, 0}));
  EXPECT_EQ(*to_vector<uint8_t>(x), (std::vector<uint8_t>{0, 0, 0, 0, 127, 255, 255, 0}));
  EXPECT_EQ((*to_vector<int64_t>(x))[5], INT64_MAX);
  EXPECT_EQ((*to_vector<uint64_t>(x))[5], UINT64_MAX);
  EXPECT_EQ((*to_vector<int64_t>(x))[0], INT64_MIN);
  EXPECT_EQ(*to_vector<uint8_t>(*cast(x, DType::kBool)), (std::vector<uint8_t>{1, 1, 1, 1, 1, 1, 1, 1}));
  // By way of a float this would be a tie, and go down.
  const double above_tie = 1 + 0x1p-11 + 0x1p-40, below_tie = 1 + 0x1p-10 + 0x1p-11 - 0x1p-40;
  EXPECT_EQ(*to_vector<double>(*cast(*Tensor::from<double>({above_tie, below_tie}, {2}), DType::kF16)),
            (std::vector<double>{1 + 0x1p-10, 1 + 0x1p-10}));
  const double above_bf16_tie = 1 + 0x1p-8 + 0x1p-45;
  EXPECT_EQ(*item(*cast(*Tensor::from<double>({above_bf16_tie}, {1}), DType::kBF16)), 1 + 0x1p-7);
  EXPECT_EQ(*item(*cast(*Tensor::from<int64_t>({INT64_MIN}, {}), DType::kI8)), 0);
}

// The values of a view decide, not how it lies in memory: every operation to the same bits as on a copy in order.
TEST(Tensor, LayoutChangesNothing) {
  const CounterRng rng(11);
  uint64_t draw = 0;
  for (const DType type : {DType::kF32, DType::kF16, DType::kF64, DType::kI32, DType::kU8}) {
    const Tensor pool = *cast(*multiply(*Tensor::normal(DType::kF64, {2000}, 3), 50.0), type);
    for (int round = 0; round < 60; ++round) {
      const TensorView view = scrambled(pool, rng, draw);
      const Tensor copy = *Tensor::copy_of(view);
      const auto expect_same = [&](auto&& operation) {
        const auto of_view = operation(view), of_copy = operation(copy.view());
        ASSERT_TRUE(of_view) << of_view.error().message;
        EXPECT_EQ(of_view->shape(), of_copy->shape());
        EXPECT_EQ(bytes_of(*of_view), bytes_of(*of_copy)) << shape_string(view.shape());
      };
      expect_same([](TensorView x) { return add(x, x); });
      expect_same([](TensorView x) { return multiply(x, 3.0); });
      expect_same([](TensorView x) { return less(x, 1.0); });
      expect_same([](TensorView x) { return exp(x); });
      expect_same([](TensorView x) { return activate(Activation::kSilu, x); });
      for (int64_t axis = 0; axis < std::max<int64_t>(view.rank(), 1); ++axis) {
        ReduceOptions options;
        if (view.rank() > 0) options.axes = {axis};
        for (const Reduction reduction :
             {Reduction::kSum, Reduction::kMaximum, Reduction::kVariance, Reduction::kAny}) {
          expect_same([&](TensorView x) { return reduce(reduction, x, options); });
        }
        expect_same([&](TensorView x) { return argmin(x, options); });
        expect_same([&](TensorView x) { return median(x, options); });
        if (view.rank() > 0) expect_same([&](TensorView x) { return softmax(x, axis); });
      }
    }
  }
}

// Across columns and along rows, over several blocks, in the order that reduce.h tells.
TEST(Reduce, SumsHaveOneOrder) {
  const Tensor x = *Tensor::normal(DType::kF64, {5003, 37}, 4);
  const Tensor turned = *Tensor::copy_of(*x.view().transpose());
  const Tensor across = *sum(x, {{0}}), along = *sum(turned, {{1}});
  EXPECT_EQ(bytes_of(across), bytes_of(along));
  EXPECT_EQ(bytes_of(*product(x, {{0}})), bytes_of(*product(turned, {{1}})));
  EXPECT_EQ(bytes_of(*variance(x, {{0}})), bytes_of(*variance(turned, {{1}})));
  const auto values = *x.values<double>();
  double total = 0;
  for (size_t begin = 0; begin < 5003; begin += 1024) {
    double lanes[8] = {};
    for (size_t i = begin; i < std::min<size_t>(begin + 1024, 5003); ++i) lanes[(i - begin) % 8] += values[i * 37 + 5];
    total += ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  }
  EXPECT_EQ((*across.values<double>())[5], total);
  // Far from zero, where the mean of squares less the square of the mean has no digit left.
  EXPECT_DOUBLE_EQ(*item(*variance(*Tensor::from<double>({1e9, 1e9 + 1, 1e9 + 2}, {3}))), 2.0 / 3);
  // A million tenths: each rounding error of a plain loop would be half a unit of the sum.
  const Tensor tenths = *Tensor::full(DType::kF32, {1000000}, 0.1);
  EXPECT_EQ(float(*item(*sum(tenths))), float(1000000 * double(0.1f)));
}

TEST(Reduce, RefusesWhatHasNoAnswer) {
  const Tensor empty = *Tensor::zeros(DType::kF32, {2, 0});
  EXPECT_EQ(min(empty, {{1}}).error().message,
            "a tensor of shape [2, 0] has no least or largest value along these axes");
  EXPECT_FALSE(argmax(empty, {{1}}));
  EXPECT_EQ(min(empty, {{0}})->shape(), (Shape{0}));
  EXPECT_EQ(*to_vector<float>(*sum(empty, {{1}})), (std::vector<float>{0, 0}));
  EXPECT_TRUE(std::isnan(*item(*median(empty))));
  const Tensor x = counting({2, 3});
  EXPECT_EQ(sum(x, {{0, -2}}).error().message, "axis 0 named twice");
  EXPECT_FALSE(sum(x, {{2}}));
  EXPECT_FALSE(argmin(x, {{0, 1}}));
  EXPECT_FALSE(quantile(x, 1.5));
  EXPECT_FALSE(softmax(x, 2));
  EXPECT_EQ(sum(x, {{1}, true})->shape(), (Shape{2, 1}));
}

TEST(Reduce, FindsWhatIsNotFinite) {
  Tensor x = *Tensor::zeros(DType::kF32, {40, 50});
  EXPECT_FALSE(*find_nonfinite(x));
  (*x.mutable_values<float>())[1777] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(*find_nonfinite(x), 1777);
  EXPECT_EQ(*find_nonfinite(*x.view().transpose()), 1777 % 50 * 40 + 1777 / 50);
  const Tensor a = *Tensor::from<float>({3, 4}, {2}), b = *Tensor::from<double>({3, 3.5}, {2});
  EXPECT_DOUBLE_EQ(*relative_error(a, b), 0.1);
  EXPECT_EQ(*relative_error(*Tensor::zeros(DType::kF32, {2}), a), 1.0);
  EXPECT_EQ(*relative_error(a, a), 0.0);
}

TEST(Elementwise, RefusesWhatHasNoMeaning) {
  const Tensor yes = *Tensor::full(DType::kBool, {3}, 1), x = *Tensor::from<int32_t>({2, -3, 4}, {3});
  EXPECT_FALSE(subtract(yes, yes));
  EXPECT_FALSE(negative(yes));
  EXPECT_EQ(power(x, x).error().message, "an integer to the power -3: cast it to a float type");
  EXPECT_EQ(divide(x, 0.0)->dtype(), DType::kF64);
  EXPECT_EQ(*to_vector<int32_t>(*apply(BinaryOp::kFloorDivide, x, 0.0)), (Ints{0, 0, 0}));
  Tensor out = *Tensor::zeros(DType::kF32, {2});
  EXPECT_FALSE(apply(BinaryOp::kAdd, x, x, out.mutable_view()));
  EXPECT_FALSE(concatenate(std::vector<TensorView>{x.view(), yes.view()}, 1));
  EXPECT_FALSE(concatenate({}, 0));
  EXPECT_FALSE(activate_gradient(Activation::kRelu, x, out));
  // The least integer has no opposite.
  const Tensor least = *Tensor::from<int64_t>({INT64_MIN}, {1}), minus = *Tensor::from<int64_t>({-1}, {1});
  EXPECT_EQ((*negative(least)->values<int64_t>())[0], INT64_MIN);
  EXPECT_EQ((*apply(BinaryOp::kFloorDivide, least, minus)->values<int64_t>())[0], INT64_MIN);
  EXPECT_EQ((*apply(BinaryOp::kRemainder, least, minus)->values<int64_t>())[0], 0);
}

TEST(Tensor, IsReadable) {
  EXPECT_EQ(to_text(counting({2, 3})), "[[0, 1, 2], [3, 4, 5]]");
  EXPECT_EQ(to_text(counting({100})), "[0, 1, 2, ..., 97, 98, 99]");
  EXPECT_EQ(to_text(*Tensor::full(DType::kF32, {}, 0.5)), "0.5");
  EXPECT_EQ(to_text(*Tensor::identity(DType::kBool, 2)), "[[true, false], [false, true]]");
}

}  // namespace
}  // namespace bitnet
