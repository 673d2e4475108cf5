#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/kv_tiles.h"
#include "memory/buffer.h"
#include "quant/ternary.h"
#include "tensor/dtype.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// The one seam between the model and the machine. A back end keeps matrices in whatever layout suits it and runs the
// operations below; docs/numerics.md fixes every sum's order, so that the reference back end (plain loops) and every
// CPU instruction set give the same bits.
namespace bitnet {

// float32 activations, row-major and contiguous: [n_rows, n_cols], one row a token.
struct MatrixView {
  float* data = nullptr;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  float* row(int64_t i) const { return data + i * n_cols; }
};

// int8 activations with one scale a row. Rows are `stride` bytes apart, a multiple of 64 and of every block's columns;
// columns from n_cols to stride are zero.
struct QuantizedView {
  int8_t* codes = nullptr;      // [n_rows, stride]
  float* inv_scales = nullptr;  // [n_rows]
  int32_t* sums = nullptr;      // [n_rows], of the codes
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t stride = 0;
};
constexpr int64_t quantized_stride(int64_t n_cols) { return (n_cols + 319) / 320 * 320; }

// For at most so many tokens products leave out what contributes nothing; of more tokens together, nearly everything
// has one that wants it.
constexpr int64_t kFewTokens = 16;

// What a product with ternary weights often leaves out, so that they can lie accordingly.
enum class TernaryUse : uint8_t {
  kWhole,
  kSomeRows,     // LinearCall::wanted
  kSomeColumns,  // inputs whose int8 code is zero
};
// Where one part of a matrix goes as a back end lays it out: memory to fill, or bytes that the same preparation laid
// out earlier (`ready`), to be read only. Named parts; thread-safe.
struct LayoutMemory {
  Buffer bytes;
  bool ready = false;
};
using TakeMemory = std::function<Result<LayoutMemory>(std::string_view part, size_t size_bytes)>;

// Weights as the loader hands them over, [n_rows, n_cols] = [out, in]. The readers are called from several threads at
// once, each on rows of its own.
struct TernarySource {
  TernaryUse use = TernaryUse::kWhole;
  int64_t row_groups = 0;  // of a head's rows, which stay together where several devices share them; 0: none
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  TernaryScales scales;
  std::function<Status(int64_t row_begin, int64_t n_rows, uint8_t* codes)> read_codes;  // w + 1, [n_rows, n_cols]
  TakeMemory take;                                                                      // null: memory is allocated
};
// What a table of floats is for.
enum class TableUse : uint8_t {
  kProducts,  // products and rows
  kRows,      // rows, now and then: they may stay in the file
  kHead,      // best_logits() and rows, products seldom: rows may stay in the file
};
struct FloatSource {
  TableUse use = TableUse::kProducts;
  DType dtype = DType::kF32;  // F32, F16, BF16, Q4_0, Q8_0, Q4_K or Q6_K
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  std::function<Status(int64_t row_begin, int64_t n_rows, std::byte* out)> read_rows;  // in the stored type
  TakeMemory take = {};                                                                // as above
};

// A prepared weight matrix; belongs to the back end that made it. Immutable, shared by all sessions.
class Matrix {
 public:
  Matrix(int64_t n_rows, int64_t n_cols, bool ternary) : n_rows_(n_rows), n_cols_(n_cols), ternary_(ternary) {}
  virtual ~Matrix() = default;
  int64_t n_rows() const { return n_rows_; }
  int64_t n_cols() const { return n_cols_; }
  bool ternary() const { return ternary_; }
  virtual size_t size_bytes() const = 0;  // of memory held
  // Bytes that one token's product reads: what bounds the speed of generation.
  virtual size_t bytes_per_product() const { return size_bytes(); }
  // Fetches what a product needs and the matrix has left in the file. Thread-safe; a second call does nothing.
  virtual Status load_rows(ThreadPool&) const { return ok(); }

