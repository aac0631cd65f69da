// A decoding step's attention on a CPU, to the keys and values of fused.py, with heads of HEAD numbers.
//
// Keys are kept in tiles of LANES positions, (tiles, HEAD, LANES), so that as many logits are one sum of vectors;
// values are kept position by position, (positions, HEAD).

#include "vectors.h"

// logits (Q, stride) of Q queries (Q, HEAD), already divided by the root of HEAD, for all positions of the tiles.
template <int Q>
static void score(const float *queries, const NUMBER *keys, long tiles, float *logits, long stride) {
    for (long tile = 0; tile < tiles; tile++, keys += HEAD * LANES) {
        floats sums[Q][4] = {};  // one after the other, additions would wait for each other
        for (int d = 0; d < HEAD; d += 4)
            for (int i = 0; i < 4; i++) {
                floats key = load(keys + (d + i) * LANES);
                for (int q = 0; q < Q; q++) sums[q][i] += key * queries[q * HEAD + d + i];
            }
        for (int q = 0; q < Q; q++)
            store(logits + q * stride + tile * LANES, (sums[q][0] + sums[q][1]) + (sums[q][2] + sums[q][3]));
    }
}

// Adds to taken (Q, HEAD) the first `count` values, weighted by (Q, stride).
template <int Q>
static void gather(const float *weights, long stride, const NUMBER *values, long count, floats *taken) {
    constexpr int PARTS = HEAD / LANES;
    floats sums[Q][PARTS];
    memcpy(sums, taken, sizeof sums);
    for (long n = 0; n < count; n++, values += HEAD)
        for (int i = 0; i < PARTS; i++) {
            floats value = load(values + i * LANES);
            for (int q = 0; q < Q; q++) sums[q][i] += value * weights[q * stride + n];
        }
    memcpy(taken, sums, sizeof sums);
}

// In place from logits to weights; `count` is a multiple of LANES.
static void softmax(float *logits, long count) {
    floats most = load(logits), total = {};
    for (long n = LANES; n < count; n += LANES) most = load(logits + n) > most ? load(logits + n) : most;
    float top = most[0];
    for (int i = 1; i < LANES; i++) top = fmaxf(top, most[i]);
    for (long n = 0; n < count; n += LANES) {
        floats weight = exponential(load(logits + n) - top);
        total += weight;
        store(logits + n, weight);
    }
    float all = sum(total);
    for (long n = 0; n < count; n += LANES) store(logits + n, load(logits + n) / all);
}

