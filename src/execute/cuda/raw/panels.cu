// Up to 256 tokens by a bitmap in the order of the tensor core's registers, two octets of rows a warp: sparse/octets.rs
// draws the layout. A warp decodes its 16 rows to the A registers of wgmma m64nNk16, whose B are the inputs in shared
// memory; the inputs come by the tensor copy engine, in stages of 64 columns for all tokens of a block.
//   TOKENS   32, 64, 128 or 256: what a block multiplies     GROUPS   2, 3 or 4 warpgroups of 64 rows
//   STAGES   stages of inputs                                GRAIN    1 or 2: weights that share a bit of the mask
// A block has 64 * GROUPS rows and its part of the columns; the last part of a tile to end adds all of them up.
// Architecture: sm_90a alone.
// Shared memory: 2 KB, 128 * TOKENS a stage, SLOTS slots of a chunk for each warp.
// Registers: with 4, 3 and 2 GROUPS 96, 128 and 168 a thread at launch, of which copying warps keep 24, 32 and 40, and
// decoding ones get 112, 160 and 232.
#ifndef TOKENS
#define TOKENS 64
#endif
#ifndef GROUPS
#define GROUPS 4
#endif
#ifndef STAGES
#define STAGES 5
#endif
#ifndef GRAIN
#define GRAIN 1
#endif

struct alignas(64) TensorMap {
  u8 opaque[128];
};

struct PanelsParams {
  u32 rows, across, tokens, pairs, slot, parts, has_bias, spare;
};

namespace panels {
constexpr int WARPS = 4 * GROUPS, SLOTS = 2, ROWS = 64 * GROUPS;
constexpr int KEPT = GROUPS == 4 ? 24 : GROUPS == 3 ? 32 : 40, GIVEN = GROUPS == 4 ? 112 : GROUPS == 3 ? 160 : 232;
constexpr u32 STAGE = 128 * TOKENS;                 // bytes of a stage
constexpr u32 MASK = 4 / GRAIN, MASKS = 32 * MASK;  // bytes of a lane's mask of an octet, and of all lanes'
#if BRAIN_NUMBERS
#define PANEL_TYPES "f32.bf16.bf16"
#else
#define PANEL_TYPES "f32.f16.f16"
#endif

__device__ __forceinline__ u32 load_mask(u32 address) {
  u32 mask;
#if GRAIN == 1
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(mask) : "r"(address));
#else
  asm volatile("ld.shared.u16 %0, [%1];" : "=r"(mask) : "r"(address));
#endif
  return mask;
}

// Two neighbouring weights as a register of A. They are put together under a condition: where that is done always, the
// compiler takes it for a use of the product's registers and waits for every product.
template <int PAIR>
__device__ __forceinline__ u32 take_pair(u32 mask, u32& pointer) {
  u32 pair;
#if GRAIN == 1
  constexpr u32 LOW = 1u << (2 * PAIR), HIGH = 2u << (2 * PAIR);
  const u32 low = mask & LOW, high = mask & HIGH;
  const u32 second = pointer + (PAIR == 0 ? low << 1 : low >> (PAIR == 0 ? 0 : 2 * PAIR - 1));
  asm volatile(
      "{\n.reg .pred first, other;\n.reg .b32 number;\nsetp.ne.u32 first, %1, 0;\nsetp.ne.u32 other, %2, 0;\n"
      "mov.b32 %0, 0;\n@first ld.shared.u16 %0, [%3];\n@other ld.shared.u16 number, [%4];\n"
      "@other prmt.b32 %0, %0, number, 0x5410;\n}"
      : "=&r"(pair) : "r"(low), "r"(high), "r"(pointer), "r"(second));
  pointer = second + (high >> (2 * PAIR));
#else
  const u32 bit = mask & (1u << PAIR);
  asm volatile("{\n.reg .pred kept;\nsetp.ne.u32 kept, %1, 0;\nmov.b32 %0, 0;\n@kept ld.shared.u32 %0, [%2];\n}"
               : "=&r"(pair) : "r"(bit), "r"(pointer));
  pointer += PAIR <= 2 ? bit << (PAIR <= 2 ? 2 - PAIR : 0) : bit >> (PAIR > 2 ? PAIR - 2 : 0);
#endif
  return pair;
}

