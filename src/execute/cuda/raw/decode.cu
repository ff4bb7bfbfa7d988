// What a decoder does between its linears for one token of each sequence: rows of tables, norms, gates, attention and
// the largest logit. Each is small; what they cost is their start, so they may begin before what precedes them ends.
//   STEPS          eights of numbers that a thread of a norm holds
//   GROUP          lanes that share a key: a power of two, head_dim / 8 at least
//   ATTEND_WARPS   of a token and head: 16, or 8 where there are more than fit the device at once
// Architecture: sm_75 on (bf16: sm_80 on). Shared memory: static, at most 20 KB; of attention 4 * ATTEND_WARPS *
// (head_dim + 2) and up to 12 * head_dim bytes. Registers: at most 64 a thread.
#ifndef STEPS
#define STEPS 1
#endif
#ifndef GROUP
#define GROUP 16
#endif
#ifndef ATTEND_WARPS
#define ATTEND_WARPS 16
#endif

namespace decode {
constexpr float LEAST = -1e30f;  // below any score
}  // namespace decode

struct TableParams {
  u32 eights, stride, from, offset, added;
};

// y[token] = (x[token] +) table[numbers[from + token] + offset], a block a token; rows in eights.
extern "C" __global__ void __launch_bounds__(512)
    table_rows(const uint4* x, const uint4* table, const int* numbers, uint4* y, const __grid_constant__ TableParams p) {
  using namespace decode;
  using namespace elements;
  let_next_launch_begin();
  wait_for_launches_before();
  const u32 token = blockIdx.x;
  const uint4* const row = table + size_t(u32(numbers[p.from + token]) + p.offset) * p.stride;
  for (u32 at = threadIdx.x; at < p.eights; at += blockDim.x) {
    const uint4 v = row[at];
    y[token * p.eights + at] = p.added ? added(v, x[token * p.eights + at]) : v;
  }
}

struct NormParams {
  u32 eights, added, centred, has_bias;
  float eps;
};

// sum = x (+ first (+ second)), rounded at each step, and its norm; a block a row.
extern "C" __global__ void __launch_bounds__(512)
    norm_rows(const uint4* x, const uint4* first, const uint4* second, const uint4* gain, const uint4* bias, uint4* sum,
              uint4* normed_out, const __grid_constant__ NormParams p) {
  using namespace decode;
  using namespace elements;
  __shared__ float slots[2][16];
  let_next_launch_begin();
  wait_for_launches_before();
  const size_t row = size_t(blockIdx.x) * p.eights;
  uint4 held[STEPS];
  float total = 0.f;
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    const u32 at = threadIdx.x + step * blockDim.x;
    held[step] = make_uint4(0, 0, 0, 0);
    if (at < p.eights) {
      held[step] = summed(x, first, second, p.added, row + at);
      if (p.added > 0) sum[row + at] = held[step];
      total += total_of(held[step], !p.centred, 0.f);
    }
  }
  const float width = float(8 * p.eights);
  float squares = block_sum(total, slots[0]), mean = 0.f;
  if (p.centred) {
    mean = squares / width;
    total = 0.f;
#pragma unroll
    for (int step = 0; step < STEPS; step++)
      if (threadIdx.x + step * blockDim.x < p.eights) total += total_of(held[step], true, mean);
    squares = block_sum(total, slots[1]);
  }
  const float deviation = sqrtf(squares / width + p.eps);
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    const u32 at = threadIdx.x + step * blockDim.x;
    if (at < p.eights) normed_out[row + at] = normed(held[step], gain[at], bias + at, p.has_bias, mean, deviation);
  }
}

struct GateParams {
  u32 eights, gated;
};

// y = f(x) (. up), element by element.
extern "C" __global__ void __launch_bounds__(256)
    gate(const uint4* x, const uint4* up, uint4* y, const __grid_constant__ GateParams p) {
  using namespace decode;
  using namespace elements;
  let_next_launch_begin();
  wait_for_launches_before();
  const u32 at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= p.eights) return;
  y[at] = gated(x[at], up + at, p.gated);
}

// In numbers: where a token's first query, key and value are, a token's and a head's stride of each.
struct AttendParams {
  u32 tokens, heads, kv_heads, dim, pairs, room, window;
  float scale;
  u32 q_from, q_token, q_head, k_from, k_token, k_head, v_from, v_token, v_head;
  u32 early;
  u32 q_between;  // beside a head's stride, from the queries of a key-value head to those of the next
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
// [tokens, heads]. Softmax as the keys come (Milakov and Gimelshein, arXiv 1805.02867).
//   places [3, tokens]: ids, positions, rows of the cache where the sequence begins; from one head to the next `room`
extern "C" __global__ void __launch_bounds__(32 * ATTEND_WARPS, 32 / ATTEND_WARPS)
    attend(const u16* q, const u16* k, const u16* v, const int* places, const float* angles, u16* keys, u16* values,
           u16* out, const __grid_constant__ AttendParams p) {
  using namespace decode;
  using namespace elements;
  constexpr u32 AHEAD = 4, WARPS = ATTEND_WARPS, GROUPS = 32 * WARPS / GROUP;
  extern __shared__ __align__(16) float parts[];  // [WARPS][dim + 2], the query and the key as they came, the turns
  let_next_launch_begin();
  if (!p.early) wait_for_launches_before();
  const u32 thread = threadIdx.x, token = blockIdx.x / p.heads, head = blockIdx.x % p.heads, dim = p.dim;
  const u32 kv_head = head / (p.heads / p.kv_heads);
  const u32 position = u32(places[p.tokens + token]);
  const size_t base = u32(places[2 * p.tokens + token]) + size_t(kv_head) * p.room;
  const u32 begin = position >= p.window ? position + 1 - p.window : 0;  // of the tokens before, [begin, position)
  const u32 lane = thread % GROUP, group = thread / GROUP, eights = dim / 8;
  const bool has = lane < eights;
  const uint4* const kept_keys = reinterpret_cast<const uint4*>(keys) + base * eights + lane;
  const uint4* const kept_values = reinterpret_cast<const uint4*>(values) + base * eights + lane;
  // What the tokens before have left is there: the first of it is on its way while this token's own is awaited.
  uint4 key[AHEAD], value[AHEAD];
  auto load = [&](uint4 (&to)[AHEAD], const uint4* from, u32 first) {
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      const u32 row = first + group + a * GROUPS;
      to[a] = has && row < position ? from[size_t(row) * eights] : make_uint4(0, 0, 0, 0);
    }
  };
  load(key, kept_keys, begin);
  load(value, kept_values, begin);
  // So are the token's turns.
  float2* const turns = reinterpret_cast<float2*>(parts + WARPS * (dim + 2) + 2 * dim);
  for (u32 i = thread; i < p.pairs; i += 32 * WARPS)
    turns[i] = reinterpret_cast<const float2*>(angles)[size_t(position) * p.pairs + i];
  if (p.early) wait_for_launches_before();