static inline float number(const NUMBER *from) {
    if constexpr (sizeof(NUMBER) == 4) return *(const float *)from;
    uint32_t bits = (uint32_t)*(const uint16_t *)from << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// A head turned to its position (editar/model/transformer.py) and rounded; table (HEAD / 2, 2), cosine then sine.
static void rotate(const NUMBER *head, const float *table, float *turned) {
    for (int d = 0; d < HEAD; d += 2) {
        float x = number(head + d), y = number(head + d + 1), cosine = table[d], sine = table[d + 1];
        turned[d] = x * cosine - y * sine;
        turned[d + 1] = x * sine + y * cosine;
    }
    for (int d = 0; d < HEAD; d += LANES) store(turned + d, rounded(load(turned + d)));
}

// One head of one image: G rows, which share the image's `prefix` positions and have slots of their own.
template <int G>
static void attend_head(const NUMBER *const *qkv, const float *table, const NUMBER *prefix_k, const NUMBER *prefix_v,
                        long prefix, NUMBER *own_k, NUMBER *own_v, long capacity, long slot, float text,
                        float *logits, long stride, NUMBER *const *out, long step) {
    float queries[G * HEAD], key[HEAD];
    floats taken[G * HEAD / LANES] = {};
    const long prefix_tiles = prefix / LANES, own_tiles = slot / LANES + 1;
    for (int g = 0; g < G; g++) {
        rotate(qkv[g], table, queries + g * HEAD);
        for (int d = 0; d < HEAD; d++) queries[g * HEAD + d] /= sqrtf(HEAD);
        rotate(qkv[g] + step, table, key);
        NUMBER kept[HEAD], *tile = own_k + g * capacity * HEAD + slot / LANES * LANES * HEAD + slot % LANES;
        for (int d = 0; d < HEAD; d += LANES) store(kept + d, load(key + d));
        for (int d = 0; d < HEAD; d++) tile[d * LANES] = kept[d];
        memcpy(own_v + (g * capacity + slot) * HEAD, qkv[g] + 2 * step, sizeof kept);
    }
    score<G>(queries, prefix_k, prefix_tiles, logits, stride);
    for (int g = 0; g < G; g++) {
        float *own = logits + g * stride + prefix;
        score<1>(queries + g * HEAD, own_k + g * capacity * HEAD, own_tiles, own, stride);
        own[0] += text;
        for (long n = slot + 1; n < own_tiles * LANES; n++) own[n] = -INFINITY;
        softmax(logits + g * stride, stride);
        gather<1>(own, stride, own_v + g * capacity * HEAD, slot + 1, taken + g * HEAD / LANES);
    }
    gather<G>(logits, stride, prefix_v, prefix, taken);
    for (int g = 0; g < G; g++)
        for (int i = 0; i < HEAD / LANES; i++) store(out[g] + i * LANES, taken[g * HEAD / LANES + i]);
}

// Every row's new token is kept in `slot` and attends to the image's prefix, slot 0 (the text, with `text` added to its
// logit: cache.py tells why) and the slots up to its own. qkv: (images * G, 3, heads, HEAD); prefix_k in tiles and
// prefix_v (images, heads, prefix, HEAD), own_* (images, heads, G, capacity, HEAD); out: (images * G, heads, HEAD).
// `prefix` and `capacity` are multiples of LANES. logits: room for (images * heads, G, prefix + capacity).
template <int G>
static void attend(const NUMBER *qkv, const float *table, const NUMBER *prefix_k, const NUMBER *prefix_v, NUMBER *own_k,
                   NUMBER *own_v, float *logits, NUMBER *out, long images, long heads, long prefix, long capacity,
                   long slot, float text, long threads) {
    const long stride = prefix + (slot / LANES + 1) * LANES, step = heads * HEAD;
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < images * heads; i++) {
        const long row = i / heads * G, head = i % heads * HEAD;
        const NUMBER *in[G];
        NUMBER *to[G];
        for (int g = 0; g < G; g++) {
            in[g] = qkv + (row + g) * 3 * step + head;
            to[g] = out + (row + g) * step + head;
        }
        attend_head<G>(in, table, prefix_k + i * prefix * HEAD, prefix_v + i * prefix * HEAD, prefix,
                       own_k + i * G * capacity * HEAD, own_v + i * G * capacity * HEAD, capacity, slot, text,
                       logits + i * G * (prefix + capacity), stride, to, step);
    }
}

extern "C" {

void attend_single(const NUMBER *qkv, const float *table, const NUMBER *prefix_k, const NUMBER *prefix_v, NUMBER *own_k,
                   NUMBER *own_v, float *logits, NUMBER *out, long images, long heads, long prefix, long capacity,
                   long slot, float text, long threads) {
    attend<1>(qkv, table, prefix_k, prefix_v, own_k, own_v, logits, out, images, heads, prefix, capacity, slot, text,
              threads);
}

void attend_guided(const NUMBER *qkv, const float *table, const NUMBER *prefix_k, const NUMBER *prefix_v, NUMBER *own_k,
                   NUMBER *own_v, float *logits, NUMBER *out, long images, long heads, long prefix, long capacity,
                   long slot, float text, long threads) {
    attend<2>(qkv, table, prefix_k, prefix_v, own_k, own_v, logits, out, images, heads, prefix, capacity, slot, text,
              threads);
}
}  // extern "C"
