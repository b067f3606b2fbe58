/* The layer of vectors for AVX-512 (F, BW, CD, DQ, VL), with BF16 and VNNI where they are. */

#include <immintrin.h>

#define LANES 16
#define PRODUCT_ROWS 6
#define PRODUCT_VECTORS 4
#define SCORE_ROWS 8
#define SCORE_VECTORS 3
#define SUM_ROWS 4
#define SUM_VECTORS 4

typedef __m512 floats;
typedef int ints __attribute__((vector_size(64), may_alias));

INLINE floats load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store(float *to, floats values) { _mm512_storeu_ps(to, values); }
INLINE floats broadcast(float value) { return _mm512_set1_ps(value); }
INLINE ints load_lanes(const void *from) { return (ints)_mm512_loadu_si512(from); }
INLINE void store_lanes(void *to, ints lanes) { _mm512_storeu_si512(to, (__m512i)lanes); }
INLINE ints broadcast_lane(const void *from) {
    return (ints)_mm512_set1_ps(*(const unaligned_float *)from);
}

INLINE floats multiply_add(floats a, floats b, floats sum) { return _mm512_fmadd_ps(a, b, sum); }
INLINE floats larger(floats a, floats b) { return _mm512_max_ps(a, b); }
INLINE floats absolute(floats x) { return _mm512_abs_ps(x); }
INLINE floats nearest(floats x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE ints to_ints(floats x) { return (ints)_mm512_cvtps_epi32(x); }
INLINE floats to_floats(ints x) { return _mm512_cvtepi32_ps((__m512i)x); }
INLINE float sum_of(floats x) { return _mm512_reduce_add_ps(x); }
INLINE float largest_of(floats x) { return _mm512_reduce_max_ps(x); }

INLINE floats times_power_of_two(floats x, floats whole) { return _mm512_scalef_ps(x, whole); }

INLINE floats square_root(floats x) { return _mm512_sqrt_ps(x); }

/* One Newton step from 14 bits. */
INLINE floats reciprocal(floats x) {
    floats guess = _mm512_rcp14_ps(x);
    return guess * _mm512_fnmadd_ps(x, guess, broadcast(2.0f));
}

INLINE floats where_negative(floats x, floats yes, floats no) {
    return _mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)x), no, yes);
}

INLINE __mmask16 first_lanes(long count) {
    return count >= LANES ? 0xFFFF : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

INLINE floats load_first(const float *from, long count) {
    return _mm512_maskz_loadu_ps(first_lanes(count), from);
}

INLINE floats keep_between(floats x, long first, long end, floats other) {
    return _mm512_mask_blend_ps(first_lanes(end) & (__mmask16)~first_lanes(first), other, x);
}

INLINE void transpose(ints *rows) {
    __m512i *r = (__m512i *)rows, t[LANES];
    UNROLL for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* r[4g + j] now holds column 4q + j of rows 4g to 4g + 3 in its quarter q. */
    UNROLL for (int j = 0; j < 4; j++) {
        __m512i low01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);  /* quarters 0, 2 */
        __m512i high01 = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xDD); /* quarters 1, 3 */
        __m512i low23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
        __m512i high23 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xDD);
        t[j] = _mm512_shuffle_i32x4(low01, low23, 0x88);        /* quarter 0 */
        t[8 + j] = _mm512_shuffle_i32x4(low01, low23, 0xDD);    /* quarter 2 */
        t[4 + j] = _mm512_shuffle_i32x4(high01, high23, 0x88);  /* quarter 1 */
        t[12 + j] = _mm512_shuffle_i32x4(high01, high23, 0xDD); /* quarter 3 */
    }
    UNROLL for (int i = 0; i < LANES; i++) r[i] = t[i];
}

INLINE void store_bytes(uint8_t *to, ints lanes) {
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)lanes));
}

#ifdef __AVX512VNNI__
#define BYTE_LIMIT 127
#define WEIGHT_LIMIT 127
#define BYTE_OFFSET 128

/* As _mm512_dpbusd_epi32, which GCC 12 answers by moving the sums through memory. */
INLINE ints dot_quads(ints sum, ints rows, ints columns) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(rows), "v"(columns));
    return sum;
}
#else
#define BYTE_LIMIT 127
#define WEIGHT_LIMIT 64
#define BYTE_OFFSET 128

INLINE ints dot_quads(ints sum, ints rows, ints columns) {
    __m512i pairs = _mm512_maddubs_epi16((__m512i)rows, (__m512i)columns);
    return sum + (ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
}
#endif

#ifdef __AVX512BF16__
#define HAS_BF16 1

INLINE ints load_words(const bf16 *from) {
    return (ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
}
INLINE void store_bf16(bf16 *to, floats values) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(values));
}
INLINE floats dot_pairs(floats sum, ints a, ints b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
#endif
