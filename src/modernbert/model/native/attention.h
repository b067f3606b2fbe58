/* Attention of one element type over a flat batch, forward and backward.

   Included once for each type, with
       ELEMENT          float or bf16
       NAME(x)          the function's name for the type
       DEPTH            elements that one lane of 32 bits holds: 1 or 2
       IS_BF16          0 or 1
       DOT, POWER       of vector.h: for sums of products, and powers of two
   A head has HEAD = 64 entries. Queries come scaled by log2(e) / sqrt(64), so that probabilities
   are powers of two. Everything is done in strips of STRIP rows against chunks of columns, which
   are packed in two ways:
       across[HEAD / DEPTH][columns]    for products along the head (scores)
       along[columns / DEPTH][HEAD]     for products along the columns (weighted sums)
   each entry DEPTH elements that are multiplied and added together. */

/* Pack `count` rows of HEAD elements, `step` apart, and zeros up to `room` rows. */
static void NAME(pack_across)(const ELEMENT *rows, long step, long count, long room, ELEMENT *out) {
    uint32_t *lanes = (uint32_t *)out;
    for (long first = 0; first < room; first += LANES) {
        for (int part = 0; part < HEAD / DEPTH; part += LANES) {
            ints line[LANES];
            UNROLL for (int i = 0; i < LANES; i++)
                line[i] = first + i < count
                              ? load_lanes(rows + (first + i) * step + part * DEPTH)
                              : (ints){0};
            transpose(line);
            UNROLL for (int i = 0; i < LANES; i++)
                store_lanes(lanes + (part + i) * COLUMN_STRIDE + first, line[i]);
        }
    }
}

static void NAME(pack_along)(const ELEMENT *rows, long step, long count, long room, ELEMENT *out) {
    for (long row = 0; row < room; row += DEPTH) {
        const ELEMENT *source = rows + row * step;
        ELEMENT *target = out + row * HEAD;
        for (int i = 0; i < HEAD; i += LANES) {
            ints values = {0};
#if IS_BF16
            if (row < count) values = load_words(source + i);
            if (row + 1 < count) values |= load_words(source + step + i) << 16;
#else
            if (row < count) values = load_lanes(source + i);
#endif
            store_lanes(target + i * DEPTH, values);
        }
    }
}

/* scores[STRIP][TILE] of a strip of rows against TILE columns. */
INLINE void NAME(score_tile)(const ELEMENT *strip, const ELEMENT *across, float *scores) {
    floats sums[STRIP][SCORE_VECTORS];
    const uint32_t *lanes = (const uint32_t *)across;
    UNROLL for (int row = 0; row < STRIP; row++)
        UNROLL for (int j = 0; j < SCORE_VECTORS; j++) sums[row][j] = broadcast(0);
    for (int part = 0; part < HEAD / DEPTH; part++) {
        ints columns[SCORE_VECTORS];
        UNROLL for (int j = 0; j < SCORE_VECTORS; j++)
            columns[j] = load_lanes(lanes + part * COLUMN_STRIDE + j * LANES);
        UNROLL for (int row = 0; row < STRIP; row++) {
            ints value = broadcast_lane(strip + row * HEAD + part * DEPTH);
            UNROLL for (int j = 0; j < SCORE_VECTORS; j++)
                sums[row][j] = DOT(sums[row][j], value, columns[j]);
        }
    }
    UNROLL for (int row = 0; row < STRIP; row++)
        UNROLL for (int j = 0; j < SCORE_VECTORS; j++)
            store(scores + row * SCORES_STEP + j * LANES, sums[row][j]);
}

/* SUM_ROWS rows of `weighted_sum`, and as many columns of them as SUM_VECTORS hold. */
INLINE void NAME(sum_tile)(const ELEMENT *weights, const ELEMENT *along, long columns,
                           const float *factors, float *out) {
    floats sums[SUM_ROWS][SUM_VECTORS];
    UNROLL for (int row = 0; row < SUM_ROWS; row++)
        UNROLL for (int j = 0; j < SUM_VECTORS; j++)
            sums[row][j] = factors[row] * load(out + row * HEAD + j * LANES);
    for (long column = 0; column < columns; column += DEPTH) {
        ints values[SUM_VECTORS];
        UNROLL for (int j = 0; j < SUM_VECTORS; j++)
            values[j] = load_lanes(along + column * HEAD + j * LANES * DEPTH);
        UNROLL for (int row = 0; row < SUM_ROWS; row++) {
            ints weight = broadcast_lane(weights + row * SCORES_STEP + column);
            UNROLL for (int j = 0; j < SUM_VECTORS; j++)
                sums[row][j] = DOT(sums[row][j], weight, values[j]);
        }
    }
    UNROLL for (int row = 0; row < SUM_ROWS; row++)
        UNROLL for (int j = 0; j < SUM_VECTORS; j++)
            store(out + row * HEAD + j * LANES, sums[row][j]);
}

