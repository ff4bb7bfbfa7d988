// What many tokens see of the keys up to their own, by the tensor core: 64 tokens of a head a block, key tile after key
// tile (FlashAttention-2: Dao, arXiv 2307.08691, algorithm 1). Keys, rotated, and values are in the cache already. A value
// that is not finite makes its tile's tokens NaN, those too that do not see it: their scores are refused all the same.
//   DIM      numbers of a head: a multiple of 16, 256 at most
//   CAPPED   1: scores become cap * tanh(score / cap)      BIASED   1: a number for each head and key is added to them
// Architecture: sm_80 on. Shared memory: (64 + 4 * KEYS) rows of DIM + 8 numbers, 512 bytes. Registers: at most 255 a
// thread, for two blocks of 128 threads a multiprocessor.
#ifndef DIM
#define DIM 128
#endif
#ifndef CAPPED
#define CAPPED 0
#endif
#ifndef BIASED
#define BIASED 0
#endif

struct FlashParams {
  u32 tokens, heads, kv_heads, pairs, room, window, q_from, q_token, q_head, q_between, neighbours, by_token, bias_keys;
  float scale, cap;
};

namespace flash {
constexpr u32 WARPS = 4, THREADS = 32 * WARPS, ROWS = 16 * WARPS;
constexpr u32 KEYS = DIM <= 128 ? 64 : 32;  // of a tile
constexpr u32 STRIDE = DIM + 8;             // of rows in shared memory: eight of them meet no bank twice
constexpr u32 LINE = 2 * STRIDE, TILE = KEYS * LINE;
constexpr u32 STEPS = DIM / 16, SIXTEENS = KEYS / 16;
constexpr bool HELD = DIM <= 128;  // whether queries stay in registers
constexpr float LEAST = -1e30f;    // below any score, and its difference to any is a number
constexpr u32 NEVER = 0xff800000;  // the bits of the score of what is not seen: minus infinity
constexpr float LOG2_E = 1.44269504f;

// Tokens [first, last) of the block's, which are of one sequence, and its keys from `key` on, a tile of them, before `stop`.
struct Piece {
  u32 first, last, key, stop;
};

// 16 bytes, or zeros.
__device__ __forceinline__ void copy_16_or_none(u32 to, const void* from, bool some) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(some ? 16 : 0) : "memory");
}

__device__ __forceinline__ void store_number(u32 address, float number) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(float_to_number(number)) : "memory");
}

__device__ __forceinline__ u32 pair_of(float low, float high) {
  return float_to_number(low) | u32(float_to_number(high)) << 16;
}

// The block's queries, turned, to shared memory; zeros after the last token.
__device__ __forceinline__ void stage_queries(const u16* q, const float2* angles, const u32* positions, u32 to, u32 head,
                                              u32 first, u32 count, const FlashParams& p) {
  const u32 of_head = p.q_from + head * p.q_head + head / (p.heads / p.kv_heads) * p.q_between, left = DIM - 2 * p.pairs;
  for (u32 i = threadIdx.x; i < ROWS * p.pairs; i += THREADS) {
    const u32 row = i / p.pairs, pair = i % p.pairs, turn = p.by_token ? first + row : positions[row];
    const u32 low = p.neighbours ? 2 * pair : pair, high = p.neighbours ? low + 1 : pair + p.pairs;
    float a = 0.f, b = 0.f;
    if (row < count) {
      const u16* const from = q + size_t(first + row) * p.q_token + of_head;
      const float2 angle = angles[size_t(turn) * p.pairs + pair];
      const float x = number_to_float(from[low]), y = number_to_float(from[high]);
      a = x * angle.x - y * angle.y, b = y * angle.x + x * angle.y;
    }
    store_number(to + row * LINE + 2 * low, a);
    store_number(to + row * LINE + 2 * high, b);
  }
  for (u32 i = threadIdx.x; i < ROWS * left; i += THREADS) {
    const u32 row = i / left, at = 2 * p.pairs + i % left;
    const float x = row < count ? number_to_float(q[size_t(first + row) * p.q_token + of_head + at]) : 0.f;
    store_number(to + row * LINE + 2 * at, x);
  }
}
}  // namespace flash

