// One token by dense matrices, up to three of them at once, which share their input. A block has whole rows that follow
// each other in memory. A thread has the same columns of each of them, so that its inputs stay in registers; it loads
// the next rows' weights before it adds up what came.
//
//   a row    | eight 0 of thread 0, 1, 2 .. | eight 1 of thread 0, 1, 2 .. | ..        CHUNKS eights a thread
//   at once  ROWS rows of it; a warp's sums of a row are added up in the order of the warps
//
//   CHUNKS   eights of columns that a thread has      ROWS   rows whose weights are on their way at once
//   WARPS    of a block: 8, or 16 where rows are long
// Architecture: sm_75 on (bf16: sm_80 on).
// Shared memory: 4 bytes a row of the block and warp, 8 a warp, and of a norm 2 a column.
// Registers: at most 128 a thread, for 512 threads a multiprocessor.
#ifndef CHUNKS
#define CHUNKS 2
#endif
#ifndef ROWS
#define ROWS 8
#endif
#ifndef WARPS
#define WARPS 8
#endif

struct DensePart {
  const uint4* weight;
  const u16* bias;
  u16* y;
};

struct DenseBuffers {
  const uint4* x;
  DensePart parts[3];
  ReadsBuffers reads;
};

struct DenseParams {
  u32 eights;      // of a row
  u32 early, has_bias;
  u32 most;        // rows of a block
  u32 rows[3];
  u32 begins[3];   // a part's first block; of parts that are not there the number of blocks
  u32 blocks[3];
  ReadsParams reads;
};

namespace dense {
constexpr u32 THREADS = 32 * WARPS;

__device__ __forceinline__ float dot(float sum, uint4 a, uint4 b) {
  const u32 x[4] = {a.x, a.y, a.z, a.w}, y[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 p = pair_to_float(x[i]), q = pair_to_float(y[i]);
    sum = fmaf(p.x, q.x, sum);
    sum = fmaf(p.y, q.y, sum);
  }
  return sum;
}

// The norm of what the block's threads hold, and its numbers for later launches. `slots` has two for each warp, and
// behind them are the gains.
__device__ __forceinline__ void make_norm(uint4 (&held)[CHUNKS], const ReadsBuffers& b, const ReadsParams& p, u32 eights,
                                          float* slots) {
  using namespace elements;
  float total = 0.f;
#pragma unroll
  for (int c = 0; c < CHUNKS; c++)
    if (threadIdx.x + c * THREADS < eights) total += total_of(held[c], !p.centred, 0.f);
  const float width = float(8 * eights);
  float squares = block_sum(total, slots), mean = 0.f;
  if (p.centred) {
    mean = squares / width;
    total = 0.f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
      if (threadIdx.x + c * THREADS < eights) total += total_of(held[c], true, mean);
    squares = block_sum(total, slots + WARPS);
  }
  const float deviation = sqrtf(squares / width + p.eps);
#pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    const u32 at = threadIdx.x + c * THREADS;
    if (at < eights) {
      if (p.added > 0 && blockIdx.x == 0) b.sum[at] = held[c];
      const uint4 gain = reinterpret_cast<const uint4*>(slots + 2 * WARPS)[at];
      held[c] = normed(held[c], gain, b.bias + at, p.has_bias, mean, deviation);
      if (blockIdx.x == 0) b.out[at] = held[c];
    }
  }
}
}  // namespace dense

// y [rows] = weight [rows, cols] . x + bias, of each part; cols are whole eights.
extern "C" __global__ void __launch_bounds__(32 * WARPS, 16 / WARPS)
    dense_rows(const __grid_constant__ DenseBuffers b, const __grid_constant__ DenseParams p) {
  using namespace dense;
  extern __shared__ __align__(16) float sums[];  // [rows of the block][WARPS], and twice [WARPS] for what is read
  const u32 thread = threadIdx.x, part = blockIdx.x >= p.begins[2] ? 2 : blockIdx.x >= p.begins[1] ? 1 : 0;
  const u32 block = blockIdx.x - p.begins[part], blocks = p.blocks[part];
  const u32 row0 = u32(u64(block) * p.rows[part] / blocks), row1 = u32(u64(block + 1) * p.rows[part] / blocks);
  const u32 count = row1 - row0;
  const uint4* const weight = b.parts[part].weight + size_t(row0) * p.eights + thread;

  uint4 weights[ROWS][CHUNKS];
  auto fetch = [&](u32 row) {
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
      for (int c = 0; c < CHUNKS; c++)
        weights[r][c] = thread + c * THREADS < p.eights && row + r < count
                            ? load_once(weight + size_t(row + r) * p.eights + c * THREADS)
                            : make_uint4(0, 0, 0, 0);
  };
  let_next_launch_begin();
  // Weights not after the inputs, where that may be.
  if (p.early) fetch(0);
#if READS == 1
  // Nobody writes the gains: they are on their way while what they are for is awaited.
  uint4* const gains = reinterpret_cast<uint4*>(sums + (p.most + 2) * WARPS);
  for (u32 at = thread; at < p.eights; at += THREADS) gains[at] = b.reads.gain[at];
#endif
  wait_for_launches_before();
  if (!p.early) fetch(0);
  // The launch before may have written the inputs: they are no constants to the compiler.
  uint4 inputs[CHUNKS];
#pragma unroll
  for (int c = 0; c < CHUNKS; c++)
    inputs[c] = thread + c * THREADS < p.eights ? elements::read(b.x, b.reads, p.reads, thread + c * THREADS)
                                                : make_uint4(0, 0, 0, 0);
#if READS == 1
  make_norm(inputs, b.reads, p.reads, p.eights, sums + p.most * WARPS);
#elif READS == 2
#pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    const u32 at = thread + c * THREADS;
    if (at < p.eights && at % gridDim.x == blockIdx.x) b.reads.out[at] = inputs[c];
  }
#endif

  for (u32 row = 0; row < count; row += ROWS) {
    float of_rows[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      of_rows[r] = 0.f;
#pragma unroll
      for (int c = 0; c < CHUNKS; c++) of_rows[r] = dot(of_rows[r], weights[r][c], inputs[c]);
    }
    if (row + ROWS < count) fetch(row + ROWS);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
      for (int apart = 16; apart > 0; apart /= 2) of_rows[r] += __shfl_xor_sync(~0u, of_rows[r], apart);
      if (thread % 32 == 0 && row + r < count) sums[(row + r) * WARPS + thread / 32] = of_rows[r];
    }
  }
  __syncthreads();
  const u16* const bias = b.parts[part].bias;
  u16* const y = b.parts[part].y;
  for (u32 r = thread; r < count; r += THREADS) {
    float whole = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) whole += sums[r * WARPS + w];
    if (p.has_bias) whole += number_to_float(bias[row0 + r]);
    y[row0 + r] = float_to_number(whole);
  }
}
