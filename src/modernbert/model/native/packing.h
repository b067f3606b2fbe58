/* Packing the weights of products, once, into the panels of `products.h`. */

INLINE bf16 to_bf16(float value) {
    union { float value; uint32_t bits; } v = {value};
    if (value != value) return 0x7FC0;
    return (v.bits + 0x7FFF + (v.bits >> 16 & 1)) >> 16; /* to nearest, ties to even */
}

/* The matrix's row that column `at` of the panels holds. With `gated` the first half of its rows
   are gated by the second, and each panel gets PANEL / 2 of both. */
INLINE long source_of(long at, long columns, long gated) {
    long panel = at / PANEL, half = PANEL / 2, i = at % PANEL;
    if (!gated) return at;
    return panel * half + i % half + (i < half ? 0 : columns / 2);
}

static float scale_of(const float *row, long depth) {
    float most = 1e-20f;
    for (long i = 0; i < depth; i++) most = fmaxf(most, fabsf(row[i]));
    return most / WEIGHT_LIMIT;
}

/* Column `at` of the panels, `row` of the matrix. */
static void pack_column(int kind, const float *row, long at, long depth, void *panels,
                        float *scales, int32_t *offsets) {
    long group = lane_entries(kind), parts = depth / group;
    long start = (at / TILE_COLUMNS * parts * TILE_COLUMNS + at % TILE_COLUMNS) * group;
    float scale = kind == KIND_INT8 ? scale_of(row, depth) : 1;
    int32_t sum = 0;
    for (long i = 0; i < depth; i++) {
        long place = start + i / group * TILE_COLUMNS * group + i % group;
        if (kind == KIND_INT8)
            sum += ((int8_t *)panels)[place] = (int8_t)rintf(row[i] / scale);
        else if (kind == KIND_BF16)
            ((bf16 *)panels)[place] = to_bf16(row[i]);
        else
            ((float *)panels)[place] = row[i];
    }
    if (kind != KIND_INT8) return;
    scales[at] = scale;
    offsets[at] = BYTE_OFFSET * sum;
}

/* matrix: [columns][depth]. panels: columns * depth entries of the kind. scales, offsets: [columns],
   written for int8 alone. */
void modernbert_pack(long kind, const float *matrix, long columns, long depth, long gated,
                     void *panels, float *scales, int32_t *offsets, long num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long at = 0; at < columns; at++)
        pack_column(kind, matrix + source_of(at, columns, gated) * depth, at, depth, panels,
                    scales, offsets);
}

/* Rows, float32 or bfloat16, as int8 with BYTE_OFFSET added, and what 1 stands for in each. */
void modernbert_quantize(const void *values, long is_bf16, long total, long width, uint8_t *out,
                         float *scales, long num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long row = 0; row < total; row++) {
        float line[width];
        for (long i = 0; i < width; i += LANES)
            store(line + i, load_value(is_bf16, values, row * width + i));
        convert_row(KIND_INT8, line, width, out + row * width, scales + row);
    }
}
