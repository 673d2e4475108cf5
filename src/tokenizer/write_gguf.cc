// A vocabulary as GGUF keys tokenizer.ggml.* and tokenizer.chat_template.
#include "tokenizer/derived_merges.h"
#include "tokenizer/gguf_keys.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/vocabulary.h"

#include <algorithm>

namespace bitnet {
namespace {

Status add_byte_level(const Vocabulary& vocabulary, GgufWriter& writer) {
  std::vector<std::string> merges;
  for (const auto& [left, right] : merges_as_list(vocabulary)) merges.push_back(left + " " + right);
  BN_RETURN_IF_ERROR(writer.add_metadata(kPreKey, vocabulary.pre));
  BN_RETURN_IF_ERROR(writer.add_metadata(kMergesKey, GgufArray(std::move(merges))));
  const auto* known = PreTokenizer::find(vocabulary.pre);
  if (known && known->ignore_merges == vocabulary.ignore_merges) return ok();
  return writer.add_metadata(kIgnoreMergesKey, vocabulary.ignore_merges);
}

Status add_sentencepiece(const Vocabulary& vocabulary, GgufWriter& writer) {
  if (!vocabulary.merges.empty()) {
    return unsupported("the vocabulary lists merges that no scores can express, and GGUF keeps only scores");
  }
  BN_RETURN_IF_ERROR(writer.add_metadata(kScoresKey, GgufArray(vocabulary.scores)));
  return writer.add_metadata(kSpacePrefixKey, vocabulary.add_space_prefix);
}

}  // namespace

Status vocabulary_to_gguf(const Vocabulary& vocabulary, GgufWriter& writer) {
  const bool byte_level = vocabulary.kind == VocabularyKind::kByteLevelBpe;
  BN_RETURN_IF_ERROR(writer.add_metadata(kModelKey, std::string(byte_level ? "gpt2" : "llama")));
  BN_RETURN_IF_ERROR(writer.add_metadata(kTokensKey, GgufArray(vocabulary.tokens)));
  std::vector<int32_t> types(vocabulary.types.size());
  std::transform(vocabulary.types.begin(), vocabulary.types.end(), types.begin(),
                 [](TokenType t) { return int32_t(t); });
  BN_RETURN_IF_ERROR(writer.add_metadata(kTypesKey, GgufArray(std::move(types))));
  BN_RETURN_IF_ERROR(byte_level ? add_byte_level(vocabulary, writer) : add_sentencepiece(vocabulary, writer));
  const std::pair<const char*, std::optional<int32_t>> ids[] = {{kBosKey, vocabulary.bos_id},
                                                                {kEosKey, vocabulary.eos_id},
                                                                {kUnknownKey, vocabulary.unk_id},
                                                                {kPaddingKey, vocabulary.pad_id},
                                                                {kEotKey, vocabulary.eot_id}};
  for (const auto& [key, id] : ids) {
    if (id) BN_RETURN_IF_ERROR(writer.add_metadata(key, uint32_t(*id)));
  }
  BN_RETURN_IF_ERROR(writer.add_metadata(kAddBosKey, vocabulary.add_bos));
  BN_RETURN_IF_ERROR(writer.add_metadata(kAddEosKey, vocabulary.add_eos));
  if (vocabulary.chat_template.empty()) return ok();
  return writer.add_metadata(kChatTemplateKey, vocabulary.chat_template);
}

}  // namespace bitnet
