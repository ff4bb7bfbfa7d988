// One to four tokens by delta-4 CSR: sparse/delta.rs draws the layout. A thread sums its chunk, which crosses at most
// one end of a row; the chunks' sums meet in shared memory.
//   TOKENS         1, 2 or 4: inputs lie side by side for this many
//   GROUPS_AHEAD   groups that are loaded before they are used
// Architecture: sm_75 on (bf16: sm_80 on).
// Shared memory: 2 * TOKENS bytes a column and slack, of one token 4; 8 * TOKENS a thread, 4 a row of the block.
// Registers: at most 64 a thread, for two blocks of 512 threads a multiprocessor.
#ifndef TOKENS
#define TOKENS 1
#endif
#ifndef GROUPS_AHEAD
#define GROUPS_AHEAD 4
#endif

struct DeltaParams {
  u32 rows, width, block_rows, groups;
  u32 panel;  // columns at a time; this and the width are multiples of eight
};

// Of up to three matrices that share their input: a block has rows of one of them.
struct DeltaPart {
  const uint4* values;
  const u32 *gaps, *heads;
  const u16 *bounds, *bias;
  u16* y;
};

struct DeltaBuffers {
  const u16* x;
  DeltaPart parts[3];
  ReadsBuffers reads;
};

struct DeltaRowsParams {
  u32 cols, tokens, slack, has_bias, aligned;
  u32 blocks;     // of the arrays of all parts
  u32 begins[3];  // a part's first block; of parts that are not there the number of blocks
  u32 rows[3], block_rows[3], groups[3], threads[3];
  ReadsParams reads;
};

namespace delta {
#if TOKENS == 1
typedef float Kept;  // one token's inputs are widened once for all weights
#else
typedef u16 Kept;
#endif
constexpr u32 UNIT = sizeof(Kept) * TOKENS;  // bytes of a column's inputs
constexpr u32 NO_SWITCH = 63;
constexpr u32 NO_CHUNKS = ~0u;
// What a gap's bytes count, of one to four entries: in memory, where an instruction takes them from.
__constant__ u32 STEPS[4] = {UNIT, UNIT * 0x101u, UNIT * 0x10101u, UNIT * 0x1010101u};

__device__ __forceinline__ u32 inputs_bytes(const DeltaRowsParams& p) { return ((p.cols + p.slack) * UNIT + 15) & ~15u; }

#if TOKENS == 1
__device__ __forceinline__ void keep(float* staged, u32 eight, uint4 numbers) {
  const elements::Eight e = elements::wide(numbers);
  float4* const to = reinterpret_cast<float4*>(staged + 8 * eight);
  to[0] = make_float4(e.number[0], e.number[1], e.number[2], e.number[3]);
  to[1] = make_float4(e.number[4], e.number[5], e.number[6], e.number[7]);
}
#else
// Eight columns of each token, side by side.
__device__ __forceinline__ void keep(u16* staged, u32 eight, const u16 (&numbers)[TOKENS][8]) {
  u32 words[4 * TOKENS];
#pragma unroll
  for (int w = 0; w < 4 * TOKENS; w++) {
    const int low = 2 * w, high = 2 * w + 1;
    words[w] = numbers[low % TOKENS][low / TOKENS] | u32(numbers[high % TOKENS][high / TOKENS]) << 16;
  }
#pragma unroll
  for (int w = 0; w < TOKENS; w++)
    reinterpret_cast<uint4*>(staged)[TOKENS * eight + w] =
        make_uint4(words[4 * w], words[4 * w + 1], words[4 * w + 2], words[4 * w + 3]);
}
#endif

// Inputs to shared memory, [column][token], and zeros after the last column, where chunks that are filled up read.
__device__ __forceinline__ void stage(const u16* x, Kept* staged, const DeltaRowsParams& p) {
  const u32 thread = threadIdx.x, threads = blockDim.x;
#if READS == 0
  const u32 whole = p.aligned ? p.cols / 8 : 0;
  for (u32 i = thread; i < whole; i += threads) {
#if TOKENS == 1
    keep(staged, i, reinterpret_cast<const uint4*>(x)[i]);
#else
    u16 numbers[TOKENS][8];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
      const uint4 eight = u32(t) < p.tokens ? *reinterpret_cast<const uint4*>(x + size_t(t) * p.cols + 8 * i)
                                            : make_uint4(0, 0, 0, 0);
      *reinterpret_cast<uint4*>(numbers[t]) = eight;
    }
    keep(staged, i, numbers);
#endif
  }
  for (u32 c = 8 * whole + thread; c < p.cols; c += threads)
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
      const u16 number = u32(t) < p.tokens ? x[size_t(t) * p.cols + c] : 0;
#if TOKENS == 1
      staged[c] = number_to_float(number);
#else
      staged[c * TOKENS + t] = number;
#endif
    }
