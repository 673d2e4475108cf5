#include "format/sniff.h"

#include <string_view>

namespace bitnet {
namespace {

using namespace std::string_view_literals;

struct Signature {
  std::string_view prefix;
  const char* description;
};
constexpr Signature kSignatures[] = {
    {"GGUF"sv, "a GGUF file"},
    {"FUGG"sv, "a GGUF magic with its bytes reversed"},
    {"version https://git-lfs"sv, "a git-LFS pointer and not the file itself; fetch it with git lfs pull"},
    {"<"sv, "an HTML or XML page; the download probably went wrong"},
    {"\x1f\x8b"sv, "gzip data; unpack it first"},
    {"PK\x03\x04"sv, "a zip archive, perhaps a PyTorch checkpoint"},
    {"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46"sv, "a PyTorch file in the form of before 1.6; save it again with torch.save"},
    {"\x28\xb5\x2f\xfd"sv, "zstd data; unpack it first"},
    {"\xfd"
     "7zXZ"sv,
     "xz data; unpack it first"},
    {"BZh"sv, "bzip2 data; unpack it first"},
    {"{"sv, "a JSON text"},
    // The old formats wrote their names as numbers, so their bytes lie in reverse order on disk.
    {"lmgg"sv, "a GGML file of 2023 (ggml); convert the original model to GGUF"},
    {"fmgg"sv, "a GGML file of 2023 (ggmf); convert the original model to GGUF"},
    {"tjgg"sv, "a GGML file of 2023 (ggjt); convert the original model to GGUF"},
    {"algg"sv, "a LoRA adapter of 2023 (ggla)"},
    {"ggml"sv, "a GGML file of 2023 (ggml); convert the original model to GGUF"},
    {"GGML"sv, "a GGML file of 2023 (GGML); convert the original model to GGUF"},
    {"ggmf"sv, "a GGML file of 2023 (ggmf); convert the original model to GGUF"},
    {"ggjt"sv, "a GGML file of 2023 (ggjt); convert the original model to GGUF"},
};

}  // namespace

std::string describe_contents(std::span<const std::byte> first_bytes) {
  if (first_bytes.empty()) return "an empty file";
  const std::string_view text(reinterpret_cast<const char*>(first_bytes.data()), first_bytes.size());
  for (const Signature& signature : kSignatures) {
    if (text.starts_with(signature.prefix)) return signature.description;
  }
  // A safetensors file: a length of at most 100,000,000, whose upper four bytes are zero, and an object.
  if (text.size() > 8 && text.substr(4, 4) == "\0\0\0\0"sv && text[8] == '{') return "a safetensors file";
  return {};
}

}  // namespace bitnet
