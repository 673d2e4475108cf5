#pragma once

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace bitnet {

// The values that a pickle of tensors consists of. Those inside of others are kept by their place in one list, so that
// a value may refer to another, or to itself, without anybody following it.
struct PickleValue {
  enum class Kind : uint8_t { kMark, kNone, kBool, kInt, kText, kTuple, kList, kDict, kGlobal, kStorage, kTensor };
  Kind kind = Kind::kNone;
  int64_t integer = 0;  // kBool, kInt
  std::string text;     // kText; kGlobal: "module name"
  std::vector<uint32_t>
      items;  // kTuple, kList; kDict: key, value, key, value; kStorage, kTensor: what they were made of
};
const char* pickle_kind_name(PickleValue::Kind kind);  // "an integer"

// Runs the opcodes and keeps the values. Global names are only compared with a list.
class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> program, const std::string& name) : program_(program), name_(name) {}

  // The value that the pickle stands for.
  Result<uint32_t> run();
  const PickleValue& value(uint32_t id) const { return values_[id]; }

 private:
  using Kind = PickleValue::Kind;

  template <class T>
  Result<T> take();
  Result<std::string_view> take_text(uint64_t n_bytes);
  Result<std::string_view> take_line();
  Status step(uint8_t opcode);
  Status push(PickleValue value);
  Status push_kind(Kind kind) { return push({kind, 0, {}, {}}); }
  Status push_int(int64_t integer) { return push({Kind::kInt, integer, {}, {}}); }
  Result<uint32_t> pop();
  Result<std::vector<uint32_t>> pop_to_mark();
  Result<uint32_t> top(Kind kind, const char* use);
  Status tuple(size_t n);
  Status tuple_to_mark();
  Status append(const std::vector<uint32_t>& items);
  Status set_items(const std::vector<uint32_t>& items);
  Status global();
  Status persistent_id();
  Status reduce();
  Status build();
  Status put(uint32_t key);
  Status get(uint32_t key);
  Error problem(const std::string& text) const;

  std::span<const std::byte> program_;
  const std::string& name_;
  size_t at_ = 0, opcode_at_ = 0;
  bool stopped_ = false;
  std::vector<PickleValue> values_;
  std::vector<uint32_t> stack_;
  std::unordered_map<uint32_t, uint32_t> memo_;
};

}  // namespace bitnet
