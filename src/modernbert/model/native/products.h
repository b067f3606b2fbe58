/* Products of rows with packed weights.

   A panel is PANEL columns of the result, packed as [PANEL / TILE_COLUMNS][parts][TILE_COLUMNS][g],
   where g = 1 float, 2 bfloat16 or 4 int8 are one lane, and `parts` the depth in lanes. The sums of
   PRODUCT_ROWS x TILE_COLUMNS results are held in registers over the whole depth. */

#define PANEL 64
#define TILE_COLUMNS (PRODUCT_VECTORS * LANES)
#define MOST_ROWS 192 /* of a block: so many rows for each time that the weights are read */

enum { KIND_F32, KIND_BF16, KIND_INT8 };

/* Between products values are bfloat16 or, for float32 and where there is no bfloat16, float32. */
#define IS_NARROW(kind) (HAS_BF16 && (kind) != KIND_F32)
#define VALUE_SIZE(kind) (IS_NARROW(kind) ? (long)sizeof(bf16) : (long)sizeof(float))

typedef struct {
    const void *panels;
    const float *scales;    /* int8: of each column */
    const int32_t *offsets; /* int8: BYTE_OFFSET times the sum of each column */
    long columns, depth;
} Weights;

/* Rows of one kind, `step` bytes apart; row r is at `base + r * step`. */
typedef struct {
    const char *base;
    long step;
    const float *scales; /* int8: of each row */
} Rows;

INLINE long entry_size(int kind) { return kind == KIND_F32 ? 4 : kind == KIND_BF16 ? 2 : 1; }

/* How many entries of a kind are one lane of 32 bits. */
INLINE long lane_entries(int kind) { return 4 / entry_size(kind); }

/* Values of one row as the kind's entries; int8 with a scale of the row's own. */
INLINE void convert_row(int kind, const float *row, long width, void *out, float *scale) {
    if (kind == KIND_INT8) {
        floats high = broadcast(1e-20f);
        for (long i = 0; i < width; i += LANES) high = larger(high, absolute(load(row + i)));
        float most = largest_of(high);
        *scale = most / BYTE_LIMIT;
        for (long i = 0; i < width; i += LANES)
            store_bytes((uint8_t *)out + i,
                        to_ints(load(row + i) * (BYTE_LIMIT / most)) + BYTE_OFFSET);
    } else if (IS_NARROW(kind)) {
        for (long i = 0; i < width; i += LANES) store_value(1, out, i, load(row + i));
    } else if (out != row) {
        memcpy(out, row, width * sizeof(float));
    }
}

/* Lines of memory that one part of a strip of TILE_COLUMNS has. */
#define PART_LINES ((TILE_COLUMNS * 4 + 63) / 64)

/* Declare `sums`, floats or ints, and fill them: DOT is one of `dot_singles`, `dot_pairs` and
   `dot_quads`; ROWS a constant of at most PRODUCT_ROWS. Every `group` parts it asks for the lines of
   one part of what is read next, from `ahead` on. */
#define SUM_PRODUCTS(TYPE, DOT, ROWS, rows, columns, parts, ahead, group)                         \
    TYPE sums[ROWS][PRODUCT_VECTORS];                                                             \
    UNROLL for (int r = 0; r < (ROWS); r++)                                                       \
        UNROLL for (int j = 0; j < PRODUCT_VECTORS; j++) sums[r][j] = (TYPE){0};                  \
    const char *line = (ahead);                                                                   \
    for (long part = 0; part < (parts);) {                                                        \
        UNROLL for (int j = 0; j < PART_LINES; j++) __builtin_prefetch(line + 64 * j, 0, 2);      \
        line += 64 * PART_LINES;                                                                  \
        long pause = part + (group) < (parts) ? part + (group) : (parts);                         \
        for (; part < pause; part++) {                                                            \
            ints held[PRODUCT_VECTORS];                                                           \
            UNROLL for (int j = 0; j < PRODUCT_VECTORS; j++)                                      \
                held[j] = load_lanes((columns) + part * TILE_COLUMNS + j * LANES);                \
            UNROLL for (int r = 0; r < (ROWS); r++) {                                             \
                ints value = broadcast_lane((rows)[r] + part * 4);                                \
                UNROLL for (int j = 0; j < PRODUCT_VECTORS; j++)                                  \
                    sums[r][j] = DOT(sums[r][j], value, held[j]);                                 \
            }                                                                                     \
        }                                                                                         \
    }

/* What a tile needs to know; its results go into rows that are PANEL apart. */
typedef struct {
    const char *rows[PRODUCT_ROWS];
    float row_scales[PRODUCT_ROWS]; /* int8 */
    const uint32_t *columns;
    const float *scales;    /* int8: of the columns */
    const int32_t *offsets; /* int8: of the columns */
    long parts;
    const char *ahead; /* what is read next, */
    long group;        /* and after how many parts to ask for more of it */
    float *out;
} Tile;

