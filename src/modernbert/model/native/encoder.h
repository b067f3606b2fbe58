/* The encoder's forward pass over a flat batch, in place on a residual stream in float32.

   Two ways to share the work. With many rows each thread takes blocks of rows through everything
   between two attentions, so that they stay in its cache and only attention waits for the others.
   With few rows the threads share the columns of each product instead, as then reading the weights
   is what takes the time. */

typedef struct {
    long hidden, inner, num_heads, window, kind, activation, num_threads;
    float eps;
} Shape;

typedef struct {
    const float *attention_norm; /* NULL for none */
    const float *mlp_norm;
    Weights qkv, out, in, down;
    const float *angles;
    long is_global;
} Layer;

typedef struct {
    const int32_t *borders, *positions;
    long num_sequences, total;
} Batch;

/* What whoever waits for the result may do in between; it returns 0 to go on. */
typedef int (*Pause)(void);

enum { DONE, NO_MEMORY, STOPPED };

#define FEW_ROWS 96     /* for each thread: below this many, columns are shared */

INLINE void normalize_row(const float *row, long width, const float *weight, float eps,
                          float *out) {
    floats sum = broadcast(0), squares = broadcast(0);
    for (long i = 0; i < width; i += LANES) sum += load(row + i);
    float mean = sum_of(sum) / width;
    for (long i = 0; i < width; i += LANES) {
        floats distance = load(row + i) - mean;
        squares = multiply_add(distance, distance, squares);
    }
    float factor = 1.0f / sqrtf(sum_of(squares) / width + eps);
    for (long i = 0; i < width; i += LANES)
        store(out + i, (load(row + i) - mean) * factor * load(weight + i));
}

/* A thread's, or in the shared way everybody's, place for the inputs of products. Row r of the batch
   is at index r - first. */
typedef struct {
    char *inputs;  /* [rows][max(hidden, inner)] of the kind */
    char *gated;   /* [rows][inner] in float32, or bfloat16 */
    float *scales; /* [rows] */
    float *line;   /* [max(hidden, inner)] */
    long first;
} Workspace;

static long workspace_bytes(const Shape *shape, long rows) {
    long width = shape->hidden > shape->inner ? shape->hidden : shape->inner;
    return rows * (width * entry_size(shape->kind) + shape->inner * 4 + 4) + width * 4 + 4 * 64;
}

static Workspace lay_out(const Shape *shape, char *memory, long rows, long first) {
    long width = shape->hidden > shape->inner ? shape->hidden : shape->inner;
    Workspace w = {.first = first};
#define TAKE(bytes) memory; memory += ((bytes) + 63) / 64 * 64
    w.inputs = TAKE(rows * width * entry_size(shape->kind));
    w.gated = TAKE(rows * shape->inner * VALUE_SIZE(shape->kind));
    w.scales = (float *)TAKE(rows * 4);
    w.line = (float *)TAKE(width * 4);
#undef TAKE
    return w;
}

static char *memory_of_thread(long bytes) {
    static _Thread_local char *kept = NULL;
    static _Thread_local long size = 0;
    if (size < bytes) {
        free(kept);
        kept = aligned_alloc(64, (bytes + 63) / 64 * 64);
        size = kept ? bytes : 0;
    }
    return kept;
}

typedef struct {
    const Shape *shape;
    const Batch *batch;
    float *stream;   /* [total][hidden] */
    void *attention; /* [total][3 hidden], float32 or bfloat16; attention writes over the queries */
    Pause pause;       /* NULL for none */
    const int *wanted; /* not 0 while a pause is wanted; NULL where none ever is */
} Pass;

static int stops(const Pass *pass) { return pass->pause && pass->pause(); }

static Rows inputs_of(const Shape *shape, const Workspace *w, long width) {
    long step = width * entry_size(shape->kind);
    return (Rows){w->inputs - w->first * step, step, w->scales - w->first};
}

/* Rows of the residual stream, normalised if there is a norm, as inputs of a product. `line` must
   be the calling thread's own. */