// The registers of a product of 16 columns, of 128: rows of the first octet and of the second.
template <int STEP>
__device__ __forceinline__ void take_step(const u32 (&masks)[2], u32 (&pointers)[2], u32 (&a)[4]) {
  a[0] = take_pair<2 * STEP>(masks[0], pointers[0]);
  a[1] = take_pair<2 * STEP>(masks[1], pointers[1]);
  a[2] = take_pair<2 * STEP + 1>(masks[0], pointers[0]);
  a[3] = take_pair<2 * STEP + 1>(masks[1], pointers[1]);
}

template <int HALF>
__device__ __forceinline__ void take_half(const u32 (&masks)[2], u32 (&pointers)[2], u32 (&a)[4][4]) {
  take_step<4 * HALF>(masks, pointers, a[0]);
  take_step<4 * HALF + 1>(masks, pointers, a[1]);
  take_step<4 * HALF + 2>(masks, pointers, a[2]);
  take_step<4 * HALF + 3>(masks, pointers, a[3]);
}

__device__ __forceinline__ u32 values_before(u32 count, u32 lane) {
  u32 sum = count;
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) {
    const u32 other = __shfl_up_sync(~0u, sum, apart);
    if (lane >= apart) sum += other;
  }
  return sum - count;
}

#define SUM(i) "+f"(sums[i])
#define SUMS_4(i) SUM(i), SUM(i + 1), SUM(i + 2), SUM(i + 3)
#define SUMS_16(i) SUMS_4(i), SUMS_4(i + 4), SUMS_4(i + 8), SUMS_4(i + 12)
#define SUMS_64(i) SUMS_16(i), SUMS_16(i + 16), SUMS_16(i + 32), SUMS_16(i + 48)
#define NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define NAMES_32 NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_64 NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_128 NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// sums += A . B of 64 rows, 16 columns and all tokens; `inputs` describes B (PTX ISA, "Matrix descriptor").
__device__ __forceinline__ void multiply(float (&sums)[TOKENS / 2], const u32 (&a)[4], unsigned long long inputs) {
#define BEHIND "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(inputs)
#if TOKENS == 32
  asm volatile("wgmma.mma_async.sync.aligned.m64n32k16." PANEL_TYPES " {" NAMES_16 "}, {%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
               : SUMS_16(0) : BEHIND);
#elif TOKENS == 64
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16." PANEL_TYPES " {" NAMES_32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
               : SUMS_16(0), SUMS_16(16) : BEHIND);
#elif TOKENS == 128
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16." PANEL_TYPES " {" NAMES_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
               : SUMS_64(0) : BEHIND);
#else
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16." PANEL_TYPES " {" NAMES_128 "}, {%128, %129, %130, %131}, %132, 1, 1, 1, 0;"
               : SUMS_64(0), SUMS_64(64) : BEHIND);
#endif
}

__device__ __forceinline__ void registers_settled() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int NEWEST>
__device__ __forceinline__ void products_end() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(NEWEST) : "memory");
}
// Among the warps that decode.
__device__ __forceinline__ void sync_decoders() { asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory"); }

__device__ __forceinline__ void arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Copies the inputs of this block's columns, a stage after the other, as they become free.
__device__ __forceinline__ void copy_inputs(const TensorMap* x, u32 full, u32 empty, u32 stages, u32 first, u32 last) {
  u32 stage = 0, parity = 1;
  for (u32 half = 2 * first; half < 2 * last; half++) {
    barrier_wait(empty + 8 * stage, parity);
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(full + 8 * stage), "r"(STAGE) : "memory");
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 ::"r"(stages + stage * STAGE), "l"(x), "r"(full + 8 * stage), "r"(64 * half), "r"(0) : "memory");
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
}
}  // namespace panels

