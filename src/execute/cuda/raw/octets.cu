// Up to 32 tokens by a bitmap in the order of the tensor core's registers: sparse/octets.rs draws the layout. A block
// has OCTETS octets of rows; its 16 warps share the columns out, 128 at a time, and have nothing in common but the end.
// Tokens are the rows of a product (m16n8k16), an octet's rows its columns.
//   OCTETS   octets of a block     CHUNKS   chunks that a block's 128 columns come in
//   TILES    1 or 2: sixteens of tokens           GRAIN    1 or 2: weights that share a bit of the mask
//   IN_PAIRS 1 where a lane has two of every eight columns, for the expansion alone
// Architecture: sm_75 on (bf16: sm_80 on); from sm_90 on a chunk is one bulk copy.
// Shared memory: 1 KB, for each warp 4 KB * TILES of inputs and two slots of a chunk; at least 512 * OCTETS * TILES for
// each warp, for the sums at the end.
// Registers: at most 128 a thread, for one block of 512 threads a multiprocessor.
#ifndef OCTETS
#define OCTETS 11
#endif
#ifndef CHUNKS
#define CHUNKS 4
#endif
#ifndef TILES
#define TILES 1
#endif
#ifndef GRAIN
#define GRAIN 1
#endif
#ifndef IN_PAIRS
#define IN_PAIRS 0
#endif

struct OctetsParams {
  u32 rows, width, tokens, blocks, slot, has_bias;
};

namespace octets {
constexpr int WARPS = 16, SLOTS = 2;
constexpr int MOST = (OCTETS + CHUNKS - 1) / CHUNKS;  // octets of a chunk
constexpr u32 RESERVED = 1024;                        // bytes before the warps' inputs: barriers
constexpr u32 MASK = 4 / GRAIN, MASKS = 32 * MASK;    // bytes of a lane's mask of an octet, and of all lanes'

#if GRAIN == 1
#define LOAD_GRAIN "ld.shared.u16"
#define LOAD_MASK "ld.shared.u32"
#else
#define LOAD_GRAIN "ld.shared.u32"
#define LOAD_MASK "ld.shared.u16"
#endif

// The number (or two) at the pointer, which moves on, where a bit of the mask is set, else zero. The pointer moves to a
// register of its own, since one that a load still reads stalls; the number is zeroed first, since a register that is
// written under a condition counts as alive before.
template <int BIT>
__device__ __forceinline__ u32 take(u32 mask, u32& pointer) {
  constexpr int TO_BYTES = GRAIN - BIT;  // a bit of the mask moved so far left is the bytes of what it stands for
  u32 number, bit;
  asm volatile("{\n.reg .pred kept;\nand.b32 %1, %2, %4;\nsetp.ne.u32 kept, %1, 0;\nmov.b32 %0, 0;\n@kept " LOAD_GRAIN
               " %0, [%3];\n}"
               : "=&r"(number), "=&r"(bit) : "r"(mask), "r"(pointer), "n"(1u << BIT));
  pointer += TO_BYTES >= 0 ? bit << (TO_BYTES >= 0 ? TO_BYTES : 0) : bit >> (TO_BYTES < 0 ? -TO_BYTES : 0);
  return number;
}

template <int PAIR>
__device__ __forceinline__ u32 take_pair(u32 mask, u32& pointer) {
#if GRAIN == 1
  const u32 low = take<2 * PAIR>(mask, pointer), high = take<2 * PAIR + 1>(mask, pointer);
  return __byte_perm(low, high, 0x5410);
#else
  return take<PAIR>(mask, pointer);
#endif
}

// The pairs of eight columns, which are a lane's of 32.
template <int EIGHT>
__device__ __forceinline__ void take_eight(u32 mask, u32& pointer, u32 (&pairs)[4]) {
  pairs[0] = take_pair<4 * EIGHT>(mask, pointer);
  pairs[1] = take_pair<4 * EIGHT + 1>(mask, pointer);
  pairs[2] = take_pair<4 * EIGHT + 2>(mask, pointer);
  pairs[3] = take_pair<4 * EIGHT + 3>(mask, pointer);
}

// Where a lane's values begin: those of the lanes before it come first.
__device__ __forceinline__ u32 values_before(u32 count, u32 lane) {
  u32 sum = count;
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) {
    const u32 other = __shfl_up_sync(~0u, sum, apart);
    if (lane >= apart) sum += other;
  }
  return sum - count;
}

