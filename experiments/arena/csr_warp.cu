// Plain CSR for any number of tokens: a warp takes a row of the weight and a token. Layout `csr`.
//
//   grid  [ceil_div(rows, 4), tokens]    block  128

extern "C" __global__ void csr_warp(const number *values, const unsigned *columns, const unsigned *row_ptr,
                                    const number *x, number *y, unsigned rows, unsigned cols, unsigned tokens,
                                    unsigned nnz) {
    const unsigned lane = threadIdx.x % 32, row = blockIdx.x * 4 + threadIdx.x / 32, token = blockIdx.y;
    if (row >= rows) return;
    const number *inputs = x + (unsigned long long)token * cols;
    float sum = 0;
    for (unsigned i = row_ptr[row] + lane; i < row_ptr[row + 1]; i += 32) {
        sum += float(values[i]) * float(inputs[columns[i]]);
    }
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (lane == 0) y[(unsigned long long)token * rows + row] = number(sum);
}
