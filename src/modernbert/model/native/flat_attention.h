/* Attention over a flat batch: what the element types share, and the calls from outside. */

#define HEAD 64
#define STRIP SCORE_ROWS   /* rows at a time */
#define TILE (SCORE_VECTORS * LANES) /* columns at a time */
#define CHUNK 576          /* columns packed at a time: whole tiles of each variant */
/* A line more than a chunk has room for, so that rows fall into all sets of the cache. */
#define COLUMN_STRIDE (CHUNK + 2 * TILE + 16)
#define SCORES_STEP (CHUNK + TILE)
#define MAX_ROWS 512       /* rows of one task */
#define NOTHING (-1e30f)   /* a score whose power of two is 0 */
#define UNBOUNDED (1L << 40)

/* Rows [begin, end) of a sequence of `length` rows; each sees `back` rows before it, itself and
   `ahead` rows after it. */
typedef struct {
    long length, back, ahead, begin, end;
} Span;

typedef struct {
    float *across[2], *along[2], *sums[2], *scores, *products, *weights, *changes;
    float *maxima, *totals;
} Scratch;

/* Operands of a backward pass, from the first row of a sequence on, of one head. */
typedef struct {
    const void *query, *key, *value, *gradient;
    void *query_gradient, *key_gradient, *value_gradient;
    const float *log_sums, *deltas;
    long step, gradient_step, out_step;
    float scale;
} Tensors;

INLINE long seen_from(const Span *span, long row) {
    return row > span->back ? row - span->back : 0;
}

INLINE long seen_to(const Span *span, long row) {
    return row + span->ahead + 1 < span->length ? row + span->ahead + 1 : span->length;
}

/* The rows that see a row of the span: those that it would see if it looked the other way. */
INLINE Span seen_by(const Span *span) {
    return (Span){span->length, span->ahead, span->back, span->begin, span->end};
}

/* The columns of a chunk that a strip sees, as an even place within it and a count. */
INLINE int seen_in_chunk(const Span *span, long first, long origin, long held, long *from,
                         long *count) {
    long last = first + STRIP - 1 < span->end - 1 ? first + STRIP - 1 : span->end - 1;
    long low = seen_from(span, first) - origin, high = seen_to(span, last) - origin;
    low = low < 0 ? 0 : low & ~1L;
    if (high > held) high = held;
    *from = low;
    *count = high - low;
    return *count > 0;
}

/* Hide from each row of a strip the columns of a tile that it may not see. */
INLINE void hide(const Span *span, long first, long column, float *scores) {
    long last = first + STRIP - 1 < span->end - 1 ? first + STRIP - 1 : span->end - 1;
    if (column >= seen_from(span, last) && column + TILE <= seen_to(span, first)) return;
    for (int row = 0; row < STRIP; row++) {
        long place = first + row < last ? first + row : last;
        long low = seen_from(span, place) - column, high = seen_to(span, place) - column;
        for (int i = 0; i < TILE; i += LANES) {
            float *line = scores + row * SCORES_STEP + i;
            store(line, keep_between(load(line), low - i, high - i, broadcast(NOTHING)));
        }
    }
}

#define ELEMENT float
#define DEPTH 1
#define IS_BF16 0
#define NAME(x) x##_f32
#define DOT dot_singles
#define POWER exp2_of
#include "attention.h"
#undef ELEMENT
#undef DEPTH
#undef IS_BF16
#undef NAME
#undef DOT
#undef POWER

#if HAS_BF16
#define ELEMENT bf16
#define DEPTH 2
#define IS_BF16 1
#define NAME(x) x##_bf16
#define DOT dot_pairs
#define POWER exp2_roughly
#include "attention.h"
#undef ELEMENT
#undef DEPTH
#undef IS_BF16
#undef NAME
#undef DOT
#undef POWER
#endif

