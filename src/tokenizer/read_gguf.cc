// The vocabulary of a GGUF file: keys tokenizer.ggml.* and tokenizer.chat_template.
#include "format/text.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/gguf_keys.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/stop_tokens.h"
#include "tokenizer/vocabulary.h"

#include <algorithm>

namespace bitnet {
namespace {

constexpr size_t kLlama3Tokens = 128256;

// BitNet b1.58 2B4T's published files, whose tokenizer keys are incomplete and partly wrong.
Result<bool> is_bitnet_2b4t(const GgufMetadata& metadata, const Vocabulary& vocabulary) {
  BN_ASSIGN_OR_RETURN(const std::string architecture, metadata.get_string("general.architecture", ""));
  return architecture.rfind("bitnet", 0) == 0 && vocabulary.tokens.size() == kLlama3Tokens &&
         vocabulary.kind == VocabularyKind::kByteLevelBpe;
}

Status read_tokens(const GgufMetadata& metadata, Vocabulary& vocabulary) {
  BN_ASSIGN_OR_RETURN(const auto* tokens, metadata.get_array<std::string>(kTokensKey));
  if (!tokens) return invalid_input("{}: the key tokenizer.ggml.tokens is missing", metadata.file_name);
  vocabulary.tokens = *tokens;
  BN_ASSIGN_OR_RETURN(const auto* types, metadata.get_array<int32_t>(kTypesKey));
  vocabulary.types.assign(tokens->size(), TokenType::kNormal);
  if (types) {
    if (types->size() != tokens->size()) {
      return invalid_input("{}: tokenizer.ggml.token_type has {} entries for {} tokens", metadata.file_name,
                           types->size(), tokens->size());
    }
    std::transform(types->begin(), types->end(), vocabulary.types.begin(), [](int32_t t) { return TokenType(t); });
  }
  return ok();
}

Status read_sentencepiece(const GgufMetadata& metadata, Vocabulary& vocabulary) {
  vocabulary.kind = VocabularyKind::kSentencePieceBpe;
  BN_ASSIGN_OR_RETURN(const auto* scores, metadata.get_array<float>(kScoresKey));
  if (!scores) return invalid_input("{}: the key tokenizer.ggml.scores is missing", metadata.file_name);
  vocabulary.scores = *scores;
  BN_ASSIGN_OR_RETURN(vocabulary.add_space_prefix, metadata.get_bool(kSpacePrefixKey, true));
  BN_ASSIGN_OR_RETURN(const bool removes_space, metadata.get_bool(kRemoveSpaceKey, false));
  if (removes_space) {
    return unsupported("{}: tokenizer.ggml.remove_extra_whitespaces is set; such a normaliser is not supported",
                       metadata.file_name);
  }
  return ok();
}

// Llama 3's names, for a file that holds Llama 3's vocabulary without naming its pre-tokenizer.
Result<std::string> assumed_pre(const GgufMetadata& metadata, Vocabulary& vocabulary) {
  BN_ASSIGN_OR_RETURN(const bool is_2b4t, is_bitnet_2b4t(metadata, vocabulary));
  const std::string pre = is_2b4t ? "llama-bpe" : "default";
  vocabulary.notices.push_back("the file does not name its pre-tokenizer (tokenizer.ggml.pre); assumed " + pre);
  return pre;
}

Status read_byte_level(const GgufMetadata& metadata, const std::string& pre_override, Vocabulary& vocabulary) {
  BN_ASSIGN_OR_RETURN(const auto* merges, metadata.get_array<std::string>(kMergesKey));
  if (!merges) return invalid_input("{}: the key tokenizer.ggml.merges is missing", metadata.file_name);
  vocabulary.merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string& merge = (*merges)[i];
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos || space + 1 == merge.size()) {
      return invalid_input("{}: merge {} of tokenizer.ggml.merges is {}, expected two tokens and a space between them",
                           metadata.file_name, i, quote_name(merge));
    }
    vocabulary.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  std::string pre = pre_override;
  if (pre.empty() && metadata.contains(kPreKey)) {
    BN_ASSIGN_OR_RETURN(pre, metadata.get_string(kPreKey));
  }
  if (pre.empty()) {
    BN_ASSIGN_OR_RETURN(pre, assumed_pre(metadata, vocabulary));
  }
  const auto* known = PreTokenizer::find(pre);
  if (!known) {
    return unsupported("{}: unknown pre-tokenizer {} in {}; known are {}", metadata.file_name, quote_name(pre), kPreKey,
                       PreTokenizer::known_names());
  }
  vocabulary.pre = known->canonical;
  BN_ASSIGN_OR_RETURN(vocabulary.ignore_merges, metadata.get_bool(kIgnoreMergesKey, known->ignore_merges));
  vocabulary.add_bos = known->adds_bos;
  return ok();
}

Status read_ids(const GgufMetadata& metadata, Vocabulary& vocabulary) {
  const std::pair<const char*, std::optional<int32_t>*> ids[] = {
      {kBosKey, &vocabulary.bos_id},     {kEosKey, &vocabulary.eos_id}, {kUnknownKey, &vocabulary.unk_id},
      {kPaddingKey, &vocabulary.pad_id}, {kEotKey, &vocabulary.eot_id},
  };
  for (const auto& [key, id] : ids) {
    if (!metadata.contains(key)) continue;
    BN_ASSIGN_OR_RETURN(const uint64_t value, metadata.get_uint(key, 0, vocabulary.tokens.size() - 1));
    *id = int32_t(value);
  }
  BN_ASSIGN_OR_RETURN(vocabulary.add_bos, metadata.get_bool(kAddBosKey, vocabulary.add_bos));
  BN_ASSIGN_OR_RETURN(vocabulary.add_eos, metadata.get_bool(kAddEosKey, false));
  return ok();
}

// The ids that SentencePiece and llama.cpp give these tokens where a file does not say.
void add_default_ids(Vocabulary& vocabulary) {
  const auto fallback = [&](std::optional<int32_t>& id, int32_t value, TokenType type) {
    if (!id && size_t(value) < vocabulary.tokens.size() && vocabulary.types[size_t(value)] == type) id = value;
  };
  fallback(vocabulary.unk_id, 0, TokenType::kUnknown);
  fallback(vocabulary.bos_id, 1, TokenType::kControl);
  fallback(vocabulary.eos_id, 2, TokenType::kControl);
}

void mend_2b4t(Vocabulary& vocabulary) {
  if (vocabulary.chat_template != kBitNet2b4tTemplate) {
    if (!vocabulary.chat_template.empty()) {
      vocabulary.notices.push_back("the file's chat template is not what BitNet b1.58 2B4T was trained on; replaced");
    }
    vocabulary.chat_template = kBitNet2b4tTemplate;
  }
}

}  // namespace

