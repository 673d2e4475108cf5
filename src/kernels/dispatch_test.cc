#include "kernels/cpu/dispatch.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_features.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace bitnet {
namespace {

// Sets BITNET_CPU_ISA for a test and puts the caller's value back.
class ForcedIsa {
 public:
  explicit ForcedIsa(const char* name) {
    const char* const old = std::getenv("BITNET_CPU_ISA");
    had_value_ = old != nullptr;
    if (had_value_) old_ = old;
    ::setenv("BITNET_CPU_ISA", name, 1);
  }
  ~ForcedIsa() {
    if (had_value_) {
      ::setenv("BITNET_CPU_ISA", old_.c_str(), 1);
    } else {
      ::unsetenv("BITNET_CPU_ISA");
    }
  }

 private:
  bool had_value_ = false;
  std::string old_;
};

TEST(Dispatch, GenericIsAlwaysUsableAndLast) {
  const auto usable = usable_cpu_kernels();
  ASSERT_FALSE(usable.empty());
  EXPECT_STREQ(usable.back()->name, "generic");
}

TEST(Dispatch, EachUsableInstructionSetCanBeForced) {
  for (const CpuKernels* kernels : usable_cpu_kernels()) {
    const ForcedIsa forced(kernels->name);
    const auto backend = make_backend("cpu");
    ASSERT_TRUE(backend.has_value());
    EXPECT_EQ((*backend)->kernels(), kernels->name);
    const auto devices = list_devices();
    ASSERT_TRUE(devices.has_value());
    EXPECT_EQ(devices->front().chosen, kernels->name);
  }
}

TEST(Dispatch, AnInstructionSetThatCannotRunHereIsAnError) {
  for (const char* name : {
         "avx1024", "Generic",
#if defined(__x86_64__)
             "neon_i8mm"
#else
                           "avx2"
#endif
       }) {
    const ForcedIsa forced(name);
    const auto backend = make_backend("cpu");
    ASSERT_FALSE(backend.has_value());
    EXPECT_EQ(backend.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(backend.error().message.find(name), std::string::npos);
    EXPECT_NE(backend.error().message.find("generic"), std::string::npos);
    EXPECT_FALSE(list_devices().has_value());
  }
}

TEST(Dispatch, WithoutARequestTheBestIsTaken) {
  const ForcedIsa unforced("");
  const auto chosen = choose_cpu_kernels();
  ASSERT_TRUE(chosen.has_value());
  EXPECT_EQ(*chosen, usable_cpu_kernels().front());
}

TEST(Dispatch, FeaturesFollowTheKernelsFlags) {
  const CpuFeatures features = detect_cpu_features();
  EXPECT_TRUE(!features.avx512_vnni || features.avx2);
  EXPECT_TRUE(!features.neon_i8mm || features.neon_dotprod);
#if defined(__x86_64__) && (defined(__GNUC__) && !defined(__clang__))
  EXPECT_EQ(features.avx2, __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("f16c") != 0);
  EXPECT_EQ(features.avx512_vnni, features.avx2 && __builtin_cpu_supports("avx512vnni") != 0);
  EXPECT_EQ(features.avx512_vbmi, features.avx512_vnni && __builtin_cpu_supports("avx512vbmi") != 0);
  EXPECT_TRUE(!features.amx_int8 || (features.avx512_vbmi && __builtin_cpu_supports("amx-int8") != 0));
#endif
}

TEST(Backends, UnknownDevicesAreRefusedByName) {
  const auto backend = make_backend("tpu");
  ASSERT_FALSE(backend.has_value());
  EXPECT_NE(backend.error().message.find("\"tpu\""), std::string::npos);
  EXPECT_NE(backend.error().message.find("cpu, reference"), std::string::npos);
}

TEST(Backends, DevicesAreDescribed) {
  const auto devices = list_devices();
  ASSERT_TRUE(devices.has_value());
  ASSERT_GE(devices->size(), 2u);  // and the GPUs
  EXPECT_EQ((*devices)[0].device, "cpu");
  EXPECT_NE((*devices)[0].description.find("thread"), std::string::npos);
  EXPECT_EQ((*devices)[1].device, "reference");
  EXPECT_EQ((*make_backend("reference"))->name(), "reference");
}

TEST(Backends, StreamsRefuseSenselessOptions) {
  const auto backend = make_backend("cpu");
  ASSERT_TRUE(backend.has_value());
  StreamOptions options;
  options.n_threads = 0;
  EXPECT_FALSE((*backend)->new_stream(options).has_value());
  options.n_threads = 1;
  options.max_tokens = int64_t{1} << 60;
  EXPECT_FALSE((*backend)->new_stream(options).has_value());
}

}  // namespace
}  // namespace bitnet
