/* Products of a training step in float32: forward, and the gradients of both factors.

   They are Y = X W^T, dX = dY W and dW = dY^T X, each of the form

   out[i][j] = sum over d of rows(i, d) * columns(j, d), plus `added` where it is given. Depth goes in
   blocks, and of a block TILE_COLUMNS columns side by side are packed as [depth][TILE_COLUMNS], so
   that a tile's columns stay in the first cache while one strip of rows after another meets them.
   The order of every sum depends on the sizes alone, never on the number of threads. */

#define ROW_BLOCK 96
#define DEPTH_BLOCK 384
#define COLUMN_BLOCK 3072 /* whose packed form stays in the last cache */

/* A matrix: entry (i, d) is at base[i * step + d] or, when turned, at base[d * step + i]. */
typedef struct {
    const float *base;
    long step;
    long is_turned;
} Factor;

/* to[j * to_step + i] = from[i * step + j], for `count` rows i and `length` columns j. */
static void turn(const float *from, long step, long count, long length, float *to, long to_step) {
    long i = 0;
    for (; i + LANES <= count; i += LANES) {
        long j = 0;
        for (; j + LANES <= length; j += LANES) {
            ints square[LANES];
            UNROLL for (int k = 0; k < LANES; k++)
                square[k] = load_lanes(from + (i + k) * step + j);
            transpose(square);
            UNROLL for (int k = 0; k < LANES; k++)
                store_lanes(to + (j + k) * to_step + i, square[k]);
        }
        for (; j < length; j++)
            for (int k = 0; k < LANES; k++) to[j * to_step + i + k] = from[(i + k) * step + j];
    }
    for (; i < count; i++)
        for (long j = 0; j < length; j++) to[j * to_step + i] = from[i * step + j];
}

/* Up to TILE_COLUMNS columns from `first` on, packed; zeros stand for those that are not there. */
static void pack_columns(const Factor *columns, long first, long count, long origin, long depth,
                         float *to) {
    if (count < TILE_COLUMNS) memset(to, 0, depth * TILE_COLUMNS * sizeof(float));
    if (!columns->is_turned) {
        turn(columns->base + first * columns->step + origin, columns->step, count, depth, to,
             TILE_COLUMNS);
        return;
    }
    for (long d = 0; d < depth; d++)
        memcpy(to + d * TILE_COLUMNS, columns->base + (origin + d) * columns->step + first,
               count * sizeof(float));
}

NOINLINE void product_tile(const char *const *rows, const uint32_t *columns, long depth,
                           const float *added, long added_step, float *out, long step) {
    const char *ahead = (const char *)columns; /* packed a moment ago: there is nothing to fetch */
    SUM_PRODUCTS(floats, dot_singles, PRODUCT_ROWS, rows, columns, depth, ahead, depth)
    UNROLL for (int r = 0; r < PRODUCT_ROWS; r++)
        UNROLL for (int j = 0; j < PRODUCT_VECTORS; j++) {
            floats sum = sums[r][j];
            if (added) sum += load(added + r * added_step + j * LANES);
            store(out + r * step + j * LANES, sum);
        }
}

/* A tile at the edge, of which `count` rows and `width` columns are there. */
static void edge_tile(const char *const *rows, const uint32_t *columns, long depth, long count,
                      long width, const float *added, long added_step, float *out, long step) {
    float tile[PRODUCT_ROWS * TILE_COLUMNS] ALIGNED;
    product_tile(rows, columns, depth, NULL, 0, tile, TILE_COLUMNS);
    for (long r = 0; r < count; r++)
        for (long j = 0; j < width; j++)
            out[r * step + j] =
                tile[r * TILE_COLUMNS + j] + (added ? added[r * added_step + j] : 0);
}

