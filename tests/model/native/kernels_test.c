/* The kernels against plain loops in double, without Python: under qemu and sanitizers.

       gcc FLAGS -I src/modernbert/model/native tests/model/native/kernels_test.c -lm && ./a.out

   FLAGS are those of a variant in build.py. Prints a line for each check, with the largest error and
   its bound, and returns 0 when all are within them. Bounds are units in the last place times the
   depth of the sum. */

#include "modernbert.c"

#include <stdio.h>

#define UNIT 1.1920929e-7 /* float32's distance from 1 to the next number */
#define NARROW_UNIT 7.8125e-3 /* bfloat16's */

static int failures = 0;

static void report(const char *name, const char *kind, double error, double bound) {
    int passes = error <= bound; /* false for NaN */
    failures += !passes;
    printf("%-6s %-22s %-9s error %.2e, at most %.2e\n", passes ? "ok" : "FAILED", name, kind,
           error, bound);
}

static const char *name_of(int kind) {
    return kind == KIND_F32 ? "float32" : kind == KIND_BF16 ? "bfloat16" : "int8";
}

/* Uniform in [-1, 1]. */
static float drawn(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(state >> 33) / (1u << 30) - 1.0);
}

static float *draw(long count, float scale) {
    float *values = malloc(count * sizeof(float));
    for (long i = 0; i < count; i++) values[i] = scale * drawn();
    return values;
}

/* Values as an array of a kind's element type, rounded in place to what they became there. */
static void *as_elements(int is_bf16, float *values, long count) {
    if (!is_bf16) return memcpy(malloc(count * sizeof(float)), values, count * sizeof(float));
    bf16 *narrow = malloc(count * sizeof(bf16));
    for (long i = 0; i < count; i++) {
        narrow[i] = to_bf16(values[i]);
        uint32_t bits = (uint32_t)narrow[i] << 16;
        memcpy(values + i, &bits, 4);
    }
    return narrow;
}

static double element(int is_bf16, const void *values, long at) {
    if (!is_bf16) return ((const float *)values)[at];
    uint32_t bits = (uint32_t)((const bf16 *)values)[at] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static double further(double most, double error) {
    return error <= most ? most : error; /* keeps NaN */
}

static double exact_cdf(double x) { return 0.5 * erfc(-x / sqrt(2)); }
static double exact_bell(double x) { return exp(-x * x / 2) / sqrt(2 * acos(-1)); }

/* ---- lanes ---- */

static void check_lanes(void) {
    int wrong = 0;
    ints rows[LANES];
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++) rows[i][j] = 100 * i + j;
    transpose(rows);
    float values[LANES + 1], kept[LANES], sum = 0;
    for (int i = 0; i < LANES; i++) {
        for (int j = 0; j < LANES; j++) wrong += rows[i][j] != 100 * j + i;
        values[i] = i * i - 20, sum += values[i];
    }
    wrong += sum_of(load(values)) != sum;
    wrong += largest_of(load(values)) != values[LANES - 1];
    wrong += largest_of(-load(values)) != 20;
    for (long first = -3; first < LANES + 3; first++) {
        store(kept, load_first(values, first));
        for (int i = 0; i < LANES; i++) wrong += kept[i] != (i < first ? values[i] : 0);
        for (long end = first; end < LANES + 3; end++) {
            store(kept, keep_between(load(values), first, end, broadcast(7)));
            for (int i = 0; i < LANES; i++)
                wrong += kept[i] != (i >= first && i < end ? values[i] : 7);
        }
    }
    report("lanes", "", wrong, 0);
}

static void check_bytes(void) {
    int wrong = 0;
    uint8_t bytes[2 * LANES];
    for (int low = -BYTE_LIMIT; low + LANES <= BYTE_LIMIT; low++) {
        ints lanes;
        for (int i = 0; i < LANES; i++) lanes[i] = low + i + BYTE_OFFSET;
        store_bytes(bytes, lanes);
        for (int i = 0; i < LANES; i++)
            wrong += bytes[i] != (uint8_t)(low + i + BYTE_OFFSET);
    }
    report("bytes", "", wrong, 0);
}

