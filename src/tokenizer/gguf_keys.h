#pragma once

namespace bitnet {

// GGUF's names for a vocabulary (specification: ggml docs/gguf.md, section Tokenizer).
inline constexpr const char* kModelKey = "tokenizer.ggml.model";
inline constexpr const char* kPreKey = "tokenizer.ggml.pre";
inline constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
inline constexpr const char* kTypesKey = "tokenizer.ggml.token_type";
inline constexpr const char* kScoresKey = "tokenizer.ggml.scores";
inline constexpr const char* kMergesKey = "tokenizer.ggml.merges";
inline constexpr const char* kBosKey = "tokenizer.ggml.bos_token_id";
inline constexpr const char* kEosKey = "tokenizer.ggml.eos_token_id";
inline constexpr const char* kUnknownKey = "tokenizer.ggml.unknown_token_id";
inline constexpr const char* kPaddingKey = "tokenizer.ggml.padding_token_id";
inline constexpr const char* kEotKey = "tokenizer.ggml.eot_token_id";
inline constexpr const char* kAddBosKey = "tokenizer.ggml.add_bos_token";
inline constexpr const char* kAddEosKey = "tokenizer.ggml.add_eos_token";
inline constexpr const char* kSpacePrefixKey = "tokenizer.ggml.add_space_prefix";
inline constexpr const char* kRemoveSpaceKey = "tokenizer.ggml.remove_extra_whitespaces";
inline constexpr const char* kChatTemplateKey = "tokenizer.chat_template";
// Ours: written where the pre-tokenizer's name does not imply the right value.
inline constexpr const char* kIgnoreMergesKey = "bitnet.tokenizer.ignore_merges";

}  // namespace bitnet