#endif
  for (u32 i = p.cols * TOKENS + thread; i < (p.cols + p.slack) * TOKENS; i += threads) staged[i] = 0;
}

#if READS == 1
// Where the gains of an eight lie until it is kept.
__device__ __forceinline__ uint4* gains(float* staged) { return reinterpret_cast<uint4*>(staged) + 1; }

// Nobody writes them: they are on their way while what they are for is awaited.
__device__ __forceinline__ void stage_gains(float* staged, const DeltaBuffers& b, u32 eights) {
  for (u32 at = threadIdx.x; at < eights; at += blockDim.x) gains(staged)[2 * at] = b.reads.gain[at];
}

// One token's norm in whole eights, made by the block, and its numbers for later launches. `slots` are 64.
__device__ __forceinline__ void make(float* staged, const DeltaBuffers& b, const DeltaRowsParams& p, float* slots) {
  using namespace elements;
  const ReadsParams& of = p.reads;
  const u32 eights = p.cols / 8;
  // A thread reads again what it has written itself: an eight lies where its numbers will be kept, beside its gains.
  auto made = [&](u32 at) -> uint4& { return reinterpret_cast<uint4*>(staged)[2 * at]; };
  float total = 0.f;
  for (u32 at = threadIdx.x; at < eights; at += blockDim.x) {
    made(at) = read(reinterpret_cast<const uint4*>(b.x), b.reads, of, at);
    total += total_of(made(at), !of.centred, 0.f);
  }
  const float width = float(p.cols);
  float squares = block_sum(total, slots), mean = 0.f;
  if (of.centred) {
    mean = squares / width;
    total = 0.f;
    for (u32 at = threadIdx.x; at < eights; at += blockDim.x) total += total_of(made(at), true, mean);
    squares = block_sum(total, slots + 32);
  }
  const float deviation = sqrtf(squares / width + of.eps);
  for (u32 at = threadIdx.x; at < eights; at += blockDim.x) {
    const uint4 held = made(at);
    const uint4 inputs = normed(held, gains(staged)[2 * at], b.reads.bias + at, of.has_bias, mean, deviation);
    keep(staged, at, inputs);
    if (blockIdx.x == 0) {
      if (of.added > 0) b.reads.sum[at] = held;
      b.reads.out[at] = inputs;
    }
  }
}
#elif READS == 2
// One token's activations in whole eights, likewise; each block writes its share of them.
__device__ __forceinline__ void make(float* staged, const DeltaBuffers& b, const DeltaRowsParams& p, float*) {
  for (u32 at = threadIdx.x; at < p.cols / 8; at += blockDim.x) {
    const uint4 inputs = elements::read(reinterpret_cast<const uint4*>(b.x), b.reads, p.reads, at);
    keep(staged, at, inputs);
    if (at % gridDim.x == blockIdx.x) b.reads.out[at] = inputs;
  }
}
#endif

