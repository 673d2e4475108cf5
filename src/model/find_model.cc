#include "model/find_model.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace bitnet {

Result<std::string> find_model(const std::string& path) {
  std::error_code error;
  if (path.empty()) return invalid_argument("no model given: expected a GGUF file, a folder or a model's name");
  if (std::filesystem::exists(path, error)) return path;
  if (path.find('/') != std::string::npos) return invalid_input("{}: there is no such file or folder", path);
  const char* folder = std::getenv("BITNET_MODELS");
  const std::string base = (folder != nullptr && *folder != '\0' ? std::string(folder) : "models") + "/" + path;
  for (const std::string& candidate : {base, base + ".gguf"}) {
    if (std::filesystem::exists(candidate, error)) return candidate;
  }
  Error missing = invalid_input("{}: there is no such file or folder, nor {} or {}.gguf", path, base, base);
  missing.suggestion = "give a path, or set BITNET_MODELS to the folder that holds your models";
  return missing;
}

}  // namespace bitnet
