#include "format/test_torch_archive.h"
#include "format/torch_archive.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

// Archives and pickles that must be refused, each with a sentence that names what is wrong.
namespace bitnet {
namespace {

using namespace testing;

constexpr auto kInvalid = ErrorCode::kInvalidInput;
constexpr auto kUnsupported = ErrorCode::kUnsupported;

void expect_refused(const std::string& file, ErrorCode code, const std::string& part) {
  const auto archive = TorchArchive::parse(std::as_bytes(std::span(file)), "m.pt");
  expect_error(archive, code, part);
  expect_error(archive, code, "m.pt: ");
}

struct ZipCase {
  const char* id;
  std::function<void(ZipParts&)> spoil;
  ErrorCode code;
  const char* part;
};

TEST(TorchArchiveMalformedTest, Zip) {
  const std::vector<ZipCase> cases = {
      {"compressed", [](ZipParts& z) { z.parts[2].method = 8; }, kUnsupported, "compressed (method 8)"},
      {"encrypted", [](ZipParts& z) { z.parts[2].flags = 1; }, kUnsupported, "encrypted"},
      {"too long", [](ZipParts& z) { z.parts[2].size_change = 100000; }, kInvalid, "does not lie in front"},
      {"into the next", [](ZipParts& z) { z.parts[1].size_change = 1; }, kInvalid, "overlap at byte"},
      {"into the directory", [](ZipParts& z) { z.parts[2].size_change = 1; }, kInvalid, "does not lie in front"},
      {"no header there", [](ZipParts& z) { z.parts[2].offset_change = 8; }, kInvalid, "is not there"},
      {"outside", [](ZipParts& z) { z.parts[2].offset_change = 1 << 20; }, kInvalid, "does not lie in front"},
      {"wraps",
       [](ZipParts& z) {
         z.parts[2].in_zip64 = true;
         z.parts[2].size_change = -20;
       },
       kInvalid, "does not lie in front"},
      {"outside in 64 bits",
       [](ZipParts& z) {
         z.parts[2].in_zip64 = true;
         z.parts[2].offset_change = INT64_MAX;
       },
       kInvalid, "does not lie in front"},
      {"another name", [](ZipParts& z) { z.parts[2].local_name = "m/data/1"; }, kInvalid, "is not there"},
      {"twice", [](ZipParts& z) { z.parts.push_back(z.parts[2]); }, kInvalid, "is there twice"},
      {"no name",
       [](ZipParts& z) {
         z.parts.push_back({"", ""});
       },
       kInvalid, "an entry's name has 0 bytes"},
      {"long name",
       [](ZipParts& z) {
         z.parts.push_back({std::string(5000, 'x'), ""});
       },
       kInvalid, "has 5000 bytes"},
      {"NUL",
       [](ZipParts& z) {
         z.parts.push_back({std::string("a\0b", 3), ""});
       },
       kInvalid, "or a NUL"},
      {"more entries", [](ZipParts& z) { z.n_entries_change = 1; }, kInvalid, "an entry should begin here"},
      {"fewer entries", [](ZipParts& z) { z.n_entries_change = -1; }, kInvalid, "follow its last entry"},
      {"a million entries", [](ZipParts& z) { z.n_entries_change = 1'000'000; }, kInvalid, "more than the limits"},
      {"directory elsewhere", [](ZipParts& z) { z.directory_offset_change = 1; }, kInvalid, "does not end at byte"},
      {"directory wraps", [](ZipParts& z) { z.directory_offset_change = -1'000'000; }, kInvalid, "does not end at"},
      {"no pickle", [](ZipParts& z) { z.parts[0].name = "m/code.pkl"; }, kInvalid, "no entry FOLDER/data.pkl"},
      {"two pickles",
       [](ZipParts& z) {
         z.parts.push_back({"n/data.pkl", ""});
       },
       kInvalid, "could be the archive's"},
      {"deeper pickle", [](ZipParts& z) { z.parts[0].name = "m/n/data.pkl"; }, kInvalid, "no entry FOLDER/data.pkl"},
      {"big-endian", [](ZipParts& z) { z.parts[1].data = "big"; }, kUnsupported, "byte order is \"big\""},
      {"long byte order", [](ZipParts& z) { z.parts[1].data.resize(100); }, kInvalid, "more than the limit of 64"},
      {"storage short", [](ZipParts& z) { z.parts[2].data.resize(7); }, kInvalid, "has 7 bytes"},
      {"storage long", [](ZipParts& z) { z.parts[2].data.resize(12); }, kInvalid, "has 12 bytes"},
      {"storage missing", [](ZipParts& z) { z.parts.pop_back(); }, kInvalid, "the storage \"0\", which the archive"},
      {"long pickle", [](ZipParts& z) { z.parts[0].data.resize(5 << 20); }, kInvalid, "more than the limit of 4194304"},
  };
  for (const ZipCase& bad : cases) {
    SCOPED_TRACE(bad.id);
    ZipParts zip = torch_parts({{"t", DType::kF32, {2}, counting_bytes(8)}});
    bad.spoil(zip);
    expect_refused(zip.file(), bad.code, bad.part);
  }
}

TEST(TorchArchiveMalformedTest, NoArchive) {
  expect_refused("", kInvalid, "is no zip archive");
  expect_refused("GGUF" + std::string(99, '\0'), kInvalid, "looks like a GGUF file");
  expect_refused("PK\x03\x04", kInvalid, "the record that ends a zip archive is missing");
  expect_refused("PK\x03\x04" + std::string(100'000, 'x'), kInvalid, "the record that ends a zip archive is missing");
  const std::string whole = torch_parts({{"t", DType::kF32, {2}, counting_bytes(8)}}).file();
  expect_refused(whole + "x", kInvalid, "the record that ends a zip archive is missing");
  std::string in_parts = whole;
  in_parts[in_parts.size() - 18] = 1;
  expect_refused(in_parts, kUnsupported, "in several parts");
  std::string lost = whole;
  lost[lost.size() - 42 + 8] = 5;  // where the zip64 record is
  expect_refused(lost, kInvalid, "there is no zip64 record");
  lost[lost.size() - 42 + 15] = 5;
  expect_refused(lost, kInvalid, "leaves no room");
}

struct PickleCase {
  std::string id;
  Pickle pickle;
  ErrorCode code;
  std::string part;
};

Pickle begun() { return Pickle().raw("}(").text("t"); }
Pickle ended(Pickle pickle) { return pickle.raw("u."); }
// The tensor "t" of a storage "0" of 8 bytes.
Pickle tensor(int64_t offset, const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
              std::string_view type = "FloatStorage", int64_t count = 2) {
  return ended(begun().tensor(type, "0", count, offset, shape, strides));
}
Pickle tensor_of(std::string_view arguments) {
  return ended(begun().global("torch._utils", "_rebuild_tensor_v2").raw(arguments).raw("R"));
}
Pickle many(size_t n, std::string_view ops) {
  Pickle pickle;
  for (size_t i = 0; i < n; ++i) pickle.raw(ops);
  return pickle;
}

std::vector<PickleCase> pickle_cases() {
  const int64_t max = INT64_MAX;
  std::vector<PickleCase> cases = {
      {"empty", Pickle(""), kInvalid, "ends in the middle"},
      {"no pickle", Pickle("ab."), kInvalid, "byte 0x61, which begins no pickle"},
      {"protocol 4", Pickle("\x80\x04."), kUnsupported, "its protocol is 4"},
      {"no end", Pickle().raw("}"), kInvalid, "byte 3 of the pickle: it ends in the middle"},
      {"behind the end", Pickle().raw("}.}"), kInvalid, "1 bytes follow its end"},
      {"two values", Pickle().raw("}}."), kInvalid, "ends with 2 values"},
      {"no value", Pickle().raw("."), kInvalid, "ends with 0 values"},
      {"only a mark", Pickle().raw("(."), kInvalid, "from an empty stack"},
      {"no dict", Pickle().raw("]."), kUnsupported, "it holds a list"},
      {"integer", Pickle().raw("K\x01."), kUnsupported, "it holds an integer"},
      {"key without a value", Pickle().raw("}(").text("t").raw("u."), kInvalid, "a key without a value"},
      {"key an integer", Pickle().raw("}K\x01K\x02s."), kInvalid, "a key of the dict is an integer"},
      {"key empty", Pickle().raw("}").text("").raw("K\x02s."), kInvalid, "a key of the dict is \"\""},
      {"value an integer", Pickle().raw("}").text("epoch").raw("K\x02s."), kUnsupported, "\"epoch\" is an integer"},
      {"value a dict", Pickle().raw("}").text("model").raw("}s."), kUnsupported, "\"model\" is a dict"},
      {"dict in itself", Pickle().raw("}q\x01").text("t").raw("h\x01s."), kUnsupported, "\"t\" is a dict"},
      {"mark missing", Pickle().raw("u."), kInvalid, "down to a mark that is not there"},
      {"items of a list", Pickle().raw("](u."), kInvalid, "it sets items of a list, expected a dict"},
      {"append to a dict", Pickle().raw("}Na."), kInvalid, "it appends to a dict, expected a list"},
      {"append to nothing", Pickle().raw("Na."), kInvalid, "it appends to an empty stack"},
      {"tuple of nothing", Pickle().raw("N\x86."), kInvalid, "from an empty stack"},
      {"recall", Pickle().raw("h\x07."), kInvalid, "recalls value 7, which it never remembered"},
      {"remember nothing", Pickle().raw("q\x01."), kInvalid, "it remembers an empty stack"},
      {"remember a mark", Pickle().raw("(q\x01."), kInvalid, "it remembers an empty stack"},
      {"attributes of a list", Pickle().raw("]}b."), kInvalid, "attributes of something that is no dict"},
      {"attributes from a list", Pickle().raw("}]b."), kInvalid, "it sets attributes from a list"},
      {"call a list", Pickle().raw("])R."), kInvalid, "it wants to call a list with a tuple"},
      {"call with a list", Pickle().global("collections", "OrderedDict").raw("]R."), kInvalid, "with a list"},
      {"dict of arguments", Pickle().global("collections", "OrderedDict").raw("N\x85R."), kInvalid, "other arguments"},
      {"call a storage type", Pickle().global("torch", "FloatStorage").raw(")R."), kInvalid, "other arguments"},
      {"persistent id a text", Pickle().text("x").raw("Q."), kInvalid, "no storage of tensors"},
      {"storage of OrderedDict",
       Pickle().raw("(").text("storage").global("collections", "OrderedDict").text("0").text("cpu").raw("K\x01tQ."),
       kInvalid, "no storage of tensors"},
      {"storage of fewer than none", begun().storage("FloatStorage", "0", -1).raw("u."), kInvalid, "no storage"},
      {"unknown storage", begun().storage("DoubleStorage", "0", 1).raw("u."), kUnsupported, "torch.DoubleStorage"},
      {"long text", Pickle().text(std::string(5000, 'x')).raw("."), kInvalid, "a text has 5000 bytes"},
      {"text beyond the end", Pickle().raw("X\xff\xff\xff\xff."), kInvalid, "4294967295 bytes is longer than"},
      {"not UTF-8", Pickle().text("\xff").raw("."), kInvalid, "ill-formed UTF-8"},
      {"name without end", Pickle().raw("cos"), kInvalid, "a name has no end"},
      {"integer of 9 bytes", Pickle().raw("\x8a\x09" + std::string(9, 'x') + "."), kInvalid, "an integer has 9 bytes"},
      {"300,000 values", many(300'000, "N"), kInvalid, "more values than the limit of 200000"},
      {"deep", many(150'000, "(").raw("N").raw(many(150'000, "t").bytes().substr(2)).raw("."), kInvalid, "limit"},
      {"deep tuples", Pickle().raw("N").raw(many(90'000, "\x85").bytes().substr(2)).raw("."), kUnsupported, "a tuple"},
      {"70,000 names of one tensor",
       Pickle()
           .raw("}")
           .text("t")
           .raw("q\x01")
           .tensor("FloatStorage", "0", 2, 0, {2}, {1})
           .raw("q\x02s(")
           .raw(many(70'000, "h\x01h\x02").bytes().substr(2))
           .raw("u."),
       kInvalid, "more than the limit of 65536"},
      {"twice",
       Pickle()
           .raw("}(")
           .text("t")
           .tensor("FloatStorage", "0", 2, 0, {2}, {1})
           .text("t")
           .tensor("FloatStorage", "0", 2, 0, {2}, {1})
           .raw("u."),
       kInvalid, "the tensor \"t\" appears twice"},
      {"tensor of nothing", tensor_of(")"), kInvalid, "other arguments than torch.save gives"},
      {"tensor of numbers", tensor_of("(K\x01K\x01K\x01K\x01K\x01K\x01t"), kInvalid, "other arguments"},
      {"column", tensor(0, {2}, {2}), kUnsupported, "only contiguous tensors"},
      {"stride 0", tensor(0, {2}, {0}), kUnsupported, "only contiguous tensors"},
      {"stride negative", tensor(0, {2}, {-1}), kInvalid, "the strides of tensor \"t\" holds -1"},
      {"stride wraps", tensor(0, {2, 2}, {max, 1}), kInvalid, "does not lie in its storage"},
      {"shape negative", tensor(0, {-2}, {1}), kInvalid, "the shape of tensor \"t\" holds -2"},
      {"shape wraps", tensor(0, {int64_t{1} << 32, int64_t{1} << 32}, {1, 1}), kInvalid, "tensor \"t\""},
      {"17 dimensions", tensor(0, std::vector<int64_t>(17, 1), std::vector<int64_t>(17, 1)), kInvalid, "17 numbers"},
      {"more strides", tensor(0, {2}, {2, 1}), kInvalid, "1 dimensions, 2 strides"},
      {"offset", tensor(1, {2}, {1}), kInvalid, "from value 1 on does not lie in its storage of 2"},
      {"offset large", tensor(max, {2}, {1}), kInvalid, "does not lie in its storage"},
      {"offset negative", tensor(-1, {2}, {1}), kInvalid, "the offset -1"},
      {"another type", tensor(0, {2}, {1}, "HalfStorage"), kInvalid, "its entry \"m/data/0\" has 8 bytes"},
      {"count", tensor(0, {2}, {1}, "FloatStorage", 3), kInvalid, "a storage of 3 values"},
      {"count wraps", tensor(0, {2}, {1}, "FloatStorage", (int64_t{1} << 62) + 2), kInvalid, "has 8 bytes"},
      {"key leads away", ended(begun().tensor("FloatStorage", "../data.pkl", 2, 0, {2}, {1})), kInvalid,
       "which the archive does not hold"},
  };
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                        {"builtins", "eval"},
                                                        {"posix", "system"},
                                                        {"torch", "load"},
                                                        {"torch.storage", "_load"},
                                                        {"torch._utils", "_rebuild_parameter"},
                                                        {"collections", "OrderedDict x"},
                                                        {"torch", ""},
                                                        {"\x1b[31m", "x"}}) {
    Pickle call = Pickle().global(module, name).text("id").raw("\x85R.");
    cases.push_back({"calls " + name, call, kUnsupported, "it wants to call \""});
  }
  cases.push_back({"names it", Pickle().global("os", "system").raw("."), kUnsupported, "\"os.system\""});
  const std::string known =
      "(.N})]t\x85\x86\x87"
      "cQRbaesuJKMXqrhj\x88\x89\x8a";
  for (int opcode = 0; opcode < 256; ++opcode) {
    if (known.find(char(opcode)) != std::string::npos) continue;
    cases.push_back({fmt::format("opcode {:02x}", opcode), Pickle().raw(std::string(1, char(opcode))), kUnsupported,
                     fmt::format("the opcode 0x{:02x} is not one", opcode)});
  }
  return cases;
}

TEST(TorchArchiveMalformedTest, Pickles) {
  for (const PickleCase& bad : pickle_cases()) {
    SCOPED_TRACE(bad.id);
    ZipParts zip;
    zip.parts = {{"m/data.pkl", bad.pickle.bytes()}, {"m/data/0", std::string(8, 'x')}};
    expect_refused(zip.file(), bad.code, bad.part);
  }
}

}  // namespace
}  // namespace bitnet
