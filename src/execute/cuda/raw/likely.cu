// How likely single numbers of rows of logits are, a block a row: rows that nothing is asked of are not read.
//   WIDE_NUMBERS   1: the rows are f32
// Architecture: sm_75 on (bf16: sm_80 on). Shared memory: static, 512 bytes. Registers: at most 64 a thread.
#ifndef WIDE_NUMBERS
#define WIDE_NUMBERS 0
#endif

struct LikelyParams {
  u32 rows, width;
};

struct LikelyFound {
  double log;
  u32 first, bad;
};

namespace likely {
constexpr u32 WARPS = 16;
#if WIDE_NUMBERS
typedef float Logit;
__device__ __forceinline__ float wide(float logit) { return logit; }
#else
typedef u16 Logit;
__device__ __forceinline__ float wide(u16 logit) { return number_to_float(logit); }
#endif
}  // namespace likely

// found[i] = the log-softmax of a row at targets[rows + 1 + i], whether that is the first of the largest, and 1 where a
// number of the row is not finite; those of a row are from targets[row] to targets[row + 1].
// Exponentials are f32, their sum is f64, in the same order whatever runs first.
extern "C" __global__ void __launch_bounds__(32 * likely::WARPS)
    likely_rows(const likely::Logit* rows, const u32* targets, LikelyFound* found,
                const __grid_constant__ LikelyParams p) {
  using namespace likely;
  using elements::Largest;
  __shared__ Largest warps[WARPS];
  __shared__ double sums[WARPS];
  let_next_launch_begin();
  wait_for_launches_before();
  const u32 begin = targets[blockIdx.x], end = targets[blockIdx.x + 1], warp = threadIdx.x / 32;
  if (begin == end) return;
  const Logit* const row = rows + size_t(blockIdx.x) * p.width;
  Largest largest = {wide(row[0]), 0, 0};
#pragma unroll 4
  for (u32 at = threadIdx.x; at < p.width; at += blockDim.x) largest.see(wide(row[at]), at);
  largest.join_warp();
  if (threadIdx.x % 32 == 0) warps[warp] = largest;
  __syncthreads();
  for (u32 w = 0; w < WARPS; w++) largest.join(warps[w].number, warps[w].place, warps[w].bad);
  double sum = 0.;
#pragma unroll 4
  for (u32 at = threadIdx.x; at < p.width; at += blockDim.x) sum += double(expf(wide(row[at]) - largest.number));
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(~0u, sum, apart);
  if (threadIdx.x % 32 == 0) sums[warp] = sum;
  __syncthreads();
  sum = 0.;
  for (u32 w = 0; w < WARPS; w++) sum += sums[w];
  const double norm = double(largest.number) + log(sum);
  for (u32 target = begin + threadIdx.x; target < end; target += blockDim.x) {
    const u32 id = targets[p.rows + 1 + target];
    found[target] = {double(wide(row[id])) - norm, u32(id == largest.place), largest.bad};
  }
}
