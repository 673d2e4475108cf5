#pragma once

#include "tensor/tensor.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <vector>

// What NumPy made of our operations (tests/golden/make_tensor_goldens.py). Reads the file by itself, as the format room
// stands above this one.
namespace bitnet {

using GoldenJson = nlohmann::json;

class TensorGoldens {
 public:
  static const TensorGoldens& get() {
    static const TensorGoldens goldens;
    return goldens;
  }
  const std::vector<GoldenJson>& cases() const { return cases_; }

  // The input of a case: a pool and steps that make a view of it.
  Result<TensorView> input(const GoldenJson& spec) const {
    TensorView view = pools_.at(spec[0].get<std::string>() + "." + spec[1].get<std::string>()).view();
    for (const GoldenJson& step : spec[2]) {
      BN_ASSIGN_OR_RETURN(view, stepped(view, step));
    }
    return view;
  }

  TensorView expected(const GoldenJson& golden) const {
    const GoldenJson& out = golden["out"];
    const auto shape = out[2].get<Shape>();
    const TensorView all = pools_.at("out." + out[0].get<std::string>()).view();
    const int64_t begin = out[1];
    return *all.slice(0, {begin, begin + int64_t(*element_count(shape))})->reshape(shape);
  }

 private:
  TensorGoldens() {
    std::ifstream file(std::string(BITNET_SOURCE_DIR) + "/tests/data/tensor/goldens.safetensors", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
    const GoldenJson header = GoldenJson::parse(bytes.substr(8, header_bytes));
    const std::string data = bytes.substr(8 + header_bytes);
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") continue;
      Tensor tensor = *Tensor::zeros(*parse_dtype(entry["dtype"].get<std::string>()), entry["shape"].get<Shape>());
      std::memcpy(tensor.bytes().data(), data.data() + entry["data_offsets"][0].get<size_t>(), tensor.bytes().size());
      pools_[name] = std::move(tensor);
    }
    cases_ = GoldenJson::parse(header["__metadata__"]["cases"].get<std::string>()).get<std::vector<GoldenJson>>();
  }

  static std::optional<int64_t> bound(const GoldenJson& json) {
    if (json.is_null()) return std::nullopt;
    return json.get<int64_t>();
  }
  static Result<TensorView> stepped(const TensorView& view, const GoldenJson& step) {
    const std::string name = step[0];
    if (name == "slice") return view.slice(step[1], {bound(step[2]), bound(step[3]), step[4]});
    if (name == "reshape") return view.reshape(step[1].get<Shape>());
    if (name == "permute") return view.permute(step[1].get<std::vector<int64_t>>());
    if (name == "transpose") return view.transpose(step[1], step[2]);
    if (name == "select") return view.select(step[1], step[2]);
    if (name == "broadcast") return view.broadcast_to(step[1].get<Shape>());
    if (name == "unsqueeze") return view.unsqueeze(step[1]);
    if (name == "squeeze") return view.squeeze(step[1].get<int64_t>());
    return invalid_argument("no step {}", name);
  }

  std::map<std::string, Tensor> pools_;
  std::vector<GoldenJson> cases_;
};

// Exact where the case has no tolerance: the same type, shape and values, NaN where NaN is, zeros of the same sign.
inline void expect_golden(const GoldenJson& golden, const Tensor& ours) {
  const TensorView expected = TensorGoldens::get().expected(golden);
  ASSERT_EQ(dtype_info(ours.dtype()).name, dtype_info(expected.dtype()).name) << golden.dump();
  ASSERT_EQ(ours.shape(), expected.shape()) << golden.dump();
  const double rtol = golden["tol"][0], atol = golden["tol"][1];
  if (is_integer(ours.dtype()) && rtol == 0) {
    EXPECT_EQ(*to_vector<int64_t>(ours), *to_vector<int64_t>(expected)) << golden.dump();
    return;
  }
  const std::vector<double> a = *to_vector<double>(ours), b = *to_vector<double>(expected);
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    // Which of two equal zeros is the less is nobody's business.
    const bool zero_sign = a[i] == 0 && std::signbit(a[i]) != std::signbit(b[i]) && rtol == 0 &&
                           golden["op"] != "minimum" && golden["op"] != "maximum" && golden["op"] != "min" &&
                           golden["op"] != "max" && golden["op"] != "clip";
    const bool near = a[i] == b[i] ? !zero_sign : std::fabs(a[i] - b[i]) <= atol + rtol * std::fabs(b[i]);
    if (!near) {
      ADD_FAILURE() << "value " << i << " is " << a[i] << ", NumPy has " << b[i] << ": " << golden.dump();
      return;
    }
  }
}

using GoldenOperation = std::function<Result<Tensor>(const std::vector<TensorView>& in, const GoldenJson& args)>;

// Walks over all cases of these operations; each must have one.
inline void expect_goldens(const std::map<std::string, GoldenOperation>& operations) {
  std::map<std::string, int> seen;
  for (const GoldenJson& golden : TensorGoldens::get().cases()) {
    const auto operation = operations.find(golden["op"].get<std::string>());
    if (operation == operations.end()) continue;
    ++seen[operation->first];
    std::vector<TensorView> inputs;
    for (const GoldenJson& spec : golden["in"]) {
      const auto input = TensorGoldens::get().input(spec);
      ASSERT_TRUE(input) << input.error().message << ": " << golden.dump();
      inputs.push_back(*input);
    }
    const Result<Tensor> ours = operation->second(inputs, golden["args"]);
    ASSERT_TRUE(ours) << ours.error().message << ": " << golden.dump();
    expect_golden(golden, *ours);
  }
  for (const auto& [name, operation] : operations) EXPECT_GT(seen[name], 0) << name;
}

}  // namespace bitnet