// y [tokens, rows] = x . weight^T + bias
//   chunks: pairs * across of them, those of two octets one after the other; starts: of each, and the end
//   parts: sums of blocks, float4 [blocks][TOKENS / 8][threads]; counts: zero, of every tile
extern "C" __global__ void __launch_bounds__(128 * GROUPS + 128, 1)
    panels_rows(const __grid_constant__ TensorMap x, const u8* __restrict__ chunks, const u32* __restrict__ starts,
                const u16* __restrict__ bias, u16* __restrict__ y, float4* __restrict__ parts, u32* __restrict__ counts,
                const __grid_constant__ PanelsParams p) {
  using namespace panels;
  extern __shared__ u8 shared[];
  // The copy engine's pattern of 128 bytes repeats every KB.
  const u32 bottom = opaque((shared_address(shared) + 1023) & ~1023u);
  const u32 full = bottom, empty = full + 8 * STAGES, filled = empty + 8 * STAGES, flag = bottom + 1016;
  const u32 stages = bottom + 1024, slots = stages + STAGES * STAGE;
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const u32 tile = blockIdx.x / p.parts, part = blockIdx.x % p.parts;
  const u32 first = p.across * part / p.parts, last = p.across * (part + 1) / p.parts;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + 8 * i);
      asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(empty + 8 * i), "n"(GROUPS) : "memory");
    }
    for (int i = 0; i < WARPS * SLOTS; i++) barrier_init(filled + 8 * i);
    barriers_are_ready();
  }
  __syncthreads();
  let_next_launch_begin();
  if (warp >= WARPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(KEPT));
    if (warp == WARPS && lane == 0) {
      wait_for_launches_before();
      copy_inputs(&x, full, empty, stages, first, last);
    }
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(GIVEN));
  const u32 pair = tile * WARPS + warp;
  // A warp whose rows are after the last has no chunks: its registers are zeros.
  const bool real = pair < p.pairs;
  const u32 barriers = filled + 8 * SLOTS * warp, mine = slots + warp * SLOTS * p.slot;
  u32 next = pair * p.across + first;
  const u32 end = real ? pair * p.across + last : next;
  u32 bounds[SLOTS + 1];
#pragma unroll
  for (int i = 0; i <= SLOTS; i++) bounds[i] = real ? starts[min(next + i, end)] : 0;
  auto request = [&](u32 slot) {
    if (next < end) {
      if (lane == 0)
        bulk_copy(mine + slot * p.slot, chunks + size_t(bounds[0]) * 16, 16 * (bounds[1] - bounds[0]), barriers + 8 * slot);
#pragma unroll
      for (int i = 0; i < SLOTS; i++) bounds[i] = bounds[i + 1];
      bounds[SLOTS] = starts[min(++next + SLOTS, end)];
    }
  };
#pragma unroll
  for (int i = 0; i < SLOTS; i++) request(i);
  float sums[TOKENS / 2];
#pragma unroll
  for (int i = 0; i < TOKENS / 2; i++) sums[i] = 0.f;
  u32 a[2][4][4];
  u32 slot = 0, slot_parity = 0, stage = 0, stage_parity = 0, used = 0;
  const bool speaker = (threadIdx.x & 127) == 0;
  const u32 described = opaque(stages >> 4);
  // Products of 64 columns run while the next 64 are decoded.
  auto multiply_half = [&](u32 (&registers)[4][4]) {
    barrier_wait(full + 8 * stage, stage_parity);
    const unsigned long long inputs =
        (0x40000040ull << 32) | (0x10000u | (described + stage * (STAGE / 16)));
    registers_settled();
#pragma unroll
    for (int step = 0; step < 4; step++) multiply(sums, registers[step], inputs + 2 * step);
    products_begin();
    products_end<1>();
    if (speaker && used != 0) arrive(used);
    used = empty + 8 * stage;
    if (++stage == STAGES) stage = 0, stage_parity ^= 1;
  };