static void check_functions(void) {
    double power = 0, rough = 0, cdf = 0, gate = 0, bell_error = 0;
    for (long step = 0; step < 40000; step++) {
        float x = -126.0f + step * 126.0f / 40000, y = -9.0f + step * 18.0f / 40000, out[LANES];
        store(out, exp2_of(broadcast(x)));
        power = further(power, fabs(out[0] / exp2(x) - 1));
        store(out, exp2_roughly(broadcast(x)));
        rough = further(rough, fabs(out[0] / exp2(x) - 1));
        floats bell;
        store(out, normal_cdf(broadcast(y), &bell));
        cdf = further(cdf, fabs(out[0] - exact_cdf(y)));
        store(out, bell);
        bell_error = further(bell_error, fabs(out[0] / exp(-(double)y * y / 2) - 1));
        store(out, gelu(broadcast(y)));
        gate = further(gate, fabs(out[0] - y * exact_cdf(y)) / (1 + fabs(y)));
    }
    float out[LANES];
    store(out, exp2_of(broadcast(NOTHING)));
    report("2^x of nothing", "", out[0], 0);
    report("2^x", "", power, 3 * UNIT);
    report("2^x, roughly", "", rough, 1.1e-4);
    report("normal cdf", "", cdf, 3 * UNIT);
    report("bell", "", bell_error, 64 * UNIT); /* the exponent reaches 58 */
    report("gelu", "", gate, 2 * UNIT);
}

static void check_activations(void) {
    double error = 0;
    for (long step = 0; step < 40000; step++) {
        float y = -90.0f + step * 180.0f / 40000, out[LANES];
        double u = 0.7978845608028654 * (y + 0.044715 * y * y * y), above = y > 0 ? y : 0;
        double exact[] = {[GELU_TANH] = y * 0.5 * (1 + tanh(u)), [SILU] = y / (1 + exp(-y)),
                          [RELU] = above, [RELU_SQUARED] = above * above};
        for (long activation = GELU_TANH; activation <= RELU_SQUARED; activation++) {
            store(out, activate(activation, broadcast(y)));
            double size = 1 + fabs(exact[activation]);
            error = further(error, fabs(out[0] - exact[activation]) / size);
        }
    }
    report("other activations", "", error, 16 * UNIT);
}

/* ---- products ---- */

static Weights packed_weights(int kind, const float *matrix, long columns, long depth, long gated) {
    void *panels = aligned_alloc(64, columns * depth * entry_size(kind));
    float *scales = malloc(columns * sizeof(float));
    int32_t *offsets = malloc(columns * sizeof(int32_t));
    modernbert_pack(kind, matrix, columns, depth, gated, panels, scales, offsets, 1);
    return (Weights){panels, scales, offsets, columns, depth};
}

static void free_weights(Weights *weights) {
    free((void *)weights->panels);
    free((void *)weights->scales);
    free((void *)weights->offsets);
}

/* What a sum of `depth` products of operands up to 2 and 1 may be off, where roundings of operands
   are as often up as down. */
static double product_bound(int kind, long depth) {
    if (kind == KIND_F32) return depth * UNIT * sqrt(depth);
    double steps = kind == KIND_BF16 ? 2 * NARROW_UNIT : 1.0 / BYTE_LIMIT + 1.0 / WEIGHT_LIMIT;
    return 2 * sqrt(depth) * steps;
}

static void check_product(int kind, long total, long columns, long depth) {
    float *rows = draw(total * depth, 2), *matrix = draw(columns * depth, 1);
    float *out = malloc(total * columns * sizeof(float));
    Weights weights = packed_weights(kind, matrix, columns, depth, 0);
    failures += modernbert_multiply(kind, rows, total, &weights, out, 1);
    double error = 0;
    for (long r = 0; r < total; r++)
        for (long c = 0; c < columns; c++) {
            double sum = 0;
            for (long i = 0; i < depth; i++) sum += (double)rows[r * depth + i] * matrix[c * depth + i];
            error = further(error, fabs(sum - out[r * columns + c]));
        }
    report("product", name_of(kind), error, product_bound(kind, depth));
    free_weights(&weights);
    free(rows), free(matrix), free(out);
}