/* TILE_COLUMNS results of ROWS rows. */
#define FLOAT_TILE(KIND, DOT, ROWS)                                                               \
    static void tile_of_##ROWS##_##KIND(const Tile *t) {                                          \
        const char *rows[ROWS];                                                                   \
        memcpy(rows, t->rows, sizeof(rows));                                                      \
        SUM_PRODUCTS(floats, DOT, ROWS, rows, t->columns, t->parts, t->ahead, t->group)           \
        UNROLL for (int r = 0; r < (ROWS); r++)                                                   \
            UNROLL for (int j = 0; j < PRODUCT_VECTORS; j++)                                      \
                store(t->out + r * PANEL + j * LANES, sums[r][j]);                                \
    }

#define INT8_TILE(KIND, DOT, ROWS)                                                                \
    static void tile_of_##ROWS##_##KIND(const Tile *t) {                                          \
        const char *rows[ROWS];                                                                   \
        memcpy(rows, t->rows, sizeof(rows));                                                      \
        SUM_PRODUCTS(ints, DOT, ROWS, rows, t->columns, t->parts, t->ahead, t->group)             \
        UNROLL for (int r = 0; r < (ROWS); r++)                                                   \
            UNROLL for (int j = 0; j < PRODUCT_VECTORS; j++) {                                    \
                floats whole = to_floats(sums[r][j] - load_lanes(t->offsets + j * LANES));        \
                store(t->out + r * PANEL + j * LANES,                                             \
                      whole * (t->row_scales[r] * load(t->scales + j * LANES)));                  \
            }                                                                                     \
    }