/* A block of rows, `row_step` apart, against packed columns; `added` and `out` begin at its corner. */
static void product_block(const float *base, long row_step, long num_rows, const float *packed,
                          long num_columns, long depth, const float *added, long added_step,
                          float *out, long step) {
    for (long column = 0; column < num_columns; column += TILE_COLUMNS) {
        long width = num_columns - column < TILE_COLUMNS ? num_columns - column : TILE_COLUMNS;
        const uint32_t *columns = (const uint32_t *)(packed + column * depth);
        for (long row = 0; row < num_rows; row += PRODUCT_ROWS) {
            long count = num_rows - row < PRODUCT_ROWS ? num_rows - row : PRODUCT_ROWS;
            const char *rows[PRODUCT_ROWS];
            for (long r = 0; r < PRODUCT_ROWS; r++)
                rows[r] = (const char *)(base + (row + (r < count ? r : count - 1)) * row_step);
            const float *sum = added ? added + row * added_step + column : NULL;
            float *target = out + row * step + column;
            if (count == PRODUCT_ROWS && width == TILE_COLUMNS)
                product_tile(rows, columns, depth, sum, added_step, target, step);
            else
                edge_tile(rows, columns, depth, count, width, sum, added_step, target, step);
        }
    }
}

/* How many floats of `room` a product needs. */
long modernbert_product_room(long num_columns) {
    long most = num_columns < COLUMN_BLOCK ? num_columns : COLUMN_BLOCK;
    return (most + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS * DEPTH_BLOCK;
}

/* added: what the sums begin with, [num_rows][added_step], or NULL; it may be `out` itself. */
void modernbert_product(const Factor *rows, const Factor *columns, long num_rows, long num_columns,
                        long depth, const float *added, long added_step, float *out, long step,
                        float *room, long num_threads) {
    long row_blocks = (num_rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel num_threads(num_threads)
    for (long first = 0; first < num_columns; first += COLUMN_BLOCK) {
        long wide = num_columns - first < COLUMN_BLOCK ? num_columns - first : COLUMN_BLOCK;
        long tiles = (wide + TILE_COLUMNS - 1) / TILE_COLUMNS;
        /* With few rows, as a weight's gradient has, threads share columns too. */
        long parts = row_blocks >= 2 * num_threads ? 1 : (2 * num_threads - 1) / row_blocks + 1;
        if (parts > tiles) parts = tiles;
        for (long origin = 0; origin < depth; origin += DEPTH_BLOCK) {
            long held = depth - origin < DEPTH_BLOCK ? depth - origin : DEPTH_BLOCK;
            const float *sums = origin ? out : added;
            long sums_step = origin ? step : added_step;
#pragma omp for schedule(static)
            for (long tile = 0; tile < tiles; tile++) {
                long at = tile * TILE_COLUMNS;
                long width = wide - at < TILE_COLUMNS ? wide - at : TILE_COLUMNS;
                pack_columns(columns, first + at, width, origin, held, room + at * held);
            }
#pragma omp for schedule(static)
            for (long task = 0; task < row_blocks * parts; task++) {
                float turned[ROW_BLOCK * DEPTH_BLOCK] ALIGNED;
                long row = task / parts * ROW_BLOCK, part = task % parts;
                long count = num_rows - row < ROW_BLOCK ? num_rows - row : ROW_BLOCK;
                long from = tiles * part / parts * TILE_COLUMNS;
                long to = tiles * (part + 1) / parts * TILE_COLUMNS;
                const float *base = turned;
                long row_step = DEPTH_BLOCK;
                if (rows->is_turned) {
                    turn(rows->base + origin * rows->step + row, rows->step, held, count, turned,
                         DEPTH_BLOCK);
                } else {
                    base = rows->base + row * rows->step + origin;
                    row_step = rows->step;
                }
                long corner = row * step + first + from;
                product_block(base, row_step, count, room + from * held,
                              (to < wide ? to : wide) - from, held,
                              sums ? sums + row * sums_step + first + from : NULL, sums_step,
                              out + corner, step);
            }
        }
    }
}