static void normalize(const Pass *pass, const float *weight, long first, long end, Workspace *w,
                      float *line) {
    const Shape *s = pass->shape;
    for (long row = first; row < end; row++) {
        const float *source = pass->stream + row * s->hidden;
        char *target = w->inputs + (row - w->first) * s->hidden * entry_size(s->kind);
        if (weight) normalize_row(source, s->hidden, weight, s->eps, line);
        convert_row(s->kind, weight ? line : source, s->hidden, target,
                    w->scales + row - w->first);
    }
}

/* Rows of values, as attention or the gate gives them, as int8 inputs of a product. */
static Rows quantize(const Rows *values, long width, long first, long end, Workspace *w,
                     float *line) {
    for (long row = first; row < end; row++) {
        const char *source = values->base + row * values->step;
        if (IS_NARROW(KIND_INT8))
            for (long i = 0; i < width; i += LANES)
                store(line + i, load_value(1, source, i));
        convert_row(KIND_INT8, IS_NARROW(KIND_INT8) ? line : (const float *)source, width,
                    w->inputs + (row - w->first) * width, w->scales + row - w->first);
    }
    return (Rows){w->inputs - w->first * width, width, w->scales - w->first};
}

static Target qkv_target(const Pass *pass, const Layer *layer) {
    const Shape *s = pass->shape;
    return (Target){ROTATE_AND_STORE, s->kind, pass->attention, 3 * s->hidden, s->num_heads,
                    layer->angles, pass->batch->positions};
}

static Target gate_target(const Pass *pass, const Workspace *w) {
    const Shape *s = pass->shape;
    long size = VALUE_SIZE(s->kind);
    return (Target){.what = GATE, .kind = s->kind, .step = s->inner,
                    .out = w->gated - w->first * s->inner * size,
                    .activation = s->activation};
}

static Target stream_target(const Pass *pass) {
    return (Target){.what = ADD, .out = pass->stream, .step = pass->shape->hidden};
}

/* What attention gave, as the inputs of a product, where no conversion is needed. */
static Rows attended_rows(const Pass *pass) {
    return (Rows){pass->attention, 3 * pass->shape->hidden * VALUE_SIZE(pass->shape->kind), NULL};
}

static Rows gated_rows(const Shape *shape, const Workspace *w) {
    long step = shape->inner * VALUE_SIZE(shape->kind);
    return (Rows){w->gated - w->first * step, step, NULL};
}

static void project(const Pass *pass, const Layer *layer, long first, long end, Workspace *w) {
    const Shape *s = pass->shape;
    normalize(pass, layer->attention_norm, first, end, w, w->line);
    Rows inputs = inputs_of(s, w, s->hidden);
    Target target = qkv_target(pass, layer);
    multiply(s->kind, &inputs, &layer->qkv, first, end, 0, 3 * s->hidden / PANEL, &target,
             layer->out.panels);
}

/* From attention's results to the end of the layer, for some rows. */
static void complete(const Pass *pass, const Layer *layer, long first, long end, Workspace *w) {
    const Shape *s = pass->shape;
    Target stream = stream_target(pass), gate = gate_target(pass, w);
    Rows rows = attended_rows(pass);
    if (s->kind == KIND_INT8) rows = quantize(&rows, s->hidden, first, end, w, w->line);
    multiply(s->kind, &rows, &layer->out, first, end, 0, s->hidden / PANEL, &stream,
             layer->in.panels);
    normalize(pass, layer->mlp_norm, first, end, w, w->line);
    rows = inputs_of(s, w, s->hidden);
    multiply(s->kind, &rows, &layer->in, first, end, 0, 2 * s->inner / PANEL, &gate,
             layer->down.panels);
    rows = gated_rows(s, w);
    if (s->kind == KIND_INT8) rows = quantize(&rows, s->inner, first, end, w, w->line);
    multiply(s->kind, &rows, &layer->down, first, end, 0, s->hidden / PANEL, &stream,
             layer->out.panels);
}

