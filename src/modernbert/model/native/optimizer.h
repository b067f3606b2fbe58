/* One step of AdamW or StableAdamW over many tensors; the rule stands in training/optimizer.py.

   Each number is read twice: once for the averages and the size of the surprise, once for the weight.
   A surprise is added up in blocks of one size, so that it does not depend on the number of threads. */

#define UPDATE_BLOCK 16384

typedef struct {
    float *weight;
    const float *gradient;
    float *mean, *square; /* the averages of the gradients and of their squares */
    long count;
    float new_mean, new_square; /* the share that this gradient has in them */
    float eps, rate, decay;     /* decay: of the weight, as a part of the rate */
    long is_clipped;
} TensorUpdate;

/* Renew the averages of `count` entries, whole vectors; the sum of the squared surprises. */
static float renew_averages(const TensorUpdate *t, const float *gradient, float *mean,
                            float *square, long count) {
    floats sum = broadcast(0.0f), floor = broadcast(t->eps * t->eps);
    for (long i = 0; i < count; i += LANES) {
        floats g = load(gradient + i);
        floats v = load(square + i) * (1.0f - t->new_square) + t->new_square * (g * g);
        store(mean + i, load(mean + i) * (1.0f - t->new_mean) + t->new_mean * g);
        store(square + i, v);
        if (t->is_clipped) sum += g * g / larger(v, floor);
    }
    return sum_of(sum);
}

static void renew_weights(const TensorUpdate *t, const float *mean, const float *square,
                          float *weight, long count, float rate) {
    for (long i = 0; i < count; i += LANES) {
        floats change = load(mean + i) / (square_root(load(square + i)) + t->eps);
        floats w = load(weight + i);
        store(weight + i, w - rate * multiply_add(broadcast(t->decay), w, change));
    }
}

/* A block's averages; entries after the last whole vector go by way of a vector of zeros. */
static float average_block(const TensorUpdate *t, long first, long count) {
    long whole = count / LANES * LANES, rest = count - whole, at = first + whole;
    float sum = renew_averages(t, t->gradient + first, t->mean + first, t->square + first, whole);
    if (!rest) return sum;
    float gradient[LANES] = {0}, mean[LANES] = {0}, square[LANES] = {0};
    memcpy(gradient, t->gradient + at, rest * sizeof(float));
    memcpy(mean, t->mean + at, rest * sizeof(float));
    memcpy(square, t->square + at, rest * sizeof(float));
    sum += renew_averages(t, gradient, mean, square, LANES);
    memcpy(t->mean + at, mean, rest * sizeof(float));
    memcpy(t->square + at, square, rest * sizeof(float));
    return sum;
}

static void change_block(const TensorUpdate *t, long first, long count, float rate) {
    long whole = count / LANES * LANES, rest = count - whole, at = first + whole;
    renew_weights(t, t->mean + first, t->square + first, t->weight + first, whole, rate);
    if (!rest) return;
    float mean[LANES] = {0}, square[LANES] = {0}, weight[LANES] = {0};
    memcpy(mean, t->mean + at, rest * sizeof(float));
    memcpy(square, t->square + at, rest * sizeof(float));
    memcpy(weight, t->weight + at, rest * sizeof(float));
    renew_weights(t, mean, square, weight, LANES, rate);
    memcpy(t->weight + at, weight, rest * sizeof(float));
}

INLINE long block_size(const TensorUpdate *t, long block) {
    long left = t->count - block * UPDATE_BLOCK;
    return left < UPDATE_BLOCK ? left : UPDATE_BLOCK;
}

/* sums: room for one number for each block of the largest tensor. */
void modernbert_update(const TensorUpdate *tensors, long num_tensors, double *sums,
                       long num_threads) {
    for (const TensorUpdate *t = tensors; t < tensors + num_tensors; t++) {
        long blocks = (t->count + UPDATE_BLOCK - 1) / UPDATE_BLOCK;
#pragma omp parallel for num_threads(num_threads) schedule(static) if (blocks > 1)
        for (long b = 0; b < blocks; b++)
            sums[b] = average_block(t, b * UPDATE_BLOCK, block_size(t, b));
        double sum = 0;
        for (long b = 0; b < blocks; b++) sum += sums[b];
        float surprise = t->is_clipped ? (float)sqrt(sum / t->count) : 1.0f;
        float rate = surprise > 1.0f ? t->rate / surprise : t->rate;
#pragma omp parallel for num_threads(num_threads) schedule(static) if (blocks > 1)
        for (long b = 0; b < blocks; b++)
            change_block(t, b * UPDATE_BLOCK, block_size(t, b), rate);
    }
}