/* out[STRIP][HEAD] = factors[row] * out + weights[STRIP][columns] . along[columns][HEAD];
   `columns` is a multiple of DEPTH. */
NOINLINE void NAME(weighted_sum)(const ELEMENT *weights, const ELEMENT *along, long columns,
                                 const float *factors, float *out) {
    for (int i = 0; i < HEAD; i += SUM_VECTORS * LANES)
        for (int first = 0; first < STRIP; first += SUM_ROWS)
            NAME(sum_tile)(weights + first * SCORES_STEP, along + i * DEPTH, columns,
                           factors + first, out + first * HEAD + i);
}

/* Rows `first` to `first + STRIP` of a sequence, those past its end as zeros. */
INLINE void NAME(load_strip)(const ELEMENT *rows, long step, long first, long length,
                             ELEMENT *strip) {
    for (int row = 0; row < STRIP; row++) {
        if (first + row < length)
            memcpy(strip + row * HEAD, rows + (first + row) * step, HEAD * sizeof(ELEMENT));
        else
            memset(strip + row * HEAD, 0, HEAD * sizeof(ELEMENT));
    }
}

INLINE void NAME(store_row)(const float *values, float factor, ELEMENT *out) {
    for (int i = 0; i < HEAD; i += LANES)
        store_value(IS_BF16, out, i, factor * load(values + i));
}

/* Scores of a strip against the columns [from, from + count) of a packed chunk, in whole tiles,
   where `from` counts within the chunk, which begins at column `origin` of the sequence. What a row
   may not see becomes NOTHING. Returns how many columns the tiles have. */
static long NAME(scores)(const Span *span, const ELEMENT *strip, long first, const ELEMENT *across,
                         long origin, long from, long count, float *scores) {
    long columns = (count + TILE - 1) / TILE * TILE;
    for (long tile = 0; tile < columns; tile += TILE) {
        NAME(score_tile)(strip, across + (from + tile) * DEPTH, scores + tile);
        hide(span, first, origin + from + tile, scores + tile);
    }
    return columns;
}

/* Softmax of new scores after what was seen before: weights for the sum, the factor for the old sum,
   and the running maximum and total. Each weight is a power of two of its score less the maximum. */
INLINE void NAME(soften)(const float *scores, long columns, float *maximum, float *total,
                         float *factor, ELEMENT *weights) {
    for (int row = 0; row < STRIP; row++) {
        const float *line = scores + row * SCORES_STEP;
        floats high = load(line);
        for (long i = LANES; i < columns; i += LANES) high = larger(high, load(line + i));
        float top = largest_of(high);
        if (top < maximum[row]) top = maximum[row];
        floats sum = broadcast(0);
        for (long i = 0; i < columns; i += LANES) {
            floats weight = POWER(load(line + i) - top);
            sum += weight;
            store_value(IS_BF16, weights, row * SCORES_STEP + i, weight);
        }
        factor[row] = exp2f(maximum[row] - top);
        total[row] = total[row] * factor[row] + sum_of(sum);
        maximum[row] = top;
    }
}

