// A bitmap for any number of tokens: a warp takes a row of the weight and a token. Layout `bitmap`.
//
//   grid  [ceil_div(rows, 4), tokens]    block  128
//
//   masks of a row   [ lane 0 ][ lane 1 ] ... [ lane 31 ][ lane 0 ] ...    32 columns each
//   values           a lane's begin where those of the lanes before it end: a scan of how many bits they have

extern "C" __global__ void bitmap_warp(const unsigned *masks, const number *values, const unsigned *row_ptr,
                                       const number *x, number *y, unsigned rows, unsigned cols, unsigned tokens,
                                       unsigned nnz) {
    const unsigned lane = threadIdx.x % 32, row = blockIdx.x * 4 + threadIdx.x / 32, token = blockIdx.y;
    if (row >= rows) return;
    const unsigned words = (cols + 31) / 32;
    const unsigned *mine = masks + (unsigned long long)row * words;
    const number *inputs = x + (unsigned long long)token * cols;
    unsigned begin = row_ptr[row];
    float sum = 0;
    for (unsigned word = 0; word < words; word += 32) {
        unsigned mask = word + lane < words ? mine[word + lane] : 0;
        unsigned end = __popc(mask);
        for (int distance = 1; distance < 32; distance *= 2) {
            const unsigned before = __shfl_up_sync(~0u, end, distance);
            if (lane >= distance) end += before;
        }
        unsigned at = begin + end - __popc(mask);
        while (mask) {
            const unsigned column = 32 * (word + lane) + __ffs(mask) - 1;
            sum += float(values[at++]) * float(inputs[column]);
            mask &= mask - 1;
        }
        begin += __shfl_sync(~0u, end, 31);
    }
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (lane == 0) y[(unsigned long long)token * rows + row] = number(sum);
}