__device__ __forceinline__ u32 load_mask(u32 address) {
  u32 mask;
  asm volatile(LOAD_MASK " %0, [%1];" : "=r"(mask) : "r"(address));
  return mask;
}

__device__ __forceinline__ void store_four(u32 address, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

// A warp's chunks in the order of their use, SLOTS of them in shared memory or on the way there.
struct Ring {
  const u8* chunks;
  const u32* starts;
  u32 slots, slot_bytes, barriers, lane;
  u32 next, end;           // the next chunk to be asked for, and that after the last
  u32 bounds[SLOTS + 1];   // where it and those after it begin, in 16 bytes, loaded long before they are needed
  u32 at, parity;          // the slot in use

  __device__ __forceinline__ void begin(u32 first, u32 last) {
    next = first, end = last, at = parity = 0;
#pragma unroll
    for (int i = 0; i <= SLOTS; i++) bounds[i] = starts[min(first + i, end)];
#if BULK_COPIES
    if (lane == 0) {
      for (int i = 0; i < SLOTS; i++) barrier_init(barriers + 8 * i);
      barriers_are_ready();
    }
    __syncwarp();
#endif
#pragma unroll
    for (int i = 0; i < SLOTS; i++) request(i);
  }

  __device__ __forceinline__ void request(u32 slot) {
    if (next < end) {
      const u32 place = slots + slot * slot_bytes, bytes = 16 * (bounds[1] - bounds[0]);
      const u8* source = chunks + size_t(bounds[0]) * 16;
#if BULK_COPIES
      if (lane == 0) bulk_copy(place, source, bytes, barriers + 8 * slot);
#else
      for (u32 i = 16 * lane; i < bytes; i += 512) copy_16(place + i, source + i);
#endif
#pragma unroll
      for (int i = 0; i < SLOTS; i++) bounds[i] = bounds[i + 1];
      bounds[SLOTS] = starts[min(++next + SLOTS, end)];
    }
#if !BULK_COPIES
    copies_commit();
#endif
  }

  __device__ __forceinline__ u32 wait() {
#if BULK_COPIES
    barrier_wait(barriers + 8 * at, parity);
#else
    copies_wait<SLOTS - 1>();
    __syncwarp();
#endif
    return slots + at * slot_bytes;
  }

  __device__ __forceinline__ void release() {
    __syncwarp();
    request(at);
    if (++at == SLOTS) at = 0, parity ^= 1;
  }
};

// The inputs of 16 tokens and 128 columns as a lane's parts of eight products, through the lane's own shared memory:
// what is loaded from there is four registers in a row, as the tensor core takes them.
__device__ __forceinline__ void stage(const u16* x, const OctetsParams& p, u32 column, u32 place, u32 lane, u32 token) {
  const u32 low = token + lane / 4, high = low + 8, mine = column + 8 * (lane & 3);
  uint4 above[4], below[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const uint4 none = make_uint4(0, 0, 0, 0);
    above[i] = low < p.tokens ? *reinterpret_cast<const uint4*>(x + size_t(low) * p.width + mine + 32 * i) : none;
    below[i] = high < p.tokens ? *reinterpret_cast<const uint4*>(x + size_t(high) * p.width + mine + 32 * i) : none;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    store_four(place + 1024 * i, above[i].x, below[i].x, above[i].y, below[i].y);
    store_four(place + 1024 * i + 512, above[i].z, below[i].z, above[i].w, below[i].w);
  }
}

template <int EIGHT>
__device__ __forceinline__ void multiply_eight(u32 mask, u32& pointer, const uint4 (&inputs)[8], u32 place,
                                               float (&sums)[TILES][4]) {
  u32 pairs[4];
  take_eight<EIGHT>(mask, pointer, pairs);
#if TILES == 1
  multiply_add(sums[0], inputs[2 * EIGHT], pairs[0], pairs[1]);
  multiply_add(sums[0], inputs[2 * EIGHT + 1], pairs[2], pairs[3]);
#else
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) {
    multiply_add(sums[tile], load_four(place + 4096 * tile + 1024 * EIGHT), pairs[0], pairs[1]);
    multiply_add(sums[tile], load_four(place + 4096 * tile + 1024 * EIGHT + 512), pairs[2], pairs[3]);
  }
#endif
}

