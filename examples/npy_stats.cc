// npy_stats FILE.npy: what a NumPy array holds. Without a file it writes one, sample.npy, and describes that.
#include "format/npy.h"
#include "tensor/reduce.h"

#include <cstdio>
#include <string>

namespace {

bitnet::Status write_sample(const std::string& path) {
  using namespace bitnet;
  BN_ASSIGN_OR_RETURN(const Tensor values, Tensor::normal(DType::kF32, {64, 100}, /*seed=*/1));
  BN_ASSIGN_OR_RETURN(const TensorView turned, values.view().transpose());
  return write_npy(path, turned);
}

bitnet::Status describe(const std::string& path) {
  using namespace bitnet;
  BN_ASSIGN_OR_RETURN(const Tensor values, read_npy(path));
  std::printf("%s: %s %s\n", path.c_str(), std::string(dtype_info(values.dtype()).name).c_str(),
              shape_string(values.shape()).c_str());
  if (values.n_values() == 0) return ok();
  BN_ASSIGN_OR_RETURN(const auto bad, find_nonfinite(values));
  if (bad) std::printf("  value %lld is not finite\n", static_cast<long long>(*bad));
  const auto print = [](const char* name, const Result<Tensor>& value) -> Status {
    if (!value) return value.error();
    std::printf("  %-18s %s\n", name, to_text(*value).c_str());
    return ok();
  };
  BN_RETURN_IF_ERROR(print("minimum", min(values)));
  BN_RETURN_IF_ERROR(print("mean", mean(values)));
  BN_RETURN_IF_ERROR(print("maximum", max(values)));
  BN_RETURN_IF_ERROR(print("standard deviation", standard_deviation(values)));
  BN_RETURN_IF_ERROR(print("median", median(values)));
  BN_RETURN_IF_ERROR(print("99% quantile", quantile(values, 0.99)));
  if (values.rank() != 2) return ok();
  return print("means of columns", mean(values, {.axes = {0}}));
}

bitnet::Status run(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "sample.npy";
  if (argc <= 1) BN_RETURN_IF_ERROR(write_sample(path));
  return describe(path);
}

}  // namespace

int main(int argc, char** argv) {
  const bitnet::Status status = run(argc, argv);
  if (!status) std::fprintf(stderr, "npy_stats: %s\n", status.error().message.c_str());
  return status ? 0 : int(status.error().code);
}
