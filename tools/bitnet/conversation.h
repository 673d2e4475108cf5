#pragma once

#include "base/result.h"

#include "bitnet/tokenizer.h"

#include <string>
#include <vector>

namespace bitnet::cli {

// Saved conversations: {"format": "bitnet-chat", "version": 1, "model": name, "messages": [{"role", "content"}, ...]}.
// Written atomically; read with every field checked.
Status save_conversation(const std::string& path, const std::string& model, const std::vector<ChatMessage>& messages);
Result<std::vector<ChatMessage>> load_conversation(const std::string& path);

}  // namespace bitnet::cli