#if ARCHITECTURE >= 800
// Blocks: heads x ceil(tokens / 64), the last tokens first: they have the most keys.
//   places [3, tokens]: ids, positions, rows of the cache where the sequence begins; from one head to the next `room`
//   angles [positions or tokens, pairs]: cosine and sine      biases [heads, bias_keys]      out [tokens, heads, DIM]
extern "C" __global__ void __launch_bounds__(flash::THREADS, 2)
    flash_rows(const u16* q, const int* places, const float2* angles, const float* biases, const u16* keys,
               const u16* values, u16* out, const __grid_constant__ FlashParams p) {
  using namespace flash;
  extern __shared__ __align__(16) u8 shared[];
  __shared__ u32 positions[ROWS], bases[ROWS];
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.x % p.heads;
  const u32 begin = (gridDim.x - 1 - blockIdx.x) / p.heads * ROWS, count = min(ROWS, p.tokens - begin);
  const u32 queries = shared_address(shared), tiles = queries + ROWS * LINE;
  let_next_launch_begin();
  wait_for_launches_before();
  if (threadIdx.x < ROWS) {
    const u32 token = begin + min(threadIdx.x, count - 1);
    positions[threadIdx.x] = u32(places[p.tokens + token]);
    bases[threadIdx.x] = u32(places[2 * p.tokens + token]);
  }
  __syncthreads();

  auto seen_from = [&](u32 row) { return positions[row] >= p.window ? positions[row] + 1 - p.window : 0; };
  auto sequence_from = [&](u32 first) {
    u32 last = first;
    while (last < count && bases[last] == bases[first]) last++;
    return Piece{first, last, first < count ? seen_from(first) : 0, first < count ? positions[last - 1] + 1 : 0};
  };
  auto next = [&](Piece piece) {
    piece.key += KEYS;
    return piece.key < piece.stop ? piece : sequence_from(piece.last);
  };
  const size_t of_head = size_t(head / (p.heads / p.kv_heads)) * p.room;
  auto request = [&](const Piece& piece, u32 to) {
    if (piece.first < count) {
      const size_t row = bases[piece.first] + of_head + piece.key;
      for (u32 i = threadIdx.x; i < KEYS * DIM / 8; i += THREADS) {
        const u32 key = i / (DIM / 8), eight = i % (DIM / 8), place = to + key * LINE + 16 * eight;
        const bool some = piece.key + key < piece.stop;
        const size_t from = (row + (some ? key : 0)) * DIM + 8 * eight;
        copy_16_or_none(place, keys + from, some);
        copy_16_or_none(place + TILE, values + from, some);
      }
    }
    copies_commit();
  };
  Piece now = sequence_from(0);
  request(now, tiles);
  stage_queries(q, angles, positions, queries, head, begin, count, p);
  __syncthreads();

  // A lane's parts of matrices: rows lane / 4 and 8 after it of the warp's sixteen, columns 2 (lane mod 4) of each eight.
  const u32 top = 16 * warp + lane / 4;
  const u32 query = queries + (16 * warp + lane % 16) * LINE + lane / 16 * 16;
  uint4 held[HELD ? STEPS : 1];
  if constexpr (HELD)
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) held[step] = load_squares(query + 32 * step);
  float sums[2 * STEPS][4] = {}, most[2] = {LEAST, LEAST}, weight[2] = {};
  const float unit = CAPPED || BIASED ? 1.f : p.scale * LOG2_E;
  u32 at = 0;
