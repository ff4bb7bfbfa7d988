// What a decoder does between its linears for one token of each sequence: rows of tables, norms, gates, attention and
// the largest logit. Each is small; what they cost is their start, so they may begin before what precedes them ends.
//   FUNCTION       of the gate: 0 relu, 1 gelu, 2 gelu by tanh, 3 quick gelu, 4 silu
//   STEPS          eights of numbers that a thread of a norm holds
//   GROUP          lanes that share a key: a power of two, head_dim / 8 at least
// Architecture: sm_75 on (bf16: sm_80 on). Shared memory: static, at most 20 KB; of attention 4 * 16 * (head_dim + 2)
// and 8 * head_dim bytes. Registers: at most 64 a thread.
#ifndef FUNCTION
#define FUNCTION 4
#endif
#ifndef STEPS
#define STEPS 1
#endif
#ifndef GROUP
#define GROUP 16
#endif

namespace decode {
constexpr float LEAST = -1e30f;  // below any score

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
}  // namespace decode

struct TableParams {
  u32 eights, stride, from, offset, added;
};

// y[token] = (x[token] +) table[numbers[from + token] + offset], a block a token; rows in eights.
extern "C" __global__ void __launch_bounds__(512)
    table_rows(const uint4* x, const uint4* table, const int* numbers, uint4* y, const __grid_constant__ TableParams p) {
  using namespace decode;
  let_next_launch_begin();
  wait_for_launches_before();
  const u32 token = blockIdx.x;
  const uint4* const row = table + size_t(u32(numbers[p.from + token]) + p.offset) * p.stride;
  for (u32 at = threadIdx.x; at < p.eights; at += blockDim.x) {
    uint4 v = row[at];
    if (p.added) {
      Eight e = wide(v);
      const Eight more = wide(x[token * p.eights + at]);
#pragma unroll
      for (int i = 0; i < 8; i++) e.number[i] += more.number[i];
      v = narrow(e);
    }
    y[token * p.eights + at] = v;
  }
}

struct NormParams {
  u32 eights, added, centred, has_bias;
  float eps;
};

// sum = x (+ first (+ second)), rounded at each step, and its norm; a block a row.
extern "C" __global__ void __launch_bounds__(512)
    norm_rows(const uint4* x, const uint4* first, const uint4* second, const uint4* gain, const uint4* bias, uint4* sum,
              uint4* normed, const __grid_constant__ NormParams p) {
  using namespace decode;
  __shared__ float slots[2][16];
  let_next_launch_begin();
  wait_for_launches_before();
  const size_t row = size_t(blockIdx.x) * p.eights;
  Eight held[STEPS];
  float total = 0.f;
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    const u32 at = threadIdx.x + step * blockDim.x;
    held[step] = {};
    if (at < p.eights) {
      Eight e = wide(x[row + at]);
      if (p.added > 0) {
        const Eight more = wide(first[row + at]);
#pragma unroll
        for (int i = 0; i < 8; i++) e.number[i] = rounded(e.number[i] + more.number[i]);
      }
      if (p.added > 1) {
        const Eight more = wide(second[row + at]);
#pragma unroll
        for (int i = 0; i < 8; i++) e.number[i] = rounded(e.number[i] + more.number[i]);
      }
      if (p.added > 0) sum[row + at] = narrow(e);
      held[step] = e;
#pragma unroll
      for (int i = 0; i < 8; i++) total += p.centred ? e.number[i] : e.number[i] * e.number[i];
    }
  }
  const float width = float(8 * p.eights);
  float squares = block_sum(total, slots[0]), mean = 0.f;
  if (p.centred) {
    mean = squares / width;
    total = 0.f;
#pragma unroll
    for (int step = 0; step < STEPS; step++)
      if (threadIdx.x + step * blockDim.x < p.eights)
#pragma unroll
        for (int i = 0; i < 8; i++) total += (held[step].number[i] - mean) * (held[step].number[i] - mean);
    squares = block_sum(total, slots[1]);
  }
  const float deviation = sqrtf(squares / width + p.eps);
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    const u32 at = threadIdx.x + step * blockDim.x;
    if (at < p.eights) {
      const Eight gains = wide(gain[at]), biases = wide(bias[at]);
      Eight e;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        e.number[i] = rounded(rounded((held[step].number[i] - mean) / deviation) * gains.number[i]);
        if (p.has_bias) e.number[i] += biases.number[i];
      }
      normed[row + at] = narrow(e);
    }
  }
}

struct GateParams {
  u32 eights, gated;
};

namespace decode {
__device__ __forceinline__ float activated(float x) {
#if FUNCTION == 0
  return fmaxf(x, 0.f);
#elif FUNCTION == 1
  return 0.5f * x * (1.f + erff(x * 0.70710677f));  // 1 / sqrt(2)
#elif FUNCTION == 2
  // sqrt(2 / pi), and the constant of Hendrycks and Gimpel, arXiv 1606.08415, section 2
  return 0.5f * x * (1.f + tanhf(0.7978846f * (x + 0.044715f * x * x * x)));
#elif FUNCTION == 3
  return x / (1.f + expf(-1.702f * x));
#else
  return x / (1.f + expf(-x));
#endif
}
}  // namespace decode

