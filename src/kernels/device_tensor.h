#pragma once

#include "kernels/backend.h"
#include "memory/buffer.h"
#include "tensor/tensor.h"

namespace bitnet {

// A tensor in a back end's own memory, where its operations read and write; row-major without gaps. Of any type, packed
// ones as their bytes. The back end must outlive it.
class DeviceTensor {
 public:
  // Zeroed where the back end's memory is; kResource where it has none left.
  static Result<DeviceTensor> allocate(const Backend& backend, DType dtype, Shape shape);
  // The values of a view, whatever its strides.
  static Result<DeviceTensor> upload(const Backend& backend, TensorView from);
  // Waits for what the stream has to do before.
  Result<Tensor> fetch(Stream& stream) const;

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  void* data() const { return buffer_.data(); }  // in the back end's memory
  // F32 [n_rows, n_cols], for the back end's operations.
  Result<MatrixView> matrix() const;

 private:
  DeviceTensor(const Backend& backend, DType dtype, Shape shape, Buffer buffer)
      : backend_(&backend), dtype_(dtype), shape_(std::move(shape)), buffer_(std::move(buffer)) {}

  const Backend* backend_;
  DType dtype_;
  Shape shape_;
  Buffer buffer_;
};

}  // namespace bitnet