// The chunks of the row that has groups [first, end): first and last of them, and whether the row begins within one.
__device__ __forceinline__ u32 span(u32 first, u32 end, u32 groups) {
  if (first >= end) return NO_CHUNKS;
  const u32 chunk = first / groups;
  return chunk | (end - 1) / groups << 15 | u32(first != chunk * groups) << 30;
}

// sums += weight * the inputs at an address.
__device__ __forceinline__ void add(float (&sums)[TOKENS], float weight, u32 address) {
#if TOKENS == 1
  float input;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(input) : "r"(address));
  sums[0] = fmaf(weight, input, sums[0]);
#elif TOKENS == 2
  u32 inputs;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(inputs) : "r"(address));
  const float2 both = pair_to_float(inputs);
  sums[0] = fmaf(weight, both.x, sums[0]);
  sums[1] = fmaf(weight, both.y, sums[1]);
#else
  u32 low, high;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(low), "=r"(high) : "r"(address));
  const float2 first = pair_to_float(low), second = pair_to_float(high);
  sums[0] = fmaf(weight, first.x, sums[0]);
  sums[1] = fmaf(weight, first.y, sums[1]);
  sums[2] = fmaf(weight, second.x, sums[2]);
  sums[3] = fmaf(weight, second.y, sums[3]);
#endif
}

// Four entries: their gaps are the bytes of a word, their addresses sums of bytes, one instruction each. Returns the
// address of the last without the step that every entry takes; `step` counts those of the entries before.
__device__ __forceinline__ u32 add_four(float (&sums)[2][TOKENS], u32 low, u32 high, u32 gaps, u32 base, u32 step) {
  const float2 first = pair_to_float(low), second = pair_to_float(high);
  const u32 a = __dp4a(gaps, STEPS[0], base), b = __dp4a(gaps, STEPS[1], base);
  const u32 c = __dp4a(gaps, STEPS[2], base), d = __dp4a(gaps, STEPS[3], base);
  add(sums[0], first.x, a + step);
  add(sums[1], first.y, b + step + UNIT);
  add(sums[0], second.x, c + step + 2 * UNIT);
  add(sums[1], second.y, d + step + 3 * UNIT);
  return d;
}
}  // namespace delta