/* Attention of the rows [begin, end) of one sequence and one head. */
static void NAME(attend)(const Span *span, const ELEMENT *query, const ELEMENT *key,
                         const ELEMENT *value, long step, ELEMENT *out, long out_step,
                         float *log_sums, Scratch *scratch) {
    ELEMENT *across = (ELEMENT *)scratch->across[0], *along = (ELEMENT *)scratch->along[0];
    ELEMENT *weights = (ELEMENT *)scratch->weights;
    float *sums = scratch->sums[0], *maxima = scratch->maxima, *totals = scratch->totals;
    ELEMENT strip[STRIP * HEAD] ALIGNED;
    float factors[STRIP];
    long rows = span->end - span->begin;
    for (long i = 0; i < (rows + STRIP - 1) / STRIP * STRIP; i++) {
        maxima[i] = NOTHING;
        totals[i] = 0;
    }
    memset(sums, 0, (rows + STRIP - 1) / STRIP * STRIP * HEAD * sizeof(float));
    long low = seen_from(span, span->begin), high = seen_to(span, span->end - 1);
    for (long origin = low; origin < high; origin += CHUNK) {
        long held = high - origin < CHUNK ? high - origin : CHUNK;
        long room = (held + 2 * TILE - 1) / TILE * TILE;
        NAME(pack_across)(key + origin * step, step, held, room, across);
        NAME(pack_along)(value + origin * step, step, held, room, along);
        for (long first = span->begin; first < span->end; first += STRIP) {
            long from, count;
            if (!seen_in_chunk(span, first, origin, held, &from, &count)) continue;
            long place = first - span->begin;
            NAME(load_strip)(query, step, first, span->end, strip);
            long columns = NAME(scores)(span, strip, first, across, origin, from, count,
                                        scratch->scores);
            NAME(soften)(scratch->scores, columns, maxima + place, totals + place, factors,
                         weights);
            long used = (count + DEPTH - 1) / DEPTH * DEPTH;
            NAME(weighted_sum)(weights, along + from * HEAD, used, factors,
                               sums + place * HEAD);
        }
    }
    for (long i = 0; i < rows; i++) {
        NAME(store_row)(sums + i * HEAD, 1.0f / totals[i], out + (span->begin + i) * out_step);
        if (log_sums) log_sums[span->begin + i] = maxima[i] + log2f(totals[i]);
    }
}

/* The gradient of the queries [begin, end): dS . K, where dS = P (dO . V - delta). */
static void NAME(query_gradient)(const Span *span, const Tensors *t, Scratch *scratch) {
    const ELEMENT *query = t->query, *key = t->key, *value = t->value, *out_gradient = t->gradient;
    ELEMENT *keys = (ELEMENT *)scratch->across[0], *values = (ELEMENT *)scratch->across[1];
    ELEMENT *along = (ELEMENT *)scratch->along[0], *weights = (ELEMENT *)scratch->weights;
    float *sums = scratch->sums[0], *scores = scratch->scores, *products = scratch->products;
    ELEMENT strip[STRIP * HEAD] ALIGNED, other[STRIP * HEAD] ALIGNED;
    float ones[STRIP];
    for (int i = 0; i < STRIP; i++) ones[i] = 1;
    long rows = span->end - span->begin;
    memset(sums, 0, (rows + STRIP - 1) / STRIP * STRIP * HEAD * sizeof(float));
    long low = seen_from(span, span->begin), high = seen_to(span, span->end - 1);
    for (long origin = low; origin < high; origin += CHUNK) {
        long held = high - origin < CHUNK ? high - origin : CHUNK;
        long room = (held + 2 * TILE - 1) / TILE * TILE;
        NAME(pack_across)(key + origin * t->step, t->step, held, room, keys);
        NAME(pack_across)(value + origin * t->step, t->step, held, room, values);
        NAME(pack_along)(key + origin * t->step, t->step, held, room, along);
        for (long first = span->begin; first < span->end; first += STRIP) {
            long from, count;
            if (!seen_in_chunk(span, first, origin, held, &from, &count)) continue;
            NAME(load_strip)(query, t->step, first, span->end, strip);
            NAME(load_strip)(out_gradient, t->gradient_step, first, span->end, other);
            long columns = NAME(scores)(span, strip, first, keys, origin, from, count, scores);
            for (long tile = 0; tile < columns; tile += TILE)
                NAME(score_tile)(other, values + (from + tile) * DEPTH, products + tile);
            for (int row = 0; row < STRIP; row++) {
                long place = first + row < span->end ? first + row : span->end - 1;
                float log_sum = t->log_sums[place], delta = t->deltas[place];
                for (long i = 0; i < columns; i += LANES) {
                    long at = row * SCORES_STEP + i;
                    floats weight = POWER(load(scores + at) - log_sum);
                    store_value(IS_BF16, weights, at, weight * (load(products + at) - delta));
                }
            }
            long used = (count + DEPTH - 1) / DEPTH * DEPTH;
            NAME(weighted_sum)(weights, along + from * HEAD, used, ones,
                               sums + (first - span->begin) * HEAD);
        }
    }
    ELEMENT *target = t->query_gradient;
    for (long i = 0; i < rows; i++)
        NAME(store_row)(sums + i * HEAD, t->scale, target + (span->begin + i) * t->out_step);
}

/* The gradients of the keys and values [begin, end): dS^T . Q and P^T . dO. The span says which
   queries see them: it is that of `seen_by`. */