#pragma unroll 1
  for (u32 block = first; block < last; block++) {
    u32 masks[2] = {0, 0}, pointers[2] = {0, 0};
    if (real) {
      barrier_wait(barriers + 8 * slot, slot_parity);
      const u32 place = mine + slot * p.slot;
      masks[0] = load_mask(place + MASK * lane);
      masks[1] = load_mask(place + MASKS + MASK * lane);
      const u32 count = __popc(masks[0]);
      pointers[0] = place + 2 * MASKS + 2 * GRAIN * values_before(count + __popc(masks[1]), lane);
      pointers[1] = pointers[0] + 2 * GRAIN * count;
    }
    take_half<0>(masks, pointers, a[0]);
    multiply_half(a[0]);
    take_half<1>(masks, pointers, a[1]);
    __syncwarp();
    request(slot);
    if (++slot == SLOTS) slot = 0, slot_parity ^= 1;
    multiply_half(a[1]);
  }
  products_end<0>();
  wait_for_launches_before();

  bool whole = true;
  if (p.parts > 1) {
    const u32 threads = 32 * WARPS;
    float4* to = parts + size_t(blockIdx.x) * (TOKENS / 8) * threads + threadIdx.x;
#pragma unroll
    for (int i = 0; i < TOKENS / 8; i++)
      __stcg(to + i * threads, make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]));
    sync_decoders();
    if (threadIdx.x == 0) {
      u32 before;
      asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counts + tile) : "memory");
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(flag), "r"(before) : "memory");
      if (before == p.parts - 1) counts[tile] = 0;  // for the next launch
    }
    sync_decoders();
    u32 before;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(before) : "r"(flag) : "memory");
    whole = before == p.parts - 1;
    if (whole) {
      // In the order of the parts, whoever was last.
      const float4* from = parts + size_t(tile) * p.parts * (TOKENS / 8) * threads + threadIdx.x;
#pragma unroll
      for (int i = 0; i < TOKENS / 2; i++) sums[i] = 0.f;
      for (u32 k = 0; k < p.parts; k++)
#pragma unroll
        for (int i = 0; i < TOKENS / 8; i++) {
          const float4 v = __ldcg(from + (size_t(k) * (TOKENS / 8) + i) * threads);
          sums[4 * i] += v.x, sums[4 * i + 1] += v.y, sums[4 * i + 2] += v.z, sums[4 * i + 3] += v.w;
        }
    }
  } else {
    sync_decoders();
  }
  if (!whole) return;
  // Tokens by rows, where inputs and chunks were.
  u16* const turned = reinterpret_cast<u16*>(shared + (stages - shared_address(shared)));
  const u32 row = 16 * warp + lane / 4, token = 2 * (lane & 3);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const u32 at = tile * ROWS + row + 8 * half;
    const float added = p.has_bias && at < p.rows ? number_to_float(bias[at]) : 0.f;
#pragma unroll
    for (int i = 0; i < TOKENS / 8; i++)
#pragma unroll
      for (int j = 0; j < 2; j++)
        turned[(token + 8 * i + j) * (ROWS + 8) + row + 8 * half] = float_to_number(sums[4 * i + 2 * half + j] + added);
  }
  sync_decoders();
  if (p.rows % 8 == 0) {
    for (u32 i = threadIdx.x; i < TOKENS * (ROWS / 8); i += 32 * WARPS) {
      const u32 n = i / (ROWS / 8), r = i % (ROWS / 8) * 8, to = tile * ROWS + r;
      if (n < p.tokens && to < p.rows)
        *reinterpret_cast<uint4*>(y + size_t(n) * p.rows + to) = *reinterpret_cast<uint4*>(turned + n * (ROWS + 8) + r);
    }
  } else {
    for (u32 i = threadIdx.x; i < TOKENS * ROWS; i += 32 * WARPS) {
      const u32 n = i / ROWS, r = i % ROWS, to = tile * ROWS + r;
      if (n < p.tokens && to < p.rows) y[size_t(n) * p.rows + to] = turned[n * (ROWS + 8) + r];
    }
  }
}