static int attend_in_place(const Pass *pass, const Layer *layer) {
    const Shape *s = pass->shape;
    long size = VALUE_SIZE(s->kind), count;
    char *queries = pass->attention;
    AttentionInput input = {
        .query = queries,
        .key = queries + s->hidden * size,
        .value = queries + 2 * s->hidden * size,
        .step = 3 * s->hidden,
        .borders = pass->batch->borders,
        .num_sequences = pass->batch->num_sequences,
        .num_heads = s->num_heads,
        .window = layer->is_global ? -1 : s->window,
        .is_bf16 = IS_NARROW(s->kind),
        .num_threads = s->num_threads,
    };
    long most = pass->wanted && layer->is_global ? MAX_ROWS / 2 : MAX_ROWS;
    Piece *pieces = pieces_of(&input, most, &count);
    if (!pieces) return NO_MEMORY;
    long next = 0, end = count * s->num_heads;
    int failed = DONE;
    while (next < end && !failed) {
        if (next && stops(pass)) failed = STOPPED;
        else if (attend_tasks(&input, pieces, &next, end, pass->wanted, queries, 3 * s->hidden,
                              NULL))
            failed = NO_MEMORY;
    }
    free(pieces);
    return failed;
}

/* Blocks of `rows` rows from `next` on, until a pause is wanted; `next` becomes the first that is left.
   `before` is NULL for the first layer's projection, `after` at the end. */
static int blocks_of_rows(const Pass *pass, const Layer *before, const Layer *after, long rows,
                          long *next) {
    const Shape *s = pass->shape;
    long total = pass->batch->total, count = (total + rows - 1) / rows, block;
    int failed = DONE;
#pragma omp parallel num_threads(s->num_threads) private(block)
    {
        int is_first = 1;
        char *memory = memory_of_thread(workspace_bytes(s, rows));
        if (!memory) {
#pragma omp atomic write
            failed = NO_MEMORY;
        }
        while (memory && take_task(next, count, pass->wanted, &is_first, &block)) {
            long first = block * rows, end = first + rows < total ? first + rows : total;
            Workspace w = lay_out(s, memory, rows, first);
            if (before) complete(pass, before, first, end, &w);
            if (after) project(pass, after, first, end, &w);
        }
    }
    return failed;
}

static int layer_by_rows(const Pass *pass, const Layer *before, const Layer *after) {
    const Shape *s = pass->shape;
    /* Where short batches may come between, blocks of half the rows cost next to nothing. */
    long total = pass->batch->total, most = pass->wanted ? MOST_ROWS / 2 : MOST_ROWS;
    long blocks = (total + most - 1) / most;
    blocks = (blocks + s->num_threads - 1) / s->num_threads * s->num_threads;
    long rows = ((total + blocks - 1) / blocks + PRODUCT_ROWS - 1) / PRODUCT_ROWS * PRODUCT_ROWS;
    for (long next = 0; next * rows < total;) {
        if (next && stops(pass)) return STOPPED;
        int failed = blocks_of_rows(pass, before, after, rows, &next);
        if (failed) return failed;
    }
    return DONE;
}

/* With which panel the share of one of several threads begins. */
static long first_panel(const Weights *weights, long share, long shares) {
    return weights->columns / PANEL * share / shares;
}

/* One product shared by all threads of a parallel region; each fetches its share of `next`. */
static void multiply_shared(const Pass *pass, const Rows *rows, const Weights *weights,
                            const Target *target, const Weights *next) {
    long shares = pass->shape->num_threads;
    long panel_bytes = next->depth * PANEL * entry_size(pass->shape->kind);
#pragma omp for schedule(static)
    for (long share = 0; share < shares; share++) {
        const char *after = next->panels;
        after += first_panel(next, share, shares) * panel_bytes;
        multiply(pass->shape->kind, rows, weights, 0, pass->batch->total,
                 first_panel(weights, share, shares), first_panel(weights, share + 1, shares),
                 target, after);
    }
}

