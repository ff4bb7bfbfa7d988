// Up to 192 tokens by weights of which two of every four are kept, on the tensor core's own instruction for them (mma.sp,
// m16n8k32): sparse/nm.rs draws the layout. Weights are the rows of a product, tokens its columns. A block has DOWN * DEEP
// times 16 rows and TILES * 8 tokens; of its eight warps ACROSS = 8 / DOWN share the columns out, a unit of 64 after the
// other, and add up at the end.
//   TILES    eights of a block's tokens: 1, 2, 4 or 8
//   DEEP     sixteens of rows that a warp has: 1, 2 or 4
//   DOWN     warps with rows of their own: 1, 2 or 4
//   STAGES   steps in shared memory or on the way there: 2 at least
// Architecture: sm_80 on; before there is no such instruction.
// Shared memory: for each stage 9 KB * DEEP of weights and 1 KB * TILES * ACROSS of inputs; at least 4 KB * DEEP * TILES,
// for the sums at the end.
// Registers: at most 255 a thread, for a block of 256 threads.
#ifndef TILES
#define TILES 1
#endif
#ifndef DEEP
#define DEEP 1
#endif
#ifndef DOWN
#define DOWN 1
#endif
#ifndef STAGES
#define STAGES 4
#endif

// Indices of a group ascend, which CUDA 12.5 lets the instruction know: newer GPUs are faster then.
#if __CUDACC_VER_MAJOR__ > 12 || (__CUDACC_VER_MAJOR__ == 12 && __CUDACC_VER_MINOR__ >= 5)
#define SPARSE_MMA "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32"
#else
#define SPARSE_MMA "mma.sp.sync.aligned.m16n8k32.row.col.f32"
#endif
#if BRAIN_NUMBERS
#define SPARSE_TYPES ".bf16.bf16.f32"
#else
#define SPARSE_TYPES ".f16.f16.f32"
#endif

struct NmParams {
  u32 rows, width, tokens, has_bias;
};