static void NAME(key_value_gradient)(const Span *span, const Tensors *t, Scratch *scratch) {
    const ELEMENT *query = t->query, *key = t->key, *value = t->value, *out_gradient = t->gradient;
    ELEMENT *queries = (ELEMENT *)scratch->across[0], *gradients = (ELEMENT *)scratch->across[1];
    ELEMENT *along_queries = (ELEMENT *)scratch->along[0];
    ELEMENT *along_gradients = (ELEMENT *)scratch->along[1];
    ELEMENT *weights = (ELEMENT *)scratch->weights, *changes = (ELEMENT *)scratch->changes;
    float *key_sums = scratch->sums[0], *value_sums = scratch->sums[1];
    float *scores = scratch->scores, *products = scratch->products;
    ELEMENT strip[STRIP * HEAD] ALIGNED, other[STRIP * HEAD] ALIGNED;
    float ones[STRIP];
    for (int i = 0; i < STRIP; i++) ones[i] = 1;
    long rows = span->end - span->begin;
    long size = (rows + STRIP - 1) / STRIP * STRIP * HEAD * sizeof(float);
    memset(key_sums, 0, size);
    memset(value_sums, 0, size);
    long low = seen_from(span, span->begin), high = seen_to(span, span->end - 1);
    for (long origin = low; origin < high; origin += CHUNK) {
        long held = high - origin < CHUNK ? high - origin : CHUNK;
        long room = (held + 2 * TILE - 1) / TILE * TILE;
        NAME(pack_across)(query + origin * t->step, t->step, held, room, queries);
        NAME(pack_across)(out_gradient + origin * t->gradient_step, t->gradient_step, held, room,
                          gradients);
        NAME(pack_along)(query + origin * t->step, t->step, held, room, along_queries);
        NAME(pack_along)(out_gradient + origin * t->gradient_step, t->gradient_step, held, room,
                         along_gradients);
        for (long first = span->begin; first < span->end; first += STRIP) {
            long from, count;
            if (!seen_in_chunk(span, first, origin, held, &from, &count)) continue;
            NAME(load_strip)(key, t->step, first, span->end, strip);
            NAME(load_strip)(value, t->step, first, span->end, other);
            long columns = NAME(scores)(span, strip, first, queries, origin, from, count, scores);
            for (long tile = 0; tile < columns; tile += TILE)
                NAME(score_tile)(other, gradients + (from + tile) * DEPTH, products + tile);
            for (long i = 0; i < columns; i += LANES) {
                /* Past the chunk there is nothing: its scores are hidden, whatever these say. */
                long left = held - from - i;
                floats log_sum = load_first(t->log_sums + origin + from + i, left);
                floats delta = load_first(t->deltas + origin + from + i, left);
                for (int row = 0; row < STRIP; row++) {
                    long at = row * SCORES_STEP + i;
                    floats weight = POWER(load(scores + at) - log_sum);
                    store_value(IS_BF16, weights, at, weight);
                    store_value(IS_BF16, changes, at, weight * (load(products + at) - delta));
                }
            }
            long used = (count + DEPTH - 1) / DEPTH * DEPTH;
            long place = (first - span->begin) * HEAD;
            NAME(weighted_sum)(weights, along_gradients + from * HEAD, used, ones,
                               value_sums + place);
            NAME(weighted_sum)(changes, along_queries + from * HEAD, used, ones,
                               key_sums + place);
        }
    }
    ELEMENT *key_target = t->key_gradient, *value_target = t->value_gradient;
    for (long i = 0; i < rows; i++) {
        long row = (span->begin + i) * t->out_step;
        /* The queries hold the scale and log2(e) already. */
        NAME(store_row)(key_sums + i * HEAD, 1.0f / LOG2_E, key_target + row);
        NAME(store_row)(value_sums + i * HEAD, 1.0f, value_target + row);
    }
}

/* deltas[row] = out . its gradient. */
static void NAME(deltas)(const Span *span, const ELEMENT *out, const ELEMENT *gradient, long step,
                         long gradient_step, float *deltas) {
    for (long row = span->begin; row < span->end; row++) {
        floats sum = broadcast(0);
        for (int i = 0; i < HEAD; i += LANES)
            sum = multiply_add(load_value(IS_BF16, out, row * step + i),
                               load_value(IS_BF16, gradient, row * gradient_step + i), sum);
        deltas[row] = sum_of(sum);
    }
}
