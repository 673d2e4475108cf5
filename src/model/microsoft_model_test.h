#pragma once

#include "format/test_torch_archive.h"
#include "model/checkpoint.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

// Checkpoints as Microsoft's GPU scripts write them, made of others, in pieces that a test can spoil one at a time.
namespace bitnet {

// model_state_int2.pt, model_state_fp16.pt and model_state.pt.
enum class MicrosoftForm : uint8_t { kInt2, kFloats, kLatent };

// The archive's tensors before they are written.
struct MicrosoftModel {
  std::vector<testing::ArchiveTensor> tensors;
  std::map<std::string, std::string> files;  // beside the archive

  testing::ArchiveTensor& tensor(const std::string& name);
  void remove(const std::string& name);
  void write(const std::string& folder, const std::string& name = "model_state_int2.pt") const;
};

// The weights of a ternary checkpoint whose scales, tables and norms BF16 holds exactly, with its config.json.
MicrosoftModel microsoft_model(const Checkpoint& source, MicrosoftForm form);

}  // namespace bitnet
