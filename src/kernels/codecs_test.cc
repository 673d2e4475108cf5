#include "kernels/test_support.h"
#include "quant/ternary.h"
#include "quant/ternary_blocks.h"

#include <bit>
#include <cmath>

// Each instruction set's loops of the packed layouts against the plain ones, byte for byte.
namespace bitnet {
namespace {

using namespace ternary;
using Bytes = std::vector<uint8_t>;
BN_EVERY_ISA(Codecs);

struct Case {
  const char* name;
  BlockCodec TernaryCodecs::*codec;
  int64_t n_values, n_bytes;
};
template <class Block>
constexpr Case make_case(const char* name, BlockCodec TernaryCodecs::*codec) {
  return {name, codec, Block::kValues, Block::kBytes};
}
const Case kCases[] = {
    make_case<I2SBlock>("i2_s", &TernaryCodecs::i2_s),
    make_case<I2SArm64Block>("i2_s_arm64", &TernaryCodecs::i2_s_arm64),
    make_case<TQ1Block>("tq1_0", &TernaryCodecs::tq1_0),
    make_case<TQ2Block>("tq2_0", &TernaryCodecs::tq2_0),
    make_case<Iq2BnBlock>("iq2_bn", &TernaryCodecs::iq2_bn),
    make_case<Iq1BnBlock>("iq1_bn", &TernaryCodecs::iq1_bn),
    make_case<Q1Block>("q1_0", &TernaryCodecs::q1_0),
    make_case<Q2Block<64>>("q2_0", &TernaryCodecs::q2_0),
    make_case<Q2Block<128>>("q2_0_g128", &TernaryCodecs::q2_0_g128),
    make_case<CodeByte>("bytes", &TernaryCodecs::bytes),
    make_case<TwoBitByte>("two_bit", &TernaryCodecs::two_bit),
    make_case<Base3Byte>("base3", &TernaryCodecs::base3),
};

// Exactly as long as the loops may use it and at an odd address, so that a sanitizer sees every byte beyond; filled
// with a pattern that shows bytes which should have been left alone.
struct Room {
  explicit Room(int64_t n) : memory(size_t(n + 1), 0xa5) {}
  uint8_t* data() { return memory.data() + 1; }
  Bytes memory;
};
Room room_of(const Bytes& bytes) {
  Room room(int64_t(bytes.size()));
  std::copy(bytes.begin(), bytes.end(), room.data());
  return room;
}

// The same on a cache line or so many bytes behind one, with 64 bytes around that nobody may write.
struct LineRoom {
  explicit LineRoom(int64_t n, int64_t offset = 0) : memory(size_t(n + 256), 0xa5), n_bytes(n) {
    const auto at = reinterpret_cast<uintptr_t>(memory.data()) + 64;
    first = 64 + int64_t(64 - at % 64) % 64 + offset;
  }
  uint8_t* data() { return memory.data() + first; }
  Bytes contents() const { return Bytes(memory.begin() + first, memory.begin() + first + n_bytes); }
  bool is_clean_around() const {
    const auto untouched = [](uint8_t byte) { return byte == 0xa5; };
    return std::all_of(memory.begin(), memory.begin() + first, untouched) &&
           std::all_of(memory.begin() + first + n_bytes, memory.end(), untouched);
  }
  Bytes memory;
  int64_t n_bytes, first;
};

Bytes random_codes(int64_t n, uint64_t seed, bool zeros = true) {
  const CounterRng rng(seed);
  Bytes codes(static_cast<size_t>(n));
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = seed % 7 == 0 ? uint8_t(seed / 7 % 3) : uint8_t(rng.bits(i) % 3);
    if (!zeros && codes[i] == 1) codes[i] = 2;
  }
  return codes;
}

TEST_P(Codecs, BlocksOfEveryNumberHaveThePlainBytes) {
  const TernaryCodecs& codecs = *GetParam()->codecs;
  for (const Case& c : kCases) {
    const int64_t most = std::max<int64_t>(9, 400 / c.n_bytes);
    for (int64_t n = 0; n <= most; ++n) {
      SCOPED_TRACE(fmt::format("{}, {} blocks", c.name, n));
      Room codes = room_of(random_codes(n * c.n_values, uint64_t(n + 1)));
      Room want(n * c.n_bytes), got(n * c.n_bytes);
      ASSERT_TRUE((kPlainTernaryCodecs.*c.codec).encode(codes.data(), n, want.data()));
      ASSERT_TRUE((codecs.*c.codec).encode(codes.data(), n, got.data()));
      ASSERT_EQ(got.memory, want.memory);
      Room plain(n * c.n_values), decoded(n * c.n_values);
      ASSERT_TRUE((kPlainTernaryCodecs.*c.codec).decode(want.data(), n, plain.data()));
      ASSERT_TRUE((codecs.*c.codec).decode(want.data(), n, decoded.data()));
      ASSERT_EQ(decoded.memory, plain.memory);
      if ((codecs.*c.codec).decode_past == nullptr) continue;
      LineRoom past(n * c.n_values);
      ASSERT_TRUE((codecs.*c.codec).decode_past(want.data(), n, past.data()));
      codecs.fence();
      ASSERT_EQ(past.contents(), Bytes(plain.memory.begin() + 1, plain.memory.end()));
      ASSERT_TRUE(past.is_clean_around());
    }
  }
}

// Every value of every byte, alone among good ones: what is refused and what is read agree.
TEST_P(Codecs, EachByteMeansWhatThePlainLoopsSay) {
  const TernaryCodecs& codecs = *GetParam()->codecs;
  for (const Case& c : kCases) {
    const int64_t n = std::max<int64_t>(3, 101 / c.n_bytes);
    Room codes = room_of(random_codes(n * c.n_values, 5));
    Room packed(n * c.n_bytes), plain(n * c.n_values), decoded(n * c.n_values);
    ASSERT_TRUE((kPlainTernaryCodecs.*c.codec).encode(codes.data(), n, packed.data()));
    int refused = 0;
    for (int64_t at = 0; at < n * c.n_bytes; ++at) {
      const uint8_t good = packed.data()[at];
      for (int value = 0; value < 256; ++value) {
        packed.data()[at] = uint8_t(value);
        const bool fine = (kPlainTernaryCodecs.*c.codec).decode(packed.data(), n, plain.data());
        ASSERT_EQ((codecs.*c.codec).decode(packed.data(), n, decoded.data()), fine)
            << c.name << ", byte " << at << " is " << value;
        if ((codecs.*c.codec).decode_past != nullptr) {
          LineRoom past(n * c.n_values);
          ASSERT_EQ((codecs.*c.codec).decode_past(packed.data(), n, past.data()), fine)
              << c.name << ", byte " << at << " is " << value;
        }
        if (fine) {
          ASSERT_EQ(decoded.memory, plain.memory) << c.name << ", byte " << at << " is " << value;
        }
        refused += fine ? 0 : 1;
      }
      packed.data()[at] = good;
    }
    EXPECT_EQ(refused > 0, std::string_view(c.name) != "q1_0") << c.name;
  }
}

TEST_P(Codecs, WhatIsNoCodeIsRefusedWhereverItStands) {
  const TernaryCodecs& codecs = *GetParam()->codecs;
  for (const Case& c : kCases) {
    const int64_t n = std::max<int64_t>(3, 101 / c.n_bytes);
    Room codes = room_of(random_codes(n * c.n_values, 6)), packed(n * c.n_bytes);
    for (int64_t at = 0; at < n * c.n_values; ++at) {
      const uint8_t good = codes.data()[at];
      for (const uint8_t bad : {uint8_t{3}, uint8_t{4}, uint8_t{128}, uint8_t{255}}) {
        codes.data()[at] = bad;
        ASSERT_FALSE((codecs.*c.codec).encode(codes.data(), n, packed.data())) << c.name << ", value " << at;
      }
      codes.data()[at] = good;
    }
  }
}

TEST_P(Codecs, QuartersOfEveryLengthAndChoice) {
  const TernaryCodecs& codecs = *GetParam()->codecs;
  for (int64_t n = 0; n < 150; n = n < 40 ? n + 1 : n + 13) {
    for (int wanted = 0; wanted < 16; ++wanted) {
      SCOPED_TRACE(fmt::format("{} bytes, quarters {}", n, wanted));
      std::vector<Room> codes, plain, decoded;
      for (uint64_t k = 0; k < 4; ++k) {
        codes.push_back(room_of(random_codes(n, 11 + k)));
        plain.emplace_back(n);
        decoded.emplace_back(n);
      }
      const uint8_t* from[4];
      uint8_t *to_plain[4], *to_decoded[4];
      for (size_t k = 0; k < 4; ++k) {
        const bool is_wanted = (wanted >> k & 1) != 0;
        from[k] = is_wanted ? codes[k].data() : nullptr;
        to_plain[k] = is_wanted ? plain[k].data() : nullptr;
        to_decoded[k] = is_wanted ? decoded[k].data() : nullptr;
      }
      Room want(n), got(n);
      ASSERT_TRUE(kPlainTernaryCodecs.encode_quarters(from, n, want.data()));
      ASSERT_TRUE(codecs.encode_quarters(from, n, got.data()));
      ASSERT_EQ(got.memory, want.memory);
      // Threes in the quarters that nobody wants are nobody's business.
      for (int64_t i = 0; i < n; ++i) {
        for (int k = 0; k < 4; ++k) want.data()[i] |= uint8_t(((wanted >> k & 1) != 0 ? 0 : 3) << 2 * k);
      }
      ASSERT_TRUE(kPlainTernaryCodecs.decode_quarters(want.data(), n, to_plain));
      ASSERT_TRUE(codecs.decode_quarters(want.data(), n, to_decoded));
      for (size_t k = 0; k < 4; ++k) ASSERT_EQ(decoded[k].memory, plain[k].memory);
      if (codecs.decode_quarters_past != nullptr) {
        std::vector<LineRoom> past;
        uint8_t* to_past[4];
        for (size_t k = 0; k < 4; ++k) past.emplace_back(n);
        for (size_t k = 0; k < 4; ++k) to_past[k] = (wanted >> k & 1) != 0 ? past[k].data() : nullptr;
        ASSERT_TRUE(codecs.decode_quarters_past(want.data(), n, to_past));
        codecs.fence();
        for (size_t k = 0; k < 4; ++k) {
          ASSERT_EQ(past[k].contents(), Bytes(plain[k].memory.begin() + 1, plain[k].memory.end()));
          ASSERT_TRUE(past[k].is_clean_around());
        }
        for (int64_t i = 0; i < n && wanted != 0; ++i) {
          const uint8_t three = uint8_t(3 << 2 * std::countr_zero(unsigned(wanted))), good = want.data()[i];
          want.data()[i] |= three;
          ASSERT_FALSE(codecs.decode_quarters_past(want.data(), n, to_past)) << i;
          want.data()[i] = good;
        }
      }
      for (int64_t i = 0; i < n && wanted != 0; ++i) {
        const int k = wanted & -wanted;  // 1, 2, 4 or 8: the first quarter that is wanted
        const uint8_t three = uint8_t(3 << 2 * (k == 1 ? 0 : k == 2 ? 1 : k == 4 ? 2 : 3));
        const uint8_t good = want.data()[i];
        want.data()[i] |= three;
        ASSERT_FALSE(codecs.decode_quarters(want.data(), n, to_decoded)) << i;
        want.data()[i] = good;
      }
    }
  }
}

// Through the whole of quant/ternary.h: rows that end anywhere, and results so large that they go around the caches.
TEST_P(Codecs, MatricesHaveThePlainBytes) {
  const TernaryCodecs& codecs = *GetParam()->codecs;
  struct Shape {
    int64_t n_rows, n_cols;
  };
  for (const TernaryLayoutInfo& info : ternary_layouts()) {
    if (!has_fixed_size(info.layout)) continue;
    for (const Shape shape : {Shape{7, 13}, Shape{96, 768}, Shape{130, 256}, Shape{32, 640}, Shape{2050, 4352},
                              Shape{3000, 2848}, Shape{2051, 4353}}) {
      if (!ternary_bytes(info.layout, shape.n_rows, shape.n_cols)) continue;
      SCOPED_TRACE(fmt::format("{} [{}, {}]", info.name, shape.n_rows, shape.n_cols));
      const int64_t n = shape.n_rows * shape.n_cols;
      const Bytes codes = random_codes(n, 21, info.layout != TernaryLayout::kQ1_0);
      TernaryScales scales;
      scales.tensor = 0.03f;
      const auto want = encode_ternary(info.layout, shape.n_rows, shape.n_cols, codes, scales);
      const auto got = encode_ternary(info.layout, shape.n_rows, shape.n_cols, codes, scales, {}, codecs);
      ASSERT_TRUE(want.has_value() && got.has_value());
      ASSERT_TRUE(*got == *want);
      const TernaryView view = {info.layout, shape.n_rows, shape.n_cols, *want, {}};
      Room all(n);
      ASSERT_TRUE(decode_ternary(view, 0, shape.n_rows, all.data(), codecs));
      ASSERT_TRUE(std::equal(codes.begin(), codes.end(), all.data()));
      // Wherever the result begins in a line and in a block.
      for (const int64_t offset : {0, 16, 63}) {
        for (const int64_t row : {int64_t{0}, int64_t{1}}) {
          LineRoom lines((shape.n_rows - row) * shape.n_cols, offset);
          ASSERT_TRUE(decode_ternary(view, row, shape.n_rows - row, lines.data(), codecs));
          ASSERT_TRUE(std::equal(codes.begin() + row * shape.n_cols, codes.end(), lines.data()));
          ASSERT_TRUE(lines.is_clean_around());
        }
      }
      for (int64_t row = 0; row < shape.n_rows; row += 1 + shape.n_rows / 5) {
        const int64_t n_rows = std::min<int64_t>(shape.n_rows - row, 1 + row % 4);
        Room some(n_rows * shape.n_cols);
        ASSERT_TRUE(decode_ternary(view, row, n_rows, some.data(), codecs));
        ASSERT_TRUE(std::equal(some.data(), some.data() + n_rows * shape.n_cols, codes.begin() + row * shape.n_cols));
      }
    }
  }
}

TEST_P(Codecs, ErrorsNameThePlainPlace) {
  const TernaryCodecs& codecs = *GetParam()->codecs;
  for (const TernaryLayoutInfo& info : ternary_layouts()) {
    if (!has_fixed_size(info.layout) || info.layout == TernaryLayout::kQ1_0) continue;
    const int64_t n_rows = 96, n_cols = 768;
    Bytes codes = random_codes(n_rows * n_cols, 31);
    auto packed = *encode_ternary(info.layout, n_rows, n_cols, codes, {});
    const CounterRng rng(32);
    for (uint64_t i = 0; i < 40; ++i) {
      const size_t at = rng.bits(2 * i) % packed.size();
      const std::byte good = packed[at];
      packed[at] = std::byte{0xff};
      const TernaryView view = {info.layout, n_rows, n_cols, packed, {}};
      Bytes out(codes.size());
      const Status want = decode_ternary(view, 0, n_rows, out.data());
      const Status got = decode_ternary(view, 0, n_rows, out.data(), codecs);
      ASSERT_EQ(got.has_value(), want.has_value()) << info.name << ", byte " << at;
      if (!want) {
        EXPECT_EQ(got.error().message, want.error().message);
      }
      packed[at] = good;
      const size_t value = rng.bits(2 * i + 1) % codes.size();
      codes[value] += 3;
      const auto refused = encode_ternary(info.layout, n_rows, n_cols, codes, {}, {}, codecs);
      ASSERT_FALSE(refused.has_value());
      EXPECT_EQ(refused.error().message,
                fmt::format("row {}, column {}: {} is no ternary code", value / 768, value % 768, codes[value]));
      codes[value] -= 3;
    }
  }
}

TEST_P(Codecs, AbsmeanHasThePlainBits) {
  const TernaryCodecs& codecs = *GetParam()->codecs;
  std::vector<std::vector<float>> cases;
  for (int64_t n = 0; n < 200; n = n < 70 ? n + 1 : n + 17) cases.push_back(random_floats(n, uint64_t(n + 1), 0.02));
  cases.push_back(random_floats(100001, 7, 3.0));
  // Around the caches, below the floor of 1e-5.
  std::vector<float> many = random_floats(100001, 8, 1e-6);
  for (size_t i = many.size(); i < 9000000; ++i) many.push_back(many[i - 100001]);
  cases.push_back(std::move(many));
  Floats difficult = difficult_rows(1031);
  for (int64_t row = 0; row < 7; ++row) {
    const float* const x = difficult.view().row(row);
    cases.emplace_back(x, x + 1031);
  }
  // Halves of the scale: a tie goes to 0.
  std::vector<float> ties(4096);
  for (size_t i = 0; i < ties.size(); ++i) ties[i] = float(int(i % 5) - 2);
  cases.push_back(ties);
  for (const std::vector<float>& x : cases) {
    Room want(int64_t(x.size())), got(int64_t(x.size()));
    const float plain = absmean_ternarize(x, want.data());
    const float alpha = absmean_ternarize(x, got.data(), codecs);
    ASSERT_EQ(std::bit_cast<uint32_t>(alpha), std::bit_cast<uint32_t>(plain)) << x.size() << " values";
    ASSERT_TRUE(got.memory == want.memory) << x.size() << " values";
  }
}

TEST(ChosenCodecs, AreThoseOfTheChosenKernels) {
  const auto kernels = choose_cpu_kernels();
  ASSERT_TRUE(kernels.has_value());
  EXPECT_EQ(&cpu_ternary_codecs(), (*kernels)->codecs);
}

}  // namespace
}  // namespace bitnet