// The octets of a chunk, from FIRST on.
template <int FIRST, int END>
__device__ __forceinline__ void multiply_chunk(u32 place, u32 lane, const uint4 (&inputs)[8], u32 staged,
                                               float (&sums)[OCTETS][TILES][4]) {
  u32 masks[MOST], count = 0;
#pragma unroll
  for (int i = 0; i < END - FIRST; i++) {
    masks[i] = load_mask(place + MASKS * i + MASK * lane);
    count += __popc(masks[i]);
  }
  u32 pointer = place + MASKS * (END - FIRST) + 2 * GRAIN * values_before(count, lane);
#pragma unroll
  for (int i = 0; i < END - FIRST; i++) {
    multiply_eight<0>(masks[i], pointer, inputs, staged, sums[FIRST + i]);
    multiply_eight<1>(masks[i], pointer, inputs, staged, sums[FIRST + i]);
    multiply_eight<2>(masks[i], pointer, inputs, staged, sums[FIRST + i]);
    multiply_eight<3>(masks[i], pointer, inputs, staged, sums[FIRST + i]);
  }
}

template <int CHUNK>
__device__ __forceinline__ void multiply_chunks(Ring& ring, const uint4 (&inputs)[8], u32 staged,
                                                float (&sums)[OCTETS][TILES][4]) {
  if constexpr (CHUNK < CHUNKS) {
    multiply_chunk<OCTETS * CHUNK / CHUNKS, OCTETS*(CHUNK + 1) / CHUNKS>(ring.wait(), ring.lane, inputs, staged, sums);
    ring.release();
    multiply_chunks<CHUNK + 1>(ring, inputs, staged, sums);
  }
}
}  // namespace octets

// y [tokens, rows] = x [tokens, width] . weight^T + bias
// The inputs may be written while this launch begins: they are no constants to the compiler.
//   chunks: blocks * (width / 128) * CHUNKS of them, of 16-byte units; starts: of each, and the end
extern "C" __global__ void __launch_bounds__(512, 1)
    octets_rows(const u8* __restrict__ chunks, const u32* __restrict__ starts, const u16* x,
                const u16* __restrict__ bias, u16* y, const __grid_constant__ OctetsParams p) {
  using namespace octets;
  extern __shared__ __align__(128) u8 shared[];
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31, bottom = opaque(shared_address(shared));
  const u32 across = p.width / 128, first = across * warp / WARPS, last = across * (warp + 1) / WARPS;
  const u32 staged = bottom + RESERVED + warp * 4096 * TILES + 16 * lane;
  Ring ring;
  ring.chunks = chunks, ring.starts = starts, ring.slot_bytes = p.slot, ring.lane = lane;
  ring.slots = bottom + RESERVED + WARPS * 4096 * TILES + warp * SLOTS * p.slot;
  ring.barriers = bottom + warp * SLOTS * 8;
  ring.begin((blockIdx.x * across + first) * CHUNKS, (blockIdx.x * across + last) * CHUNKS);
  let_next_launch_begin();
  float sums[OCTETS][TILES][4] = {};
  wait_for_launches_before();
#pragma unroll 1
  for (u32 block = first; block < last; block++) {
    uint4 inputs[8];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) stage(x, p, 128 * block, staged + 4096 * tile, lane, 16 * tile);
#if TILES == 1
#pragma unroll
    for (int i = 0; i < 8; i++) inputs[i] = load_four(staged + 512 * i);
#endif
    multiply_chunks<0>(ring, inputs, staged, sums);
  }
  // The warps' sums, where chunks and inputs were.
  __syncthreads();
  float4* const parts = reinterpret_cast<float4*>(shared + RESERVED);