  float* const query_raw = parts + WARPS * (dim + 2);
  float* const key_raw = query_raw + dim;
  for (u32 i = thread; i < dim; i += 32 * WARPS) {
    query_raw[i] = number_to_float(q[p.q_from + size_t(token) * p.q_token + head * p.q_head + kv_head * p.q_between + i]);
    key_raw[i] = number_to_float(k[p.k_from + size_t(token) * p.k_token + kv_head * p.k_head + i]);
  }
  __syncthreads();
  const u16* const value_raw = v + p.v_from + size_t(token) * p.v_token + kv_head * p.v_head;
  const size_t to = (base + position) * dim;
  for (u32 i = thread; i < dim; i += 32 * WARPS) {
    // The heads that share a key-value head all write it, the same numbers, and each attends to its own.
    keys[to + i] = float_to_number(turned(key_raw, i, p.pairs, turns));
    values[to + i] = value_raw[i];
  }
  float query[8], sums[8] = {};
#pragma unroll
  for (u32 i = 0; i < 8; i++) query[i] = has ? turned(query_raw, 8 * lane + i, p.pairs, turns) * p.scale : 0.f;
  auto over_group = [&](float score) {
#pragma unroll
    for (int apart = 1; apart < GROUP; apart *= 2) score += __shfl_xor_sync(~0u, score, apart);
    return score;
  };

  // The first group begins with the token itself, as it is kept.
  float own = 0.f;
#pragma unroll
  for (u32 i = 0; i < 8; i++)
    if (has) own = fmaf(rounded(turned(key_raw, 8 * lane + i, p.pairs, turns)), query[i], own);
  own = over_group(own);
  float most = group == 0 ? own : LEAST, weight = group == 0 ? 1.f : 0.f;
  if (group == 0 && has)
#pragma unroll
    for (u32 i = 0; i < 8; i++) sums[i] = number_to_float(value_raw[8 * lane + i]);
  for (u32 first = begin; first < position; first += AHEAD * GROUPS) {
    float scores[AHEAD], now = most;
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      const Eight e = wide(key[a]);
      float score = 0.f;
#pragma unroll
      for (int i = 0; i < 8; i++) score = fmaf(e.number[i], query[i], score);
      score = over_group(score);
      scores[a] = first + group + a * GROUPS < position ? score : LEAST;
      now = fmaxf(now, scores[a]);
    }
    load(key, kept_keys, first + AHEAD * GROUPS);
    const float fade = __expf(most - now);
    weight *= fade;
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i] *= fade;
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      const float share = first + group + a * GROUPS < position ? __expf(scores[a] - now) : 0.f;
      weight += share;
      const Eight e = wide(value[a]);
#pragma unroll
      for (int i = 0; i < 8; i++) sums[i] = fmaf(e.number[i], share, sums[i]);
    }
    load(value, kept_values, first + AHEAD * GROUPS);
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
  using namespace elements;
  __shared__ Largest warps[32];
  let_next_launch_begin();
  wait_for_launches_before();
  const u16* const row = rows + size_t(blockIdx.x) * p.width;
  Largest largest = {number_to_float(row[0]), 0, 0};
  const u32 eights = p.width % 8 == 0 ? p.width / 8 : 0;
  for (u32 at = threadIdx.x; at < eights; at += blockDim.x) {
    const Eight e = wide(reinterpret_cast<const uint4*>(row)[at]);
#pragma unroll
    for (u32 i = 0; i < 8; i++) largest.see(e.number[i], 8 * at + i);
  }
  for (u32 at = 8 * eights + threadIdx.x; at < p.width; at += blockDim.x) largest.see(number_to_float(row[at]), at);
  largest.join_warp();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = largest;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (u32 w = 1; w < blockDim.x / 32; w++) largest.join(warps[w].number, warps[w].place, warps[w].bad);
    found[2 * blockIdx.x] = largest.place, found[2 * blockIdx.x + 1] = largest.bad;
    if (p.next) {
      places[blockIdx.x] = int(largest.place);
      places[p.tokens + blockIdx.x]++;
    }
  }
}