bool gguf_has_vocabulary(const GgufFile& file) {
  return file.metadata().contains(kModelKey) && file.metadata().contains(kTokensKey);
}

Result<Vocabulary> vocabulary_from_gguf(const GgufFile& file, const std::string& pre_override) {
  const GgufMetadata& metadata = file.metadata();
  BN_ASSIGN_OR_RETURN(const std::string model, metadata.get_string(kModelKey));
  if (model != "gpt2" && model != "llama") {
    return unsupported("{}: vocabularies of kind {} ({}) are not supported, only \"gpt2\" and \"llama\"", file.name(),
                       quote_name(model), kModelKey);
  }
  Vocabulary vocabulary;
  BN_RETURN_IF_ERROR(read_tokens(metadata, vocabulary));
  if (vocabulary.tokens.empty()) return invalid_input("{}: tokenizer.ggml.tokens is empty", file.name());
  if (model == "llama") {
    vocabulary.add_bos = true;
    BN_RETURN_IF_ERROR(read_sentencepiece(metadata, vocabulary));
  } else {
    BN_RETURN_IF_ERROR(read_byte_level(metadata, pre_override, vocabulary));
  }
  BN_RETURN_IF_ERROR(read_ids(metadata, vocabulary));
  if (model == "llama") add_default_ids(vocabulary);
  BN_ASSIGN_OR_RETURN(vocabulary.chat_template, metadata.get_string(kChatTemplateKey, ""));
  BN_ASSIGN_OR_RETURN(const bool is_2b4t, is_bitnet_2b4t(metadata, vocabulary));
  if (is_2b4t) mend_2b4t(vocabulary);
  add_stop_ids(vocabulary);
  BN_RETURN_IF_ERROR(check_vocabulary(vocabulary, file.name()));
  return vocabulary;
}

}  // namespace bitnet
