// A decoding step's attention on a CPU, to the keys and values of fused.py, with heads of HEAD numbers.
//
// Keys are kept in tiles of LANES positions, (tiles, HEAD, LANES), so that as many logits are one sum of vectors;
// values are kept position by position, (positions, HEAD).

#include "vectors.h"

constexpr long PART = 64;  // values that all queries take before the next ones are read

// logits (Q, stride) of Q queries (Q, HEAD), already divided by the root of HEAD, for the positions of a tile.
template <int Q>
static void score(const float *queries, const NUMBER *keys, float *logits, long stride) {
    floats sums[Q][4] = {};  // one after the other, additions would wait for each other
    for (int d = 0; d < HEAD; d += 4)
        for (int i = 0; i < 4; i++) {
            floats key = load(keys + (d + i) * LANES);
            for (int q = 0; q < Q; q++) sums[q][i] += key * queries[q * HEAD + d + i];
        }
    for (int q = 0; q < Q; q++) store(logits + q * stride, (sums[q][0] + sums[q][1]) + (sums[q][2] + sums[q][3]));
}

static void score_all(const float *queries, long count, const NUMBER *keys, float *logits, long stride) {
    long q = 0;
    for (; q + 2 <= count; q += 2) score<2>(queries + q * HEAD, keys, logits + q * stride, stride);
    if (q < count) score<1>(queries + q * HEAD, keys, logits + q * stride, stride);
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

// W new positions of one head of one image's G rows, which share the image's `prefix` positions and have slots of their
// own. Every sum has the order that it has when the position is the only new one. What all queries read is taken a part
// at a time, which stays in the processor's nearest cache.
template <int G>
static void attend_head(const NUMBER *const *qkv, const float *tables, const NUMBER *prefix_k, const NUMBER *prefix_v,
                        long prefix, NUMBER *own_k, NUMBER *own_v, long capacity, long slot, long news, float text,
                        float *logits, NUMBER *const *out, long step) {
    float queries[G * MOST_WINDOW * HEAD], key[HEAD];
    floats taken[G * MOST_WINDOW * HEAD / LANES];
    const long all = G * news, width = prefix + capacity, row = 3 * step, own_tiles = (slot + news - 1) / LANES + 1;
    memset((void *)taken, 0, all * HEAD * sizeof(float));
    for (int g = 0; g < G; g++)
        for (long w = 0; w < news; w++) {
            const NUMBER *in = qkv[g] + w * row;
            const float *table = tables + w * HEAD;
            const long to = slot + w;
            float *query = queries + (g * news + w) * HEAD;
            rotate(in, table, query);
            for (int d = 0; d < HEAD; d++) query[d] /= sqrtf(HEAD);
            rotate(in + step, table, key);
            NUMBER kept[HEAD], *tile = own_k + g * capacity * HEAD + to / LANES * LANES * HEAD + to % LANES;
            for (int d = 0; d < HEAD; d += LANES) store(kept + d, load(key + d));
            for (int d = 0; d < HEAD; d++) tile[d * LANES] = kept[d];
            memcpy(own_v + (g * capacity + to) * HEAD, in + 2 * step, sizeof kept);
        }
    for (long tile = 0; tile < prefix / LANES; tile++)
        score_all(queries, all, prefix_k + tile * LANES * HEAD, logits + tile * LANES, width);
    for (int g = 0; g < G; g++) {
        float *own = logits + g * news * width + prefix;
        const NUMBER *keys = own_k + g * capacity * HEAD, *values = own_v + g * capacity * HEAD;
        for (long tile = 0; tile < own_tiles; tile++)
            score_all(queries + g * news * HEAD, news, keys + tile * LANES * HEAD, own + tile * LANES, width);
        for (long w = 0; w < news; w++, own += width) {
            const long last = slot + w, tiles = last / LANES + 1;
            own[0] += text;
            for (long n = last + 1; n < tiles * LANES; n++) own[n] = -INFINITY;
            softmax(own - prefix, prefix + tiles * LANES);
        }
        own -= news * width;
        for (long from = 0; from < slot + news; from += PART)
            for (long w = 0; w < news; w++) {
                const long count = slot + w + 1 - from;
                if (count > 0)
                    gather<1>(own + w * width + from, width, values + from * HEAD, count < PART ? count : PART,
                              taken + (g * news + w) * HEAD / LANES);
            }
    }
    for (long from = 0; from < prefix; from += PART) {
        const long count = prefix - from < PART ? prefix - from : PART;
        long q = 0;
        for (; q + 2 <= all; q += 2)
            gather<2>(logits + q * width + from, width, prefix_v + from * HEAD, count, taken + q * HEAD / LANES);
        if (q < all)
            gather<1>(logits + q * width + from, width, prefix_v + from * HEAD, count, taken + q * HEAD / LANES);
    }
    for (int g = 0; g < G; g++)
        for (long w = 0; w < news; w++)
            for (int i = 0; i < HEAD / LANES; i++)
                store(out[g] + w * step + i * LANES, taken[(g * news + w) * HEAD / LANES + i]);
}

// Every row's W new tokens are kept from its image's slot on, and each attends to the image's prefix, slot 0 (the text,
// with `text` added to its logit: cache.py tells why) and the slots up to its own. qkv: (images * G, W, 3, heads, HEAD);
// tables (images, W, HEAD / 2, 2); prefix_k in tiles and prefix_v (images, heads, prefix, HEAD), own_* (images, heads, G,
// capacity, HEAD); out: (images * G, W, heads, HEAD); slots (images). `prefix` and `capacity` are multiples of LANES, W
// is at most MOST_WINDOW. logits: room for (images * heads, G * W, prefix + capacity).
template <int G>
static void attend(const NUMBER *qkv, const float *tables, const NUMBER *prefix_k, const NUMBER *prefix_v,
                   NUMBER *own_k, NUMBER *own_v, float *logits, NUMBER *out, const int64_t *slots, long images,
                   long heads, long prefix, long capacity, long news, float text, long threads) {
    const long step = heads * HEAD;
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < images * heads; i++) {
        const long image = i / heads, head = i % heads * HEAD;
        const NUMBER *in[G];
        NUMBER *to[G];
        for (int g = 0; g < G; g++) {
            in[g] = qkv + (image * G + g) * news * 3 * step + head;
            to[g] = out + (image * G + g) * news * step + head;
        }
        attend_head<G>(in, tables + image * news * HEAD, prefix_k + i * prefix * HEAD, prefix_v + i * prefix * HEAD,
                       prefix, own_k + i * G * capacity * HEAD, own_v + i * G * capacity * HEAD, capacity,
                       slots[image], news, text, logits + i * G * news * (prefix + capacity), to, step);
    }
}

extern "C" {

void attend_single(const NUMBER *qkv, const float *tables, const NUMBER *prefix_k, const NUMBER *prefix_v,
                   NUMBER *own_k, NUMBER *own_v, float *logits, NUMBER *out, const int64_t *slots, long images,
                   long heads, long prefix, long capacity, long news, float text, long threads) {
    attend<1>(qkv, tables, prefix_k, prefix_v, own_k, own_v, logits, out, slots, images, heads, prefix, capacity, news,
              text, threads);
}

void attend_guided(const NUMBER *qkv, const float *tables, const NUMBER *prefix_k, const NUMBER *prefix_v,
                   NUMBER *own_k, NUMBER *own_v, float *logits, NUMBER *out, const int64_t *slots, long images,
                   long heads, long prefix, long capacity, long news, float text, long threads) {
    attend<2>(qkv, tables, prefix_k, prefix_v, own_k, own_v, logits, out, slots, images, heads, prefix, capacity, news,
              text, threads);
}
}  // extern "C"
