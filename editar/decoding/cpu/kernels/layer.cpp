// A layer's products and what is done to each row between them, for the few rows of a decoding step on a CPU: what it
// waits for is the memory. All sizes are multiples of LANES, and `outs` of BLOCK; what is stored is rounded where
// PyTorch's layers round too.

#include "vectors.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

constexpr long MOST = 8;  // rows whose sums the registers hold

// To each lane's sum, the product of its two bf16 with the two that all lanes share.
static inline floats add_pairs(floats sum, words pairs, const bf16 *x) {
    uint32_t both;
    memcpy(&both, x, sizeof both);
    words pair = words{} + both;
#ifdef __AVX512BF16__
    return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pairs, (__m512bh)pair);
#else
    floats first = (floats)(pairs << 16) * (floats)(pair << 16);
    return sum + first + (floats)(pairs & 0xffff0000) * (floats)(pair & 0xffff0000);
#endif
}

// Byte i of each lane, -127 to 127.
static inline floats whole(words four, int i) {
    return __builtin_convertvector((integers)(four << (24 - 8 * i)) >> 24, floats);
}

// To each lane's sum, a word of the matrix (a float, two bf16 or four int8) times the numbers of x, which all lanes
// share. An int8 is exact as a bf16.
static inline floats multiply_add(floats sum, const float *matrix, const float *x) { return sum + load(matrix) * *x; }

static inline floats multiply_add(floats sum, const bf16 *matrix, const bf16 *x) {
    words pairs;
    memcpy(&pairs, matrix, sizeof pairs);
    return add_pairs(sum, pairs, x);
}

static inline floats multiply_add(floats sum, const int8_t *matrix, const float *x) {
    words four;
    memcpy(&four, matrix, sizeof four);
    for (int i = 0; i < 4; i++) sum += whole(four, i) * x[i];
    return sum;
}

static inline floats multiply_add(floats sum, const int8_t *matrix, const bf16 *x) {
    words four;
    memcpy(&four, matrix, sizeof four);
    for (int i = 0; i < 4; i += 2)
        sum = add_pairs(sum, (words)whole(four, i) >> 16 | ((words)whole(four, i + 1) & 0xffff0000), x + i);
    return sum;
}

// R rows' products with one block of a matrix. Whatever R is, a product's sum has the same order.
template <int R, typename M>
static void multiply_block(const M *block, const float *scales, const NUMBER *x, NUMBER *out, long outs, long size) {
    constexpr long WORD = 4 / sizeof(M);
    floats sums[BLOCK / LANES][R] = {};
    for (long i = 0; i < size; i += WORD, block += BLOCK * WORD)
        for (int v = 0; v < BLOCK / LANES; v++)
            for (int r = 0; r < R; r++)
                sums[v][r] = multiply_add(sums[v][r], block + v * LANES * WORD, x + r * size + i);
    for (int r = 0; r < R; r++)
        for (int v = 0; v < BLOCK / LANES; v++)
            store(out + r * outs + v * LANES, scales ? sums[v][r] * load(scales + v * LANES) : sums[v][r]);
}

template <typename M>
static void multiply_blocks(const M *matrix, const float *scales, const NUMBER *x, NUMBER *out, long rows, long outs,
                            long size, long threads) {
#pragma omp parallel for num_threads(threads)
    for (long o = 0; o < outs; o += BLOCK)
        for (long r = 0; r < rows; r += MOST) {
            const M *block = matrix + o * size;
            const float *scale = scales ? scales + o : nullptr;
            const NUMBER *in = x + r * size;
            NUMBER *to = out + r * outs + o;
            switch (rows - r) {
                case 1: multiply_block<1>(block, scale, in, to, outs, size); break;
                case 2: multiply_block<2>(block, scale, in, to, outs, size); break;
                case 3: multiply_block<3>(block, scale, in, to, outs, size); break;
                case 4: multiply_block<4>(block, scale, in, to, outs, size); break;
                case 5: multiply_block<5>(block, scale, in, to, outs, size); break;
                case 6: multiply_block<6>(block, scale, in, to, outs, size); break;
                case 7: multiply_block<7>(block, scale, in, to, outs, size); break;
                default: multiply_block<MOST>(block, scale, in, to, outs, size);
            }
        }
}

extern "C" {

// out (rows, outs) = x (rows, size) times a matrix (outs / BLOCK, size / w, BLOCK, w), w numbers in four bytes: every
// thread reads its part of the matrix from the first byte to the last, which is what makes it fast.
void multiply(const NUMBER *matrix, const NUMBER *x, NUMBER *out, long rows, long outs, long size, long threads) {
    multiply_blocks(matrix, nullptr, x, out, rows, outs, size, threads);
}

// The same with a matrix of int8 and a scale for each of `outs`.
void multiply_int8(const int8_t *matrix, const float *scales, const NUMBER *x, NUMBER *out, long rows, long outs,
                   long size, long threads) {
    multiply_blocks(matrix, scales, x, out, rows, outs, size, threads);
}

// h += delta, then out = RMSNorm(h); all (rows, size).
void add_and_normalise(NUMBER *h, const NUMBER *delta, const NUMBER *weight, float eps, NUMBER *out, long rows,
                       long size, long threads) {
#pragma omp parallel for num_threads(threads)
    for (long row = 0; row < rows; row++) {
        const long from = row * size;
        floats squares = {};
        for (long i = 0; i < size; i += LANES) {
            floats x = rounded(load(h + from + i) + load(delta + from + i));
            store(h + from + i, x);
            squares += x * x;
        }
        const float scale = 1 / sqrtf(sum(squares) / size + eps);
        for (long i = 0; i < size; i += LANES)
            store(out + from + i, rounded(load(h + from + i) * scale) * load(weight + i));
    }
}

// out (rows, size) = silu(both[:, :size]) * both[:, size:].
void gate(const NUMBER *both, NUMBER *out, long rows, long size, long threads) {
#pragma omp parallel for num_threads(threads)
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < size; i += LANES) {
            floats x = load(both + 2 * row * size + i);
            store(out + row * size + i, rounded(x / (1 + exponential(-x))) * load(both + (2 * row + 1) * size + i));
        }
}

}  // extern "C"