/* A thread's buffers, made once and kept. */
static Scratch *scratch_of_thread(void) {
    static _Thread_local Scratch *kept = NULL;
    if (kept) return kept;
    long across = (long)HEAD * COLUMN_STRIDE, along = (long)HEAD * (CHUNK + 2 * TILE);
    long sums = (long)(MAX_ROWS + STRIP) * HEAD, scores = (long)STRIP * SCORES_STEP;
    long floats = 2 * (across + along + sums) + 4 * scores + 2 * (MAX_ROWS + STRIP);
    float *next = aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
    Scratch *made = malloc(sizeof(Scratch));
    if (!next || !made) {
        free(next);
        free(made);
        return NULL;
    }
    for (int i = 0; i < 2; i++) {
        made->across[i] = next, next += across;
        made->along[i] = next, next += along;
        made->sums[i] = next, next += sums;
    }
    made->scores = next, next += scores;
    made->products = next, next += scores;
    made->weights = next, next += scores;
    made->changes = next, next += scores;
    made->maxima = next, next += MAX_ROWS + STRIP;
    made->totals = next;
    return kept = made;
}

/* Take the next of the tasks that threads share, if one is left. Where a pause is wanted, each thread
   takes no more than its first. */
static int take_task(long *next, long end, const int *wanted, int *is_first, long *task) {
    if (!*is_first && wanted && __atomic_load_n(wanted, __ATOMIC_RELAXED)) return 0;
    *is_first = 0;
    *task = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
    return *task < end;
}

/* The tasks of a batch: pieces of its sequences. */
typedef struct {
    long start; /* of the sequence in the batch */
    Span span;
} Piece;

static long cut(const int32_t *borders, long num_sequences, long back, long ahead, long most,
                Piece *pieces) {
    /* So many that a local piece and its surroundings fit into one chunk. */
    long count = 0;
    if (back < CHUNK / 4) most = CHUNK - back - ahead - 2;
    if (most > MAX_ROWS) most = MAX_ROWS;
    most = most / STRIP * STRIP;
    for (long i = 0; i < num_sequences; i++) {
        long length = borders[i + 1] - borders[i];
        long parts = (length + most - 1) / most;
        long rows = parts ? ((length + parts - 1) / parts + STRIP - 1) / STRIP * STRIP : 1;
        for (long begin = 0; begin < length; begin += rows) {
            if (pieces) {
                Span span = {length, back, ahead, begin,
                             begin + rows < length ? begin + rows : length};
                pieces[count] = (Piece){borders[i], span};
            }
            count++;
        }
    }
    return count;
}

typedef struct {
    const void *query, *key, *value; /* [total][step], a head at each HEAD entries */
    long step;
    const int32_t *borders; /* [num_sequences + 1] */
    long num_sequences, num_heads, window; /* window < 0: none */
    long is_causal, is_bf16, num_threads;
} AttentionInput;

#if HAS_BF16
#define PICK(input, call_f32, call_bf16) \
    if ((input)->is_bf16) { call_bf16; } else { call_f32; }
#else
#define PICK(input, call_f32, call_bf16) { call_f32; }
#endif

#define AT(pointer, input, offset) \
    ((void *)((char *)(pointer) + (offset) * ((input)->is_bf16 ? sizeof(bf16) : sizeof(float))))

/* Pieces of at most `most` rows, a multiple of STRIP. */
static Piece *pieces_of(const AttentionInput *in, long most, long *count) {
    long back = in->window < 0 ? UNBOUNDED : in->window, ahead = in->is_causal ? 0 : back;
    *count = cut(in->borders, in->num_sequences, back, ahead, most, NULL);
    Piece *pieces = malloc((*count + 1) * sizeof(Piece));
    if (pieces) cut(in->borders, in->num_sequences, back, ahead, most, pieces);
    return pieces;
}

/* Tasks, each one head of one piece, from `next` on, until a pause is wanted; `next` becomes the first
   that is left. They know nothing of each other. */
