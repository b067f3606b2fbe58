/* Products of rows with packed weights, STRIP_ROWS x PANEL results at a time, all in registers.

   A panel holds PANEL columns of the result: [depth / g][PANEL][g], where g = 1 float, 2 bfloat16
   or 4 int8 are what one 32-bit lane holds. Products in int8 take unsigned rows (128 more than the
   value) and signed weights; what the 128 adds is taken off again by `offsets`. */

#define STRIP_ROWS 6
#define PANEL 64

enum { KIND_F32, KIND_BF16, KIND_INT8 };

/* Between products values are bfloat16 or, for float32 and where there is no bfloat16, float32. */
#ifdef __AVX512BF16__
#define IS_NARROW(kind) ((kind) != KIND_F32)
#else
#define IS_NARROW(kind) 0
#endif
#define VALUE_SIZE(kind) (IS_NARROW(kind) ? (long)sizeof(bf16) : (long)sizeof(float))

typedef struct {
    const void *panels;
    const float *scales;    /* int8: of each column */
    const int32_t *offsets; /* int8: 128 times the sum of each column */
    long columns, depth;
} Weights;

/* Rows of one kind, `step` bytes apart; row r is at `base + r * step`. */
typedef struct {
    const char *base;
    long step;
    const float *scales; /* int8: of each row */
} Rows;

#define TILE_LOOP(ZERO, LOAD, MULTIPLY_ADD)                                                       \
    _Pragma("GCC unroll 6") for (int r = 0; r < STRIP_ROWS; r++)                                  \
        _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) sums[r][j] = ZERO;                    \
    for (long part = 0; part < parts; part++) {                                                   \
        _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++)                                       \
            columns[j] = LOAD(panel + part * PANEL + j * LANES);                                  \
        _Pragma("GCC unroll 6") for (int r = 0; r < STRIP_ROWS; r++) {                            \
            value = MULTIPLY_ADD##_value(rows[r], part);                                          \
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++)                                   \
                sums[r][j] = MULTIPLY_ADD(sums[r][j], value, columns[j]);                         \
        }                                                                                         \
    }

#define f32_product_value(row, part) _mm512_set1_ps(((const float *)(row))[part])
#define f32_product(sum, a, b) _mm512_fmadd_ps(a, b, sum)

static __attribute__((noinline)) void tile_of_f32(const char *const *rows, const float *panel,
                                                  long parts, float *out) {
    __m512 sums[STRIP_ROWS][4], columns[4], value;
    TILE_LOOP(_mm512_setzero_ps(), _mm512_loadu_ps, f32_product)
#pragma GCC unroll 6
    for (int r = 0; r < STRIP_ROWS; r++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) _mm512_store_ps(out + r * PANEL + j * LANES, sums[r][j]);
}

#ifdef __AVX512BF16__
#define bf16_product_value(row, part) _mm512_set1_ps(((const float *)(row))[part])
#define bf16_product(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))

static __attribute__((noinline)) void tile_of_bf16(const char *const *rows, const float *panel,
                                                   long parts, float *out) {
    __m512 sums[STRIP_ROWS][4], columns[4], value;
    TILE_LOOP(_mm512_setzero_ps(), _mm512_loadu_ps, bf16_product)
#pragma GCC unroll 6
    for (int r = 0; r < STRIP_ROWS; r++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) _mm512_store_ps(out + r * PANEL + j * LANES, sums[r][j]);
}
#endif

#ifdef __AVX512VNNI__
#define int8_product_value(row, part) _mm512_set1_ps(((const float *)(row))[part])

/* As _mm512_dpbusd_epi32, which GCC 12 answers by moving the sums through memory. */
INLINE __m512i int8_product(__m512i sum, __m512 a, __m512i b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

static __attribute__((noinline)) void tile_of_int8(const char *const *rows, const int32_t *panel,
                                                   long parts, const float *row_scales,
                                                   const float *scales, const int32_t *offsets,
                                                   float *out) {
    __m512i sums[STRIP_ROWS][4], columns[4];
    __m512 value;
    TILE_LOOP(_mm512_setzero_si512(), _mm512_loadu_si512, int8_product)
#pragma GCC unroll 6
    for (int r = 0; r < STRIP_ROWS; r++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            __m512i whole = _mm512_sub_epi32(sums[r][j], _mm512_loadu_si512(offsets + j * LANES));
            __m512 scale = _mm512_mul_ps(_mm512_set1_ps(row_scales[r]),
                                         _mm512_loadu_ps(scales + j * LANES));
            _mm512_store_ps(out + r * PANEL + j * LANES,
                            _mm512_mul_ps(_mm512_cvtepi32_ps(whole), scale));
        }
}
#endif

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
} Target;

