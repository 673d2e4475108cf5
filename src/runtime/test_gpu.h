#pragma once

#include "runtime/test_models.h"

#include <gtest/gtest.h>

#include <string>

// For this room's tests on a GPU.
namespace bitnet {

inline Result<Model> load_on(const std::string& path, const std::string& device, HeadMode head = HeadMode::kAuto) {
  LoadOptions options;
  options.device = device;
  options.head = head;
  return Model::load(path, options);
}

// Skips where there is none and says what is missing.
class OnGpu : public testing::Test {
 protected:
  void SetUp() override {
    const auto probe = load_on(tiny_path("bitnet-packed"), "cuda");
    if (!probe) GTEST_SKIP() << probe.error().message;
  }
};

}  // namespace bitnet
