// Vectors of LANES float32 numbers, and the numbers in memory, NUMBER: float or bf16.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

struct bf16 {
    uint16_t bits;
};
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

static inline floats load(const float *from) {
    floats x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline floats load(const bf16 *from) {
    halves upper;
    memcpy(&upper, from, sizeof upper);
    return (floats)(__builtin_convertvector(upper, words) << 16);
}

static inline void store(float *to, floats x) { memcpy(to, &x, sizeof x); }

static inline void store(bf16 *to, floats x) {  // to the nearest, ties to even
    words bits = (words)x;
    halves upper = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, halves);
    memcpy(to, &upper, sizeof upper);
}

static inline floats rounded(floats x) {
    NUMBER stored[LANES];
    store(stored, x);
    return load(stored);
}

static inline float sum(floats x) {
    float lanes[LANES];
    store(lanes, x);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

// 2^t = 2^whole * 2^f with f in [-1/2, 1/2), of which seven terms of the series err by 1e-7.
static inline floats exponential(floats x) {
    floats t = x * 1.44269504f;
    t = t < -126.0f ? floats{} - 126.0f : t;
    t = t > 127.0f ? floats{} + 127.0f : t;
    integers whole = __builtin_convertvector(t + 128.5f, integers) - 128;
    floats f = t - __builtin_convertvector(whole, floats);
    floats p = f * 1.54035304e-4f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    return p * (floats)((whole + 127) << 23);
}
