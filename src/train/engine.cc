#include "train/engine.h"

#include "train/cpu/cpu_engine.h"
#if BITNET_CUDA
#include "train/cuda/cuda_engine.h"
#include "train/cuda/cuda_ranks_engine.h"
#endif

namespace bitnet {

Result<TrainPrecision> parse_precision(std::string_view name) {
  if (name == "bf16") return TrainPrecision::kBf16;
  if (name == "float32") return TrainPrecision::kFloat32;
  return invalid_argument("precision is \"{}\", expected bf16 or float32", name);
}

Result<std::unique_ptr<TrainEngine>> make_train_engine(const ModelConfig& config, const ParameterLayout& layout,
                                                       const EngineOptions& options) {
  const std::string_view device = options.device;
  if (device == "cpu") return CpuEngine::create(config, layout, options);
  if (device != "cuda" && !device.starts_with("cuda:")) {
    return invalid_argument("device is \"{}\": training runs on cpu, cuda, cuda:N or cuda:N,M", device);
  }
  if (options.base != nullptr) {
    return unsupported("device is \"{}\": adapters (lora_rank) are trained on the cpu only", device);
  }
  if (options.teacher != nullptr) {
    return unsupported("device is \"{}\": a student learns from a teacher on the processor only", device);
  }
#if BITNET_CUDA
  if (options.ranks.n > 1) return make_cuda_ranks_engine(config, layout, options);
  return make_cuda_engine(config, layout, options);
#else
  return unsupported("device is \"{}\", but this build has no CUDA: it was made without nvcc", device);
#endif
}

}  // namespace bitnet