// y [tokens, rows] = x [tokens, cols] . weight^T + bias, of each part
// The inputs may be written while this launch begins: they are no constants to the compiler.
//   values [blocks][groups][threads][8], gaps [blocks][groups][threads], heads [blocks][threads],
//   bounds [blocks][block_rows + 1]
// A multiprocessor's blocks have one of the arrays' blocks after another, so that inputs are staged once. A block has as
// many threads as the part with the most; of another part some have nothing to do.
extern "C" __global__ void __launch_bounds__(512, 2)
    delta_rows(const __grid_constant__ DeltaBuffers b, const __grid_constant__ DeltaRowsParams p) {
  using namespace delta;
  extern __shared__ __align__(16) u8 shared[];
  const u32 thread = threadIdx.x;
  const u32 inputs = shared_address(shared), behind = inputs_bytes(p);
  float* const before_switch = reinterpret_cast<float*>(shared + behind);
  float* const after_switch = before_switch + TOKENS * blockDim.x;
  u32* const spans = reinterpret_cast<u32*>(after_switch + TOKENS * blockDim.x);
  u32 part, block, threads, groups, head;
  const uint4* my_values;
  const u32* my_gaps;
  uint4 value[GROUPS_AHEAD];
  u32 gap[GROUPS_AHEAD];
  auto load = [&](int slot, u32 group) {
    const u32 at = group * threads;
    value[slot] = load_once(my_values + at);
    gap[slot] = load_once(my_gaps + at);
  };
  // The first groups of one of the arrays' blocks; whole warps have nothing to do.
  auto begin = [&](u32 of_all) {
    part = of_all >= p.begins[2] ? 2 : of_all >= p.begins[1] ? 1 : 0;
    block = of_all - p.begins[part], threads = p.threads[part], groups = p.groups[part];
    if (thread >= threads) return;
    const size_t first = size_t(block) * groups * threads + thread;
    my_values = b.parts[part].values + first, my_gaps = b.parts[part].gaps + first;
#pragma unroll
    for (int i = 0; i < GROUPS_AHEAD; i++)
      if (u32(i) < groups) load(i, i);
    head = b.parts[part].heads[size_t(block) * threads + thread];
  };
  // The chunks of each row, divided where there is time to.
  auto store_spans = [&] {
    const u32 rows = p.block_rows[part];
    const u16* const bounds = b.parts[part].bounds + size_t(block) * (rows + 1);
    for (u32 r = thread; r < rows; r += blockDim.x) spans[r] = span(bounds[r], bounds[r + 1], groups);
  };
  begin(blockIdx.x);
  store_spans();
  let_next_launch_begin();
#if READS == 1
  stage_gains(reinterpret_cast<Kept*>(shared), b, p.cols / 8);
#endif
  wait_for_launches_before();
#if READS
  make(reinterpret_cast<Kept*>(shared), b, p, before_switch);
#endif
  stage(b.x, reinterpret_cast<Kept*>(shared), p);
  __syncthreads();

  for (u32 of_all = blockIdx.x;;) {
    const u32 block_rows = p.block_rows[part];
    const DeltaPart& to = b.parts[part];
    if (thread < threads) {
      const u32 switched = head >> 16 & 63, chunk = head >> 22;
      u32 base = inputs + (head & 0xffff) * UNIT;
      float sums[2][TOKENS] = {}, first[TOKENS] = {};
      for (u32 k = 0; k < groups; k += GROUPS_AHEAD) {
#pragma unroll
        for (int i = 0; i < GROUPS_AHEAD; i++)
          if (k + i < groups) {
            if (k + i == switched) {
#pragma unroll
              for (int t = 0; t < TOKENS; t++) {
                first[t] = sums[0][t] + sums[1][t];
                sums[0][t] = sums[1][t] = 0.f;
              }
              base = inputs;
            }
            const u32 middle = add_four(sums, value[i].x, value[i].y, gap[i] & 0x0f0f0f0fu, base, 0);
            base = add_four(sums, value[i].z, value[i].w, gap[i] >> 4 & 0x0f0f0f0fu, middle, 4 * UNIT) + 8 * UNIT;
            if (k + i + GROUPS_AHEAD < groups) load(i, k + i + GROUPS_AHEAD);
          }
      }
#pragma unroll
      for (int t = 0; t < TOKENS; t++) {
        const float last = sums[0][t] + sums[1][t];
        before_switch[chunk * TOKENS + t] = switched == NO_SWITCH ? last : first[t];
        after_switch[chunk * TOKENS + t] = last;
      }
    }
    const u32 of_rows = p.rows[part], row0 = block * block_rows;
    of_all += gridDim.x;
    if (of_all < p.blocks) begin(of_all);
    __syncthreads();

    // Eight lanes a row; whole warps stay together.
    const u32 lane = thread & 7;
    for (u32 r = thread >> 3; r < ((block_rows + 3) & ~3u); r += blockDim.x >> 3) {
      float sum[TOKENS] = {};
      const u32 chunks = r < block_rows ? spans[r] : NO_CHUNKS;
      if (chunks != NO_CHUNKS) {
        const u32 c0 = chunks & 0x7fff, c1 = chunks >> 15 & 0x7fff;
        for (u32 c = c0 + lane; c <= c1; c += 8) {
          const float* from = c == c0 && chunks >> 30 ? after_switch : before_switch;
#pragma unroll
          for (int t = 0; t < TOKENS; t++) sum[t] += from[c * TOKENS + t];
        }
      }
#pragma unroll
      for (int t = 0; t < TOKENS; t++)
#pragma unroll
        for (int apart = 4; apart > 0; apart /= 2) sum[t] += __shfl_xor_sync(~0u, sum[t], apart);
      const u32 row = row0 + r;
      if (lane == 0 && r < block_rows && row < of_rows) {
        const float added = p.has_bias ? number_to_float(to.bias[row]) : 0.f;
#pragma unroll
        for (int t = 0; t < TOKENS; t++)
          if (u32(t) < p.tokens) to.y[size_t(t) * of_rows + row] = float_to_number(sum[t] + added);
      }
    }
    if (of_all >= p.blocks) break;
    __syncthreads();
    store_spans();
  }
}

