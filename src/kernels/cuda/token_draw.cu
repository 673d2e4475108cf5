#include "kernels/cuda/best_token.cuh"
#include "kernels/cuda/hopper.cuh"

// Drawing a token where its logits are (numerics.md 16). Everything a draw adds up it adds up one after the other, in
// the order of runtime/sampler.cc, so that the sums have its bits; the rest is done by all threads.
namespace bitnet::cuda {
namespace {

constexpr int kThreads = kMaxDrawnFrom;

// Keys of logits that are to be chosen from; 0: none. Candidates that found no room are among the logits.
struct Keys {
  const unsigned long long* candidates;
  const float* logits;
  int64_t n;
  __device__ unsigned long long at(int64_t i) const {
    if (candidates != nullptr) return *const_cast<const volatile unsigned long long*>(candidates + i);
    const float logit = load1(logits + i);
    return logit == -INFINITY ? 0 : ordered_logit(logit, int(i));
  }
};

// The k-th largest key, by its bytes from the highest on; at most as many are left out as there are keys.
__device__ unsigned long long nth_key(const Keys& keys, int64_t k) {
  __shared__ unsigned counts[256];
  __shared__ unsigned long long shared_prefix;
  __shared__ int64_t shared_left;
  const int tid = int(threadIdx.x);
  if (tid == 0) shared_prefix = 0, shared_left = k;
  for (int shift = 56; shift >= 0; shift -= 8) {
    if (tid < 256) counts[tid] = 0;
    __syncthreads();
    const unsigned long long prefix = shared_prefix;
    for (int64_t i = tid; i < keys.n; i += kThreads) {
      const unsigned long long key = keys.at(i);
      if (shift == 56 || key >> (shift + 8) == prefix >> (shift + 8)) atomicAdd(&counts[key >> shift & 255u], 1u);
    }
    __syncthreads();
    if (tid == 0) {
      int64_t left = shared_left;
      int digit = 255;
      for (; digit > 0 && int64_t(counts[digit]) < left; --digit) left -= counts[digit];
      shared_prefix = prefix | static_cast<unsigned long long>(digit) << shift;
      shared_left = left;
    }
    __syncthreads();
  }
  return shared_prefix;
}

// The first n of keys[kThreads] in descending order, by a bitonic network over the power of two that holds them.
__device__ void sort(unsigned long long* keys, int n) {
  const int tid = int(threadIdx.x);
  int n_padded = 1;
  while (n_padded < n) n_padded *= 2;
  if (tid >= n && tid < n_padded) keys[tid] = 0;
  for (int run = 2; run <= n_padded; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      __syncthreads();
      const int other = tid ^ step;
      if (tid >= n_padded || other < tid) continue;
      const unsigned long long a = keys[tid], b = keys[other];
      const bool descends = (tid & run) == 0;
      if ((a < b) == descends) keys[tid] = b, keys[other] = a;
    }
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) draw_kernel(const __grid_constant__ TokenDraw call) {
  __shared__ unsigned long long sorted[kThreads];  // the likeliest first
  __shared__ double weights[kThreads], drawn_weights[kThreads];
  __shared__ int drawn_ids[kThreads];
  __shared__ int n_found, n_likeliest;
  const int tid = int(threadIdx.x);
  launch_dependents();
  wait_for_dependencies();
  StepControl* const control = call.control;
  const TokenSampling how = control->sampling;
  const int64_t n_candidates = *const_cast<volatile unsigned*>(&call.row->n_candidates);
  const bool listed = call.candidates != nullptr && n_candidates <= kMaxCandidates;
  const Keys keys = {listed ? call.candidates : nullptr, call.logits, listed ? n_candidates : call.n_rows};
  if (tid == 0) n_found = 0;
  const unsigned long long least = keys.n <= kThreads ? 1 : max(nth_key(keys, how.top_k), 1ull);
  __syncthreads();
  for (int64_t i = tid; i < keys.n; i += kThreads) {
    const unsigned long long key = keys.at(i);
    if (key >= least) sorted[atomicAdd(&n_found, 1)] = key;
  }
  __syncthreads();

  sort(sorted, n_found);
  const int n = min(n_found, how.top_k);
  const float most = unordered(uint32_t(sorted[0] >> 32));
  if (tid < n) weights[tid] = sampling_weight(unordered(uint32_t(sorted[tid] >> 32)), most, how.temperature);
  __syncthreads();
  if (tid == 0) {
    n_likeliest = n;
    if (how.top_p < 1.0f) {
      double total = 0.0, sum = 0.0;
      for (int i = 0; i < n; ++i) total += weights[i];
      const double wanted = double(how.top_p) * total;
      int kept = 0;
      do sum += weights[kept++];
      while (kept < n && sum < wanted);
      n_likeliest = kept;
    }
  }
  __syncthreads();

  // What is left, in order of id.
  const auto id_of = [&](int i) { return int(~uint32_t(sorted[i])); };
  const auto keeps = [&](int i) { return how.min_p <= 0.0f || !(weights[i] < double(how.min_p)); };
  const bool kept = tid < n_likeliest && keeps(tid);
  if (kept) {
    int rank = 0;
    for (int i = 0; i < n_likeliest; ++i) rank += keeps(i) && id_of(i) < id_of(tid) ? 1 : 0;
    drawn_ids[rank] = tid;
    drawn_weights[rank] = weights[tid];
  }
  const int n_drawn = __syncthreads_count(kept);
  if (tid > 0) return;
  double total = 0.0, sum = 0.0;
  for (int i = 0; i < n_drawn; ++i) total += drawn_weights[i];
  const double target = sampling_point(how.seed, control->draw) * total;
  int chosen = drawn_ids[0];
  for (int i = 0; i < n_drawn; ++i) {
    if (drawn_weights[i] == 0.0) continue;
    chosen = drawn_ids[i];
    sum += drawn_weights[i];
    if (sum > target) break;
  }
  const bool finite = n_found > 0 && uint32_t(sorted[0] >> 32) != 0xffffffffu;
  StepResult* const result = call.results + control->position % 2;
  const int id = finite ? id_of(chosen) : 0;
  result->id = id;
  result->logit = finite ? unordered(uint32_t(sorted[chosen] >> 32)) : __uint_as_float(0x7fc00000u);
  control->token = id;
  control->position += 1;
  control->draw += 1;
  call.row->n_candidates = 0;
  __threadfence_system();
}

}  // namespace

cudaError_t draw_token(const Launcher& launcher, const TokenDraw& call) {
  return launch_kernel(launcher, dim3(1), dim3(kThreads), 0, draw_kernel, call);
}

}  // namespace bitnet::cuda