static int layer_by_columns(const Pass *pass, const Layer *before, const Layer *after) {
    const Shape *s = pass->shape;
    long total = pass->batch->total, width = s->hidden > s->inner ? s->hidden : s->inner;
    char *memory = memory_of_thread(workspace_bytes(s, total));
    if (!memory) return NO_MEMORY;
    Workspace shared = lay_out(s, memory, total, 0);
    Target stream = stream_target(pass), gate = gate_target(pass, &shared);
#pragma omp parallel num_threads(s->num_threads)
    {
        float line[width];
        Rows rows = attended_rows(pass), hidden = inputs_of(s, &shared, s->hidden);
        if (before) {
            if (s->kind == KIND_INT8) {
#pragma omp for schedule(static)
                for (long row = 0; row < total; row++)
                    quantize(&rows, s->hidden, row, row + 1, &shared, line);
                rows = hidden;
            }
            multiply_shared(pass, &rows, &before->out, &stream, &before->in);
#pragma omp for schedule(static)
            for (long row = 0; row < total; row++)
                normalize(pass, before->mlp_norm, row, row + 1, &shared, line);
            multiply_shared(pass, &hidden, &before->in, &gate, &before->down);
            rows = gated_rows(s, &shared);
            if (s->kind == KIND_INT8) {
#pragma omp for schedule(static)
                for (long row = 0; row < total; row++)
                    quantize(&rows, s->inner, row, row + 1, &shared, line);
                rows = inputs_of(s, &shared, s->inner);
            }
            multiply_shared(pass, &rows, &before->down, &stream,
                            after ? &after->qkv : &before->out);
        }
        if (after) {
            Target target = qkv_target(pass, after);
#pragma omp for schedule(static)
            for (long row = 0; row < total; row++)
                normalize(pass, after->attention_norm, row, row + 1, &shared, line);
            multiply_shared(pass, &hidden, &after->qkv, &target, &after->out);
        }
    }
    return DONE;
}

static int between_attentions(const Pass *pass, const Layer *before, const Layer *after) {
    if (pass->batch->total >= FEW_ROWS * pass->shape->num_threads)
        return layer_by_rows(pass, before, after);
    return layer_by_columns(pass, before, after);
}

/* Embeddings of the token ids, normalised into the residual stream. */
void modernbert_embed(const Shape *shape, const float *embeddings, const float *norm,
                      const int64_t *token_ids, long total, float *stream) {
#pragma omp parallel for num_threads(shape->num_threads) schedule(static)
    for (long row = 0; row < total; row++)
        normalize_row(embeddings + token_ids[row] * shape->hidden, shape->hidden, norm, shape->eps,
                      stream + row * shape->hidden);
}

/* Layers [first, end) of `num_layers`. `attention`, [total][3 hidden], carries the projections of
   layer `end` over to the next call. `pause` is called before each layer, and as soon as it can be
   while `wanted` is not 0; it may make passes of its own. Returns DONE, NO_MEMORY or STOPPED. */
int modernbert_layers(const Shape *shape, const Layer *layers, long num_layers, long first,
                      long end, const Batch *batch, float *stream, void *attention, Pause pause,
                      const int *wanted) {
    Pass pass = {shape, batch, stream, attention, pause, pause ? wanted : NULL};
    int failed = DONE;
    if (first == 0) failed = stops(&pass) ? STOPPED : between_attentions(&pass, NULL, layers);
    for (long i = first; i < end && !failed; i++) {
        const Layer *next = i + 1 < num_layers ? layers + i + 1 : NULL;
        if (i && stops(&pass)) return STOPPED;
        failed = attend_in_place(&pass, layers + i);
        if (!failed) failed = between_attentions(&pass, layers + i, next);
    }
    return failed;
}

/* The last norm, in place. */
void modernbert_normalize(const Shape *shape, const float *norm, long total, float *stream) {
#pragma omp parallel for num_threads(shape->num_threads) schedule(static)
    for (long row = 0; row < total; row++)
        normalize_row(stream + row * shape->hidden, shape->hidden, norm, shape->eps,
                      stream + row * shape->hidden);
}
