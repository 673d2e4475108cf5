#include "format/pickle_machine.h"

#include "format/text.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

// Opcodes and their meaning: CPython's Lib/pickletools.py.
namespace bitnet {
namespace {

constexpr size_t kMaxValues = 200'000;  // a model of 30 layers has about ten thousand
constexpr uint64_t kMaxText_bytes = 4096;
constexpr uint8_t kProtocol = 2;

constexpr std::array kGlobals = std::to_array<std::string_view>({
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch BFloat16Storage",
    "torch FloatStorage",
    "torch HalfStorage",
    "torch CharStorage",
    "torch ByteStorage",
    "torch IntStorage",
    "torch LongStorage",
});
constexpr std::string_view kOrderedDict = kGlobals[0], kRebuildTensor = kGlobals[1];

bool is_storage(const PickleValue& value) {
  return value.kind == PickleValue::Kind::kGlobal && value.text != kOrderedDict && value.text != kRebuildTensor;
}

}  // namespace

const char* pickle_kind_name(PickleValue::Kind kind) {
  constexpr const char* kNames[] = {"a mark", "None",   "a boolean",  "an integer", "a text",  "a tuple",
                                    "a list", "a dict", "a callable", "a storage",  "a tensor"};
  return kNames[size_t(kind)];
}

Error PickleMachine::problem(const std::string& text) const {
  return invalid_input("{}: byte {} of the pickle: {}", name_, opcode_at_, text);
}

template <class T>
Result<T> PickleMachine::take() {
  if (program_.size() - at_ < sizeof(T)) return problem("it ends in the middle of an opcode");
  T value;
  std::memcpy(&value, program_.data() + at_, sizeof value);
  at_ += sizeof value;
  return value;
}

Result<std::string_view> PickleMachine::take_text(uint64_t n_bytes) {
  if (n_bytes > program_.size() - at_)
    return problem(fmt::format("a text of {} bytes is longer than what is left", n_bytes));
  if (n_bytes > kMaxText_bytes) {
    return problem(fmt::format("a text has {} bytes, more than the limit of {}", n_bytes, kMaxText_bytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(program_.data()) + at_, size_t(n_bytes));
  at_ += size_t(n_bytes);
  if (!is_utf8(text)) return problem("a text is ill-formed UTF-8");
  return text;
}

Result<std::string_view> PickleMachine::take_line() {
  const std::string_view rest(reinterpret_cast<const char*>(program_.data()) + at_, program_.size() - at_);
  const size_t n = rest.substr(0, kMaxText_bytes).find('\n');
  if (n == std::string_view::npos) return problem("a name has no end");
  at_ += n + 1;
  return rest.substr(0, n);
}

Status PickleMachine::push(PickleValue value) {
  if (values_.size() == kMaxValues) {
    return problem(fmt::format("it has more values than the limit of {}", kMaxValues));
  }
  stack_.push_back(uint32_t(values_.size()));
  values_.push_back(std::move(value));
  return ok();
}

Result<uint32_t> PickleMachine::pop() {
  if (stack_.empty() || values_[stack_.back()].kind == Kind::kMark) {
    return problem("it takes a value from an empty stack");
  }
  const uint32_t id = stack_.back();
  stack_.pop_back();
  return id;
}

Result<std::vector<uint32_t>> PickleMachine::pop_to_mark() {
  size_t begin = stack_.size();
  while (begin > 0 && values_[stack_[begin - 1]].kind != Kind::kMark) --begin;
  if (begin == 0) return problem("it takes values down to a mark that is not there");
  std::vector<uint32_t> items(stack_.begin() + int64_t(begin), stack_.end());
  stack_.resize(begin - 1);
  return items;
}

Result<uint32_t> PickleMachine::top(Kind kind, const char* use) {
  if (stack_.empty()) return problem(fmt::format("it {} an empty stack", use));
  const PickleValue& value = values_[stack_.back()];
  if (value.kind == kind) return stack_.back();
  return problem(fmt::format("it {} {}, expected {}", use, pickle_kind_name(value.kind), pickle_kind_name(kind)));
}

Status PickleMachine::tuple(size_t n) {
  PickleValue value{Kind::kTuple, 0, {}, std::vector<uint32_t>(n)};
  for (size_t i = n; i-- > 0;) {
    BN_ASSIGN_OR_RETURN(value.items[i], pop());
  }
  return push(std::move(value));
}

Status PickleMachine::tuple_to_mark() {
  BN_ASSIGN_OR_RETURN(std::vector<uint32_t> items, pop_to_mark());
  return push({Kind::kTuple, 0, {}, std::move(items)});
}

Status PickleMachine::append(const std::vector<uint32_t>& items) {
  BN_ASSIGN_OR_RETURN(const uint32_t list, top(Kind::kList, "appends to"));
  values_[list].items.insert(values_[list].items.end(), items.begin(), items.end());
  return ok();
}

Status PickleMachine::set_items(const std::vector<uint32_t>& items) {
  BN_ASSIGN_OR_RETURN(const uint32_t dict, top(Kind::kDict, "sets items of"));
  if (items.size() % 2 != 0) return problem("it sets a key without a value");
  values_[dict].items.insert(values_[dict].items.end(), items.begin(), items.end());
  return ok();
}

Status PickleMachine::global() {
  BN_ASSIGN_OR_RETURN(const std::string_view module, take_line());
  BN_ASSIGN_OR_RETURN(const std::string_view name, take_line());
  std::string full = fmt::format("{} {}", module, name);
  if (std::find(kGlobals.begin(), kGlobals.end(), full) == kGlobals.end()) {
    std::replace(full.begin(), full.end(), ' ', '.');
    Error error = problem(fmt::format("it wants to call {}, which a file of tensors does not need", quote_name(full)));
    error.code = ErrorCode::kUnsupported;
    error.suggestion = "nothing of it was executed; only tensors that torch.save wrote as a plain dict can be read";
    return error;
  }
  return push({Kind::kGlobal, 0, std::move(full), {}});
}

// ("storage", type, key, device, number of values)
Status PickleMachine::persistent_id() {
  BN_ASSIGN_OR_RETURN(const uint32_t id, pop());
  const PickleValue& tuple = values_[id];
  const auto item = [&](size_t i) -> const PickleValue& { return values_[tuple.items[i]]; };
  const bool storage = tuple.kind == Kind::kTuple && tuple.items.size() == 5 && item(0).kind == Kind::kText &&
                       item(0).text == "storage" && is_storage(item(1)) && item(2).kind == Kind::kText &&
                       item(3).kind == Kind::kText && item(4).kind == Kind::kInt && item(4).integer >= 0;
  if (!storage) return problem("what it wants from outside is no storage of tensors");
  return push({Kind::kStorage, 0, {}, {tuple.items[1], tuple.items[2], tuple.items[4]}});
}

Status PickleMachine::reduce() {
  BN_ASSIGN_OR_RETURN(const uint32_t arguments_id, pop());
  BN_ASSIGN_OR_RETURN(const uint32_t callable_id, pop());
  const PickleValue &arguments = values_[arguments_id], &callable = values_[callable_id];
  if (callable.kind != Kind::kGlobal || arguments.kind != Kind::kTuple) {
    return problem(
        fmt::format("it wants to call {} with {}", pickle_kind_name(callable.kind), pickle_kind_name(arguments.kind)));
  }
  if (callable.text == kOrderedDict && arguments.items.empty()) return push_kind(Kind::kDict);
  const auto item = [&](size_t i) -> const PickleValue& { return values_[arguments.items[i]]; };
  // storage, offset, size, strides, requires_grad, backward hooks
  const bool tensor = callable.text == kRebuildTensor && arguments.items.size() == 6 &&
                      item(0).kind == Kind::kStorage && item(1).kind == Kind::kInt && item(2).kind == Kind::kTuple &&
                      item(3).kind == Kind::kTuple && item(4).kind == Kind::kBool && item(5).kind == Kind::kDict &&
                      item(5).items.empty();
  if (!tensor)
    return problem(fmt::format("it wants to call {} with other arguments than torch.save gives", callable.text));
  std::vector<uint32_t> parts(arguments.items.begin(), arguments.items.begin() + 4);
  return push({Kind::kTensor, 0, {}, std::move(parts)});
}

// A module's state_dict carries attributes about versions, which say nothing about its tensors.
Status PickleMachine::build() {
  BN_ASSIGN_OR_RETURN(const uint32_t state, pop());
  if (values_[state].kind != Kind::kDict) {
    return problem(fmt::format("it sets attributes from {}", pickle_kind_name(values_[state].kind)));
  }
  return top(Kind::kDict, "sets attributes of") ? ok() : problem("it sets attributes of something that is no dict");
}

Status PickleMachine::put(uint32_t key) {
  if (stack_.empty() || values_[stack_.back()].kind == Kind::kMark) return problem("it remembers an empty stack");
  memo_[key] = stack_.back();
  return ok();
}

Status PickleMachine::get(uint32_t key) {
  const auto found = memo_.find(key);
  if (found == memo_.end()) return problem(fmt::format("it recalls value {}, which it never remembered", key));
  stack_.push_back(found->second);
  return ok();
}

Status PickleMachine::step(uint8_t opcode) {
  switch (opcode) {
    case '(': return push_kind(Kind::kMark);
    case '.': stopped_ = true; return ok();
    case 'N': return push_kind(Kind::kNone);
    case '}': return push_kind(Kind::kDict);
    case ']': return push_kind(Kind::kList);
    case ')': return push_kind(Kind::kTuple);
    case 0x88: return push({Kind::kBool, 1, {}, {}});
    case 0x89: return push({Kind::kBool, 0, {}, {}});
    case 't': return tuple_to_mark();
    case 0x85: return tuple(1);
    case 0x86: return tuple(2);
    case 0x87: return tuple(3);
    case 'c': return global();
    case 'Q': return persistent_id();
    case 'R': return reduce();
    case 'b': return build();
    case 'a': {
      BN_ASSIGN_OR_RETURN(const uint32_t item, pop());
      return append({item});
    }
    case 'e': {
      BN_ASSIGN_OR_RETURN(const std::vector<uint32_t> items, pop_to_mark());
      return append(items);
    }
    case 's': {
      BN_ASSIGN_OR_RETURN(const uint32_t item, pop());
      BN_ASSIGN_OR_RETURN(const uint32_t key, pop());
      return set_items({key, item});
    }
    case 'u': {
      BN_ASSIGN_OR_RETURN(const std::vector<uint32_t> items, pop_to_mark());
      return set_items(items);
    }
    case 'J': {
      BN_ASSIGN_OR_RETURN(const int32_t value, take<int32_t>());
      return push_int(value);
    }
    case 'K': {
      BN_ASSIGN_OR_RETURN(const uint8_t value, take<uint8_t>());
      return push_int(value);
    }
    case 'M': {
      BN_ASSIGN_OR_RETURN(const uint16_t value, take<uint16_t>());
      return push_int(value);
    }
    case 0x8a: {  // little-endian two's complement of as many bytes as needed
      BN_ASSIGN_OR_RETURN(const uint8_t n_bytes, take<uint8_t>());
      if (n_bytes > 8) return problem(fmt::format("an integer has {} bytes, expected at most 8", n_bytes));
      uint64_t bits = 0, byte = 0;
      for (unsigned i = 0; i < n_bytes; ++i) {
        BN_ASSIGN_OR_RETURN(byte, take<uint8_t>());
        bits |= byte << (8 * i);
      }
      const bool negative = n_bytes > 0 && n_bytes < 8 && (byte & 0x80) != 0;
      return push_int(int64_t(negative ? bits | ~uint64_t{0} << (8 * n_bytes) : bits));
    }
    case 'X': {
      BN_ASSIGN_OR_RETURN(const uint32_t n_bytes, take<uint32_t>());
      BN_ASSIGN_OR_RETURN(const std::string_view text, take_text(n_bytes));
      return push({Kind::kText, 0, std::string(text), {}});
    }
    case 'q': {
      BN_ASSIGN_OR_RETURN(const uint8_t key, take<uint8_t>());
      return put(key);
    }
    case 'r': {
      BN_ASSIGN_OR_RETURN(const uint32_t key, take<uint32_t>());
      return put(key);
    }
    case 'h': {
      BN_ASSIGN_OR_RETURN(const uint8_t key, take<uint8_t>());
      return get(key);
    }
    case 'j': {
      BN_ASSIGN_OR_RETURN(const uint32_t key, take<uint32_t>());
      return get(key);
    }
    default: {
      Error error = problem(fmt::format("the opcode 0x{:02x} is not one that torch.save needs for tensors", opcode));
      error.code = ErrorCode::kUnsupported;
      return error;
    }
  }
}

Result<uint32_t> PickleMachine::run() {
  BN_ASSIGN_OR_RETURN(const uint8_t begin, take<uint8_t>());
  BN_ASSIGN_OR_RETURN(const uint8_t protocol, take<uint8_t>());
  if (begin != 0x80) return problem(fmt::format("it begins with the byte 0x{:02x}, which begins no pickle", begin));
  if (protocol != kProtocol) {
    Error error = problem(fmt::format("its protocol is {}, expected {}", protocol, kProtocol));
    error.code = ErrorCode::kUnsupported;
    error.suggestion = "save it with torch.save's own pickle_protocol";
    return error;
  }
  while (!stopped_) {
    opcode_at_ = at_;
    BN_ASSIGN_OR_RETURN(const uint8_t opcode, take<uint8_t>());
    BN_RETURN_IF_ERROR(step(opcode));
  }
  if (at_ != program_.size()) return problem(fmt::format("{} bytes follow its end", program_.size() - at_));
  if (stack_.size() != 1) return problem(fmt::format("it ends with {} values, expected one", stack_.size()));
  return pop();
}

}  // namespace bitnet
