// A SentencePiece model: protocol buffer ModelProto (sentencepiece_model.proto), read without a protobuf library.
#include "base/file.h"
#include "format/text.h"
#include "tokenizer/parse_vocabulary.h"
#include "tokenizer/stop_tokens.h"
#include "tokenizer/vocabulary.h"

#include <bit>
#include <cstring>

namespace bitnet {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;

struct Field {
  uint32_t number = 0;
  uint64_t value = 0;      // a varint, or the bits of a fixed-size number
  std::string_view bytes;  // a length-delimited field
};

// Walks the fields of one message; nested messages are walked by a reader of their own, so depth is ours to choose.
class FieldReader {
 public:
  explicit FieldReader(std::string_view message) : message_(message) {}

  bool at_end() const { return pos_ == message_.size(); }
  // False when the bytes do not form a field.
  bool next(Field& field) {
    field = {};
    uint64_t tag = 0;
    if (!varint(tag) || tag >> 3 == 0 || tag >> 32 != 0) return false;
    field.number = uint32_t(tag >> 3);
    switch (tag & 7) {
      case 0: return varint(field.value);
      case 1: return fixed(8, field.value);
      case 5: return fixed(4, field.value);
      case 2: {
        uint64_t size = 0;
        if (!varint(size) || size > message_.size() - pos_) return false;
        field.bytes = message_.substr(pos_, size_t(size));
        pos_ += size_t(size);
        return true;
      }
      default: return false;
    }
  }

 private:
  bool varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && pos_ < message_.size(); shift += 7) {
      const uint8_t byte = uint8_t(message_[pos_++]);
      value |= uint64_t(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool fixed(size_t size_bytes, uint64_t& value) {
    if (size_bytes > message_.size() - pos_) return false;
    value = 0;
    for (size_t i = 0; i < size_bytes; ++i) value |= uint64_t(uint8_t(message_[pos_ + i])) << (8 * i);
    pos_ += size_bytes;
    return true;
  }

  std::string_view message_;
  size_t pos_ = 0;
};

// What of TrainerSpec and NormalizerSpec matters here, with the defaults of the .proto file.
struct Specs {
  uint64_t model_type = 1;
  bool space_is_suffix = false;
  int64_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = -1;
  bool has_charsmap = false;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
};

bool read_piece(std::string_view message, Vocabulary& vocabulary) {
  FieldReader reader(message);
  std::string text;
  float score = 0;
  uint64_t type = 1;
  for (Field field; !reader.at_end();) {
    if (!reader.next(field)) return false;
    if (field.number == 1) text = field.bytes;
    if (field.number == 2) score = std::bit_cast<float>(uint32_t(field.value));
    if (field.number == 3) type = field.value;
  }
  vocabulary.tokens.push_back(std::move(text));
  vocabulary.scores.push_back(score);
  vocabulary.types.push_back(TokenType(type > 6 ? 0 : int32_t(type)));
  return true;
}

bool read_trainer_spec(std::string_view message, Specs& specs) {
  FieldReader reader(message);
  for (Field field; !reader.at_end();) {
    if (!reader.next(field)) return false;
    switch (field.number) {
      case 3: specs.model_type = field.value; break;
      case 24: specs.space_is_suffix = field.value != 0; break;
      case 40: specs.unk_id = int64_t(field.value); break;
      case 41: specs.bos_id = int64_t(field.value); break;
      case 42: specs.eos_id = int64_t(field.value); break;
      case 43: specs.pad_id = int64_t(field.value); break;
      default: break;
    }
  }
  return true;
}

bool read_normalizer_spec(std::string_view message, Specs& specs) {
  FieldReader reader(message);
  for (Field field; !reader.at_end();) {
    if (!reader.next(field)) return false;
    switch (field.number) {
      case 2: specs.has_charsmap = !field.bytes.empty(); break;
      case 3: specs.add_dummy_prefix = field.value != 0; break;
      case 4: specs.remove_extra_whitespaces = field.value != 0; break;
      case 5: specs.escape_whitespaces = field.value != 0; break;
      default: break;
    }
  }
  return true;
}

Status check_specs(const Specs& specs, const std::string& name) {
  if (specs.model_type != 2) {
    static constexpr const char* kTypes[] = {"unknown", "unigram", "BPE", "word", "character"};
    return unsupported("{}: a SentencePiece model of type {} is not supported, only BPE", name,
                       kTypes[specs.model_type > 4 ? 0 : specs.model_type]);
  }
  const char* what = specs.has_charsmap               ? "a normaliser with a character map"
                     : specs.remove_extra_whitespaces ? "the normaliser's remove_extra_whitespaces"
                     : !specs.escape_whitespaces      ? "a normaliser without escape_whitespaces"
                     : specs.space_is_suffix          ? "treat_whitespace_as_suffix"
                                                      : nullptr;
  if (what) return unsupported("{}: the SentencePiece model has {}, which is not supported", name, what);
  return ok();
}

}  // namespace

Result<Vocabulary> parse_sentencepiece(std::string_view bytes, const std::string& name) {
  Vocabulary vocabulary;
  vocabulary.kind = VocabularyKind::kSentencePieceBpe;
  Specs specs;
  FieldReader reader(bytes);
  for (Field field; !reader.at_end();) {
    bool good = reader.next(field);
    if (good && field.number == 1) good = read_piece(field.bytes, vocabulary);
    if (good && field.number == 2) good = read_trainer_spec(field.bytes, specs);
    if (good && field.number == 3) good = read_normalizer_spec(field.bytes, specs);
    if (!good) return invalid_input("{}: damaged SentencePiece model at token {}", name, vocabulary.tokens.size());
  }
  BN_RETURN_IF_ERROR(check_specs(specs, name));
  vocabulary.add_space_prefix = specs.add_dummy_prefix;
  vocabulary.add_bos = true;
  const auto set = [&](std::optional<int32_t>& id, int64_t value) {
    if (value >= 0 && size_t(value) < vocabulary.tokens.size()) id = int32_t(value);
  };
  set(vocabulary.unk_id, specs.unk_id);
  set(vocabulary.bos_id, specs.bos_id);
  set(vocabulary.eos_id, specs.eos_id);
  set(vocabulary.pad_id, specs.pad_id);
  add_stop_ids(vocabulary);
  BN_RETURN_IF_ERROR(check_vocabulary(vocabulary, name));
  return vocabulary;
}

Result<Vocabulary> vocabulary_from_sentencepiece(const std::string& path) {
  BN_ASSIGN_OR_RETURN(const std::string bytes, read_file(path, kMaxFileBytes));
  return parse_sentencepiece(bytes, path);
}

}  // namespace bitnet