/* The largest operands there are: sums that units of 16 bits could not hold. */
static void check_exact_int8(void) {
    enum { DEPTH_OF_IT = 256 };
    float rows[2 * DEPTH_OF_IT], *matrix = malloc(PANEL * DEPTH_OF_IT * sizeof(float)), out[2 * PANEL];
    for (long i = 0; i < DEPTH_OF_IT; i++) {
        rows[i] = 1, rows[DEPTH_OF_IT + i] = -1;
        for (long c = 0; c < PANEL; c++) matrix[c * DEPTH_OF_IT + i] = c % 2 ? 1 : -1;
    }
    Weights weights = packed_weights(KIND_INT8, matrix, PANEL, DEPTH_OF_IT, 0);
    failures += modernbert_multiply(KIND_INT8, rows, 2, &weights, out, 1);
    double error = 0;
    for (long at = 0; at < 2 * PANEL; at++) {
        double exact = (at % 2 ? 1 : -1) * (at < PANEL ? 1 : -1) * DEPTH_OF_IT;
        error = further(error, fabs(out[at] / exact - 1));
    }
    report("largest products", "int8", error, 4 * UNIT);
    free_weights(&weights);
    free(matrix);
}

/* ---- elementwise ---- */

static void check_geglu(int is_bf16) {
    long total = 3, width = 48;
    float *halves = draw(total * 2 * width, 4), *direction = draw(total * width, 1);
    void *in = as_elements(is_bf16, halves, total * 2 * width);
    void *gradient = as_elements(is_bf16, direction, total * width);
    void *out = malloc(total * width * 4), *back = malloc(total * 2 * width * 4);
    modernbert_geglu(in, out, total, width, is_bf16, 1);
    modernbert_geglu_backward(in, gradient, back, total, width, is_bf16, 1);
    double error = 0, unit = is_bf16 ? NARROW_UNIT : UNIT;
    for (long at = 0; at < total * width; at++) {
        long place = at / width * 2 * width + at % width;
        double a = halves[place], b = halves[place + width], g = direction[at];
        double below = exact_cdf(a), slope = below + a * exact_bell(a);
        error = further(error, fabs(element(is_bf16, out, at) - a * below * b));
        error = further(error, fabs(element(is_bf16, back, place) - g * b * slope));
        error = further(error, fabs(element(is_bf16, back, place + width) - g * a * below));
    }
    report("geglu and gradient", name_of(is_bf16), error, 16 * unit);
    free(halves), free(direction), free(in), free(gradient), free(out), free(back);
}

static void check_rotation(int is_bf16) {
    long total = 3, heads = 2, count = total * 3 * heads * HEAD;
    float *values = draw(count, 1), *cosines = draw(total * HEAD / 2, 1);
    float *sines = draw(total * HEAD / 2, 1);
    void *in = as_elements(is_bf16, values, count), *out = malloc(count * 4);
    modernbert_rotate(in, out, cosines, sines, total, heads, 0.5f, -1, is_bf16, 1);
    double error = 0;
    for (long at = 0; at < count; at++) {
        long row = at / (3 * heads * HEAD), head = at / HEAD % (3 * heads), i = at % HEAD;
        long angle = row * HEAD / 2 + i % (HEAD / 2);
        double other = values[i < HEAD / 2 ? at + HEAD / 2 : at - HEAD / 2];
        double turned = values[at] * cosines[angle] + (i < HEAD / 2 ? 1 : -1) * other * sines[angle];
        double exact = head >= 2 * heads ? values[at] : turned * (head < heads ? 0.5 : 1);
        error = further(error, fabs(element(is_bf16, out, at) - exact));
    }
    report("rotation", name_of(is_bf16), error, 2 * (is_bf16 ? NARROW_UNIT : UNIT));
    free(values), free(cosines), free(sines), free(in), free(out);
}

/* ---- attention ---- */

typedef struct {
    long total, heads, window, is_causal, num_sequences;
    const int32_t *borders;
    const float *qkv;       /* [total][3][heads][HEAD], queries not scaled */
    const float *direction; /* [total][heads][HEAD] */
    double *out, *gradients;
} Exact;

static double dot_rows(const float *a, const float *b) {
    double sum = 0;
    for (int i = 0; i < HEAD; i++) sum += (double)a[i] * b[i];
    return sum;
}

