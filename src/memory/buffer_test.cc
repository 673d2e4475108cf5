#include "memory/buffer.h"

#include "memory/testing.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <utility>

namespace bitnet {
namespace {

TEST(Buffer, IsZeroedAndAligned) {
  for (const bool huge_pages : {true, false}) {
    for (const size_t size : {size_t{1}, size_t{100}, size_t{5000}, size_t{9} << 20}) {
      auto buffer = Buffer::allocate(size, huge_pages);
      ASSERT_TRUE(buffer);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
      EXPECT_EQ(std::accumulate(buffer->as<uint8_t>(), buffer->as<uint8_t>() + size, 0), 0);
      std::memset(buffer->data(), 1, size);
    }
  }
}

TEST(Buffer, SaysWhatItCannotGiveAndWhatThereIs) {
  for (const size_t size : {size_t{1} << 62, size_t{1} << 50, SIZE_MAX}) {
    const auto buffer = Buffer::allocate(size);
    ASSERT_FALSE(buffer);
    EXPECT_EQ(buffer.error().code, ErrorCode::kResource);
    EXPECT_NE(buffer.error().message.find(std::to_string(size)), std::string::npos);
    EXPECT_NE(buffer.error().message.find("are available of the limit of"), std::string::npos);
  }
}

TEST(Buffer, MovesWithItsOwner) {
  TestSource source;
  {
    Buffer a = *Buffer::allocate_from(source, 1000);
    Buffer b = std::move(a);
    EXPECT_EQ(a.data(), nullptr);
    b.as<int>()[0] = 5;
    a = std::move(b);
    EXPECT_EQ(a.as<int>()[0], 5);
    Buffer part = Buffer::borrow(a.data() + 100, 200);
    EXPECT_EQ(part.size_bytes(), 200u);
    EXPECT_EQ(source.live_bytes(), 1000u);
  }
  EXPECT_EQ(source.live_bytes(), 0u);
  EXPECT_EQ(Buffer::allocate_from(source, 0)->data(), nullptr);
  source.fails_at = source.n_takes.load();
  EXPECT_NE(Buffer::allocate_from(source, 10).error().message.find("is refused"), std::string::npos);
}

}  // namespace
}  // namespace bitnet