namespace nm {
constexpr u32 WARPS = 8, ACROSS = WARPS / DOWN;
constexpr u32 COLUMNS = 64, VALUES = 512, UNIT = 1152;  // of a unit: columns, bytes of a product's values, and of all
constexpr u32 LINE = 2 * COLUMNS;                       // bytes of a token's inputs of a unit
constexpr u32 INPUTS = 8 * TILES * LINE;                // bytes of all tokens'
constexpr u32 WEIGHTS = WARPS * DEEP * UNIT, STAGE = WEIGHTS + ACROSS * INPUTS;

// sums += a . b of 16 x 32 by 32 x 8 numbers; the indices are of lanes 0 and 1 of every four, or of the others.
template <int HALF>
__device__ __forceinline__ void multiply_add(float (&sums)[4], uint4 a, uint4 b, u32 indices) {
  asm volatile(SPARSE_MMA SPARSE_TYPES
               " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y), "r"(b.z), "r"(b.w), "r"(indices), "n"(HALF));
}

__device__ __forceinline__ u32 load_one(u32 address) {
  u32 v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}

// What a warp reads and where it works.
struct Work {
  const u8* weights;
  const u16* x;
  u32 bottom, warp, lane, across, down;
  u32 first_tile, tiles, units, first_token;

  __device__ __forceinline__ u32 place(u32 step) const { return bottom + step % STAGES * STAGE; }
  __device__ __forceinline__ u32 mine(u32 step) const { return place(step) + warp * DEEP * UNIT; }
  __device__ __forceinline__ u32 inputs(u32 step) const { return place(step) + WEIGHTS + across * INPUTS; }

  __device__ __forceinline__ void request_weights(u32 step) const {
    const u32 unit = step * ACROSS + across;
    if (unit >= units) return;
#pragma unroll
    for (u32 i = 0; i < DEEP; i++) {
      // After the last tile it is that again, whose sums are not written.
      const u32 tile = min(first_tile + i, tiles - 1), to = mine(step) + i * UNIT + 16 * lane;
      const u8* from = weights + (size_t(tile) * units + unit) * UNIT + 16 * lane;
      copy_16(to, from);
      copy_16(to + VALUES, from + VALUES);
      if (lane < 8) copy_16(to + 2 * VALUES, from + 2 * VALUES);
    }
  }

  // Those of a unit are the same for DOWN warps. Eights of a token's numbers change places, so that the eight tokens of a
  // square lie in banks of their own. What is after the last token is not written, and only adds to sums that are not.
  __device__ __forceinline__ void request_inputs(u32 step, const NmParams& p) const {
    const u32 unit = step * ACROSS + across;
    if (unit >= units) return;
#pragma unroll
    for (u32 i = 32 * down + lane; i < 64 * TILES; i += 32 * DOWN) {
      const u32 token = i / 8, eight = i % 8;
      if (first_token + token < p.tokens)
        copy_16(inputs(step) + token * LINE + 16 * (eight ^ (token & 7)),
                x + size_t(first_token + token) * p.width + unit * COLUMNS + 8 * eight);
    }
  }

  template <int HALF>
  __device__ __forceinline__ void multiply_half(u32 step, const u32 (&indices)[DEEP], float (&sums)[DEEP][TILES][4]) const {
    uint4 values[DEEP];
#pragma unroll
    for (u32 i = 0; i < DEEP; i++) values[i] = load_four(mine(step) + i * UNIT + VALUES * HALF + 16 * lane);
    const u32 row = inputs(step) + (lane & 7) * LINE + 16 * ((4 * HALF + lane / 8) ^ (lane & 7));
#pragma unroll
    for (u32 tile = 0; tile < TILES; tile++) {
      const uint4 numbers = load_squares(row + 8 * LINE * tile);
#pragma unroll
      for (u32 i = 0; i < DEEP; i++) multiply_add<HALF>(sums[i][tile], values[i], numbers, indices[i]);
    }
  }

  __device__ __forceinline__ void multiply(u32 step, float (&sums)[DEEP][TILES][4]) const {
    if (step * ACROSS + across >= units) return;
    u32 indices[DEEP];
#pragma unroll
    for (u32 i = 0; i < DEEP; i++) indices[i] = load_one(mine(step) + i * UNIT + 2 * VALUES + 4 * lane);
    multiply_half<0>(step, indices, sums);
    multiply_half<1>(step, indices, sums);
  }
};
}  // namespace nm

// y [tokens, rows] = x [tokens, width] . weight^T + bias
// The inputs may be written while this launch begins: they are no constants to the compiler.
//   weights: ceil(rows / 16) * width / 64 units
extern "C" __global__ void __launch_bounds__(256, 1)
    nm_rows(const u8* __restrict__ weights, const u16* x, const u16* __restrict__ bias, u16* y,
            const __grid_constant__ NmParams p) {
  using namespace nm;
  extern __shared__ __align__(128) u8 shared[];
  Work work;
  work.weights = weights, work.x = x, work.bottom = shared_address(shared);
  work.warp = threadIdx.x / 32, work.lane = threadIdx.x & 31;
  work.across = work.warp % ACROSS, work.down = work.warp / ACROSS;
  work.tiles = (p.rows + 15) / 16, work.units = p.width / COLUMNS;
  // Blocks side by side share weights.
  const u32 groups = (p.tokens + 8 * TILES - 1) / (8 * TILES), block = blockIdx.x / groups;
  work.first_token = blockIdx.x % groups * 8 * TILES;
  work.first_tile = (block * DOWN + work.down) * DEEP;
  const u32 steps = (work.units + ACROSS - 1) / ACROSS;
#pragma unroll
  for (u32 step = 0; step < STAGES - 1; step++) work.request_weights(step);
  let_next_launch_begin();
  wait_for_launches_before();
#pragma unroll
  for (u32 step = 0; step < STAGES - 1; step++) {
    work.request_inputs(step, p);
    copies_commit();
  }
  float sums[DEEP][TILES][4] = {};
#pragma unroll 1
  for (u32 step = 0; step < steps; step++) {
    copies_wait<STAGES - 2>();
    // What all have copied is there, and all are done with the stage that is copied to next.
    __syncthreads();
    work.request_weights(step + STAGES - 1);
    work.request_inputs(step + STAGES - 1, p);
    copies_commit();
    work.multiply(step, sums);
  }
  // The sums of warps with the same rows, where weights and inputs were.
  __syncthreads();
  float4* const parts = reinterpret_cast<float4*>(shared);
#pragma unroll
  for (u32 i = 0; i < DEEP; i++)
#pragma unroll
    for (u32 tile = 0; tile < TILES; tile++)
      parts[((work.warp * DEEP + i) * TILES + tile) * 32 + work.lane] =
          make_float4(sums[i][tile][0], sums[i][tile][1], sums[i][tile][2], sums[i][tile][3]);
  __syncthreads();
  constexpr u32 OF_WARP = DEEP * TILES * 32;
  for (u32 i = threadIdx.x; i < DOWN * OF_WARP; i += 32 * WARPS) {
    const u32 down = i / OF_WARP, within = i % OF_WARP;
    float4 sum = parts[down * ACROSS * OF_WARP + within];
#pragma unroll
    for (u32 across = 1; across < ACROSS; across++) {
      const float4 part = parts[(down * ACROSS + across) * OF_WARP + within];
      sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
    }
    const u32 at = within % 32, tile = within / 32 % TILES, sixteen = within / 32 / TILES;
    const u32 row = 16 * ((block * DOWN + down) * DEEP + sixteen) + at / 4;
    const u32 token = work.first_token + 8 * tile + 2 * (at & 3);
    const float results[2][2] = {{sum.x, sum.y}, {sum.z, sum.w}};
#pragma unroll
    for (u32 r = 0; r < 2; r++)
      if (row + 8 * r < p.rows) {
        const float added = p.has_bias ? number_to_float(bias[row + 8 * r]) : 0.f;
#pragma unroll
        for (u32 t = 0; t < 2; t++)
          if (token + t < p.tokens) y[size_t(token + t) * p.rows + row + 8 * r] = float_to_number(results[r][t] + added);
      }
  }
}

// dense [rows, width] of the same units, a warp a unit.
// Shared memory: none. Registers: as the compiler likes.
extern "C" __global__ void __launch_bounds__(256)
    nm_expand(const u8* __restrict__ weights, u16* __restrict__ dense, const __grid_constant__ NmParams p) {
  using namespace nm;
  const u32 lane = threadIdx.x & 31, units = p.width / COLUMNS, unit = blockIdx.x * WARPS + threadIdx.x / 32;
  if (unit >= (p.rows + 15) / 16 * units) return;
  const u8* from = weights + size_t(unit) * UNIT;
  const u32 first_row = unit / units * 16 + lane / 4, first_column = unit % units * COLUMNS + 4 * (lane & 3);
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const uint4 four = *reinterpret_cast<const uint4*>(from + VALUES * half + 16 * lane);
    const u32 pairs[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      // The rows 0 and 8 lower, of the first 16 columns and of the others.
      const u32 low = i % 2, right = i / 2, row = first_row + 8 * low;
      const u32 indices = *reinterpret_cast<const u32*>(from + 2 * VALUES + 4 * (lane / 4 * 4 + 2 * half + right));
      const u32 both = indices >> (16 * low + 4 * (lane & 3)) & 15;
      const u64 numbers = u64(pairs[i] & 0xffff) << (16 * (both & 3)) | u64(pairs[i] >> 16) << (16 * (both >> 2));
      if (row < p.rows)
        *reinterpret_cast<u64*>(dense + size_t(row) * p.width + first_column + 32 * half + 16 * right) = numbers;
    }
  }
}