// y = f(x) (. up), element by element.
extern "C" __global__ void __launch_bounds__(256)
    gate(const uint4* x, const uint4* up, uint4* y, const __grid_constant__ GateParams p) {
  using namespace decode;
  let_next_launch_begin();
  wait_for_launches_before();
  const u32 at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= p.eights) return;
  Eight e = wide(x[at]);
#pragma unroll
  for (int i = 0; i < 8; i++) e.number[i] = activated(e.number[i]);
  if (p.gated) {
    const Eight factors = wide(up[at]);
#pragma unroll
    for (int i = 0; i < 8; i++) e.number[i] = rounded(e.number[i]) * factors.number[i];
  }
  y[at] = narrow(e);
}

// In numbers: where a token's first query, key and value are, a token's and a head's stride of each.
struct AttendParams {
  u32 tokens, heads, kv_heads, dim, pairs, room, window;
  float scale;
  u32 q_from, q_token, q_head, k_from, k_token, k_head, v_from, v_token, v_head;
};

namespace decode {
// Number `feature` of a head that lies at `head`, turned.
__device__ __forceinline__ float turned(const float* head, u32 feature, u32 pairs, const float2* turns) {
  if (feature >= 2 * pairs) return head[feature];
  const u32 pair = feature < pairs ? feature : feature - pairs;
  const float2 turn = turns[pair];
  const float low = head[pair], high = head[pair + pairs];
  return feature < pairs ? low * turn.x - high * turn.y : high * turn.x + low * turn.y;
}
}  // namespace decode

// What a token sees, which is the newest of its sequence: turns its query and key, keeps key and value, attends. Blocks
// [tokens, heads] of 16 warps. Softmax as the keys come (Milakov and Gimelshein, arXiv 1805.02867).
//   places [3, tokens]: ids, positions, rows of the cache where the sequence begins; from one head to the next `room`
extern "C" __global__ void __launch_bounds__(512)
    attend(const u16* q, const u16* k, const u16* v, const int* places, const float* angles, u16* keys, u16* values,
           u16* out, const __grid_constant__ AttendParams p) {
  using namespace decode;
  constexpr u32 AHEAD = 4, WARPS = 16, GROUPS = 32 * WARPS / GROUP;
  extern __shared__ __align__(16) float parts[];  // [WARPS][dim + 2], then the query and the key as they came
  let_next_launch_begin();
  wait_for_launches_before();
  const u32 thread = threadIdx.x, token = blockIdx.x / p.heads, head = blockIdx.x % p.heads, dim = p.dim;
  const u32 kv_head = head / (p.heads / p.kv_heads);
  const u32 position = u32(places[p.tokens + token]);
  const size_t base = u32(places[2 * p.tokens + token]) + size_t(kv_head) * p.room;
  const u32 end = position + 1, begin = end > p.window ? end - p.window : 0;
  const float2* const turns = reinterpret_cast<const float2*>(angles) + size_t(position) * p.pairs;

  float* const query_raw = parts + WARPS * (dim + 2);
  float* const key_raw = query_raw + dim;
  for (u32 i = thread; i < dim; i += 32 * WARPS) {
    query_raw[i] = number_to_float(q[p.q_from + size_t(token) * p.q_token + head * p.q_head + i]);
    key_raw[i] = number_to_float(k[p.k_from + size_t(token) * p.k_token + kv_head * p.k_head + i]);
  }
  __syncthreads();
  const uint4* const kept_keys = reinterpret_cast<const uint4*>(keys) + base * (dim / 8);
  const uint4* const kept_values = reinterpret_cast<const uint4*>(values) + base * (dim / 8);
  const size_t to = (base + position) * dim;
  for (u32 i = thread; i < dim; i += 32 * WARPS) {
    // The heads that share a key-value head all write it, the same numbers, and each reads its own.
    keys[to + i] = float_to_number(turned(key_raw, i, p.pairs, turns));
    values[to + i] = v[p.v_from + size_t(token) * p.v_token + kv_head * p.v_head + i];
  }
  const u32 lane = thread % GROUP, group = thread / GROUP, eights = dim / 8;
  const bool has = lane < eights;
  float query[8], sums[8] = {};
#pragma unroll
  for (u32 i = 0; i < 8; i++) query[i] = has ? turned(query_raw, 8 * lane + i, p.pairs, turns) * p.scale : 0.f;
  __syncthreads();

  float most = LEAST, weight = 0.f;
  for (u32 first = begin; first < end; first += AHEAD * GROUPS) {
    uint4 key[AHEAD], value[AHEAD];
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      const u32 row = min(first + group + a * GROUPS, end - 1);
      key[a] = value[a] = make_uint4(0, 0, 0, 0);
      if (has) {
        key[a] = kept_keys[size_t(row) * eights + lane];
        value[a] = kept_values[size_t(row) * eights + lane];
      }
    }
    float scores[AHEAD], now = most;
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      const Eight e = wide(key[a]);
      float score = 0.f;
#pragma unroll
      for (int i = 0; i < 8; i++) score = fmaf(e.number[i], query[i], score);
#pragma unroll
      for (int apart = 1; apart < GROUP; apart *= 2) score += __shfl_xor_sync(~0u, score, apart);
      scores[a] = first + group + a * GROUPS < end ? score : LEAST;
      now = fmaxf(now, scores[a]);
    }
    const float fade = __expf(most - now);
    weight *= fade;
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] *= fade;
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      const float share = first + group + a * GROUPS < end ? __expf(scores[a] - now) : 0.f;
      weight += share;
      const Eight e = wide(value[a]);
