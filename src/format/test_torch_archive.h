#pragma once

#include "format/test_bytes.h"
#include "tensor/dtype.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// Archives as torch.save writes them, put together from parts that a test can spoil one at a time.
namespace bitnet::testing {

// The opcodes of a pickle, one after another.
class Pickle {
 public:
  explicit Pickle(std::string_view begin = "\x80\x02") : ops_(begin) {}
  Pickle& raw(std::string_view ops) {
    ops_.raw(ops);
    return *this;
  }
  Pickle& text(std::string_view text) {
    ops_.raw("X").u32(uint32_t(text.size())).raw(text);
    return *this;
  }
  Pickle& global(std::string_view module, std::string_view name) {
    return raw("c").raw(module).raw("\n").raw(name).raw("\n");
  }
  Pickle& integer(int64_t n) {
    if (n >= INT32_MIN && n <= INT32_MAX) {
      ops_.raw("J").number(int32_t(n));
    } else {
      ops_.raw("\x8a\x08").number(n);
    }
    return *this;
  }
  Pickle& integers(const std::vector<int64_t>& numbers) {
    raw("(");
    for (const int64_t n : numbers) integer(n);
    return raw("t");
  }
  Pickle& storage(std::string_view type, std::string_view key, int64_t count) {
    return raw("(").text("storage").global("torch", type).text(key).text("cpu").integer(count).raw("tQ");
  }
  // _rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())
  Pickle& tensor(std::string_view type, std::string_view key, int64_t count, int64_t offset,
                 const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
    global("torch._utils", "_rebuild_tensor_v2").raw("(").storage(type, key, count).integer(offset);
    integers(shape).integers(strides).raw("\x89");
    return global("collections", "OrderedDict").raw(")RtR");
  }
  const std::string& bytes() const { return ops_.text(); }

 private:
  Bytes ops_;
};

struct ZipPart {
  std::string name;
  std::string data;
  uint16_t flags = 0, method = 0;
  std::string local_name = {};  // in the entry's own header, where it shall be another
  int64_t size_change = 0;      // of what the directory says
  int64_t offset_change = 0;
  bool in_zip64 = false;    // sizes and offset in 64 bits
  std::string behind = {};  // between this entry and the next, as a data descriptor
};

struct ZipParts {
  std::vector<ZipPart> parts;
  bool zip64 = true;      // as PyTorch writes them
  uint64_t in_front = 0;  // bytes of a longer file in front of these, which the offsets count
  std::string comment = {};
  int64_t n_entries_change = 0, directory_offset_change = 0;

  std::string file() const {
    Bytes out, directory;
    for (const ZipPart& part : parts) {
      const uint64_t at = out.text().size();
      const std::string& local = part.local_name.empty() ? part.name : part.local_name;
      const uint64_t size = part.data.size() + uint64_t(part.size_change),
                     place = in_front + at + uint64_t(part.offset_change);
      const auto small = [&](uint64_t n) { return part.in_zip64 ? 0xffffffffu : uint32_t(n); };
      out.u32(0x04034b50).number(uint16_t(0)).number(part.flags).number(part.method).u32(0).u32(0);
      out.u32(uint32_t(part.data.size())).u32(uint32_t(part.data.size()));
      const size_t padding = (64 - (at + 30 + local.size()) % 64) % 64;
      out.number(uint16_t(local.size())).number(uint16_t(padding)).raw(local).zeros(padding).raw(part.data);
      out.raw(part.behind);
      Bytes extra;
      if (part.in_zip64) extra.number(uint16_t(1)).number(uint16_t(24)).u64(size).u64(size).u64(place);
      directory.u32(0x02014b50).u32(0).number(part.flags).number(part.method).u32(0).u32(0);
      directory.u32(small(size)).u32(small(size)).number(uint16_t(part.name.size()));
      directory.number(uint16_t(extra.text().size())).number(uint16_t(0)).number(uint16_t(0)).number(uint16_t(0));
      directory.u32(0).u32(small(place)).raw(part.name).raw(extra.text());
    }
    const uint64_t n = uint64_t(int64_t(parts.size()) + n_entries_change);
    const uint64_t at = in_front + out.text().size() + uint64_t(directory_offset_change);
    const uint64_t size = directory.text().size();
    out.raw(directory.text());
    if (zip64) {
      const uint64_t record = in_front + out.text().size();
      out.u32(0x06064b50).u64(44).u32(0).u32(0).u32(0).u64(n).u64(n).u64(size).u64(at);
      out.u32(0x07064b50).u32(0).u64(record).u32(1);
    }
    out.u32(0x06054b50).u32(0).number(uint16_t(n)).number(uint16_t(n)).u32(uint32_t(size)).u32(uint32_t(at));
    return out.number(uint16_t(comment.size())).raw(comment).text();
  }
};

// A tensor of an archive; `storage` may name that of an earlier tensor.
struct ArchiveTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::vector<std::byte> data;
  int storage = -1;
};

inline std::string_view storage_type(DType type) {
  switch (type) {
    case DType::kBF16: return "BFloat16Storage";
    case DType::kF16: return "HalfStorage";
    case DType::kI8: return "CharStorage";
    case DType::kU8: return "ByteStorage";
    case DType::kI32: return "IntStorage";
    case DType::kI64: return "LongStorage";
    default: return "FloatStorage";
  }
}

inline ZipParts torch_parts(const std::vector<ArchiveTensor>& tensors) {
  Pickle pickle;
  pickle.raw("}(");
  ZipParts zip;
  zip.parts.push_back({"m/data.pkl", {}});
  zip.parts.push_back({"m/byteorder", "little"});
  for (size_t i = 0; i < tensors.size(); ++i) {
    const ArchiveTensor& t = tensors[i];
    std::vector<int64_t> strides(t.shape.size());
    int64_t step = 1;
    for (size_t d = t.shape.size(); d-- > 0; step *= t.shape[d]) strides[d] = step;
    const std::string key = std::to_string(t.storage < 0 ? i : size_t(t.storage));
    pickle.text(t.name).tensor(storage_type(t.dtype), key, step, 0, t.shape, strides);
    if (t.storage >= 0) continue;
    zip.parts.push_back({"m/data/" + key, std::string(reinterpret_cast<const char*>(t.data.data()), t.data.size())});
  }
  zip.parts.front().data = pickle.raw("u.").bytes();
  return zip;
}

}  // namespace bitnet::testing