// dense [rows, width] of the same arrays, some columns of all of the block's rows at a time, through shared memory. A
// thread whose chunk has none of these columns rests; since chunks lie in the order of their first columns, whole warps do.
// Shared memory: 2 bytes a row and column at a time, 2 bytes a row. Registers: at most 80.
extern "C" __global__ void __launch_bounds__(512, 1)
    delta_expand(const uint4* __restrict__ values, const u32* __restrict__ gaps, const u32* __restrict__ heads,
                 const u16* __restrict__ bounds, u16* __restrict__ dense, const __grid_constant__ DeltaParams p) {
  extern __shared__ __align__(16) u8 shared[];
  const u32 thread = threadIdx.x, threads = blockDim.x, block = blockIdx.x, groups = p.groups;
  const u32 width = p.width, panel = p.panel;
  u16* const part = reinterpret_cast<u16*>(shared);
  u16* const ends = part + p.block_rows * panel;
  const u32 rows = block * p.block_rows < p.rows ? min(p.block_rows, p.rows - block * p.block_rows) : 0;
  u16* const to = dense + size_t(block) * p.block_rows * width;
  for (u32 r = thread; r <= p.block_rows; r += threads) ends[r] = bounds[size_t(block) * (p.block_rows + 1) + r];
  const u32 head = heads[size_t(block) * threads + thread];
  const u32 begin = (head >> 22) * groups, start = head & 0xffff, switched = head >> 16 & 63;
  __syncthreads();
  u32 first = 0, above = p.block_rows;  // the row where the chunk begins
  while (first + 1 < above) {
    const u32 middle = (first + above) / 2;
    if (ends[middle] <= begin) first = middle; else above = middle;
  }
  // A chunk that goes on in the next row has columns at both ends; any other those from its start to where it gets.
  bool more = first < rows && begin < ends[first + 1];
  for (u32 from = 0; from < width; from += panel) {
    const u32 columns = min(panel, width - from);
    for (u32 i = thread; i < rows * panel / 8; i += threads) reinterpret_cast<uint4*>(part)[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
    if (more && (start < from + columns || switched != delta::NO_SWITCH)) {
      u32 row = first, column = start;
      bool behind = switched != delta::NO_SWITCH;
      const size_t at = size_t(block) * groups * threads + thread;
      uint4 value = load_once(values + at);
      u32 gap = load_once(gaps + at);
      for (u32 k = 0; k < groups; k++) {
        const uint4 v = value;
        const u32 g = gap;
        if (k + 1 < groups) {
          value = load_once(values + at + size_t(k + 1) * threads);
          gap = load_once(gaps + at + size_t(k + 1) * threads);
        }
        if (k == switched) row++, column = 0;
        const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
          column += g >> (i < 4 ? 8 * i : 8 * (i - 4) + 4) & 15;
          const u16 number = u16(words[i / 2] >> (16 * (i % 2)));
          // Entries that only bridge or fill up are zeros: what is there is zero.
          if ((number & 0x7fff) != 0) {
            if (column - from < columns) part[row * panel + column - from] = number;
            behind |= column >= from + columns;
          }
          column++;
        }
      }
      more = behind;
    }
    __syncthreads();
    const u32 eights = columns / 8;
    for (u32 i = thread; i < rows * eights; i += threads) {
      const u32 r = i / eights, c = i % eights * 8;
      *reinterpret_cast<uint4*>(to + size_t(r) * width + from + c) = *reinterpret_cast<const uint4*>(part + r * panel + c);
    }
    __syncthreads();
  }
}