#pragma unroll
  for (int o = 0; o < OCTETS; o++)
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
      parts[((warp * OCTETS + o) * TILES + tile) * 32 + lane] =
          make_float4(sums[o][tile][0], sums[o][tile][1], sums[o][tile][2], sums[o][tile][3]);
  __syncthreads();
  for (u32 i = threadIdx.x; i < OCTETS * TILES * 32; i += 32 * WARPS) {
    float4 sum = parts[i];
#pragma unroll
    for (int w = 1; w < WARPS; w++) {
      const float4 part = parts[w * OCTETS * TILES * 32 + i];
      sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
    }
    const u32 at = i & 31, tile = i / 32 % TILES, octet = blockIdx.x * OCTETS + i / 32 / TILES;
    const u32 row = 8 * octet + 2 * (at & 3), token = 16 * tile + at / 4;
    const float results[2][2] = {{sum.x, sum.y}, {sum.z, sum.w}};
#pragma unroll
    for (int r = 0; r < 2; r++)
      if (row + r < p.rows) {
        const float added = p.has_bias ? number_to_float(bias[row + r]) : 0.f;
#pragma unroll
        for (int half = 0; half < 2; half++)
          if (token + 8 * half < p.tokens)
            y[size_t(token + 8 * half) * p.rows + row + r] = float_to_number(results[half][r] + added);
      }
  }
}

// dense [rows, width] of the same chunks, a warp a chunk.
// Shared memory: a slot for each of eight warps. Registers: as the compiler likes.
extern "C" __global__ void __launch_bounds__(256)
    octets_expand(const u8* __restrict__ chunks, const u32* __restrict__ starts, u16* __restrict__ dense,
                  const __grid_constant__ OctetsParams p) {
  using namespace octets;
  extern __shared__ __align__(128) u8 shared[];
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31, across = p.width / 128;
  const u32 chunk = blockIdx.x * 8 + warp;
  if (chunk >= p.blocks * across * CHUNKS) return;
  const u32 place = shared_address(shared) + warp * p.slot, from = starts[chunk], bytes = 16 * (starts[chunk + 1] - from);
  const u8* source = chunks + size_t(from) * 16;
  for (u32 i = 16 * lane; i < bytes; i += 512) copy_16(place + i, source + i);
  copies_commit();
  copies_wait<0>();
  __syncwarp();
  const u32 within = chunk % CHUNKS, column = chunk / CHUNKS % across * 128 + (IN_PAIRS ? 2 : 8) * (lane & 3);
  const u32 first = OCTETS * within / CHUNKS, count = OCTETS * (within + 1) / CHUNKS - first;
  u32 kept = 0;
  for (u32 i = 0; i < count; i++) kept += __popc(load_mask(place + MASKS * i + MASK * lane));
  u32 pointer = place + MASKS * count + 2 * GRAIN * values_before(kept, lane);
  for (u32 i = 0; i < count; i++) {
    const u32 mask = load_mask(place + MASKS * i + MASK * lane);
    u32 pairs[4][4];
    take_eight<0>(mask, pointer, pairs[0]);
    take_eight<1>(mask, pointer, pairs[1]);
    take_eight<2>(mask, pointer, pairs[2]);
    take_eight<3>(mask, pointer, pairs[3]);
    const u32 row = 8 * (chunk / CHUNKS / across * OCTETS + first + i) + lane / 4;
    if (row < p.rows)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        u16* const to = dense + size_t(row) * p.width + column + 32 * j;
#if IN_PAIRS
#pragma unroll
        for (int i = 0; i < 4; i++) *reinterpret_cast<u32*>(to + 8 * i) = pairs[j][i];
#else
        *reinterpret_cast<uint4*>(to) = make_uint4(pairs[j][0], pairs[j][1], pairs[j][2], pairs[j][3]);
#endif
      }
  }
}