#pragma unroll 1
  while (now.first < count) {
    const Piece after = next(now);
    request(after, tiles + (at ^ 1) * 2 * TILE);
    copies_wait<1>();
    __syncthreads();
    if (now.first < 16 * warp + 16 && now.last > 16 * warp) {
      const u32 tile = tiles + at * 2 * TILE;
      // Scores of 16 tokens and the tile's keys.
      float scores[2 * SIXTEENS][4] = {};
      const u32 key = tile + (lane % 8 + lane / 16 * 8) * LINE + lane / 8 % 2 * 16;
#pragma unroll
      for (u32 step = 0; step < STEPS; step++) {
        const uint4 a = HELD ? held[HELD ? step : 0] : load_squares(query + 32 * step);
#pragma unroll
        for (u32 i = 0; i < SIXTEENS; i++) {
          const uint4 b = load_squares(key + 16 * i * LINE + 32 * step);
          multiply_add(scores[2 * i], a, b.x, b.y);
          multiply_add(scores[2 * i + 1], a, b.z, b.w);
        }
      }
#if CAPPED || BIASED
#pragma unroll
      for (u32 i = 0; i < 2 * SIXTEENS; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
          float score = scores[i][j] * p.scale;
#if BIASED
          score += biases[head * p.bias_keys + min(now.key + 8 * i + 2 * (lane % 4) + j % 2, now.stop - 1)];
#endif
#if CAPPED
          score = p.cap * tanhf(score / p.cap);
#endif
          scores[i][j] = score * LOG2_E;
        }
#endif
      // What a token does not see: keys after its own, or before its window, or of other sequences.
      const bool whole = now.first <= 16 * warp && now.last >= 16 * warp + 16 &&
                         now.key + KEYS <= positions[16 * warp] + 1 && now.key >= seen_from(16 * warp + 15);
      if (!whole)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
          const u32 row = top + 8 * half;
          const bool mine = row >= now.first && row < now.last;
          const u32 from = mine ? seen_from(row) : 0, to = mine ? positions[row] + 1 : 0;
#pragma unroll
          for (u32 i = 0; i < 2 * SIXTEENS; i++)
#pragma unroll
            for (u32 j = 0; j < 2; j++) {
              const u32 k = now.key + 8 * i + 2 * (lane % 4) + j;
              if (k < from || k >= to) scores[i][2 * half + j] = __uint_as_float(NEVER);
            }
        }
      // Softmax as the tiles come, in powers of two.
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        float largest = most[half];
#pragma unroll
        for (u32 i = 0; i < 2 * SIXTEENS; i++)
          largest = fmaxf(largest, fmaxf(scores[i][2 * half], scores[i][2 * half + 1]) * unit);
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
        const float fade = exp2f(most[half] - largest);
        most[half] = largest;
        float sum = 0.f;
#pragma unroll
        for (u32 i = 0; i < 2 * SIXTEENS; i++)
#pragma unroll
          for (u32 j = 0; j < 2; j++) {
            float& score = scores[i][2 * half + j];
            score = exp2f(fmaf(score, unit, -largest));
            sum += score;
          }
        weight[half] = weight[half] * fade + sum;
#pragma unroll
        for (u32 i = 0; i < 2 * STEPS; i++) sums[i][2 * half] *= fade, sums[i][2 * half + 1] *= fade;
      }
      const u32 value = tile + TILE + lane % 16 * LINE + lane / 16 * 16;
#pragma unroll
      for (u32 i = 0; i < SIXTEENS; i++) {
        const float(&low)[4] = scores[2 * i], (&high)[4] = scores[2 * i + 1];
        const uint4 a = make_uint4(pair_of(low[0], low[1]), pair_of(low[2], low[3]), pair_of(high[0], high[1]),
                                   pair_of(high[2], high[3]));
#pragma unroll
        for (u32 step = 0; step < STEPS; step++) {
          const uint4 b = load_squares_turned(value + 16 * i * LINE + 32 * step);
          multiply_add(sums[2 * step], a, b.x, b.y);
          multiply_add(sums[2 * step + 1], a, b.z, b.w);
        }
      }
    }
    __syncthreads();
    now = after, at ^= 1;
  }
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const u32 row = top + 8 * half;
    weight[half] += __shfl_xor_sync(~0u, weight[half], 1);
    weight[half] += __shfl_xor_sync(~0u, weight[half], 2);
    const float share = 1.f / weight[half];
    if (row < count) {
      u32* const to = reinterpret_cast<u32*>(out + (size_t(begin + row) * p.heads + head) * DIM) + lane % 4;
#pragma unroll
      for (u32 i = 0; i < 2 * STEPS; i++)
        to[4 * i] = pair_of(sums[i][2 * half] * share, sums[i][2 * half + 1] * share);
    }
  }
}
#endif