INLINE void store_as(int kind, void *out, long at, __m512 values) {
#ifdef __AVX512BF16__
    if (IS_NARROW(kind)) {
        store_narrow((bf16 *)out + at, values);
        return;
    }
#endif
    (void)kind;
    _mm512_storeu_ps((float *)out + at, values);
}

static void finish(const Target *target, const float *tile, long row, long count, long panel) {
    for (long r = 0; r < count; r++) {
        __m512 v[4];
        for (int j = 0; j < 4; j++) v[j] = _mm512_load_ps(tile + r * PANEL + j * LANES);
        long at = (row + r) * target->step + panel * PANEL;
        if (target->what == ROTATE_AND_STORE && panel < 2 * target->num_heads) {
            const float *angle = target->angles + (long)target->positions[row + r] * HEAD;
            float scale = panel < target->num_heads ? 0.125f * LOG2_E : 1.0f;
            for (int j = 0; j < 2; j++) {
                __m512 c = _mm512_mul_ps(_mm512_loadu_ps(angle + j * LANES), _mm512_set1_ps(scale));
                __m512 s = _mm512_mul_ps(_mm512_loadu_ps(angle + HEAD / 2 + j * LANES),
                                         _mm512_set1_ps(scale));
                __m512 first = v[j], second = v[j + 2];
                v[j] = _mm512_fmsub_ps(first, c, _mm512_mul_ps(second, s));
                v[j + 2] = _mm512_fmadd_ps(second, c, _mm512_mul_ps(first, s));
            }
        }
        switch (target->what) {
        case ADD:
            for (int j = 0; j < 4; j++) {
                float *sum = (float *)target->out + at + j * LANES;
                _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), v[j]));
            }
            break;
        case GATE: /* half a panel of a's, and the b's that belong to them */
            at = (row + r) * target->step + panel * PANEL / 2;
            for (int j = 0; j < 2; j++)
                store_as(target->kind, target->out, at + j * LANES,
                         _mm512_mul_ps(gelu_ps(v[j]), v[j + 2]));
            break;
        default:
            for (int j = 0; j < 4; j++) store_as(target->kind, target->out, at + j * LANES, v[j]);
        }
    }
}

/* Rows [first, end) times panels [panel, panels_end). */
static void multiply(int kind, const Rows *in, const Weights *weights, long first, long end,
                     long panel, long panels_end, const Target *target) {
    float tile[STRIP_ROWS * PANEL] ALIGNED;
    long lane = kind == KIND_F32 ? 1 : kind == KIND_BF16 ? 2 : 4, parts = weights->depth / lane;
    for (; panel < panels_end; panel++) {
        const float *packed = (const float *)weights->panels + panel * parts * PANEL;
        for (long row = first; row < end; row += STRIP_ROWS) {
            const char *rows[STRIP_ROWS];
            float scales[STRIP_ROWS];
            long count = end - row < STRIP_ROWS ? end - row : STRIP_ROWS;
            for (long r = 0; r < STRIP_ROWS; r++) {
                long real = row + (r < count ? r : count - 1);
                rows[r] = in->base + real * in->step;
                scales[r] = kind == KIND_INT8 ? in->scales[real] : 1;
            }
            switch (kind) {
#ifdef __AVX512BF16__
            case KIND_BF16: tile_of_bf16(rows, packed, parts, tile); break;
#endif
#ifdef __AVX512VNNI__
            case KIND_INT8:
                tile_of_int8(rows, (const int32_t *)packed, parts, scales,
                             weights->scales + panel * PANEL, weights->offsets + panel * PANEL,
                             tile);
                break;
#endif
            default: tile_of_f32(rows, packed, parts, tile);
            }
            finish(target, tile, row, count, panel);
        }
    }
}