 private:
  int64_t n_rows_, n_cols_;
  bool ternary_;
};

struct LinearCall {
  const Matrix* weight;
  MatrixView out;  // [n_tokens, weight->n_rows()]
  // Where given, [n_tokens, weight->n_rows()]: an output is wanted only where this is positive; the others may hold
  // anything. Ternary weights with int8 activations alone look at it.
  MatrixView wanted = {};
};

enum class GateActivation : uint8_t { kRelu2, kSilu };
struct RopeTable {
  const float* cos = nullptr;  // [n_positions, n_pairs]
  const float* sin = nullptr;
  int64_t n_positions = 0;
  int64_t n_pairs = 0;  // rope_dim / 2 <= head_dim / 2; later dimensions pass through
};

// One layer's keys and values, each [n_kv_heads, n_ctx] rows of head_dim values: F16, F32, or Q8_0; or, I8 and I4,
// tiles for each head (kernels/kv_tiles.h). Backend::check_kv() tells which of them a back end has for a head_dim.
struct KvLayer {
  void* k = nullptr;
  void* v = nullptr;
  DType dtype = DType::kF16;
  int64_t n_kv_heads = 0;
  int64_t n_ctx = 0;
  int64_t head_dim = 0;
  bool tiled() const { return dtype == DType::kI8 || dtype == DType::kI4; }
  int64_t bits() const { return dtype == DType::kI4 ? 4 : 8; }  // of a tiled cache
  int64_t row_bytes() const {                                   // of one that is not
    const DTypeInfo& info = dtype_info(dtype);
    return head_dim / info.block_size * info.block_bytes;
  }
  // Of one head's keys, or values.
  int64_t head_bytes() const {
    if (!tiled()) return n_ctx * row_bytes();
    return (n_ctx + kTilePositions - 1) / kTilePositions * kv_tile_bytes(head_dim, bits());
  }
};

class FusedModel;
struct ModelGraph;

struct StreamOptions {
  int n_threads = 1;
  int64_t max_tokens = 1;             // rows of any MatrixView to come
  int64_t max_cols = 1;               // columns of any linear's input, rows of a matrix used by kSomeColumns
  int64_t n_ctx = 1;                  // positions that attention may see
  int64_t n_heads = 1;                // with so many queries a token
  int64_t max_parts = 1;              // sequences in a step of `fused`
  const FusedModel* fused = nullptr;  // whose steps are to run on the stream, if any
};

// One session's execution: its threads and scratch memory, all taken when it is made. One caller at a time.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual ThreadPool& pool() = 0;
  // Bytes of weights that the operations so far have read from memory; 0 where nobody counts.
  virtual uint64_t weight_bytes_read() const { return 0; }
};

// What a model's loader is about to prepare: a table of floats, a linear layer's matrix, or a vector of one row.
struct WeightPlan {
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t row_groups = 0;  // TernarySource
  bool table = false;
  TableUse use = TableUse::kProducts;  // a table's, and its type in the file
  DType dtype = DType::kF32;
};

// What a device of its own can do at this moment, measured; 0 where it could not be.
struct DeviceLimits {
  double read_gb_per_s = 0;    // from its memory
  double copy_gb_per_s = 0;    // read and written
  double int8_gops_per_s = 0;  // multiplications and additions of its fastest 8-bit products
};

