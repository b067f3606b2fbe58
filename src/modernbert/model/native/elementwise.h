/* What stands between products: rotary positions and GeGLU, with gradients; and what searches read.

   Each takes one pass over memory. `is_bf16` is a constant in each copy of a row's function. */

/* Call a row's function with `is_bf16` as a constant. */
#define FOR_TYPE(is_bf16, function, ...) \
    ((is_bf16) ? function(1, __VA_ARGS__) : function(0, __VA_ARGS__))

INLINE void rotate_row(int is_bf16, const void *in, void *out, long start, const float *cosines,
                       const float *sines, long num_heads, float query_scale, float direction) {
    for (long head = 0; head < 2 * num_heads; head++) {
        float scale = head < num_heads ? query_scale : 1.0f;
        for (int i = 0; i < HEAD / 2; i += LANES) {
            long at = start + head * HEAD + i;
            floats first = scale * load_value(is_bf16, in, at);
            floats second = scale * load_value(is_bf16, in, at + HEAD / 2);
            floats c = load(cosines + i), s = direction * load(sines + i);
            store_value(is_bf16, out, at, first * c - second * s);
            store_value(is_bf16, out, at + HEAD / 2, second * c + first * s);
        }
    }
}

INLINE void geglu_row(int is_bf16, const void *in, void *out, long row, long width) {
    for (long i = 0; i < width; i += LANES) {
        long at = row * 2 * width + i;
        floats a = load_value(is_bf16, in, at), b = load_value(is_bf16, in, at + width);
        store_value(is_bf16, out, row * width + i, gelu(a) * b);
    }
}

INLINE void geglu_row_backward(int is_bf16, const void *in, const void *gradient, void *out,
                               long row, long width) {
    for (long i = 0; i < width; i += LANES) {
        long at = row * 2 * width + i;
        floats bell, a = load_value(is_bf16, in, at), b = load_value(is_bf16, in, at + width);
        floats g = load_value(is_bf16, gradient, row * width + i);
        floats below = normal_cdf(a, &bell);
        floats slope = multiply_add(a * bell, broadcast(0.39894228040143267794f), below);
        store_value(is_bf16, out, at, g * b * slope);
        store_value(is_bf16, out, at + width, g * (a * below));
    }
}

/* Rotate the first two thirds of [total][3][num_heads][HEAD], queries by `query_scale` too, and
   copy the values; `direction` is 1, or -1 for the gradient, whose scale is already in it. */
void modernbert_rotate(const void *in, void *out, const float *cosines, const float *sines,
                       long total, long num_heads, float query_scale, float direction,
                       long is_bf16, long num_threads) {
    long size = is_bf16 ? sizeof(bf16) : sizeof(float), width = num_heads * HEAD;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < total; row++) {
        long start = row * 3 * width, values = (start + 2 * width) * size;
        FOR_TYPE(is_bf16, rotate_row, in, out, start, cosines + row * HEAD / 2,
                 sines + row * HEAD / 2, num_heads, query_scale, direction);
        if (in != out) memcpy((char *)out + values, (const char *)in + values, width * size);
    }
}

/* gelu(a) * b of the halves a, b of each row of [total][2 width]. */
void modernbert_geglu(const void *in, void *out, long total, long width, long is_bf16,
                      long num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < total; row++) FOR_TYPE(is_bf16, geglu_row, in, out, row, width);
}

void modernbert_geglu_backward(const void *in, const void *gradient, void *out, long total,
                               long width, long is_bf16, long num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < total; row++)
        FOR_TYPE(is_bf16, geglu_row_backward, in, gradient, out, row, width);
}

enum { MOST_DIM = 1024, TOGETHER = 4 };

/* Sum chosen rows of an int8 matrix, each times a weight, into `out`, a block of columns at a time
   so that their sums stay in the cache; `step` is the length of a row. */
void modernbert_weighted_rows(const signed char *rows, long step, const long *chosen,
                              const float *weights, long num_chosen, float *out, long num_threads) {
    enum { COLUMNS = 4096 };
#pragma omp parallel for num_threads(num_threads) schedule(static) if (step > COLUMNS)
    for (long begin = 0; begin < step; begin += COLUMNS) {
        long count = step - begin < COLUMNS ? step - begin : COLUMNS;
        float *sums = out + begin;
        memset(sums, 0, count * sizeof(float));
        for (long i = 0; i < num_chosen; i += TOGETHER) {
            const signed char *some[TOGETHER];
            float factors[TOGETHER];
            for (int k = 0; k < TOGETHER; k++) {
                some[k] = rows + chosen[i + k < num_chosen ? i + k : i] * step + begin;
                factors[k] = i + k < num_chosen ? weights[i + k] : 0.0f;
            }
            for (long j = 0; j < count; j++) {
                float sum = sums[j];
                UNROLL for (int k = 0; k < TOGETHER; k++) sum += factors[k] * some[k][j];
                sums[j] = sum;
            }
        }
    }
}

/* The largest products of LANES vectors of a query, columns of [dim][width], with the vectors of a
   document, int8 [count][dim] with a scale each. */
INLINE floats largest_products(const signed char *vectors, const float *scales, long count,
                               long dim, const float *query, long width) {
    float values[TOGETHER][MOST_DIM];
    floats best = broadcast(-INFINITY);
    for (long start = 0; start < count; start += TOGETHER) {
        floats sums[TOGETHER];
        long places[TOGETHER];
        UNROLL for (int i = 0; i < TOGETHER; i++) {
            places[i] = start + i < count ? start + i : count - 1;
            for (long j = 0; j < dim; j++) values[i][j] = vectors[places[i] * dim + j];
            sums[i] = broadcast(0.0f);
        }
        for (long j = 0; j < dim; j++) {
            floats column = load(query + j * width);
            UNROLL for (int i = 0; i < TOGETHER; i++)
                sums[i] = multiply_add(broadcast(values[i][j]), column, sums[i]);
        }
        UNROLL for (int i = 0; i < TOGETHER; i++)
            best = larger(best, broadcast(scales[places[i]]) * sums[i]);
    }
    return best;
}

/* MaxSim of a query, [dim][width] with zeros for what fills its width, a multiple of LANES, and
   chosen documents, whose vectors are neighbours; `dim` is at most MOST_DIM. */
void modernbert_max_sim(const signed char *vectors, const float *scales, const long *borders,
                        const long *chosen, long num_chosen, const float *query, long dim,
                        long width, float *out, long num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(dynamic, 64) if (num_chosen > 64)
    for (long i = 0; i < num_chosen; i++) {
        long begin = borders[chosen[i]], count = borders[chosen[i] + 1] - begin;
        float sum = 0.0f;
        for (long j = 0; j < width; j += LANES)
            sum += sum_of(largest_products(vectors + begin * dim, scales + begin, count, dim,
                                           query + j, width));
        out[i] = sum;
    }
}
