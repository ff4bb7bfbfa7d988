// One token by dense matrices, up to three of them at once, which share their input. A block has whole rows that follow
// each other in memory; its warps share that memory out evenly, line by line, and each streams its own share through a
// ring in shared memory. A line is 512 bytes of a row, 16 of them a lane.
//
//   block     | row 0: line line line .. | row 1 ........... | row 2 ........... | ..
//             | warp 0 ........... | warp 1 ........... | warp 2 ........... | ..
//   sums      a warp's sums of each row that it has a part of; a row's sums are added in the order of the warps
//
// Architecture: sm_90 on (bulk copies); elsewhere lines are loaded as they are used.
// Shared memory: 2 bytes a column, the rings, 4 bytes a row and 12 a warp, 8 a slot.
// Registers: at most 64 a thread, for two launches at once on a multiprocessor: the next fills its rings early.
struct DensePart {
  const u16* weight;
  const u16* bias;
  u16* y;
};

struct DenseBuffers {
  const u16* x;
  DensePart parts[3];
};

struct DenseParams {
  u32 lines;       // of a row
  u32 early, slots, has_bias;
  u32 rows[3];
  u32 begins[3];   // a part's first block; of parts that are not there the number of blocks
  u32 blocks[3];
  u32 kept;        // rows for whose sums a warp has room
};

namespace dense {
constexpr u32 WARPS = 16;
constexpr int LINES = 4;  // of a slot
constexpr u32 LINE = 512;
constexpr u32 SLOT = LINES * LINE;

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

__device__ __forceinline__ float warp_sum(float sum) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(~0u, sum, apart);
  return sum;
}
}  // namespace dense

// y [rows] = weight [rows, cols] . x + bias, of each part; cols are whole lines.
extern "C" __global__ void __launch_bounds__(512, 2)
    dense_rows(const __grid_constant__ DenseBuffers b, const __grid_constant__ DenseParams p) {
  using namespace dense;
  extern __shared__ __align__(128) u8 shared[];
  const u32 thread = threadIdx.x, warp = thread / 32, lane = thread % 32, L = p.lines;
  u32 part = 0, block = blockIdx.x;
  if (block >= p.begins[2]) part = 2;
  else if (block >= p.begins[1]) part = 1;
  const u32 of_rows = part == 0 ? p.rows[0] : part == 1 ? p.rows[1] : p.rows[2];
  const u32 blocks = part == 0 ? p.blocks[0] : part == 1 ? p.blocks[1] : p.blocks[2];
  const DensePart* const of = &b.parts[part];
  block -= part == 0 ? 0 : part == 1 ? p.begins[1] : p.begins[2];
  const u32 row0 = u32(u64(block) * of_rows / blocks), row1 = u32(u64(block + 1) * of_rows / blocks);
  const u32 total = (row1 - row0) * L;
  const u32 line0 = warp * total / WARPS, line1 = (warp + 1) * total / WARPS, count = line1 - line0;
  const uint4* const from = reinterpret_cast<const uint4*>(of->weight) + (size_t(row0) * L + line0) * 32;

  uint4* const inputs = reinterpret_cast<uint4*>(shared + WARPS * p.slots * SLOT);
  float* const sums = reinterpret_cast<float*>(inputs + L * 32) + warp * p.kept;
#if BULK_COPIES
  const u32 barriers = shared_address(reinterpret_cast<float*>(inputs + L * 32) + WARPS * p.kept) + warp * p.slots * 8;
  u8* const ring = shared + warp * p.slots * SLOT;
  const u32 ring_at = shared_address(ring);
  const u32 pieces = (count + LINES - 1) / LINES;
  auto fetch = [&](u32 piece) {
    const u32 slot = piece % p.slots, lines = min(u32(LINES), count - piece * LINES);
    bulk_copy(ring_at + slot * SLOT, from + piece * LINES * 32, lines * LINE, barriers + slot * 8);
  };
  if (lane == 0) {
    for (u32 slot = 0; slot < p.slots; slot++) barrier_init(barriers + slot * 8);
    barriers_are_ready();
    // Not after the weights, where it may be.
    if (p.early)
      for (u32 piece = 0; piece < min(p.slots, pieces); piece++) fetch(piece);
  }
#endif
  let_next_launch_begin();
  wait_for_launches_before();
#if BULK_COPIES
  if (!p.early && lane == 0)
    for (u32 piece = 0; piece < min(p.slots, pieces); piece++) fetch(piece);
#endif
  for (u32 i = thread; i < L * 32; i += 32 * WARPS) inputs[i] = reinterpret_cast<const uint4*>(b.x)[i];
  __syncthreads();

  u32 at = line0 % L, kept = 0;
  float sum = 0.f;
  auto next = [&] {
    if (++at == L) {
      sum = warp_sum(sum);
      if (lane == 0) sums[kept] = sum;
      at = 0, sum = 0.f, kept++;
    }
  };
#if BULK_COPIES
  u32 slot = 0, parity = 0;
  for (u32 piece = 0; piece < pieces; piece++) {
    barrier_wait(barriers + slot * 8, parity);
    const uint4* const weights = reinterpret_cast<const uint4*>(ring + slot * SLOT) + lane;
    const u32 lines = count - piece * LINES;
    uint4 weight[LINES];
#pragma unroll
    for (int i = 0; i < LINES; i++)
      if (u32(i) < lines) weight[i] = weights[i * 32];
    // The slot's numbers are in registers: it may be filled again.
    __syncwarp();
    if (lane == 0 && piece + p.slots < pieces) fetch(piece + p.slots);
#pragma unroll
    for (int i = 0; i < LINES; i++)
      if (u32(i) < lines) {
        sum = dot(sum, weight[i], inputs[at * 32 + lane]);
        next();
      }
    if (++slot == p.slots) slot = 0, parity ^= 1;
  }
#else
  for (u32 i = 0; i < count; i++) {
    sum = dot(sum, load_once(from + size_t(i) * 32 + lane), inputs[at * 32 + lane]);
    next();
  }
#endif
  if (at != 0) {
    sum = warp_sum(sum);
    if (lane == 0) sums[kept] = sum;
  }
  __syncthreads();

  const float* const all = reinterpret_cast<const float*>(inputs + L * 32);
  for (u32 r = thread; r < row1 - row0; r += 32 * WARPS) {
    float whole = 0.f;
    // The warps whose lines touch those of the row.
    for (u32 w = 0; w < WARPS; w++) {
      const u32 begin = w * total / WARPS, end = (w + 1) * total / WARPS;
      if (begin < end && begin < (r + 1) * L && end > r * L) whole += all[w * p.kept + r - begin / L];
    }
    if (p.has_bias) whole += number_to_float(of->bias[row0 + r]);
    of->y[row0 + r] = float_to_number(whole);
  }
}