/* Row `row` of one head, which sees rows [low, high): its output, and its part of the gradients. */
static void exact_row(const Exact *e, long head, long row, long low, long high) {
    long width = e->heads * HEAD, step = 3 * width;
    const float *query = e->qkv + row * step + head * HEAD;
    const float *direction = e->direction + row * width + head * HEAD;
    double *weights = malloc((high - low) * sizeof(double)), total = 0, delta = 0;
    for (long c = low; c < high; c++)
        total += weights[c - low] = exp(dot_rows(query, e->qkv + c * step + width + head * HEAD) / 8);
    for (long c = low; c < high; c++) {
        const float *value = e->qkv + c * step + 2 * width + head * HEAD;
        weights[c - low] /= total;
        delta += weights[c - low] * dot_rows(value, direction);
        for (int i = 0; i < HEAD; i++)
            e->out[row * width + head * HEAD + i] += weights[c - low] * value[i];
    }
    for (long c = low; c < high; c++) {
        const float *key = e->qkv + c * step + width + head * HEAD, *value = key + width;
        double change = weights[c - low] * (dot_rows(value, direction) - delta) / 8;
        double *at = e->gradients + head * HEAD;
        for (int i = 0; i < HEAD; i++) {
            at[row * step + i] += change * key[i];
            at[c * step + width + i] += change * query[i];
            at[c * step + 2 * width + i] += weights[c - low] * direction[i];
        }
    }
    free(weights);
}

static void exact_attention(const Exact *e) {
    for (long s = 0; s < e->num_sequences; s++)
        for (long head = 0; head < e->heads; head++)
            for (long row = e->borders[s]; row < e->borders[s + 1]; row++) {
                long low = e->borders[s], high = e->borders[s + 1];
                if (e->window >= 0 && row - e->window > low) low = row - e->window;
                if (e->window >= 0 && row + e->window + 1 < high) high = row + e->window + 1;
                if (e->is_causal) high = row + 1;
                exact_row(e, head, row, low, high);
            }
}

/* The kernels take queries that hold log2(e) / 8 already, and give the gradient of such as hold
   nothing. In bfloat16 the scaled queries are rounded; so the oracle's are what came of that. */
static void check_attention(int is_bf16, long window, int is_causal, const int32_t *borders,
                            long num_sequences) {
    long total = borders[num_sequences], heads = 2, width = heads * HEAD, step = 3 * width;
    float *qkv = draw(total * step, 2), *direction = draw(total * width, 1);
    float scale = LOG2_E / 8;
    for (long at = 0; at < total * step; at++) qkv[at] *= at % step < width ? scale : 1;
    char *elements = as_elements(is_bf16, qkv, total * step);
    char *gradient = as_elements(is_bf16, direction, total * width);
    for (long at = 0; at < total * step; at++) qkv[at] /= at % step < width ? scale : 1;
    Exact exact = {total, heads, window, is_causal, num_sequences, borders, qkv, direction,
                   calloc(total * width, sizeof(double)), calloc(total * step, sizeof(double))};
    exact_attention(&exact);
    long size = is_bf16 ? 2 : 4;
    AttentionInput in = {.query = elements, .key = elements + width * size,
                         .value = elements + 2 * width * size, .step = step, .borders = borders,
                         .num_sequences = num_sequences, .num_heads = heads, .window = window,
                         .is_causal = is_causal, .is_bf16 = is_bf16, .num_threads = 1};
    char *out = malloc(total * width * size), *changes = malloc(total * step * size);
    float *log_sums = malloc(heads * total * 4), *deltas = malloc(heads * total * 4);
    failures += modernbert_attend(&in, out, width, log_sums);
    failures += modernbert_attend_backward(&in, out, gradient, width, log_sums, deltas, 0.125f,
                                           changes, changes + width * size,
                                           changes + 2 * width * size, step);
    double error = 0, back = 0, unit = is_bf16 ? NARROW_UNIT : HEAD * UNIT;
    for (long at = 0; at < total * width; at++)
        error = further(error, fabs(element(is_bf16, out, at) - exact.out[at]));
    for (long at = 0; at < total * step; at++)
        back = further(back, fabs(element(is_bf16, changes, at) - exact.gradients[at]));
    const char *names[] = {"global attention", "local attention", "causal attention",
                           "causal local attention"};
    report(names[2 * is_causal + (window >= 0)], name_of(is_bf16), error, 4 * unit);
    report("its gradient", name_of(is_bf16), back, 16 * unit);
    free(qkv), free(direction), free(elements), free(gradient), free(out), free(changes);
    free(log_sums), free(deltas), free(exact.out), free(exact.gradients);
}

/* ---- the encoder ---- */

enum { NUM_LAYERS = 2, HIDDEN = 128, INNER = 96, NUM_HEADS = 2, WINDOW = 5, VOCABULARY = 50 };

typedef struct {
    float *attention_norm, *mlp_norm, *matrices[4]; /* Wqkv, Wo, Wi, Wo */
} ExactLayer;

