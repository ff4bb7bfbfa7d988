// What every source in this folder begins with. Number is the type of weights, inputs and outputs: f16, or bf16 with
// BRAIN_NUMBERS. ARCHITECTURE is that of the code, as __CUDA_ARCH__ says it; an older one can be given, so that a newer GPU
// runs what an older one would.
// Architecture: sm_75 on (bf16: sm_80 on). Below sm_90 there are no bulk copies, below sm_80 no asynchronous ones.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned long long u64;

#ifndef BRAIN_NUMBERS
#define BRAIN_NUMBERS 0
#endif
#ifndef ARCHITECTURE
#ifdef __CUDA_ARCH__
#define ARCHITECTURE __CUDA_ARCH__
#else
#define ARCHITECTURE 900
#endif
#endif
#define BULK_COPIES (ARCHITECTURE >= 900)

// Two numbers in 32 bits, the first in the low half, as f32.
__device__ __forceinline__ float2 pair_to_float(u32 pair) {
#if BRAIN_NUMBERS
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
#else
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
#endif
}

__device__ __forceinline__ float number_to_float(u16 number) {
#if BRAIN_NUMBERS
  return __uint_as_float(u32(number) << 16);
#else
  return __half2float(__ushort_as_half(number));
#endif
}

__device__ __forceinline__ u16 float_to_number(float value) {
#if BRAIN_NUMBERS
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
  return __half_as_ushort(__float2half_rn(value));
#endif
}

// The address of shared memory as the instructions below take it.
__device__ __forceinline__ u32 shared_address(const void* place) { return u32(__cvta_generic_to_shared(place)); }

// The compiler may not work out again what this value was made of.
__device__ __forceinline__ u32 opaque(u32 value) {
  asm volatile("" : "+r"(value));
  return value;
}

// 16 bytes of shared memory.
__device__ __forceinline__ uint4 load_four(u32 address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
  return v;
}

// Four squares of 8 x 8 numbers, of which each lane names a row.
__device__ __forceinline__ uint4 load_squares(u32 address) {
  uint4 v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
  return v;
}

// Four squares of 8 x 8 numbers, of which each lane names a row; rows become columns.
__device__ __forceinline__ uint4 load_squares_turned(u32 address) {
  uint4 v;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address) : "memory");
  return v;
}

// Weights are read once: they need no place in the L1 cache.
#if ARCHITECTURE >= 800
#define LOAD_ONCE "ld.global.nc.L1::no_allocate.L2::256B"
#else
#define LOAD_ONCE "ld.global.nc"
#endif

__device__ __forceinline__ uint4 load_once(const uint4* from) {
  uint4 v;
  asm volatile(LOAD_ONCE ".v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}

__device__ __forceinline__ u32 load_once(const u32* from) {
  u32 v;
  asm volatile(LOAD_ONCE ".u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}

// A launch that the stream lets begin early waits here for all that came before it, and lets the next begin early.
__device__ __forceinline__ void wait_for_launches_before() {
#if ARCHITECTURE >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void let_next_launch_begin() {
#if ARCHITECTURE >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Barriers of bulk copies: one thread arrives, saying how many bytes will come.
#if BULK_COPIES
__device__ __forceinline__ void barrier_init(u32 barrier) {
  asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void barriers_are_ready() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void bulk_copy(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier) : "memory");
}

__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n@!done bra again;\n}" ::"r"(
          barrier), "r"(parity) : "memory");
}
#endif

// 16 bytes of global memory to shared memory, on Turing at once.
__device__ __forceinline__ void copy_16(u32 to, const void* from) {
#if ARCHITECTURE >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
#else
  const uint4 v = *static_cast<const uint4*>(from);
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#endif
}

__device__ __forceinline__ void copies_commit() {
#if ARCHITECTURE >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for all groups of copies but the newest ones, which are this many.
template <int NEWEST>
__device__ __forceinline__ void copies_wait() {
#if ARCHITECTURE >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(NEWEST) : "memory");
#endif
}

// sums += a . b of 16 x 16 by 16 x 8 numbers (PTX ISA, "Matrix fragments for mma.m16n8k16").
__device__ __forceinline__ void multiply_add(float (&sums)[4], uint4 a, u32 b0, u32 b1) {
#if BRAIN_NUMBERS
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
#elif ARCHITECTURE >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
#else
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(a.x), "r"(a.y), "r"(b0));
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(a.z), "r"(a.w), "r"(b1));
#endif
}
