// Numbers of 16 bits in eights, and what a decoder makes of them between its linears: sums, norms, activations. A linear's
// launch may make its own inputs so, in every block, where a launch that only makes them would cost more.
//   READS          0: inputs as they are; 1: the norm of x (+ first (+ second)); 2: f(x) (. first)
//   FUNCTION       f: 0 relu, 1 gelu, 2 gelu by tanh, 3 quick gelu, 4 silu
#ifndef READS
#define READS 0
#endif
#ifndef FUNCTION
#define FUNCTION 4
#endif

struct ReadsBuffers {
  const uint4 *first, *second, *gain, *bias;
  uint4 *sum, *out;  // what is read, for those who come later: the sum where something is added, and the inputs
};

struct ReadsParams {
  u32 added, centred, has_bias;
  float eps;
};

namespace elements {
struct Eight {
  float number[8];
};

__device__ __forceinline__ Eight wide(uint4 v) {
  Eight e;
  const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 pair = pair_to_float(words[i]);
    e.number[2 * i] = pair.x, e.number[2 * i + 1] = pair.y;
  }
  return e;
}

__device__ __forceinline__ uint4 narrow(const Eight& e) {
  u32 words[4];
#pragma unroll
  for (int i = 0; i < 4; i++)
    words[i] = float_to_number(e.number[2 * i]) | u32(float_to_number(e.number[2 * i + 1])) << 16;
  return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ __forceinline__ float rounded(float x) { return number_to_float(float_to_number(x)); }

// The sum over a block of whole warps, the same in every thread; in the same order whatever runs first.
__device__ __forceinline__ float block_sum(float number, float* slots) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) number += __shfl_xor_sync(~0u, number, apart);
  if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = number;
  __syncthreads();
  float sum = 0.f;
  for (u32 i = 0; i < blockDim.x / 32; i++) sum += slots[i];
  return sum;
}

// The first of the largest of some numbers, its place, and 1 where one of them is not finite.
struct Largest {
  float number;
  u32 place, bad;

  // One more; a thread's places rise, so that an equal number is not the first.
  __device__ __forceinline__ void see(float other, u32 at) {
    if ((__float_as_uint(other) & 0x7f800000u) == 0x7f800000u) bad = 1;
    if (other > number) number = other, place = at;
  }

  __device__ __forceinline__ void join(float other, u32 at, u32 odd) {
    if (other > number || (other == number && at < place)) number = other, place = at;
    bad |= odd;
  }

  // That of the whole warp.
  __device__ __forceinline__ void join_warp() {
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) {
      const float other = __shfl_xor_sync(~0u, number, apart);
      const u32 at = __shfl_xor_sync(~0u, place, apart), odd = __shfl_xor_sync(~0u, bad, apart);
      join(other, at, odd);
    }
  }
};

// 1 / (1 + e^-x)
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.f, 1.f + __expf(-x)); }

__device__ __forceinline__ float activated(float x) {
#if FUNCTION == 0
  return fmaxf(x, 0.f);
#elif FUNCTION == 1
  return 0.5f * x * (1.f + erff(x * 0.70710677f));  // 1 / sqrt(2)
#elif FUNCTION == 2
  // sqrt(2 / pi), and the constant of Hendrycks and Gimpel, arXiv 1606.08415, section 2
  return 0.5f * x * (1.f + tanhf(0.7978846f * (x + 0.044715f * x * x * x)));
#elif FUNCTION == 3
  return x * sigmoid(1.702f * x);
#else
  return x * sigmoid(x);
#endif
}

__device__ __forceinline__ uint4 added(uint4 a, uint4 b) {
  Eight e = wide(a);
  const Eight more = wide(b);
#pragma unroll
  for (int i = 0; i < 8; i++) e.number[i] += more.number[i];
  return narrow(e);
}

// f(x) (. up)
__device__ __forceinline__ uint4 gated(uint4 x, const uint4* up, bool has_up) {
  Eight e = wide(x);
#pragma unroll
  for (int i = 0; i < 8; i++) e.number[i] = activated(e.number[i]);
  if (has_up) {
    const Eight factors = wide(*up);
#pragma unroll
    for (int i = 0; i < 8; i++) e.number[i] = rounded(e.number[i]) * factors.number[i];
  }
  return narrow(e);
}

// What a norm is of: x (+ first (+ second)), rounded at each step.
__device__ __forceinline__ uint4 summed(const uint4* x, const uint4* first, const uint4* second, u32 terms, size_t at) {
  uint4 v = x[at];
  if (terms > 0) v = added(v, first[at]);
  if (terms > 1) v = added(v, second[at]);
  return v;
}

// What eight numbers add to the mean, or to the squares of the distances from it.
__device__ __forceinline__ float total_of(uint4 v, bool squared, float mean) {
  const Eight e = wide(v);
  float total = 0.f;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const float from_mean = e.number[i] - mean;
    total += squared ? from_mean * from_mean : e.number[i];
  }
  return total;
}

__device__ __forceinline__ uint4 normed(uint4 v, uint4 gain, const uint4* bias, bool has_bias, float mean, float deviation) {
  const Eight numbers = wide(v), gains = wide(gain);
  Eight e;
#pragma unroll
  for (int i = 0; i < 8; i++) e.number[i] = rounded(rounded((numbers.number[i] - mean) / deviation) * gains.number[i]);
  if (has_bias) {
    const Eight biases = wide(*bias);
#pragma unroll
    for (int i = 0; i < 8; i++) e.number[i] += biases.number[i];
  }
  return narrow(e);
}

// Eight inputs of a linear; of a norm what it is of.
__device__ __forceinline__ uint4 read(const uint4* x, const ReadsBuffers& b, const ReadsParams& p, u32 at) {
#if READS == 1
  return summed(x, b.first, b.second, p.added, at);
#elif READS == 2
  return gated(x[at], b.first + at, p.added > 0);
#else
  return x[at];
#endif
}
}  // namespace elements