/* A tile for each number of rows, and the table of them. */
#define TILES(KIND, DOT, TILE)                                                                    \
    TILE(KIND, DOT, 1)                                                                            \
    TILE(KIND, DOT, 2)                                                                            \
    TILE(KIND, DOT, 3)                                                                            \
    TILE(KIND, DOT, 4)                                                                            \
    TILE(KIND, DOT, 5)                                                                            \
    TILE(KIND, DOT, 6)                                                                            \
    static void (*const tiles_of_##KIND[PRODUCT_ROWS])(const Tile *) = {                          \
        tile_of_1_##KIND, tile_of_2_##KIND, tile_of_3_##KIND,                                     \
        tile_of_4_##KIND, tile_of_5_##KIND, tile_of_6_##KIND};

TILES(f32, dot_singles, FLOAT_TILE)
TILES(int8, dot_quads, INT8_TILE)
#if HAS_BF16
TILES(bf16, dot_pairs, FLOAT_TILE)
#endif

static void run_tile(int kind, long rows, const Tile *tile) {
    switch (kind) {
    case KIND_INT8: tiles_of_int8[rows - 1](tile); break;
#if HAS_BF16
    case KIND_BF16: tiles_of_bf16[rows - 1](tile); break;
#endif
    default: tiles_of_f32[rows - 1](tile);
    }
}

/* What becomes of a tile of results. */
enum { ROTATE_AND_STORE, ADD, GATE, STORE };

typedef struct {
    int what;
    int kind;
    void *out;            /* row r is at entry `r * step` */
    long step;            /* in entries */
    long num_heads;       /* ROTATE_AND_STORE: panels are heads: of queries, of keys, of values */
    const float *angles;  /* [position][2][HEAD / 2]: cosines and sines */
    const int32_t *positions;
    long activation;      /* GATE */
} Target;

/* Turn the two halves of a head by the angles of its position. */
INLINE void rotate_panel(float *values, const float *angles, float scale) {
    for (int i = 0; i < HEAD / 2; i += LANES) {
        floats c = scale * load(angles + i), s = scale * load(angles + HEAD / 2 + i);
        floats first = load(values + i), second = load(values + HEAD / 2 + i);
        store(values + i, first * c - second * s);
        store(values + HEAD / 2 + i, second * c + first * s);
    }
}

INLINE void finish_row(const Target *target, int is_narrow, float *values, long row, long panel) {
    long at = row * target->step + panel * PANEL;
    switch (target->what) {
    case ADD:
        for (int i = 0; i < PANEL; i += LANES) {
            float *sum = (float *)target->out + at + i;
            store(sum, load(sum) + load(values + i));
        }
        return;
    case GATE: /* half a panel of a's, and the b's that belong to them */
        at = row * target->step + panel * PANEL / 2;
        for (int i = 0; i < PANEL / 2; i += LANES)
            store_value(is_narrow, target->out, at + i,
                        activate(target->activation, load(values + i)) *
                            load(values + PANEL / 2 + i));
        return;
    case ROTATE_AND_STORE:
        if (panel < 2 * target->num_heads)
            rotate_panel(values, target->angles + (long)target->positions[row] * HEAD,
                         panel < target->num_heads ? 0.125f * LOG2_E : 1.0f);
    }
    for (int i = 0; i < PANEL; i += LANES)
        store_value(is_narrow, target->out, at + i, load(values + i));
}

static void finish(const Target *target, float *tile, long row, long count, long panel) {
    for (long r = 0; r < count; r++) {
        if (IS_NARROW(target->kind))
            finish_row(target, 1, tile + r * PANEL, row + r, panel);
        else
            finish_row(target, 0, tile + r * PANEL, row + r, panel);
    }
}

/* Bring the lines that `finish` will write into the cache while the products are summed. */
INLINE void fetch(const Target *target, long row, long count, long panel) {
    long width = target->what == GATE ? PANEL / 2 : PANEL;
    long size = target->what == ADD ? (long)sizeof(float) : VALUE_SIZE(target->kind);
    for (long r = 0; r < count; r++) {
        const char *line = (char *)target->out + ((row + r) * target->step + panel * width) * size;
        for (long at = 0; at < width * size; at += 64) __builtin_prefetch(line + at, 1);
    }
}

/* One panel of `count` rows from `row` on, at most PRODUCT_ROWS; `tile` knows the rest. */
static void multiply_tile(int kind, const Rows *in, const Weights *weights, long row, long count,
                          long panel, Tile *tile, const Target *target) {
    float results[PRODUCT_ROWS * PANEL] ALIGNED;
    for (long r = 0; r < count; r++) {
        tile->rows[r] = in->base + (row + r) * in->step;
        if (kind == KIND_INT8) tile->row_scales[r] = in->scales[row + r];
    }
    fetch(target, row, count, panel);
    for (long i = 0; i < PANEL; i += TILE_COLUMNS) {
        long at = panel * PANEL + i;
        tile->columns = (const uint32_t *)weights->panels + at * tile->parts;
        tile->out = results + i;
        if (kind == KIND_INT8) {
            tile->scales = weights->scales + at;
            tile->offsets = weights->offsets + at;
        }
        run_tile(kind, count, tile);
        tile->ahead += (tile->parts + tile->group - 1) / tile->group * PART_LINES * 64;
    }
    finish(target, results, row, count, panel);
}

/* Rows [first, end) times panels [panel, panels_end). The rows are cut into tiles of nearly the same
   height. While one panel is multiplied the next one is fetched, and at last what lies at `after`,
   the weights of the next product. */
static void multiply(int kind, const Rows *in, const Weights *weights, long first, long end,
                     long panel, long panels_end, const Target *target, const void *after) {
    long rows = end - first, num_tiles = (rows + PRODUCT_ROWS - 1) / PRODUCT_ROWS;
    if (!num_tiles) return;
    Tile tile = {.parts = weights->depth / lane_entries(kind),
                 .group = num_tiles};
    long panel_bytes = tile.parts * PANEL * 4;
    for (; panel < panels_end; panel++) {
        const char *panels = weights->panels;
        tile.ahead = panel + 1 < panels_end ? panels + (panel + 1) * panel_bytes : after;
        for (long i = 0; i < num_tiles; i++) {
            long row = first + rows * i / num_tiles, next = first + rows * (i + 1) / num_tiles;
            multiply_tile(kind, in, weights, row, next - row, panel, &tile, target);
        }
    }
}

/* A product alone: out[total][columns] of rows [total][depth], both float32. Returns 0, or 1 when
   there is no memory. */
int modernbert_multiply(long kind, const float *rows, long total, const Weights *weights,
                        float *out, long num_threads) {
    long step = weights->depth * entry_size(kind), panels = weights->columns / PANEL;
    long blocks = (total + MOST_ROWS - 1) / MOST_ROWS;
    char *inputs = malloc(total * step + 1);
    float *scales = malloc((total + 1) * sizeof(float));
    Rows in = {inputs, step, scales};
    Target target = {.what = STORE, .kind = KIND_F32, .out = out, .step = weights->columns};
    int failed = !inputs || !scales;
#pragma omp parallel num_threads(num_threads) if (!failed)
    if (!failed) {
#pragma omp for schedule(static)
        for (long row = 0; row < total; row++)
            convert_row(kind, rows + row * weights->depth, weights->depth, inputs + row * step,
                        scales + row);
#pragma omp for schedule(static)
        for (long task = 0; task < blocks * panels; task++) {
            long first = task / panels * MOST_ROWS, panel = task % panels;
            long end = first + MOST_ROWS < total ? first + MOST_ROWS : total;
            multiply(kind, &in, weights, first, end, panel, panel + 1, &target,
                     weights->panels);
        }
    }
    free(inputs);
    free(scales);
    return failed;
}