static int attend_tasks(const AttentionInput *in, const Piece *pieces, long *next, long end,
                        const int *wanted, void *out, long out_step, float *log_sums) {
    long total = in->borders[in->num_sequences], task;
    int failed = 0;
#pragma omp parallel num_threads(in->num_threads) private(task)
    {
        Scratch *scratch = scratch_of_thread();
        int is_first = 1;
        if (!scratch) {
#pragma omp atomic write
            failed = 1;
        }
        while (scratch && take_task(next, end, wanted, &is_first, &task)) {
            const Piece *piece = pieces + task / in->num_heads;
            long head = task % in->num_heads;
            long at = piece->start * in->step + head * HEAD;
            void *target = AT(out, in, piece->start * out_step + head * HEAD);
            float *sums = log_sums ? log_sums + head * total + piece->start : NULL;
            PICK(in,
                 attend_f32(&piece->span, AT(in->query, in, at), AT(in->key, in, at),
                            AT(in->value, in, at), in->step, target, out_step, sums, scratch),
                 attend_bf16(&piece->span, AT(in->query, in, at), AT(in->key, in, at),
                             AT(in->value, in, at), in->step, target, out_step, sums, scratch))
        }
    }
    return failed;
}

/* out: [total][out_step], may be the queries' own memory. log_sums: [num_heads][total] or NULL.
   Returns 0, or 1 when there is no memory. */
int modernbert_attend(const AttentionInput *in, void *out, long out_step, float *log_sums) {
    long count;
    Piece *pieces = pieces_of(in, MAX_ROWS, &count);
    if (!pieces) return 1;
    long next = 0, end = count * in->num_heads;
    int failed = attend_tasks(in, pieces, &next, end, NULL, out, out_step, log_sums);
    free(pieces);
    return failed;
}

/* out, gradient: [total][gradient_step]; log_sums, deltas: [num_heads][total], deltas to be filled.
   The three gradients: [total][gradients_step]. `scale` is what turns dS . K into the gradient of
   the queries before they were scaled. */
int modernbert_attend_backward(const AttentionInput *in, const void *out, const void *gradient,
                               long gradient_step, const float *log_sums, float *deltas,
                               float scale, void *query_gradient, void *key_gradient,
                               void *value_gradient, long gradients_step) {
    long count, total = in->borders[in->num_sequences];
    int failed = 0;
    Piece *pieces = pieces_of(in, MAX_ROWS, &count);
    if (!pieces) return 1;
#pragma omp parallel num_threads(in->num_threads)
    {
        Scratch *scratch = scratch_of_thread();
        if (!scratch) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (long task = 0; task < count * in->num_heads; task++) {
            const Piece *piece = pieces + task / in->num_heads;
            long head = task % in->num_heads;
            long at = piece->start * gradient_step + head * HEAD;
            float *target = deltas + head * total + piece->start;
            PICK(in,
                 deltas_f32(&piece->span, AT(out, in, at), AT(gradient, in, at), gradient_step,
                            gradient_step, target),
                 deltas_bf16(&piece->span, AT(out, in, at), AT(gradient, in, at), gradient_step,
                             gradient_step, target))
        }
#pragma omp for schedule(dynamic, 1)
        for (long task = 0; task < 2 * count * in->num_heads; task++) {
            const Piece *piece = pieces + task / 2 / in->num_heads;
            long head = task / 2 % in->num_heads;
            long at = piece->start * in->step + head * HEAD;
            long gradients_at = piece->start * gradients_step + head * HEAD;
            Tensors tensors = {
                .query = AT(in->query, in, at),
                .key = AT(in->key, in, at),
                .value = AT(in->value, in, at),
                .gradient = AT(gradient, in, piece->start * gradient_step + head * HEAD),
                .query_gradient = AT(query_gradient, in, gradients_at),
                .key_gradient = AT(key_gradient, in, gradients_at),
                .value_gradient = AT(value_gradient, in, gradients_at),
                .log_sums = log_sums + head * total + piece->start,
                .deltas = deltas + head * total + piece->start,
                .step = in->step,
                .gradient_step = gradient_step,
                .out_step = gradients_step,
                .scale = scale,
            };
            if (!scratch) continue;
            if (task % 2) {
                PICK(in, query_gradient_f32(&piece->span, &tensors, scratch),
                     query_gradient_bf16(&piece->span, &tensors, scratch))
            } else {
                Span seen = seen_by(&piece->span);
                PICK(in, key_value_gradient_f32(&seen, &tensors, scratch),
                     key_value_gradient_bf16(&seen, &tensors, scratch))
            }
        }
    }
    free(pieces);
    return failed;
}
