#include "format/pickle_reader.h"

#include "format/pickle_machine.h"
#include "format/text.h"

#include <algorithm>
#include <iterator>
#include <new>
#include <string_view>
#include <utility>

namespace bitnet {
namespace {

using Kind = PickleValue::Kind;

// Limits of ours.
constexpr size_t kMaxDims = 16;
constexpr size_t kMaxTensors = 65536;

struct StorageType {
  std::string_view global;
  DType dtype;
};
constexpr StorageType kStorageTypes[] = {
    {"torch BFloat16Storage", DType::kBF16}, {"torch FloatStorage", DType::kF32}, {"torch HalfStorage", DType::kF16},
    {"torch CharStorage", DType::kI8},       {"torch ByteStorage", DType::kU8},   {"torch IntStorage", DType::kI32},
    {"torch LongStorage", DType::kI64},
};

class TensorReader {
 public:
  TensorReader(const PickleMachine& machine, const std::string& name) : machine_(machine), name_(name) {}

  Result<PickledTensor> read(const std::string& key, const PickleValue& value) const {
    if (value.kind != Kind::kTensor) {
      return unsupported("{}: {} is {}, expected a tensor", name_, quote_name(key), pickle_kind_name(value.kind));
    }
    PickledTensor tensor;
    tensor.name = key;
    const PickleValue& storage = item(value, 0);
    const auto* type = std::find_if(std::begin(kStorageTypes), std::end(kStorageTypes),
                                    [&](const StorageType& known) { return known.global == item(storage, 0).text; });
    if (type == std::end(kStorageTypes)) {
      return unsupported("{}: tensor {} has a storage of an unknown type", name_, quote_name(key));
    }
    tensor.dtype = type->dtype;
    tensor.storage = item(storage, 1).text;
    tensor.storage_count = item(storage, 2).integer;
    tensor.offset_count = item(value, 1).integer;
    BN_ASSIGN_OR_RETURN(tensor.shape, sizes(key, item(value, 2), "shape"));
    BN_ASSIGN_OR_RETURN(tensor.strides, sizes(key, item(value, 3), "strides"));
    if (tensor.offset_count < 0 || tensor.shape.size() != tensor.strides.size()) {
      return invalid_input("{}: tensor {} has {} dimensions, {} strides and the offset {}", name_, quote_name(key),
                           tensor.shape.size(), tensor.strides.size(), tensor.offset_count);
    }
    return tensor;
  }

 private:
  const PickleValue& item(const PickleValue& value, size_t i) const { return machine_.value(value.items[i]); }

  Result<std::vector<int64_t>> sizes(const std::string& key, const PickleValue& tuple, const char* what) const {
    if (tuple.items.size() > kMaxDims) {
      return invalid_input("{}: the {} of tensor {} has {} numbers, more than the limit of {}", name_, what,
                           quote_name(key), tuple.items.size(), kMaxDims);
    }
    std::vector<int64_t> numbers;
    for (size_t i = 0; i < tuple.items.size(); ++i) {
      const PickleValue& number = item(tuple, i);
      if (number.kind != Kind::kInt || number.integer < 0) {
        return invalid_input(
            "{}: the {} of tensor {} holds {}, expected numbers of 0 or above", name_, what, quote_name(key),
            number.kind == Kind::kInt ? fmt::to_string(number.integer) : pickle_kind_name(number.kind));
      }
      numbers.push_back(number.integer);
    }
    return numbers;
  }

  const PickleMachine& machine_;
  const std::string& name_;
};

}  // namespace

Result<std::vector<PickledTensor>> read_pickled_tensors(std::span<const std::byte> pickle,
                                                        const std::string& name) try {
  if (pickle.size() > kMaxPickle_bytes) {
    return invalid_input("{}: the pickle has {} bytes, more than the limit of {}", name, pickle.size(),
                         kMaxPickle_bytes);
  }
  PickleMachine machine(pickle, name);
  BN_ASSIGN_OR_RETURN(const uint32_t root, machine.run());
  const PickleValue& dict = machine.value(root);
  if (dict.kind != Kind::kDict) {
    return unsupported("{}: it holds {}, expected a dict from names to tensors", name, pickle_kind_name(dict.kind));
  }
  if (dict.items.size() / 2 > kMaxTensors) {
    return invalid_input("{}: the dict has {} entries, more than the limit of {}", name, dict.items.size() / 2,
                         kMaxTensors);
  }
  const TensorReader reader(machine, name);
  std::vector<PickledTensor> tensors;
  for (size_t i = 0; i < dict.items.size(); i += 2) {
    const PickleValue& key = machine.value(dict.items[i]);
    if (key.kind != Kind::kText || key.text.empty() || key.text.find('\0') != std::string::npos) {
      return invalid_input("{}: a key of the dict is {}, expected a name", name,
                           key.kind == Kind::kText ? quote_name(key.text) : pickle_kind_name(key.kind));
    }
    BN_ASSIGN_OR_RETURN(PickledTensor tensor, reader.read(key.text, machine.value(dict.items[i + 1])));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
} catch (const std::bad_alloc&) {
  return make_error(ErrorCode::kResource, "{}: not enough memory for its pickle", name);
}

}  // namespace bitnet