static void exact_norm(const double *row, const float *weight, double *out) {
    double mean = 0, square = 0;
    for (int i = 0; i < HIDDEN; i++) mean += row[i] / HIDDEN;
    for (int i = 0; i < HIDDEN; i++) square += (row[i] - mean) * (row[i] - mean) / HIDDEN;
    for (int i = 0; i < HIDDEN; i++) out[i] = (row[i] - mean) / sqrt(square + 1e-5) * weight[i];
}

static void exact_product(const double *row, const float *matrix, long columns, long depth,
                          double *out) {
    for (long c = 0; c < columns; c++) {
        out[c] = 0;
        for (long i = 0; i < depth; i++) out[c] += row[i] * matrix[c * depth + i];
    }
}

static void exact_layer(const ExactLayer *layer, double *stream, const int32_t *positions,
                        const float *angles, const int32_t *borders, long count, long window) {
    long total = borders[count], step = 3 * HIDDEN;
    float *qkv = malloc(total * step * 4), *nothing = calloc(total * HIDDEN, 4);
    for (long row = 0; row < total; row++) {
        double normed[HIDDEN], projected[3 * HIDDEN];
        memcpy(normed, stream + row * HIDDEN, sizeof normed);
        if (layer->attention_norm) exact_norm(normed, layer->attention_norm, normed);
        exact_product(normed, layer->matrices[0], step, HIDDEN, projected);
        for (long at = 0; at < step; at++) {
            const float *angle = angles + positions[row] * HEAD + at % (HEAD / 2);
            int is_first = at % HEAD < HEAD / 2;
            double other = projected[is_first ? at + HEAD / 2 : at - HEAD / 2];
            double turned = projected[at] * angle[0] + (is_first ? -1 : 1) * other * angle[HEAD / 2];
            qkv[row * step + at] = at < 2 * HIDDEN ? turned : projected[at];
        }
    }
    Exact attention = {total, NUM_HEADS, window, 0, count, borders, qkv, nothing,
                       calloc(total * HIDDEN, 8), calloc(total * step, 8)};
    exact_attention(&attention);
    for (long row = 0; row < total; row++) {
        double *line = stream + row * HIDDEN, added[HIDDEN], normed[HIDDEN], inner[2 * INNER];
        exact_product(attention.out + row * HIDDEN, layer->matrices[1], HIDDEN, HIDDEN, added);
        for (int i = 0; i < HIDDEN; i++) line[i] += added[i];
        exact_norm(line, layer->mlp_norm, normed);
        exact_product(normed, layer->matrices[2], 2 * INNER, HIDDEN, inner);
        for (int i = 0; i < INNER; i++) inner[i] *= exact_cdf(inner[i]) * inner[INNER + i];
        exact_product(inner, layer->matrices[3], HIDDEN, INNER, added);
        for (int i = 0; i < HIDDEN; i++) line[i] += added[i];
    }
    free(qkv), free(nothing), free(attention.out), free(attention.gradients);
}

static float *norm_weight(void) {
    float *weight = draw(HIDDEN, 0.3f);
    for (int i = 0; i < HIDDEN; i++) weight[i] += 1;
    return weight;
}