#pragma unroll
      for (int i = 0; i < 8; i++) sums[i] = fmaf(e.number[i], share, sums[i]);
    }
    most = now;
  }
  // The groups of a warp, then the warps.
  float largest = most;
#pragma unroll
  for (int apart = GROUP; apart < 32; apart *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, apart));
  const float fade = __expf(most - largest);
  weight *= fade;
#pragma unroll
  for (int i = 0; i < 8; i++) sums[i] *= fade;
#pragma unroll
  for (int apart = GROUP; apart < 32; apart *= 2) {
    weight += __shfl_xor_sync(~0u, weight, apart);
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] += __shfl_xor_sync(~0u, sums[i], apart);
  }
  float* const mine = parts + thread / 32 * (dim + 2);
  if (thread % 32 < GROUP && has) {
#pragma unroll
    for (int i = 0; i < 8; i++) mine[8 * lane + i] = sums[i];
  }
  if (thread % 32 == 0) mine[dim] = largest, mine[dim + 1] = weight;
  __syncthreads();
  largest = LEAST;
#pragma unroll
  for (u32 w = 0; w < WARPS; w++) largest = fmaxf(largest, parts[w * (dim + 2) + dim]);
  for (u32 i = thread; i < dim; i += 32 * WARPS) {
    float sum = 0.f, whole = 0.f;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
      const float share = __expf(parts[w * (dim + 2) + dim] - largest);
      sum += parts[w * (dim + 2) + i] * share;
      whole += parts[w * (dim + 2) + dim + 1] * share;
    }
    out[size_t(blockIdx.x) * dim + i] = float_to_number(sum / whole);
  }
}

struct LargestParams {
  u32 width, tokens, next;
};

// found[row] = place of the first largest of a row, and 1 if one is not finite; a block of 1024 threads a row. With
// `next` the place and the next position take the stead of those in `places`: the token that comes after.
extern "C" __global__ void __launch_bounds__(1024)
    arg_max(const u16* rows, u32* found, int* places, const __grid_constant__ LargestParams p) {
  using namespace decode;
  __shared__ float bests[32];
  __shared__ u32 there[32], odd[32];
  let_next_launch_begin();
  wait_for_launches_before();
  const u16* const row = rows + size_t(blockIdx.x) * p.width;
  float best = number_to_float(row[0]);
  u32 place = 0, bad = 0;
  auto see = [&](float number, u32 at) {
    if ((__float_as_uint(number) & 0x7f800000u) == 0x7f800000u) bad = 1;
    // A thread's places rise: an equal number is not the first.
    if (number > best) best = number, place = at;
  };
  const u32 eights = p.width % 8 == 0 ? p.width / 8 : 0;
  for (u32 at = threadIdx.x; at < eights; at += blockDim.x) {
    const Eight e = wide(reinterpret_cast<const uint4*>(row)[at]);
#pragma unroll
    for (u32 i = 0; i < 8; i++) see(e.number[i], 8 * at + i);
  }
  for (u32 at = 8 * eights + threadIdx.x; at < p.width; at += blockDim.x) see(number_to_float(row[at]), at);
  auto join = [&](float other, u32 at) {
    if (other > best || (other == best && at < place)) best = other, place = at;
  };
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) {
    const float other = __shfl_xor_sync(~0u, best, apart);
    const u32 at = __shfl_xor_sync(~0u, place, apart);
    bad |= __shfl_xor_sync(~0u, bad, apart);
    join(other, at);
  }
  if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = best, there[threadIdx.x / 32] = place, odd[threadIdx.x / 32] = bad;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (u32 w = 1; w < blockDim.x / 32; w++) {
      join(bests[w], there[w]);
      bad |= odd[w];
    }
    found[2 * blockIdx.x] = place, found[2 * blockIdx.x + 1] = bad;
    if (p.next) {
      places[blockIdx.x] = int(place);
      places[p.tokens + blockIdx.x]++;
    }
  }
}