// All operations are deterministic. None allocates, but for a head's first two searches (best_logits). Shapes are the
// caller's duty (model/forward.cc), so that only reading a file can fail; linear() wants the rows of a table loaded.
// Weights of norms and rotation tables lie in allocate()'s memory. Const and thread-safe as long as each thread uses a
// Stream of its own.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;     // "cpu", "reference"
  virtual std::string_view kernels() const = 0;  // "avx512vnni", what runs here
  // Names the layout of what prepare() takes through TakeMemory, and says when it is another; empty: it takes nothing.
  virtual std::string_view layout() const { return {}; }
  virtual int layout_version() const { return 0; }
  virtual Result<std::unique_ptr<Stream>> new_stream(const StreamOptions& options) const = 0;

  // Memory that the operations work on: views, caches, tables and norms point into it. Only where it is the host's may
  // anyone else read or write it; upload() and fetch() work everywhere.
  virtual Result<Buffer> allocate(size_t size_bytes, CallSite site = CallSite::here()) const = 0;
  // Of n_layers caches like `layer`, each planes of keys and of values, one after the other. A back end of several
  // devices shares the heads among them: what it gives is then for its fused model only.
  virtual Result<Buffer> allocate_cache(const KvLayer& layer, int64_t n_layers, size_t plane_bytes) const;
  virtual bool host_memory() const { return true; }
  virtual Status upload(std::span<const std::byte> from, void* to) const;
  // Waits for what the stream has to do. Operations may fail late: this and wait() say so.
  virtual Status fetch(Stream&, const void* from, std::span<std::byte> to) const;
  virtual Status wait(Stream&) const { return ok(); }

  // Whether a key/value cache may be of this type; kInvalidArgument, or kUnsupported where only this back end has it
  // not.
  virtual Status check_kv(DType dtype, int64_t head_dim) const;
  // Of a device beside the processor.
  virtual Result<DeviceLimits> measure_limits() const { return DeviceLimits(); }

  // The whole model as one operation a step, where the back end has that for such a model; else null. The graph's
  // matrices and norms outlive it.
  virtual Result<std::unique_ptr<FusedModel>> fuse(const ModelGraph& graph) const;

  // Takes memory for all of a model's weights at once, before the first of them, where the back end does so: one that
  // cannot have it says how much is missing. A plan may be off; what it leaves out is taken as it comes.
  virtual Status reserve(std::span<const WeightPlan>) const { return ok(); }
  virtual Result<std::unique_ptr<Matrix>> prepare(const TernarySource& source, ThreadPool& pool) const = 0;
  virtual Result<std::unique_ptr<Matrix>> prepare(const FloatSource& source, ThreadPool& pool) const = 0;

  // out[t] = row ids[t] of a float table. Fails where a row cannot be read from the file.
  virtual Status embed(Stream&, const Matrix& table, std::span<const int32_t> ids, MatrixView out) const = 0;
  // out = x / sqrt(mean(x^2) + eps) * weight, a row at a time; out may be x.
  virtual void rms_norm(Stream&, MatrixView x, std::span<const float> weight, float eps, MatrixView out) const = 0;
  // Per-token absmax int8 (quant/activations.h).
  virtual void quantize(Stream&, MatrixView x, QuantizedView out) const = 0;
  // out = q / s for the same q and s: what a float weight matrix inside a ternary model sees. out may be x.
  virtual void fake_quantize(Stream&, MatrixView x, MatrixView out) const = 0;
  // out = (sum(code * q) - sum(q)) * (1/s) * alpha for ternary weights: exact integers, then two multiplications.
  // Grouped scales: float(sum over group g) * alpha_g added up in order of g, then * (1/s).
  virtual void linear(Stream&, std::span<const LinearCall> calls, const QuantizedView& x) const = 0;
  // The same with float32 activations, for float or ternary weights.
  virtual void linear(Stream&, std::span<const LinearCall> calls, MatrixView x) const = 0;
  // For each row of x [n, n_cols] the n_best >= 1 largest of its products with a table's rows, and all that equal the
  // least of them: out [n, table.n_rows()] has the bits that linear() gives. Any other product may be minus infinity.
  virtual Status best_logits(Stream&, const Matrix& table, MatrixView x, int64_t n_best, MatrixView out) const = 0;
  // Rotates the pairs (i, i + n_pairs) of each head of x [n_tokens, n_heads * head_dim] in place; token t stands at
  // first_position + t.
  virtual void rope(Stream&, MatrixView x, int64_t head_dim, const RopeTable&, int64_t first_position) const = 0;
  // k, v [n_tokens, n_kv_heads * head_dim] to positions first_position...
  virtual void store_kv(Stream&, MatrixView k, MatrixView v, const KvLayer&, int64_t first_position) const = 0;
  // Causal attention with grouped queries, scale 1 / sqrt(head_dim): q, out [n_tokens, n_heads * head_dim].
  virtual void attention(Stream&, MatrixView q, const KvLayer&, int64_t first_position, MatrixView out) const = 0;
  // out = act(gate) * up; out may be gate or up. With kRelu2, 0 where the gate is not positive, whatever `up` holds.
  virtual void gate(Stream&, GateActivation, MatrixView gate, MatrixView up, MatrixView out) const = 0;
  // y += x.
  virtual void add(Stream&, MatrixView x, MatrixView y) const = 0;
};

// "cpu" (the best instruction set of this machine, or the one that BITNET_CPU_ISA names), "reference", or "cuda" and
// "cuda:N" where the build has it. Anything else is refused with what this build has, a device that is not there with
// what is missing.
Result<std::unique_ptr<Backend>> make_backend(std::string_view device);

struct DeviceInfo {
  std::string device;                // "cpu"
  std::string description;           // "AMD EPYC, 2 threads, 23.5 GiB"
  std::vector<std::string> kernels;  // usable here, best first
  std::string chosen;                // of these
};
// What this machine has and what would run on it; an error when BITNET_CPU_ISA names something it cannot run.
Result<std::vector<DeviceInfo>> list_devices();

}  // namespace bitnet