/* The lowest cosine of a token to the oracle's; few rows share columns, many are cut in blocks. */
static void check_encoder(int kind, const int32_t *borders, long count) {
    long total = borders[count], sizes[4][2] = {{3 * HIDDEN, HIDDEN}, {HIDDEN, HIDDEN},
                                                {2 * INNER, HIDDEN}, {HIDDEN, INNER}};
    ExactLayer exact[NUM_LAYERS];
    Layer layers[NUM_LAYERS];
    float *angles = malloc(total * HEAD * 4), *embedding = draw(VOCABULARY * HIDDEN, 1);
    float *first_norm = norm_weight(), *last_norm = norm_weight();
    int32_t *positions = malloc(total * 4);
    int64_t *ids = malloc(total * 8);
    for (long s = 0; s < count; s++)
        for (long row = borders[s]; row < borders[s + 1]; row++) positions[row] = row - borders[s];
    for (long row = 0; row < total; row++) {
        ids[row] = row * 7 % VOCABULARY;
        for (int i = 0; i < HEAD / 2; i++) {
            double angle = row * pow(10000, -i / (HEAD / 2.0));
            angles[row * HEAD + i] = cos(angle), angles[row * HEAD + HEAD / 2 + i] = sin(angle);
        }
    }
    for (int i = 0; i < NUM_LAYERS; i++) {
        exact[i] = (ExactLayer){i ? norm_weight() : NULL, norm_weight(), {NULL}};
        Weights *packed[4] = {&layers[i].qkv, &layers[i].out, &layers[i].in, &layers[i].down};
        for (int m = 0; m < 4; m++) {
            exact[i].matrices[m] = draw(sizes[m][0] * sizes[m][1], 0.1f);
            *packed[m] = packed_weights(kind, exact[i].matrices[m], sizes[m][0], sizes[m][1], m == 2);
        }
        layers[i].attention_norm = exact[i].attention_norm;
        layers[i].mlp_norm = exact[i].mlp_norm;
        layers[i].angles = angles;
        layers[i].is_global = i == 0;
    }
    Shape shape = {HIDDEN, INNER, NUM_HEADS, WINDOW, kind, GELU, 1, 1e-5f};
    Batch batch = {borders, positions, count, total};
    float *stream = malloc(total * HIDDEN * 4), *attention = malloc(total * 3 * HIDDEN * 4);
    modernbert_embed(&shape, embedding, first_norm, ids, total, stream);
    failures += modernbert_layers(&shape, layers, NUM_LAYERS, 0, NUM_LAYERS, &batch, stream,
                                  attention, NULL, NULL);
    modernbert_normalize(&shape, last_norm, total, stream);
    double *line = malloc(total * HIDDEN * 8), lowest = 1;
    for (long row = 0; row < total; row++) {
        for (int i = 0; i < HIDDEN; i++) line[row * HIDDEN + i] = embedding[ids[row] * HIDDEN + i];
        exact_norm(line + row * HIDDEN, first_norm, line + row * HIDDEN);
    }
    for (int i = 0; i < NUM_LAYERS; i++)
        exact_layer(exact + i, line, positions, angles, borders, count, i ? WINDOW : -1);
    for (long row = 0; row < total; row++) {
        double dot = 0, own = 0, other = 0;
        exact_norm(line + row * HIDDEN, last_norm, line + row * HIDDEN);
        for (long at = row * HIDDEN; at < (row + 1) * HIDDEN; at++)
            dot += stream[at] * line[at], own += stream[at] * (double)stream[at],
            other += line[at] * line[at];
        double cosine = dot / sqrt(own * other);
        lowest = cosine >= lowest ? lowest : cosine;
    }
    report(total < FEW_ROWS ? "encoder, few rows" : "encoder, many rows", name_of(kind),
           1 - lowest, kind == KIND_F32 ? 1e-9 : kind == KIND_BF16 ? 1e-3 : 2e-3);
    for (int i = 0; i < NUM_LAYERS; i++) {
        Weights *packed[4] = {&layers[i].qkv, &layers[i].out, &layers[i].in, &layers[i].down};
        for (int m = 0; m < 4; m++) free_weights(packed[m]), free(exact[i].matrices[m]);
        free(exact[i].attention_norm), free(exact[i].mlp_norm);
    }
    free(angles), free(embedding), free(first_norm), free(last_norm), free(positions), free(ids);
    free(stream), free(attention), free(line);
}

int main(void) {
    /* Few rows, more than FEW_ROWS, and a sequence longer than a CHUNK. */
    const int32_t few[] = {0, 1, 1, 21, 70}, many[] = {0, 3, 150}, longest[] = {0, 590};
    check_lanes();
    check_bytes();
    check_functions();
    check_activations();
    check_exact_int8();
    for (int kind = KIND_F32; kind <= KIND_INT8; kind++) {
        if (kind == KIND_BF16 && !HAS_BF16) continue;
        check_product(kind, 1, 64, 32);
        check_product(kind, 13, 128, 416);
        check_encoder(kind, few, 4);
        check_encoder(kind, many, 2);
    }
    for (int is_bf16 = 0; is_bf16 <= HAS_BF16; is_bf16++) {
        check_geglu(is_bf16);
        check_rotation(is_bf16);
        for (long window = -1; window < 80; window += 40) {
            check_attention(is_bf16, window, 0, few, 4);
            check_attention(is_bf16, window, 0, many, 2);
        }
        check_attention(is_bf16, -1, 0, longest, 1);
        check_attention(is_bf16, -1, 1, many, 2);
        check_attention(is_bf16, 39, 1, few, 4);
    }
    printf("%d failed\n", failures);
    return failures > 0;
}
