#include "format/gguf.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace bitnet {
namespace {

struct GgmlType {
  uint32_t id;
  std::string_view name;
  std::optional<DType> dtype = std::nullopt;
};

// Every number that ggml (ggml/include/ggml.h), bitnet.cpp, ik_llama.cpp and PrismML's fork ever gave to a type.
// Numbers with two meanings name both; where we read one of them, it is the one of bitnet.cpp.
constexpr GgmlType kGgmlTypes[] = {
    {0, "F32", DType::kF32},
    {1, "F16", DType::kF16},
    {2, "Q4_0", DType::kQ4_0},
    {3, "Q4_1", DType::kQ4_1},
    {4, "Q4_2 (removed from ggml)"},
    {5, "Q4_3 (removed from ggml)"},
    {6, "Q5_0", DType::kQ5_0},
    {7, "Q5_1", DType::kQ5_1},
    {8, "Q8_0", DType::kQ8_0},
    {9, "Q8_1"},
    {10, "Q2_K", DType::kQ2_K},
    {11, "Q3_K", DType::kQ3_K},
    {12, "Q4_K", DType::kQ4_K},
    {13, "Q5_K", DType::kQ5_K},
    {14, "Q6_K", DType::kQ6_K},
    {15, "Q8_K"},
    {16, "IQ2_XXS"},
    {17, "IQ2_XS"},
    {18, "IQ3_XXS"},
    {19, "IQ1_S"},
    {20, "IQ4_NL"},
    {21, "IQ3_S"},
    {22, "IQ2_S"},
    {23, "IQ4_XS"},
    {24, "I8", DType::kI8},
    {25, "I16", DType::kI16},
    {26, "I32", DType::kI32},
    {27, "I64", DType::kI64},
    {28, "F64", DType::kF64},
    {29, "IQ1_M"},
    {30, "BF16", DType::kBF16},
    {31, "Q4_0_4_4 (removed from ggml)"},
    {32, "Q4_0_4_8 (removed from ggml)"},
    {33, "Q4_0_8_8 (removed from ggml)"},
    {34, "TQ1_0", DType::kTQ1_0},
    {35, "TQ2_0", DType::kTQ2_0},
    {36, "I2_S", DType::kI2_S},
    {37, "I8_S (bitnet.cpp)"},
    {38, "TL1 (bitnet.cpp)"},
    {39, "TL2 (bitnet.cpp) or MXFP4 (ggml)"},
    {40, "NVFP4"},
    {41, "Q1_0", DType::kQ1_0},
    {42, "Q2_0", DType::kQ2_0},
    {97, "Q8_0_X4 (ik_llama.cpp)"},
    {98, "Q8_1_X4 (ik_llama.cpp)"},
    {99, "Q8_2_X4 (ik_llama.cpp)"},
    {133, "Q6_0 (ik_llama.cpp)"},
    {134, "IQ1_BN", DType::kIQ1_BN},
    {135, "IQ2_BN", DType::kIQ2_BN},
    {136, "Q8_K64 (ik_llama.cpp)"},
    {137, "IQ2_K (ik_llama.cpp)"},
    {138, "IQ3_K (ik_llama.cpp)"},
    {139, "IQ4_K (ik_llama.cpp)"},
    {140, "IQ5_K (ik_llama.cpp)"},
    {141, "IQ6_K (ik_llama.cpp)"},
    {142, "PQ2_0 (PrismML) or IQ2_TN (ik_llama.cpp)"},
    {143, "PTQ1_0 (PrismML) or IQ1_TN (ik_llama.cpp)"},
    {144, "IQ4_KS (ik_llama.cpp)"},
    {145, "IQ2_KS (ik_llama.cpp)"},
    {146, "IQ4_KSS (ik_llama.cpp)"},
    {147, "Q8_K16 (ik_llama.cpp)"},
    {148, "Q8_K32 (ik_llama.cpp)"},
    {149, "Q8_KR8 (ik_llama.cpp)"},
    {150, "Q8_K128 (ik_llama.cpp)"},
    {151, "Q8_KV (ik_llama.cpp)"},
    {152, "IQ5_KS (ik_llama.cpp)"},
    {153, "IQ2_KT (ik_llama.cpp)"},
    {154, "IQ3_KT (ik_llama.cpp)"},
    {155, "IQ4_KT (ik_llama.cpp)"},
    {156, "IQ3_KS (ik_llama.cpp)"},
    {157, "IQ2_KL (ik_llama.cpp)"},
    {158, "IQ1_KT (ik_llama.cpp)"},
    {202, "Q4_0_R8 (ik_llama.cpp)"},
    {206, "Q5_0_R4 (ik_llama.cpp)"},
    {208, "Q8_0_R8 (ik_llama.cpp)"},
    {210, "Q2_K_R4 (ik_llama.cpp)"},
    {211, "Q3_K_R4 (ik_llama.cpp)"},
    {212, "Q4_K_R4 (ik_llama.cpp)"},
    {213, "Q5_K_R4 (ik_llama.cpp)"},
    {214, "Q6_K_R4 (ik_llama.cpp)"},
    {216, "IQ2_XXS_R4 (ik_llama.cpp)"},
    {217, "IQ2_XS_R4 (ik_llama.cpp)"},
    {218, "IQ3_XXS_R4 (ik_llama.cpp)"},
    {219, "IQ1_S_R4 (ik_llama.cpp)"},
    {220, "IQ4_NL_R4 (ik_llama.cpp)"},
    {221, "IQ3_S_R4 (ik_llama.cpp)"},
    {222, "IQ2_S_R4 (ik_llama.cpp)"},
    {223, "IQ4_XS_R8 (ik_llama.cpp)"},
    {229, "IQ1_M_R4 (ik_llama.cpp)"},
    {230, "BF16_R16 (ik_llama.cpp)"},
    {233, "Q6_0_R4 (ik_llama.cpp)"},
    {335, "IQ2_BN_R4 (ik_llama.cpp)"},
    {337, "IQ2_K_R4 (ik_llama.cpp)"},
    {338, "IQ3_K_R4 (ik_llama.cpp)"},
    {339, "IQ4_K_R4 (ik_llama.cpp)"},
    {340, "IQ5_K_R4 (ik_llama.cpp)"},
    {344, "IQ4_KS_R4 (ik_llama.cpp)"},
    {352, "IQ5_KS_R4 (ik_llama.cpp)"},
    {353, "MXFP4_R8 (ik_llama.cpp)"},
    {397, "Q8_K_R16 (ik_llama.cpp)"},
    {398, "Q8_KV_R8 (ik_llama.cpp)"},
    {399, "Q8_K_R8 (ik_llama.cpp)"},
};

const GgmlType* find_type(uint32_t id) {
  const auto* place =
      std::find_if(std::begin(kGgmlTypes), std::end(kGgmlTypes), [&](const GgmlType& type) { return type.id == id; });
  return place == std::end(kGgmlTypes) ? nullptr : place;
}

// By index of GgufValue and of GgufArray, which follow the numbers of the format but for the array in the middle.
constexpr std::array<const char*, 13> kValueTypeNames = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                         "bool", "string", "array", "u64", "i64", "f64"};

}  // namespace

std::optional<DType> dtype_from_ggml(uint32_t id) {
  const GgmlType* type = find_type(id);
  return type == nullptr ? std::nullopt : type->dtype;
}

std::optional<uint32_t> ggml_from_dtype(DType type) {
  for (const GgmlType& known : kGgmlTypes) {
    if (known.dtype == type) return known.id;
  }
  return std::nullopt;
}

std::string ggml_type_name(uint32_t id) {
  const GgmlType* type = find_type(id);
  return type == nullptr ? "unknown" : std::string(type->name);
}

std::string gguf_type_name(const GgufValue& value) {
  const auto* array = std::get_if<GgufArray>(&value);
  if (array == nullptr) return kValueTypeNames[value.index()];
  const size_t element = array->index() < 9 ? array->index() : array->index() + 1;
  return fmt::format("array of {}", kValueTypeNames[element]);
}

}  // namespace bitnet
