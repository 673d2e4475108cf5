#include "kernels/device_tensor.h"

#include <utility>

namespace bitnet {

Result<DeviceTensor> DeviceTensor::allocate(const Backend& backend, DType dtype, Shape shape) {
  BN_ASSIGN_OR_RETURN(const uint64_t size_bytes, tensor_bytes(dtype, shape));
  BN_ASSIGN_OR_RETURN(Buffer buffer, backend.allocate(size_t(size_bytes)));
  return DeviceTensor(backend, dtype, std::move(shape), std::move(buffer));
}

Result<DeviceTensor> DeviceTensor::upload(const Backend& backend, TensorView from) {
  BN_ASSIGN_OR_RETURN(DeviceTensor out, allocate(backend, from.dtype(), from.shape()));
  const std::byte* values = from.data();
  Tensor copy;
  if (!from.contiguous()) {
    BN_ASSIGN_OR_RETURN(copy, Tensor::copy_of(from));
    values = copy.bytes().data();
  }
  BN_RETURN_IF_ERROR(backend.upload({values, out.buffer_.size_bytes()}, out.data()));
  return out;
}

Result<Tensor> DeviceTensor::fetch(Stream& stream) const {
  BN_ASSIGN_OR_RETURN(Tensor out, Tensor::zeros(dtype_, shape_));
  BN_RETURN_IF_ERROR(backend_->fetch(stream, data(), out.bytes()));
  return out;
}

Result<MatrixView> DeviceTensor::matrix() const {
  if (dtype_ != DType::kF32 || shape_.size() != 2) {
    return invalid_argument("a tensor {} of {} where a matrix of F32 is wanted", shape_string(shape_),
                            dtype_info(dtype_).name);
  }
  return MatrixView{buffer_.as<float>(), shape_[0], shape_[1]};
}

}  // namespace bitnet
